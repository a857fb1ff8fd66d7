"""What this machine has: processor, memory, packages."""
