"""How far an output is from a reference, by trtexec's algorithms (--accuracyAlgorithm of version 11)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import InputError

ALGORITHMS = {"l0": "L0", "l1": "L1", "l2": "L2", "lInf": "LInf", "cos": "CosineSimilarity"}  # trtexec's value: its name in the log
TINY = 1e-12  # a product of lengths below which there is no angle


@dataclass(frozen=True)
class AccuracyOptions:
    """What is compared how."""

    algorithm: str = "l0"  # one of ALGORITHMS
    atol: float = 1e-5  # absolute and relative tolerance, of l0 alone
    rtol: float = 1e-5
    threshold: float = 0.0  # a loss from here on fails; 0: none does

    def __post_init__(self) -> None:
        """Raises InputError on what cannot be."""
        if self.algorithm not in ALGORITHMS:
            raise InputError(f"--accuracyAlgorithm is {self.algorithm!r}, expected one of {', '.join(ALGORITHMS)}")
        for name, value in (("atol", self.atol), ("rtol", self.rtol), ("accuracyThreshold", self.threshold)):
            if value < 0:
                raise InputError(f"--{name} is {value:g}, expected 0 or more")

    def fails(self, loss: float) -> bool:
        """Whether a loss counts as wrong; one that is no number does."""
        return self.threshold > 0 and not loss < self.threshold


def loss(actual: npt.NDArray[Any], reference: npt.NDArray[Any], options: AccuracyOptions) -> float:
    """0 where they are equal. Samples that are no numbers are wrong ones: l0 counts them, the others' loss is none either."""
    got, expected = (array.astype(np.float64).ravel() for array in (actual, reference))
    difference = np.abs(got - expected)
    if options.algorithm == "l0":
        return float(np.mean(~(difference <= options.atol + options.rtol * np.abs(expected))))
    if options.algorithm == "l1":
        return float(np.mean(difference))
    if options.algorithm == "l2":
        return float(np.mean(difference**2))
    if options.algorithm == "lInf":
        return float(np.max(difference))
    lengths = float(np.linalg.norm(got) * np.linalg.norm(expected))
    return 1.0 if lengths < TINY else 1 - float(got @ expected) / lengths
