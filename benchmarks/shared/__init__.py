"""What several benchmarks measure with: windows, timing, clips, text and chart files."""
