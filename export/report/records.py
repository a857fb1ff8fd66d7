"""What a bundle carries beside its members: the gates of `ship`, and searches for the precision of every layer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import ModelError
from runtime.files.manifest import Manifest
from runtime.files.records import parse_object, read_record

GATES = "ship.json"
SEARCH_KIND = "videodeblur.precision"
KINDS = {"chosen": "quantised", "candidate": "left high by the budget", "excluded": "kept high by rule"}  # what became of a layer


@dataclass(frozen=True)
class Gate:
    """A model that was held to the PyTorch network."""

    model: str  # file name
    precision: str
    parity: float | None  # dB; None where it is infinite
    least: float  # dB
    passed: bool


@dataclass(frozen=True)
class LayerRow:
    """A layer that was quantised alone, everything else in fp32."""

    layer: str
    parity: float | None  # dB against the fp32 graph; None where it is infinite
    excluded: str  # why it was no candidate; empty when it was
    chosen: bool = False


@dataclass(frozen=True)
class Asked:
    """What the search was for."""

    budget: float  # dB of PSNR against the truth
    min_psnr: float  # dB, least parity of the whole graph
    precision: str
    rest: str


@dataclass(frozen=True)
class Search:
    """A precision.json."""

    sensitivities: tuple[LayerRow, ...]
    asked: Asked


def kind_of(chosen: bool, excluded: str) -> str:
    """A key of KINDS."""
    return "chosen" if chosen else "excluded" if excluded else "candidate"


def read_gates(bundle: Path, manifest: Manifest) -> tuple[Gate, ...]:
    """What `ship` wrote; nothing in a bundle of another making. Raises ModelError when it is damaged."""
    if GATES not in manifest.files:
        return ()
    try:
        rows = json.loads((bundle / GATES).read_text(encoding="utf-8"))
        if not isinstance(rows, list):
            raise ValueError("it is no list")
        return tuple(read_record(Gate, row) for row in rows)
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{bundle / GATES} is not readable ({error}): make the bundle again") from error


def read_searches(bundle: Path, manifest: Manifest) -> dict[str, Search]:
    """By file name. Other JSON is passed over; raises ModelError when a search is damaged."""
    found = {}
    for name in manifest.files:
        if not name.endswith(".json"):
            continue
        try:
            values = parse_object((bundle / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):  # missing, or somebody else's attachment
            continue
        if values.get("kind") != SEARCH_KIND:
            continue
        try:
            found[name] = read_record(Search, values)
        except ValueError as error:
            raise ModelError(f"{bundle / name} is not a readable search ({error}): search again") from error
    return found
