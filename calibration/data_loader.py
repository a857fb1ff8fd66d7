"""Feeds Polygraphy with windows of real clips, where it would make up random numbers.

VIDEODEBLUR_ONNX=model.onnx VIDEODEBLUR_CLIPS=clips/ polygraphy run model.onnx --onnxrt \\
    --data-loader-script calibration/data_loader.py

Polygraphy gives a script no arguments, so that these variables say what it yields:
VIDEODEBLUR_ONNX     the model, whose contract tells type, depth, range and size of its input
VIDEODEBLUR_CLIPS    video, folder of frames, or folder of such, see `calibration.clips`
VIDEODEBLUR_SIZE     WIDTHxHEIGHT to cut from the middle, where the model takes any (default: the clip's, cut to what it takes)
VIDEODEBLUR_WINDOWS  windows at most (default 8)
VIDEODEBLUR_PART     "calibration" (default) or "verification", which share no frame
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

if not __package__:  # Polygraphy loads the file by its path
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from calibration.clips import windows
from runtime.errors import InputError
from runtime.files.contract import INPUT, Contract, read_contract
from runtime.pixels import sample_codes

WINDOWS = 8


def load_data() -> Iterator[dict[str, npt.NDArray[Any]]]:
    """One window after the other, by the name of the input: (N, F, H, W), or (N, F, H, W, 2) bytes for models of 16-bit codes.

    A model of a fixed batch gets that many windows at once; what is left over is not yielded. Raises InputError on a variable that
    is missing or says nothing, and on clips that are too small or too short; ModelError on a file without a contract.
    """
    contract = read_contract(Path(_variable("ONNX")))
    clips, size = Path(_variable("CLIPS")), _size(contract)
    found = windows(clips, contract.frames, os.environ.get("VIDEODEBLUR_PART", "calibration"), _most())
    lumas = (_middle(window.luma, size, contract.multiple if contract.io == "f32" else 1) for window in found)
    while len(batch := list(islice(lumas, contract.batch or 1))) == (contract.batch or 1):
        yield {INPUT: _as_input(np.stack(batch), contract)}


def _variable(name: str) -> str:
    value = os.environ.get(f"VIDEODEBLUR_{name}", "")
    if not value:
        raise InputError(f"VIDEODEBLUR_{name} is not set: see the beginning of {Path(__file__).name} for what it says")
    return value


def _most() -> int:
    text = os.environ.get("VIDEODEBLUR_WINDOWS", str(WINDOWS))
    if not re.fullmatch(r"[1-9]\d{0,8}", text):
        raise InputError(f"VIDEODEBLUR_WINDOWS is {text!r}, expected a number from 1: set it to one")
    return int(text)


def _size(contract: Contract) -> tuple[int | None, int | None]:
    """(height, width) that the model is fixed at or that was asked for; None: the clip's."""
    text = os.environ.get("VIDEODEBLUR_SIZE")
    asked: tuple[int | None, int | None] = (None, None)
    if text:
        found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
        if not found:
            raise InputError(f"VIDEODEBLUR_SIZE is {text!r}, expected WIDTHxHEIGHT: set it to one such as 1280x720")
        asked = int(found[2]), int(found[1])
    return contract.height or asked[0], contract.width or asked[1]


def _middle(luma: npt.NDArray[np.float32], size: tuple[int | None, int | None], multiple: int) -> npt.NDArray[np.float32]:
    have = luma.shape[1:]
    height, width = (wanted or length // multiple * multiple for wanted, length in zip(size, have))
    if not (0 < height <= have[0] and 0 < width <= have[1]) or height % multiple or width % multiple:
        raise InputError(
            f"the clip is {have[1]}x{have[0]}, expected at least {width}x{height}, multiples of {multiple}: set "
            "VIDEODEBLUR_SIZE, or name other clips"
        )
    top, left = (have[0] - height) // 2, (have[1] - width) // 2
    return luma[:, top : top + height, left : left + width]


def _as_input(unit: npt.NDArray[np.float32], contract: Contract) -> npt.NDArray[Any]:
    if contract.bits is None or contract.color_range is None:
        return np.ascontiguousarray(unit)
    codes = sample_codes.from_unit(unit, contract.bits, contract.color_range)
    return sample_codes.to_pairs(codes) if contract.io == "u16" else codes
