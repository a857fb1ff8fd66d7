"""Prints numbers and takes no decisions: latency, throughput, quality, memory."""
