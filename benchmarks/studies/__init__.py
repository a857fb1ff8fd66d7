"""Ideas that were measured and not taken; nothing needs this folder but a section of the performance page."""
