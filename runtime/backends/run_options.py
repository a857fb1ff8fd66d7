"""`RunOptions`: how an engine is run while it is measured; needs no library, so that it can be checked before there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from runtime.errors import InputError
from runtime.files.engine_record import Profile

STRATEGIES = {"static": "STATIC", "profile": "ON_PROFILE_CHANGE", "runtime": "USER_MANAGED"}  # trtexec's words: TensorRT's


@dataclass(frozen=True)
class RunOptions:
    """Names and defaults are those of trtexec 11."""

    shape: tuple[int, ...] | None = None  # of the input; None: what the profile is tuned for
    profile: int = 0  # number of the optimization profile
    device: int = 0
    streams: int = 1  # contexts at work at once
    cuda_graph: bool = True
    spin: bool = True  # the host waits for the GPU in a loop; else it sleeps
    strategy: str = "static"  # one of STRATEGIES: how a context's memory is allocated
    cache_ratio: float = 0.0  # share of the L2 cache that may hold on to activations, 0 to 1
    lean: bool = False  # in the lean runtime, whatever else is installed

    def __post_init__(self) -> None:
        """Raises InputError on what cannot be."""
        if self.streams < 1:
            raise InputError(f"got {self.streams} streams, expected 1 or more")
        if self.device < 0:
            raise InputError(f"the GPU is {self.device}, expected 0 or more")
        if not 0 <= self.cache_ratio <= 1:
            raise InputError(f"the ratio of the persistent cache is {self.cache_ratio:g}, expected 0 to 1")

    def with_shape(self, profiles: Sequence[Profile]) -> RunOptions:
        """The same with a shape. Raises InputError where the engine has no such profile, or its profile does not hold the shape."""
        if not 0 <= self.profile < len(profiles):
            raise InputError(f"--useProfile is {self.profile}, the engine has {len(profiles)}, numbered from 0: name one of them")
        profile = profiles[self.profile]
        if self.shape is not None and not profile.holds(self.shape):
            held = " to ".join("x".join(map(str, shape)) for shape in (profile.min, profile.max))
            got = "x".join(map(str, self.shape))
            raise InputError(
                f"--shapes has {got}, profile {self.profile} holds {held}: name one that it holds, or another --useProfile"
            )
        return replace(self, shape=self.shape or profile.opt)
