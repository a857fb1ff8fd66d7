"""Exports a checkpoint to an ONNX file that was compared with the PyTorch network before it got its name."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from torch import nn

from calibration.fingerprints import model_hash
from export.compare import parity
from export.compare.parity import Parity
from export.export_options import ExportOptions
from export.graph.opset17 import OPSET as OPSET17
from export.graph.opset17 import lower_to_opset17
from export.graph.receptive_field import receptive_field
from export.graph.sample_code_graph import wrap_sample_codes
from export.network.graph import network_to_onnx
from export.network.merged_channels import merging_note
from export.network.rewrites import apply_rewrites
from export.shipped_clips import SIZE_COMPARED
from model import VARIANTS, CheckpointError, DeblurNetwork, NetworkConfig, default_checkpoint, load_checkpoint
from runtime.errors import InputError
from runtime.files.contract import METADATA_KEY, Contract
from runtime.files.on_disk import check_not_input, partial_onnx, refusals
from runtime.pixels import padding, sample_codes
from runtime.progress import Say

RANDOM_SEED = 0
RANDOM_WEIGHTS = f"none: random weights, seed {RANDOM_SEED}"  # stands where a checkpoint's sha256 would
VERIFIED_WINDOWS = 3
VERIFIED_SAMPLES = 8_000_000  # fewer windows of a large fixed size, since each costs the reference seconds
ODD = 3  # pixels taken off H and W where a graph of codes has to pad

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ExportResult:
    """A verified file."""

    path: Path
    contract: Contract
    opset: int
    parities: tuple[Parity, ...]  # ONNX Runtime's first, then OpenVINO's
    windows: tuple[int, ...]  # shape of what was compared, (N, F, H, W)
    seconds: float  # that it took
    note: str = ""  # what the user should know


def export_onnx(options: ExportOptions, say: Say | None = None) -> ExportResult:
    """Exports and verifies; the file appears under its name when it passed, or not at all.

    1. The rewritten network is exported in fp32, and compared on ONNX Runtime: at least 100 dB. 2. With codes, the graph around it
    is added, and compared with codes made from the float graph's output: at most one code off, and that in 0.01 % of the samples.
    3. OpenVINO is measured where it is installed, and all figures go into the file's contract: for codes, they are between codes.
    `say` is told what is going on. Raises InputError on a bad checkpoint, clip or folder, ParityError when 1 or 2 fails.
    """
    begun = time.perf_counter()
    say = say or (lambda text: None)
    path = options.output or default_output(options, "" if options.io == "f32" else options.io)
    check_not_input(path, options.checkpoint, options.clip)
    network, sha256 = _network(options)
    windows = _windows(network.config.frames, options)
    with partial_onnx(path) as partial:
        say("exporting")
        rewritten = apply_rewrites(network, options.rewrites)
        core = _core_graph(rewritten, options)
        contract = _contract(rewritten.config, core, options, sha256)
        say(f"verifying on {len(windows)} windows of {options.clip.name}, {windows.shape[-1]}x{windows.shape[-2]}")
        model, parities = _verified(network, core, contract, windows, partial, options.opset)
        measured = {f"{found.backend}:{found.precision}": round(found.decibels, 2) for found in parities}
        contract = replace(contract, parity=measured, graph_sha256=model_hash(model))
        _write(model, contract, partial)
    seconds, note = time.perf_counter() - begun, merging_note(network.config, rewritten.config)
    return ExportResult(path, contract, options.opset, tuple(parities), windows.shape, seconds, note)


def _network(options: ExportOptions) -> tuple[DeblurNetwork, str]:
    """The network, and the sha256 of its checkpoint."""
    if options.variant is not None and options.variant not in VARIANTS:
        raise InputError(f"variant is {options.variant!r}, expected one of {', '.join(VARIANTS)}")
    config = VARIANTS[options.variant] if options.variant else None
    if options.random_weights:
        return _randomised(DeblurNetwork(config)), RANDOM_WEIGHTS
    try:
        checkpoint = options.checkpoint or default_checkpoint()
        return load_checkpoint(checkpoint, config), hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    except CheckpointError as error:
        remedy = "; --random-weights exports any variant, for its structure and speed" if options.variant else ""
        raise InputError(f"{error}{remedy}") from error


@torch.no_grad()
def _randomised(network: DeblurNetwork) -> DeblurNetwork:
    """With weights that depend on the seed alone, and a last layer that is not zero, so that a comparison compares something."""
    generator = torch.Generator().manual_seed(RANDOM_SEED)
    for parameter in network.parameters():
        fan_in = parameter[0].numel() if parameter.ndim > 1 else 100
        nn.init.normal_(parameter, std=fan_in**-0.5, generator=generator)
    return network.eval()


def default_output(options: ExportOptions, form: str) -> Path:
    """The checkpoint's name in the current folder, with the `form` of the file if it is not the plain one."""
    stem = f"{options.variant or 'I5T3'}_random" if options.random_weights else (options.checkpoint or default_checkpoint()).stem
    return Path(f"{stem}{form and f'_{form}'}.onnx")


