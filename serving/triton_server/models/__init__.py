"""The model.py files that `videodeblur to-triton` copies into a repository; they run inside Triton's python backend only."""
