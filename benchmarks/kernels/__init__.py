"""What single layers cost on this CPU, and the most that its arithmetic and memory can do."""
