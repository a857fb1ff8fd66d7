"""The first bytes of an engine file, read without any library: whose it is, whether it is whole, and what it is for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ModelError
from runtime.files.contract import INPUT, OUTPUT
from runtime.files.engine_record import read_header

# TensorRT-RTX's, as seen in the engines of 1.7: the file's length, and a bit for each kind of GPU
_LENGTH_AT, _TARGETS_AT = slice(16, 24), slice(32, 34)
_TARGETS = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
_ANY = 0x7E


@dataclass(frozen=True)
class EngineHeader:
    """What an engine file says of itself."""

    library: str  # "tensorrt" or "tensorrt_rtx"
    version: str
    compute_capabilities: tuple[
        tuple[int, int], ...
    ]  # that TensorRT-RTX built it for; empty: any, or full TensorRT, which tells none


def read_whole(engine: Path) -> EngineHeader:
    """The header of an engine that is all there.

    Raises ModelError when the file is missing, is no engine, or was cut off; full TensorRT's header does not tell the last.
    """
    library, version = read_header(engine)
    if library != "tensorrt_rtx":
        return EngineHeader(library, version, ())
    with engine.open("rb") as file:
        start = file.read(_TARGETS_AT.stop)
    length, found = int.from_bytes(start[_LENGTH_AT], "little"), engine.stat().st_size
    if length != found:
        raise ModelError(f"{engine} has {found} bytes, its header says {length}: copy it again")
    return EngineHeader(library, version, _targets(start))


def check_names(engine: Path) -> None:
    """Raises ModelError on an engine that has not the names of the network's input and output anywhere in it."""
    data = engine.read_bytes()
    missing = [name for name in (INPUT, OUTPUT) if name.encode() not in data]
    if missing:
        raise ModelError(
            f"{engine} nowhere names a tensor {' or '.join(missing)}, expected {INPUT} and {OUTPUT}: it is of another network, or "
            "its tensors were renamed: build it from videodeblur export's file, or adopt it where it runs"
        )


def _targets(start: bytes) -> tuple[tuple[int, int], ...]:
    bits = int.from_bytes(start[_TARGETS_AT], "little")
    return () if bits == _ANY else tuple(target for bit, target in enumerate(_TARGETS) if bits >> bit & 1)
