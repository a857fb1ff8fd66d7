"""What stands in the files that a model travels with, and how files are written."""
