"""The export command from end to end on small networks: what it writes, what it verifies, and how it refuses."""

import dataclasses
import hashlib
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from export import export_options
from export.compare import parity
from export.compare.parity import ParityError
from export.export_options import ExportOptions
from export.network import rewrites
from export.network.exporter import RANDOM_WEIGHTS, export_onnx
from export.network.graph import network_to_onnx
from export.network.rewrites import apply_rewrites
from export.to_onnx import main
from model import PAPER, VARIANTS, DeblurNetwork, NetworkConfig, config, load_checkpoint, save_checkpoint
from runtime import Engine, InputError
from runtime.files.contract import MIN_PARITY, read_contract
from runtime.machine.requirements import requirement
from runtime.pixels import padding
from runtime.pixels.sample_codes import from_unit, to_unit

ROOT = Path(__file__).resolve().parents[1]
RADIUS = 158  # pixels, test_receptive_field.py


def small_network(configuration):
    torch.manual_seed(0)
    network = DeblurNetwork(dataclasses.replace(configuration, widths=PAPER.divided(8))).eval()
    for parameter in network.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.05)
    torch.nn.init.normal_(network.r2.weight, std=0.1)
    return network


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    save_checkpoint(small_network(NetworkConfig()), path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint, tmp_path_factory):
    return export_onnx(ExportOptions(checkpoint=checkpoint, output=tmp_path_factory.mktemp("out") / "small.onnx"))


@torch.inference_mode()
def reference(network, windows):
    padded = padding.pad(windows, 8)
    return padding.crop(network(torch.from_numpy(padded)).numpy(), *windows.shape[-2:])


def test_the_file_is_the_network(exported, checkpoint):
    for shape in ((1, 5, 8, 8), (3, 5, 40, 72)):
        window = np.random.default_rng(0).random(shape, np.float32)
        session = onnxruntime.InferenceSession(str(exported.path), providers=["CPUExecutionProvider"])
        (sharp,) = session.run(["sharp"], {"blurry": window})
        np.testing.assert_allclose(sharp, reference(load_checkpoint(checkpoint), window), atol=1e-5)
        assert np.abs(sharp - window).max() > 1e-2


def test_the_contract_says_what_it_is(exported, checkpoint):
    contract = read_contract(exported.path)
    assert contract == exported.contract
    assert (contract.frames, contract.multiple, contract.receptive_field) == (5, 8, RADIUS)
    assert (contract.io, contract.bits, contract.color_range) == ("f32", None, None)
    assert (contract.batch, contract.height, contract.width, contract.precision) == (None, None, None, "fp32")
    assert contract.checkpoint_sha256 == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert NetworkConfig.from_dict(contract.configuration) == NetworkConfig(widths=PAPER.divided(8))


def test_the_parity_is_recorded(exported):
    assert exported.contract.parity["onnxruntime:fp32"] >= MIN_PARITY["fp32"]
    assert {f"{p.backend}:{p.precision}" for p in exported.parities} == set(exported.contract.parity)


def test_one_file_without_traces_of_where_it_was_made(exported):
    content = exported.path.read_bytes()
    assert [path.name for path in exported.path.parent.iterdir()] == ["small.onnx"]
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


def test_weights_carry_the_names_of_their_modules(exported):
    names = {node.input[1] for node in onnx.load(exported.path).graph.node if node.op_type == "Conv"}
    assert {"c1.weight", "temporal.generator.layer14.weight", "spatial.cells.3.x_update.weight"} <= names
    assert all(name.endswith(".weight") for name in names)


def test_nodes_and_values_carry_their_module(exported):
    nodes = onnx.load(exported.path).graph.node
    assert len({node.name for node in nodes}) == len(nodes)
    for node in nodes:
        module, _, operator = node.name.rpartition("/")
        assert operator.split("_")[0] == node.op_type
        if node.op_type == "Conv":
            assert node.input[1] == f"{module}.weight"
            assert node.output[0] == f"{node.name}_output_0"


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_exports(variant):
    network = small_network(VARIANTS[variant])
    model = network_to_onnx(apply_rewrites(network, ["fold", "whole-window"]))
    window = np.random.default_rng(0).random((1, network.config.frames, 24, 16), np.float32)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"blurry": window})[0], reference(network, window), atol=1e-5)