def _core_graph(rewritten: DeblurNetwork, options: ExportOptions) -> onnx.ModelProto:
    height, width = options.height, options.width
    if height is not None and width is not None:
        height, width = padding.padded_size(height, width, padding.MULTIPLE)
    return network_to_onnx(rewritten, options.batch, height, width)


def _contract(config: NetworkConfig, core: onnx.ModelProto, options: ExportOptions, sha256: str) -> Contract:
    return Contract(
        frames=config.frames,
        multiple=padding.MULTIPLE,
        receptive_field=receptive_field(core, padding.MULTIPLE),
        io=options.io,
        bits=options.code_bits,
        color_range=options.code_range,
        batch=options.batch,
        height=options.height,
        width=options.width,
        precision="fp32",
        checkpoint_sha256=sha256,
        configuration=config.to_dict(),
    )


def _windows(frames: int, options: ExportOptions) -> Floats:
    height, width = SIZE_COMPARED if options.io == "f32" else (size - ODD for size in SIZE_COMPARED)
    height, width = options.height or height, options.width or width
    affordable = max(1, min(VERIFIED_WINDOWS, VERIFIED_SAMPLES // (height * width * frames)))
    batch = options.batch or 1
    return parity.clip_windows(options.clip, frames, -(-affordable // batch) * batch, height, width)


def _verified(
    network: DeblurNetwork, core: onnx.ModelProto, contract: Contract, windows: Floats, partial: Path, opset: int
) -> tuple[onnx.ModelProto, list[Parity]]:
    """The graph to ship, left at `partial`, and its parities."""
    if contract.io == "f32":
        model = lower_to_opset17(core) if opset == OPSET17 else core
        _write(model, contract, partial)
        expected = _reference(network, windows)
        found, _ = parity.verify_float(partial, windows, expected)
        return model, [found, *parity.openvino_parities(partial, windows, expected)]

    codes = sample_codes.from_unit(windows, contract.bits, contract.color_range)
    unit = padding.pad(sample_codes.to_unit(codes, contract.bits, contract.color_range), padding.MULTIPLE)
    expected = _reference(network, unit)
    _write(core, _float_contract(contract, unit), partial)
    _, computed = parity.verify_float(partial, unit, expected)

    model = wrap_sample_codes(
        core, contract.io, contract.bits, contract.color_range, padding.MULTIPLE, contract.height, contract.width
    )
    model = lower_to_opset17(model) if opset == OPSET17 else model
    _write(model, contract, partial)
    expected, computed = _codes(expected, contract, codes), _codes(computed, contract, codes)
    found = parity.verify_codes(partial, codes, expected, computed)
    return model, [found, *parity.openvino_parities(partial, codes, expected)]


def _float_contract(contract: Contract, unit: Floats) -> Contract:
    """That of the float graph inside a graph of codes."""
    height, width = unit.shape[-2:] if contract.height else (None, None)
    return replace(contract, io="f32", bits=None, color_range=None, height=height, width=width)


def _codes(unit: Floats, contract: Contract, like: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    return sample_codes.from_unit(padding.crop(unit, *like.shape[-2:]), contract.bits, contract.color_range)


@torch.inference_mode()
def _reference(network: DeblurNetwork, windows: Floats) -> Floats:
    """The network as it stands, without a layout or a precision that TorchRunner could choose for speed."""
    return np.concatenate([network(torch.from_numpy(window[None])).numpy() for window in windows])


def _write(model: onnx.ModelProto, contract: Contract, path: Path) -> None:
    onnx.helper.set_model_props(model, {METADATA_KEY: contract.to_json()})
    with refusals(path.parent):
        path.write_bytes(model.SerializeToString())
