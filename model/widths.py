"""Channels of every part of the network: a profile, so that a lighter network is a configuration of the same one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Widths:
    """Counts of channels; the defaults are those of Jiang et al. 2020, Table 1 and Section III."""

    temporal_state: int = 32  # of each of ConvGRU 1..3
    spatial_state: int = 32  # of each of ConvGRU 4..7, and of c2..c6
    fine: int = 16  # c1, at full resolution
    merged: int = 16  # r1, at half resolution
    temporal_generator: tuple[int, ...] = (16, 96, 96, 128, 128, 256, 256, 256, 512, 512, 256, 128, 128, 256)  # L0..L13
    spatial_generator: tuple[int, ...] = (64, 64, 128, 128, 256, 256, 256, 512, 512, 256, 128, 128, 256)  # L1..L13

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            counts = value if isinstance(value, tuple) else (value,)
            expected = {"temporal_generator": 14, "spatial_generator": 13}.get(field.name, 1)
            if len(counts) != expected or any(not isinstance(count, int) or count < 1 for count in counts):
                raise ValueError(f"widths: {field.name} is {value!r}, expected {expected} whole numbers from 1 up")

    def divided(self, divisor: int) -> Widths:
        """Every count divided, for tests and quick trials. Raises ValueError where a count is no multiple of `divisor`."""
        if divisor < 1 or any(count % divisor for value in asdict(self).values() for count in _counts(value)):
            raise ValueError(f"widths cannot be divided by {divisor!r}, expected a divisor of every count, such as 2, 4, 8 or 16")
        return Widths(**{name: _divided(value, divisor) for name, value in asdict(self).items()})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Widths:
        """The profile that `dataclasses.asdict` described, lists for tuples. Raises ValueError on an unknown field or value."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ValueError(f"the widths have unknown fields {sorted(unknown)}; they were written by a newer version")
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _counts(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _divided(value: int | tuple[int, ...], divisor: int) -> int | tuple[int, ...]:
    return tuple(count // divisor for count in value) if isinstance(value, tuple) else value // divisor


PAPER = Widths()
