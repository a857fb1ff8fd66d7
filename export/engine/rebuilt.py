"""Builds an engine of TensorRT-RTX again, to show what a file of another tool is.

Its builds of a file are the same to the byte for fixed sizes. For a range of sizes the numbers, the places and the order of its own
temporary tensors differ from build to build; the weights do not, nor do the lines of the text about layers, kernels and tensors
(seen with 1.7).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.engine.builder import BuiltEngine, build_engine
from export.engine.request import EngineRequest
from runtime.errors import ModelError
from runtime.files.engine_record import Profile

VERBOSITIES = ("detailed", "layer_names_only", "none")  # Polygraphy's default, that of other tools, the third
_WEIGHTS_AT = slice(56, 64)  # of a plan: the bytes of its weights, which stand at its end
_AFTER_WEIGHTS = 4
_TEXT = rb"[ -~\n]{8,}"
_TEMPORARY = rb"(?:__mye|_temp_)\d+|offset=\d+"
_NEAR = 0.01  # of the length: what no other way of building makes up for


@dataclass(frozen=True)
class Rebuilt:
    """The build that an engine is of."""

    built: BuiltEngine
    tf32: bool  # fp32 convolutions may round their inputs
    exact: bool  # to the byte; else but for its temporary tensors


def rebuilt(engine: Path, onnx: Path, profiles: Sequence[Profile], compute_capabilities: tuple[tuple[int, int], ...]) -> Rebuilt:
    """The build of `onnx` that is the same, tried with and without TF32 and with every verbosity, which an engine holds.

    No GPU is needed. Raises ModelError, with the numbers, where none is; what `build_engine` raises.
    """
    wanted = engine.read_bytes()
    found: list[bytes] = []
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
        exact = built.plan == wanted
        if exact or (any(profile.min != profile.max for profile in profiles) and _alike(built.plan, wanted)):
            return Rebuilt(built, tf32, exact)
        found.append(built.plan)
        if abs(len(built.plan) - len(wanted)) > _NEAR * len(wanted):
            break
    nearest = min((_differing(plan, wanted), plan) for plan in found)
    raise ModelError(
        f"{engine} is not what {built.library} {built.version} builds from {onnx} for {_shapes(profiles)}: {nearest[0]} of its "
        f"{len(wanted)} bytes differ, {_differing(_weights(nearest[1]), _weights(wanted))} of them in its weights; name the file "
        "that it was built from with --like, and its shapes with --optShapes, --minShapes and --maxShapes, or adopt it on its GPU"
    )


def _ways() -> Iterator[tuple[bool, str]]:
    yield from ((tf32, verbosity) for tf32 in (True, False) for verbosity in VERBOSITIES)


def _alike(ours: bytes, theirs: bytes) -> bool:
    return _weights(ours) == _weights(theirs) and _lines(ours) == _lines(theirs)


def _weights(plan: bytes) -> bytes:
    length = int.from_bytes(plan[_WEIGHTS_AT], "little")
    return plan[-length - _AFTER_WEIGHTS :]


def _lines(plan: bytes) -> Counter[bytes]:
    """How often each line of the text stands there, without the numbers and places of temporary tensors."""
    text = re.sub(_TEMPORARY, b"", plan[: len(plan) - len(_weights(plan))])
    return Counter(line for run in re.findall(_TEXT, text) for line in run.split(b"\n"))


def _differing(ours: bytes, theirs: bytes) -> int:
    shared = min(len(ours), len(theirs))
    a, b = (np.frombuffer(plan[:shared], np.uint8) for plan in (ours, theirs))
    return int(np.count_nonzero(a != b)) + abs(len(theirs) - len(ours))


def _shapes(profiles: Sequence[Profile]) -> str:
    return " or ".join(f"{profile.min} to {profile.max}" for profile in profiles)