def test_fixed_sizes_in_opset_17(checkpoint, tmp_path):
    options = ExportOptions(checkpoint, output=tmp_path / "m.onnx", opset=17, batch=2, height=40, width=48)
    result = export_onnx(options)
    model = onnx.load(result.path)
    assert model.opset_import[0].version == 17
    assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim] == [2, 5, 40, 48]
    assert (result.contract.batch, result.contract.height, result.contract.width) == (2, 40, 48)
    assert result.windows[0] == 4  # three were wanted, in batches of two


def codes_and_expected(checkpoint, contract):
    dtype = np.uint8 if contract.io == "u8" else np.uint16
    codes = np.random.default_rng(0).integers(0, 2**contract.bits, (1, 5, 61, 83)).astype(dtype)
    meaning = (contract.bits, contract.color_range)
    return codes, from_unit(reference(load_checkpoint(checkpoint), to_unit(codes, *meaning)), *meaning)


def test_graph_of_8_bit_codes(checkpoint, tmp_path):
    contract = export_onnx(ExportOptions(checkpoint, output=tmp_path / "m.onnx", io="u8")).contract
    assert (contract.io, contract.bits, contract.color_range, contract.height) == ("u8", 8, "limited", None)
    codes, expected = codes_and_expected(checkpoint, contract)
    with Engine(tmp_path / "m.onnx", "onnxruntime") as engine:
        sharp = engine.run(codes)
    assert np.abs(sharp.astype(int) - expected).max() <= 1
    assert np.mean(sharp == expected) > 0.999
    parity.verify_codes(tmp_path / "m.onnx", codes, expected, sharp)
    for wrong in (sharp ^ 1, np.where(codes == codes.max(), sharp ^ 2, sharp)):
        with pytest.raises(ParityError):
            parity.verify_codes(tmp_path / "m.onnx", codes, expected, wrong)


def test_graph_of_12_bit_codes_of_a_fixed_size_in_opset_17(checkpoint, tmp_path):
    options = ExportOptions(
        checkpoint, output=tmp_path / "m.onnx", io="u16", bits=12, color_range="full", height=61, width=83, opset=17
    )
    contract = export_onnx(options).contract
    assert (contract.io, contract.bits, contract.color_range, contract.height) == ("u16", 12, "full", 61)
    codes, expected = codes_and_expected(checkpoint, contract)
    with Engine(tmp_path / "m.onnx", "onnxruntime") as engine:
        sharp = engine.run(codes)
    assert np.abs(sharp.astype(int) - expected).max() <= 1
    assert np.mean(sharp == expected) > 0.99


def test_checkpoint_is_not_overwritten(checkpoint, tmp_path):
    link = tmp_path / "link.onnx"
    link.symlink_to(checkpoint)
    before = checkpoint.read_bytes()
    with pytest.raises(InputError, match="is the input"):
        export_onnx(ExportOptions(checkpoint=checkpoint, output=link))
    assert checkpoint.read_bytes() == before
    assert link.is_symlink()


def test_random_weights_say_so(tmp_path, capsys):
    assert main(["--random-weights", "--variant", "3D-sub", "-o", str(tmp_path / "m.onnx"), "--height", "16", "--width", "16"]) == 0
    assert read_contract(tmp_path / "m.onnx").checkpoint_sha256 == RANDOM_WEIGHTS
    assert "random weights" in capsys.readouterr().out


def test_the_command_reports_and_names_the_next(checkpoint, tmp_path, capsys):
    assert main([str(checkpoint), "-o", str(tmp_path / "m.onnx"), "--height", "64", "--width", "64", "--rewrites", "none"]) == 0
    out = capsys.readouterr().out
    assert "onnxruntime fp32:" in out
    assert f"receptive field {RADIUS}" in out
    assert out.splitlines()[-1].endswith(f"--model {tmp_path / 'm.onnx'}")


def test_a_wrong_graph_is_refused_and_leaves_nothing(checkpoint, tmp_path, monkeypatch):
    @torch.no_grad()
    def wrong(network):
        network.r2.bias.add_(1e-4)
        return network

    monkeypatch.setitem(rewrites.REWRITES, "fold", wrong)
    with pytest.raises(ParityError, match=r"80\.0 dB"):
        export_onnx(ExportOptions(checkpoint, output=tmp_path / "m.onnx", height=32, width=32))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_shipped_checkpoint(tmp_path):
    found = export_onnx(ExportOptions(output=tmp_path / "m.onnx")).contract
    assert found.parity["onnxruntime:fp32"] >= MIN_PARITY["fp32"]
    assert found.parity["openvino:fp32"] >= MIN_PARITY["fp32"]
    assert found.parity.get("openvino:bf16", np.inf) >= MIN_PARITY["bf16"]
    assert found.receptive_field == RADIUS


