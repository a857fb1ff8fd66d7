"""The HTML page about a bundle, and the facts on it."""
