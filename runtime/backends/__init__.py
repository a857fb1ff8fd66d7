"""What computes a window: one runner for each library, and the choice among them; `open_model` is the door."""

from runtime.backends.choice import CPU_BACKENDS, GPU_BACKENDS, Decision, How, decide, open_model, open_runner, open_served
from runtime.backends.runner import Choice

__all__ = ["CPU_BACKENDS", "GPU_BACKENDS", "Choice", "Decision", "How", "decide", "open_model", "open_runner", "open_served"]