def test_the_options_know_the_network():
    assert padding.MULTIPLE == config.MULTIPLE
    assert set(export_options.DEFAULT_REWRITES) <= set(export_options.REWRITES)


BAD_OPTIONS = [
    {"opset": 12},
    {"io": "u12"},
    {"bits": 8},
    {"color_range": "full"},
    {"io": "u8", "bits": 10},
    {"io": "u16", "bits": 8},
    {"io": "u8", "color_range": "wide"},
    {"height": 100, "width": 96},
    {"height": 96},
    {"io": "u8", "height": 4, "width": 9},
    {"batch": 0},
    {"rewrites": ("folding",)},
    {"random_weights": True, "checkpoint": Path("x.safetensors")},
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_options_that_disagree(options):
    with pytest.raises(InputError, match=r"expected|drop"):
        ExportOptions(**options)


def half(checkpoint, folder):
    path = folder / "half.safetensors"
    path.write_bytes(checkpoint.read_bytes()[: checkpoint.stat().st_size // 2])
    return path


def text_clip(folder):
    path = folder / "text.mp4"
    path.write_text("not a video")
    return path


BAD_COMMANDS = {  # name: (arguments from (checkpoint, folder), what the line must say)
    "no checkpoint": (lambda c, f: [f / "none.pth"], "no such checkpoint"),
    "half a checkpoint": (lambda c, f: [half(c, f)], "not a readable checkpoint"),
    "another variant": (lambda c, f: [c, "--variant", "I3T1"], "frames is 5, asked 3"),
    "two checkpoints": (lambda c, f: [c, "--checkpoint", c], "expected one"),
    "unknown variant": (lambda c, f: [c, "--variant", "I9T9"], "expected one of I5T3"),
    "opset 12": (lambda c, f: [c, "--opset", 12], "expected 20, or 17"),
    "no multiple of 8": (lambda c, f: [c, "--height", 100, "--width", 96], "104"),
    "no folder": (lambda c, f: [c, "-o", f / "none" / "m.onnx"], "cannot write"),
    "a file as the folder": (lambda c, f: [c, "-o", c / "m.onnx"], "cannot write"),
    "another suffix": (lambda c, f: [c, "-o", f / "m.engine"], ".onnx"),
    "no clip": (lambda c, f: [c, "-o", f / "m.onnx", "--clip", f / "none.mp4"], "--clip"),
    "a text as clip": (lambda c, f: [c, "-o", f / "m.onnx", "--clip", text_clip(f)], "text.mp4"),
}


@pytest.mark.parametrize("name", BAD_COMMANDS)
def test_bad_input_is_one_line_and_status_1(name, checkpoint, tmp_path, capsys):
    arguments, message = BAD_COMMANDS[name]
    assert main([str(argument) for argument in arguments(checkpoint, tmp_path)]) == 1
    *progress, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert all(text.endswith(" ...") for text in progress)
    assert not list(tmp_path.glob("*.onnx")) + list(tmp_path.glob(".*"))


def test_unknown_option_is_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--no-such-option"])
    assert stopped.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_missing_package_is_named_with_the_line_that_brings_it(checkpoint, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert main([str(checkpoint)]) == 1
    assert f"pip install '{requirement('onnxscript')}'" in capsys.readouterr().err


def start(checkpoint, folder, **options):
    command = [
        sys.executable,
        ROOT / "export" / "to_onnx.py",
        checkpoint,
        "-o",
        folder / "m.onnx",
        "--height",
        "16",
        "--width",
        "16",
    ]
    return subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True, cwd=folder, **options)


def test_full_disk(checkpoint, tmp_path):
    allowed = 100_000  # bytes of a file
    process = start(checkpoint, tmp_path, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (allowed, allowed)))
    _, err = process.communicate(timeout=600)
    assert process.returncode == 1
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith(f"error: cannot write to the folder {tmp_path}: File too large")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(checkpoint, tmp_path, sent):
    process = start(checkpoint, tmp_path)
    assert process.stderr.readline() == "exporting ...\n"
    process.send_signal(sent)
    _, err = process.communicate(timeout=600)
    assert process.returncode == 128 + sent
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
