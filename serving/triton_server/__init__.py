"""The repository for NVIDIA's Triton Inference Server, and the code that runs inside it."""
