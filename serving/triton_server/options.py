"""`TritonOptions`: what a model repository should be like, checked before anything is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from runtime.backends import How
from runtime.errors import InputError
from serving.triton_server.host import Hosting

BACKENDS = ("python", "onnxruntime", "tensorrt")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # of a model: a folder, and a part of URLs


@dataclass(frozen=True)
class TritonOptions:
    """What to write, and how it should be served."""

    model: Path  # a bundle, an .onnx file or an engine
    repository: Path  # the folder to write
    backend: str = "python"  # one of BACKENDS
    name: str = "videodeblur"  # of the model on the server
    version: int = 1  # its folder; the server takes the highest
    member: str | None = None  # of a bundle, for onnxruntime and tensorrt; None = see source.py
    max_batch: int = 4  # windows that are run together
    queue_delay: float = 0.003  # seconds that a window may wait for others of its size
    queue_size: int = 64  # windows that may wait; more are refused
    queue_timeout: float = 60.0  # seconds that a window may wait; then it is refused
    instances: int = 1  # engines that run side by side, on each GPU
    gpus: tuple[int, ...] = ()  # on which they run; none: on the CPU
    streams: int = 8  # that may be open at once on the streaming model; 0 = no such model
    hosting: Hosting = field(default_factory=lambda: Hosting(""))  # of the python backend
    overwrite: bool = False  # replace a repository that this command wrote

    def __post_init__(self) -> None:
        """Raises InputError on what no server takes."""
        if self.backend not in BACKENDS:
            raise InputError(f"backend is {self.backend!r}, expected one of {', '.join(BACKENDS)}")
        if not NAME.fullmatch(self.name):
            raise InputError(f"the name is {self.name!r}, expected letters, digits and _.-, beginning with one of the former")
        How(self.hosting.backend, self.hosting.precision, self.hosting.threads)
        least = {"version": 1, "max_batch": 1, "queue_size": 1, "instances": 1, "streams": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise InputError(f"{name} is {getattr(self, name)}, expected {low} or more")
        if not (self.queue_delay >= 0 and self.queue_timeout > 0 and self.hosting.idle > 0):
            raise InputError("times are 0 seconds or more, and more than 0 for the queue's timeout and the idle time of streams")
        if self.hosting.max_pixels < 1 or any(min(size) < 1 for size in self.hosting.warm_up):
            raise InputError("sizes are 1 pixel or more: look at --max-pixels and --warm-up")
        if any(gpu < 0 for gpu in self.gpus):
            raise InputError(f"the GPUs are {self.gpus}, expected numbers as nvidia-smi counts them, from 0")
        if self.member and self.backend == "python":
            raise InputError("the python backend takes the first member that proves itself on the server: leave out --member")
