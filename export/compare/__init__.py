"""Holds one model to another: parity, drift layer by layer, trials of precisions."""
