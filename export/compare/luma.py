"""Luma through models of any input: those of sample codes are handed the nearest codes, and what they make is luma again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export.compare.parity import RunsModel
from runtime.files.contract import Contract
from runtime.pixels import sample_codes
from runtime.pixels.metrics import decibels, mean_squared_error

Luma = npt.NDArray[np.float32]  # (N, F, H, W), in [0, 1]


def run_luma(runner: RunsModel, window: Luma) -> Luma:
    """What a model makes of luma, as luma: rounded on the way in and out where the model takes codes."""
    contract = runner.contract
    if contract.bits is None or contract.color_range is None:
        return runner.run(window)
    codes = sample_codes.from_unit(window, contract.bits, contract.color_range)
    return sample_codes.to_unit(runner.run(codes), contract.bits, contract.color_range)


def against_truth(got: Sequence[Luma], sharp: Sequence[Luma]) -> float:
    """PSNR in dB of luma as it is shown, within [0, 1], mean over the windows."""
    return float(np.mean([decibels(mean_squared_error(np.clip(a, 0, 1), np.clip(b, 0, 1))) for a, b in zip(got, sharp)]))


def as_codes_hold(luma: Luma, *contracts: Contract | None) -> Luma:
    """The nearest luma that the codes of these models can say; as it is for models of floats, and for None, the network itself."""
    for contract in contracts:
        if contract and contract.bits is not None and contract.color_range is not None:
            codes = sample_codes.from_unit(luma, contract.bits, contract.color_range)
            luma = sample_codes.to_unit(codes, contract.bits, contract.color_range)
    return luma


def graph_input(contract: Contract, luma: Luma) -> npt.NDArray[Any]:
    """Luma in the type of a graph's input: floats, codes, or pairs of bytes."""
    if contract.bits is None or contract.color_range is None:
        return luma
    codes = sample_codes.from_unit(luma, contract.bits, contract.color_range)
    return sample_codes.to_pairs(codes) if contract.io == "u16" else codes
