"""What computes a window: one runner for each library, and the choice among them; `open_model` is the door."""

from runtime.backends.choice import (
    GPU_REQUIREMENTS,
    PRECISIONS,
    REQUIREMENTS,
    SERVED_REQUIREMENTS,
    Decision,
    How,
    decide,
    open_model,
    open_runner,
    open_served,
)
from runtime.backends.runner import Choice

__all__ = [
    "GPU_REQUIREMENTS",
    "PRECISIONS",
    "REQUIREMENTS",
    "SERVED_REQUIREMENTS",
    "Choice",
    "Decision",
    "How",
    "decide",
    "open_model",
    "open_runner",
    "open_served",
]
