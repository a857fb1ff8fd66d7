"""What is measured on a machine with an NVIDIA GPU; `run.sh` carries all of it out."""
