"""The golden frames of a bundle as input data for Triton's perf_analyzer, which else sends noise, or zeros."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.bundle import GOLDEN_BITS, GOLDEN_RANGE, mirrored
from runtime.files.arrays import read_array
from runtime.files.contract import INPUT, Contract
from runtime.files.manifest import Golden, load_manifest, reader
from runtime.pixels import sample_codes


def perf_data(bundle: Path, member: str | None, graph: Contract | None) -> str:
    """The text for `perf_analyzer --input-data`: a window, as `member` (None: the first) is tested with it.

    `graph` is the contract where the graph alone is served, None where an `Engine` is.
    """
    manifest = load_manifest(bundle)
    file = member or manifest.members[0].file
    golden = manifest.goldens[next(each.golden for each in manifest.members if each.file == file)]
    codes = read_array(bundle / golden.input, reader(bundle, manifest))
    name, values = _tensor(mirrored(codes, golden.height, golden.width), golden, graph)
    return json.dumps({"data": [{name: {"content": values.ravel().tolist(), "shape": list(values.shape)}}]}) + "\n"


def _tensor(window: npt.NDArray[Any], golden: Golden, graph: Contract | None) -> tuple[str, npt.NDArray[Any]]:
    """Name and values of the input, without the batch where the model has one."""
    if graph is None:
        return f"blurry_{'u16' if window.dtype == np.uint16 else 'u8'}", window
    values = window[None]
    if golden.io == "f32":
        values = sample_codes.to_unit(values, GOLDEN_BITS, GOLDEN_RANGE)
    elif golden.io == "u16":
        values = sample_codes.to_pairs(values)
    return INPUT, values if graph.batch else values[0]
