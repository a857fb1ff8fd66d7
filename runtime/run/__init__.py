"""From options to a running deblurring of one video: its stages, its memory, its command line."""
