"""Builds an engine of TensorRT-RTX again, to show what a file of another tool is.

Its builds of a file are the same to the byte for fixed sizes; for a range of sizes, but for numbers in the names of its own
temporary tensors (seen with 1.7).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.engine.builder import BuiltEngine, build_engine
from export.engine.request import EngineRequest
from runtime.errors import ModelError
from runtime.files.engine_record import Profile

VERBOSITIES = ("detailed", "layer_names_only", "none")  # Polygraphy's default, that of other tools, the third


@dataclass(frozen=True)
class Rebuilt:
    """The build that wrote the engine's bytes."""

    built: BuiltEngine
    tf32: bool  # fp32 convolutions may round their inputs


def rebuilt(engine: Path, onnx: Path, profiles: Sequence[Profile], compute_capabilities: tuple[tuple[int, int], ...]) -> Rebuilt:
    """The build of `onnx` that is equal to the file but for such numbers.

    It is tried with and without TF32 and with every verbosity, which the bytes hold.
    No GPU is needed. Raises ModelError, with the numbers, where none is; what `build_engine` raises.
    """
    wanted = _without_numbers(engine.read_bytes())
    least = len(wanted)
    for tf32, verbosity in _ways():
        request = EngineRequest(
            onnx=onnx,
            engine=engine,
            library="tensorrt_rtx",
            profiles=tuple(profiles),
            compute_capabilities=compute_capabilities,
            tf32=tf32,
            profiling_verbosity=verbosity,
        )
        built = build_engine(request)
        got = _without_numbers(built.plan)
        if got == wanted:
            return Rebuilt(built, tf32)
        least = min(least, _differing(got, wanted))
    raise ModelError(
        f"{engine} is not what {built.library} {built.version} builds from {onnx} for {_shapes(profiles)}: at least {least} of its "
        f"{len(wanted)} bytes differ; name the file that it was built from with --like, and its shapes with --optShapes, "
        "--minShapes and --maxShapes, or adopt it on a machine with its GPU"
    )


def _ways() -> Iterator[tuple[bool, str]]:
    yield from ((tf32, verbosity) for tf32 in (True, False) for verbosity in VERBOSITIES)


def _without_numbers(plan: bytes) -> bytes:
    return re.sub(rb"__mye\d+", b"__mye", plan)


def _differing(ours: bytes, theirs: bytes) -> int:
    shared = min(len(ours), len(theirs))
    a, b = (np.frombuffer(plan[:shared], np.uint8) for plan in (ours, theirs))
    return int(np.count_nonzero(a != b)) + abs(len(theirs) - len(ours))


def _shapes(profiles: Sequence[Profile]) -> str:
    return " or ".join(f"{profile.min} to {profile.max}" for profile in profiles) or "its own shape"
