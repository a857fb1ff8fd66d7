"""What this project is compared with, each as its users would run it: `open_<peer>(...)` returns a call for one window."""
