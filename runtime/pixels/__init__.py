"""Arithmetic on arrays of pixels; numpy only."""
