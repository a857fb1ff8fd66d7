"""Measures activations and writes what it found as JSON: clips, streaming histograms, scales, ranges."""
