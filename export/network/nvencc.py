"""Exports the graph that NVEncC's `--vpp-onnx` takes, compared with the luma path before it gets its name, and lists it.

Read off rigaya/NVEnc's NVEncFilterOnnx.cpp and rgy_model_registry.cpp of August 2026: float RGB in [0, 1], planes frame after
frame, one window at a time, the middle frame out; `models.json` of version 1, a name without dots or slashes -> path and frames.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from export.compare.centre_frame import Agreement, compare_centre_frame, rgb_windows
from export.export_options import DEFAULT_MATRIX, MATRICES, ExportOptions
from export.graph.centre_frame_graph import centre_frame_graph
from export.graph.opset17 import OPSET as OPSET17
from export.graph.opset17 import lower_to_opset17
from export.network.exporter import ODD, VERIFIED_WINDOWS, ExportResult, default_output, export_onnx
from export.shipped_clips import SIZE_COMPARED
from runtime.errors import InputError
from runtime.files.on_disk import check_not_input, partial_file, partial_onnx, refusals
from runtime.pixels import padding
from runtime.progress import Say

LIST, VERSION = "models.json", 1  # NVEncC's own


@dataclass(frozen=True)
class NvenccResult:
    """A verified file, and where NVEncC finds it."""

    path: Path
    name: str  # in the list
    matrix: str
    inside: ExportResult  # of the float graph, whose file is gone
    agreement: Agreement
    seconds: float  # that it took


def export_for_nvencc(options: ExportOptions, say: Say | None = None) -> NvenccResult:
    """Exports and verifies the float graph, puts RGB around it, verifies that, and adds it to `models.json` beside it.

    The file appears under its name when both passed, or not at all; entries of other names are kept. Raises what `export_onnx`
    does, and InputError where the list is not NVEncC's.
    """
    begun = time.perf_counter()
    say = say or (lambda text: None)
    matrix = options.matrix or DEFAULT_MATRIX
    path = options.output or default_output(options, f"nvencc_{matrix}")
    check_not_input(path, options.checkpoint, options.clip)
    listed = _read_list(path.with_name(LIST))
    with partial_onnx(path) as partial, tempfile.TemporaryDirectory() as folder:
        inside = export_onnx(_options_inside(options, Path(folder) / "float.onnx"), say)
        contract = inside.contract
        say("putting RGB around it")
        height, width = options.height, options.width
        model = centre_frame_graph(onnx.load(inside.path), contract.frames, MATRICES[matrix], contract.multiple, height, width)
        onnx.helper.set_model_props(model, {"matrix": matrix, "checkpoint_sha256": contract.checkpoint_sha256})
        model = lower_to_opset17(model) if options.opset == OPSET17 else model
        with refusals(path.parent):
            partial.write_bytes(model.SerializeToString())
        shown = (height, width) if height and width else (size - ODD for size in SIZE_COMPARED)
        windows = rgb_windows(options.clip, contract.frames, VERIFIED_WINDOWS, *shown)
        agreement = compare_centre_frame(partial, inside.path, windows, MATRICES[matrix])
    name = path.stem.replace(".", "_").lower()
    listed["models"][name] = {"path": path.name, "frames": contract.frames, "colorspace": "rgb"}
    with partial_file(path.with_name(LIST)) as partial:
        partial.write_text(json.dumps(listed, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return NvenccResult(path, name, matrix, inside, agreement, time.perf_counter() - begun)


def _options_inside(options: ExportOptions, path: Path) -> ExportOptions:
    height, width = options.height, options.width
    if height and width:
        height, width = padding.padded_size(height, width, padding.MULTIPLE)
    return replace(options, program=None, matrix=None, output=path, batch=1, height=height, width=width)


def _read_list(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {"version": VERSION, "models": {}}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a list of models ({error}): mend it, or export into another folder") from error
    if not isinstance(found, dict) or found.get("version") != VERSION or not isinstance(found.get("models"), dict):
        raise InputError(f"{path} is not NVEncC's list of models, version {VERSION}: export into another folder")
    return found
