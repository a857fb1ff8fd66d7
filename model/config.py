"""What distinguishes one network of the paper from another: `NetworkConfig`, a record that travels inside every checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from model.widths import PAPER, Widths

MULTIPLE = 8  # pixels; three poolings by two: height and width must be divisible by it
STATES_TEMPORAL = 3  # ConvGRU 1..3
STATES_SPATIAL = 4  # ConvGRU 4..7


@dataclass(frozen=True)
class NetworkConfig:
    """The network's free choices; the defaults are I5T3, the paper's best (Jiang et al., IEEE Access 8, 2020).

    Fields marked A are not settled by the paper's text; each is an assumption that can be switched.
    """

    frames: int = 5  # frames in and out
    cell_frames: tuple[tuple[int, ...], ...] = ((0, 1, 2), (1, 2, 3), (2, 3, 4))  # frames that ConvGRU 1..3 see, from 0
    temporal: str = "generated"  # "generated": states from the generator; "chained": no generator; "conv3d": no ConvGRUs
    spatial: str = "generated"  # "generated" or "chained", for ConvGRU 4..7
    spatial_cell: str = "gru"  # "gru" or "lstm"
    residual: bool = True  # A: output = input + r2 (True) or r2 (False, the paper's text)
    tanh_before_conv: bool = False  # A: order inside the generators' last layer; True is the literal order of the table
    generator_skips: bool = False  # A: the ancestor's skip connections inside the generators
    widths: Widths = PAPER  # channels of every part

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.type in ("int", "bool", "str") and type(value := getattr(self, field.name)).__name__ != field.type:
                raise ValueError(f"{field.name} is {value!r}, expected {field.type}")
        _one_of("temporal", self.temporal, ("generated", "chained", "conv3d"))
        _one_of("spatial", self.spatial, ("generated", "chained"))
        _one_of("spatial_cell", self.spatial_cell, ("gru", "lstm"))
        if self.frames < 1:
            raise ValueError(f"frames is {self.frames}, expected at least 1")
        if self.temporal == "conv3d":
            if self.frames != 5:
                raise ValueError(f"temporal='conv3d' turns 5 frames into 3 planes of features; frames is {self.frames}")
        elif len(self.cell_frames) != STATES_TEMPORAL or len({len(seen) for seen in self.cell_frames}) != 1:
            raise ValueError(f"cell_frames is {self.cell_frames}, expected {STATES_TEMPORAL} tuples of one length")
        if any(not 0 <= frame < self.frames for seen in self.cell_frames for frame in seen):
            raise ValueError(f"cell_frames is {self.cell_frames}, expected frame numbers from 0 to {self.frames - 1}")

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON-ready values."""
        widths = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.widths).items()}
        return {**asdict(self), "cell_frames": [list(seen) for seen in self.cell_frames], "widths": widths}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """The configuration that `to_dict` described. Raises ValueError on an unknown field or a value out of range."""
        known = dict(values)
        divisor = known.pop("channel_divisor", 1)  # what checkpoints had before profiles of widths
        unknown = set(known) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"the configuration has unknown fields {sorted(unknown)}; it was written by a newer version")
        known["widths"] = Widths.from_dict(known["widths"]) if "widths" in known else PAPER.divided(divisor)
        if "cell_frames" in known:
            known["cell_frames"] = tuple(tuple(seen) for seen in known["cell_frames"])
        return cls(**known)


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{field} is {value!r}, expected one of {', '.join(allowed)}")
