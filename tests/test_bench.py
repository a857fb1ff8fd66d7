import json
import logging
import re
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from benchmarks import bench
from benchmarks.peers import PEERS, PeerInput, open_peer, trtexec
from benchmarks.shared.timing import Effort, interleave_for
from benchmarks.shared.windows import BLURRY, SHARP, read_material
from benchmarks.table import cold_start
from benchmarks.table.options import NAIVE
from benchmarks.table.report import BenchReport, Ratio, Row, Skipped, Spread
from benchmarks.table.subjects import call_without_copies, check_size, open_subject
from benchmarks.table.text import columns_of
from runtime.errors import BackendError, DeployError, InputError
from runtime.files.contract import read_contract
from runtime.files.model_spec import parse
from runtime.files.records import parse_object, read_record
from runtime.pixels.metrics import psnr

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
SHAPE = (1, 5, 64, 96)
IN_A_MOMENT = ["--iterations", "2", "--warmUp", "0", "--duration", "0", "--size", "96x64"]


def read_report(path):
    return read_record(BenchReport, parse_object(path.read_text()))


@pytest.fixture
def given(tiny_model, tiny_checkpoint, tmp_path):
    material = read_material(BLURRY, SHARP, 2, SHAPE)
    return PeerInput(tiny_model, tiny_checkpoint, SHAPE, tmp_path, material.blurry, material.sharp)


def test_files_and_peers_in_one_report(tiny_model, tiny_checkpoint, tmp_path, capsys):
    files = [str(tiny_model), "--on", "openvino:fp32", "onnxruntime", "onnxruntime-cuda", "--checkpoint", str(tiny_checkpoint)]
    output = {name: tmp_path / name for name in ("bench.json", "bench.md", "bench.svg", "times.json")}
    flags = ["--json", output["bench.json"], "--markdown", output["bench.md"], "--chart", output["bench.svg"]]
    flags += ["--exportTimes", output["times.json"]]
    assert bench.main([*files, "--peers", "onnxruntime", NAIVE, "--quick", *IN_A_MOMENT, *map(str, flags)]) == 0

    report = read_report(output["bench.json"])
    names = [f"{tiny_model.name}@openvino:fp32", f"{tiny_model.name}@onnxruntime", "onnxruntime", NAIVE]
    assert [row.name for row in report.rows] == names
    assert (report.baseline, report.reference) == ("onnxruntime", "PyTorch fp32")
    for row in report.rows[:3]:
        assert row.parity_db > 100
        assert abs(row.loss_db) < 0.01
        assert row.latency_ms.calls == 2
        assert row.latency_ms.min <= row.latency_ms.median <= row.latency_ms.p90 <= row.latency_ms.max
        assert len(row.rounds_ms) == 2
        assert (row.compute_ms is None) == (row.kind == "peer")
        assert row.fps_engine == pytest.approx(5000 / row.latency_ms.median)
        assert 30 < row.peak_memory_mb < 5000
        assert row.cold_start_s > 0.1
    assert report.rows[0].file_mb == pytest.approx(tiny_model.stat().st_size / 1e6)
    assert report.rows[3].times_as_fast_end_to_end.median == 1
    assert all(row.fps_end_to_end > 0 for row in (report.rows[0], report.rows[1], report.rows[3]))
    assert [skipped.name.rpartition("@")[2] for skipped in report.skipped] == ["onnxruntime-cuda"]

    printed, page = capsys.readouterr().out, output["bench.md"].read_text()
    for name in names:
        assert name in printed
        assert f"| {name} |" in page
    assert "skipped: tiny.onnx@onnxruntime-cuda: " in printed
    assert output["bench.svg"].read_text().startswith("<?xml")
    times = json.loads(output["times.json"].read_text())
    assert [len(calls) for calls in times.values()] == [2, 2, 2]
    ours, _, peer = times.values()
    assert set(ours[0]) == {"computeMs", "latencyMs"}
    assert set(peer[0]) == {"latencyMs"}


def test_what_only_pytorch_needs_is_not_everyones_failure(tiny_model, capsys):
    files = [f"{tiny_model}@onnxruntime", "--peers", "pytorch fp32", "onnxruntime"]
    assert bench.main([*files, "--parts", "latency", "--quick", *IN_A_MOMENT]) == 0
    printed = capsys.readouterr().out
    assert "skipped: pytorch fp32: the checkpoint is not at hand: name it with --checkpoint" in printed
    assert "parity with tiny.onnx@onnxruntime" in printed


def test_a_checkpoint_is_the_reference_of_files_that_no_peer_runs(tiny_model, tiny_checkpoint, tmp_path, capsys):
    typed = tmp_path / "typed.onnx"
    typed.write_bytes(tiny_model.read_bytes().replace(b'"precision": "fp32"', b'"precision": "bf16"'))
    run = [f"{typed}@onnxruntime", "--peers", "none", "--parts", "latency", "--quick", *IN_A_MOMENT, "--checkpoint"]
    assert bench.main([*run, str(tiny_checkpoint)]) == 0
    assert "parity with PyTorch fp32" in capsys.readouterr().out
    assert bench.main([*run, str(tiny_model)]) == 1
    assert "exported from another checkpoint" in capsys.readouterr().err
    assert bench.main(run[:1]) == 1
    assert "error: peers run an fp32 model with float I/O: name one, or --peers none" in capsys.readouterr().err


def test_one_bare_call_that_fails_costs_its_own_figure(tiny_model, tmp_path, monkeypatch):
    def fail(engine, window):
        raise RuntimeError("no memory\nfor this")

    monkeypatch.setattr("benchmarks.table.subjects.call_without_copies", fail)
    output = ["--json", str(tmp_path / "bench.json")]
    files = [f"{tiny_model}@onnxruntime", "--peers", "none", "--parts", "latency", "--quick"]
    assert bench.main([*files, *IN_A_MOMENT, *output]) == 0
    report = read_report(tmp_path / "bench.json")
    assert report.rows[0].latency_ms.calls == 2
    assert report.rows[0].compute_ms is None
    assert [skipped.reason for skipped in report.skipped] == ["RuntimeError: no memory"]


@pytest.mark.parametrize(("io", "type_", "shape"), [("f32", np.float32, (1, 5, 64, 104)), ("u16", np.uint8, (1, 5, 60, 98, 2))])
def test_the_gpu_gets_what_the_graph_takes(io, type_, shape, tiny_model, monkeypatch):
    """The GPU itself is stood in for: only what is copied to it is looked at."""
    copied = []
    monkeypatch.setitem(sys.modules, "benchmarks.shared.on_device", SimpleNamespace(on_device=copied.append))
    engine = SimpleNamespace(
        backend="tensorrt", contract=replace(read_contract(tiny_model), io=io, bits=16 if io == "u16" else None)
    )
    call_without_copies(engine, np.zeros((1, 5, 60, 98), np.float32 if io == "f32" else np.uint16))
    assert (copied[0].dtype, copied[0].shape) == (type_, shape)


def test_without_opencv_the_others_have_their_videos(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    monkeypatch.delitem(sys.modules, "benchmarks.peers.naive_video", raising=False)
    output = ["--json", str(tmp_path / "bench.json")]
    files = [f"{tiny_model}@onnxruntime", "--peers", NAIVE, "--parts", "video", "--quick"]
    assert bench.main([*files, *IN_A_MOMENT, *output]) == 0
    report = read_report(tmp_path / "bench.json")
    assert [row.name for row in report.rows] == ["tiny.onnx@onnxruntime"]
    assert report.rows[0].fps_end_to_end > 0
    assert [skipped.name for skipped in report.skipped] == [f"{NAIVE}, video"]


def test_no_ratio_where_the_baseline_is_missing(tiny_model, tmp_path, monkeypatch):
    def open_but_one(name, given, *more):
        if name == "onnxruntime" and given.shape[2] == 72:
            raise BackendError("too little memory")
        return open_subject(name, given, *more)

    monkeypatch.setattr("benchmarks.table.rows.open_subject", open_but_one)
    output = {name: tmp_path / name for name in ("bench.json", "bench.md")}
    files = [f"{tiny_model}@onnxruntime", "--peers", "onnxruntime", "--parts", "latency", "--quick", *IN_A_MOMENT, "96x72"]
    assert bench.main([*files, "--json", str(output["bench.json"]), "--markdown", str(output["bench.md"])]) == 0
    report = read_report(output["bench.json"])
    assert [(row.height, row.times_as_fast is None) for row in report.rows] == [(64, False), (64, False), (72, True)]
    assert report.baseline == "onnxruntime"
    assert "x how many times as fast as onnxruntime." in output["bench.md"].read_text()


def test_few_calls_have_no_spread():
    row = Row("a", "peer", "", "", "", 1, 64, 64, Spread.of([1.0, 2.0]), times_as_fast=Ratio(1.0, 0.9, 1.1, 2))
    report = BenchReport("", None, {}, (0.0, 0.0), None, "", "", "", (row,), ())
    titles = [column.title for column in columns_of(report)]
    assert {"latency ms", "calls"} <= set(titles)
    assert not {"p90", "p99"} & set(titles)
    assert str(row.times_as_fast) == "1.00"
    assert str(replace(row.times_as_fast, rounds=3)) == "1.00 (0.90 to 1.10)"
    many = replace(report, rows=(replace(row, latency_ms=Spread.of([1.0] * 100)),))
    assert {"p90", "p99"} <= {column.title for column in columns_of(many)}


@pytest.mark.parametrize(
    ("text", "way"),
    [
        ("m.onnx", ("m.onnx", "", "")),
        ("m.onnx@onnxruntime-cuda", ("m.onnx", "onnxruntime-cuda", "")),
        ("of@work/m@2.onnx@openvino:bf16", ("of@work/m@2.onnx", "openvino", "bf16")),
        ("of@work/m@2.onnx", ("of@work/m@2.onnx", "", "")),
    ],
)
def test_a_file_and_its_way(text, way):
    assert parse(text) == way


def test_only_pixels_are_padded(tiny_model):
    contract = replace(read_contract(tiny_model), batch=8, height=64, width=96)
    check_size(contract, (8, 5, 60, 90))
    for shape in ((1, 5, 60, 90), (8, 5, 60, 97)):
        with pytest.raises(InputError, match="it is fixed at"):
            check_size(contract, shape)
    with pytest.raises(InputError, match="it is fixed at H = 64, not 60"):
        check_size(replace(contract, io="u8", bits=8), (8, 5, 60, 96))


def test_a_file_from_another_checkpoint_is_left_out(tiny_model, tmp_path, capsys):
    other = tmp_path / "other.onnx"
    contract = read_contract(tiny_model)
    other.write_bytes(tiny_model.read_bytes().replace(contract.checkpoint_sha256.encode(), b"0" * 64))
    files = [f"{path}@onnxruntime" for path in (tiny_model, other)]
    assert bench.main([*files, "--peers", "none", "--parts", "latency", "--quick", *IN_A_MOMENT]) == 0
    printed = capsys.readouterr().out
    assert "skipped: other.onnx@onnxruntime: it was made from another checkpoint" in printed
    assert "parity with tiny.onnx@onnxruntime" in printed  # the shipped checkpoint is not theirs either


def test_the_page_lists_every_field_of_the_report():
    listed = PAGE.read_text().partition("### The report")[2].partition("##")[0]
    named = set(re.findall(r"\w+", " ".join(re.findall(r"^\| ([^|]+) \|", listed, re.MULTILINE))))
    for record in (BenchReport, Row, Skipped):
        assert {field.name for field in fields(record)} <= named | {"rows", "skipped"}
    assert {field.name for field in fields(Spread)} <= set(re.findall(r"\w+", listed))


def test_rounds_last_as_long_as_asked():
    calls = []
    timing, _ = interleave_for({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, Effort(3, 0, 0))
    assert calls[:2] == ["a", "b"]  # one each to warm up
    assert [set(calls[at : at + 2]) for at in (2, 4, 6)] == [{"a", "b"}] * 3
    assert len(timing.milliseconds) == len(timing.processor) == 3
    long, _ = interleave_for({"a": lambda: None, "b": lambda: None}, Effort(1, 0, 0.005))
    assert len(long.milliseconds) > 10


def test_a_gpu_is_kept_awake_before_its_timed_calls(monkeypatch):
    monkeypatch.setattr("benchmarks.shared.timing.WAKE", 0)
    calls = []
    interleave_for({"cpu": lambda: calls.append("cpu"), "gpu": lambda: calls.append("gpu")}, Effort(2, 0, 0), {"gpu"})
    assert "".join(call[0] for call in calls[2:]).count("gg") == 2
    assert calls[2:].count("cpu") == 2


CPU_PEERS = [name for name, peer in PEERS.items() if not peer.gpu and "compile" not in name and "nncf" not in name]


@pytest.mark.parametrize("name", CPU_PEERS)
def test_a_peer_computes_the_network(name, given):
    if name.startswith("polygraphy"):
        pytest.importorskip("polygraphy")
    found = open_peer(name, given)(given.calibration[0])
    expected = open_peer("pytorch fp32", given)(given.calibration[0])
    assert found.shape == SHAPE
    assert psnr(np.array(found), expected, 1.0) > (100 if PEERS[name].precision == "fp32" else 55)


def test_whatever_a_peer_raises_is_a_reason(given, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(BackendError, match="InvalidProtobuf: "):
        open_peer("onnxruntime", replace(given, model=broken))
    call = open_peer("onnxruntime", given)
    with pytest.raises(BackendError, match="InvalidArgument: ") as caught:
        call(given.calibration[0][0])
    assert "\n" not in str(caught.value)


def test_a_search_under_a_limit_needs_the_truth(given):
    pytest.importorskip("nncf")
    with pytest.raises(BackendError, match="it needs --truth"):
        open_peer("openvino nncf int8 max_drop", replace(given, truth=given.truth[:0]))


@pytest.fixture
def _log_levels():
    """NNCF has all handlers of the process pass errors alone."""
    before = [(handler, handler.level) for handler in logging.root.handlers]
    yield
    for handler, level in before:
        handler.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino nncf int8", "openvino nncf int8 max_drop"])
@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
@pytest.mark.usefixtures("_log_levels")
def test_a_peer_that_prepares_itself(name, given):
    pytest.importorskip("nncf")
    expected = open_peer("pytorch fp32", given)(given.calibration[0])
    assert psnr(np.array(open_peer(name, given)(given.calibration[0])), expected, 1.0) > 30


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
def test_torch_compiles_its_peer(given, monkeypatch):
    """By Inductor, two layers of a network: the whole takes it minutes, and is compiled where the performance page is measured."""
    layers = torch.nn.Sequential(torch.nn.Conv2d(5, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 5, 3, padding=1))
    monkeypatch.setattr("benchmarks.peers.pytorch.load_checkpoint", lambda path: layers)
    window = given.calibration[0]
    expected = open_peer("pytorch fp32", given)(window)
    assert np.ptp(expected) > 0.01
    assert psnr(np.array(open_peer("torch.compile fp32", given)(window)), expected, 1.0) > 100
    found = np.array(open_peer("torch.compile bf16 channels_last", given)(window))
    assert 40 < psnr(found, expected, 1.0) < 100


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.gpu])
def test_a_peer_without_its_gpu_says_so(name, given):
    try:
        from runtime.backends.device_memory import open_gpu

        open_gpu()
    except (ImportError, DeployError):
        with pytest.raises(BackendError):
            open_peer(name, given)
    else:
        pytest.skip("there is a GPU")


def test_times_of_trtexec():
    text = '[{"startH2dMs": 0.1, "h2dMs": 0.2, "computeMs": 3.5, "latencyMs": 4.0}, {"computeMs": 3, "latencyMs": 4.5}]'
    assert trtexec.read_times(text) == [{"computeMs": 3.5, "latencyMs": 4.0}, {"computeMs": 3.0, "latencyMs": 4.5}]
    with pytest.raises(BackendError, match="exportTimes"):
        trtexec.read_times("{}\n")


@pytest.mark.parametrize("known", ["--includeDataTransfers", "--noDataTransfers"])
def test_a_trtexec_gets_flags_that_it_knows(known, tmp_path, monkeypatch):
    """Of version 11 and 10, each stood in for by a script that refuses what that version refuses."""
    program = tmp_path / "trtexec"
    program.write_text(f"""#!{sys.executable}
import sys
if "--help" in sys.argv:
    print("  {known}  ...")
elif any("DataTransfers" in flag and flag != "{known}" for flag in sys.argv):
    sys.exit("unknown option")
else:
    path = next(flag.partition("=")[2] for flag in sys.argv if flag.startswith("--exportTimes="))
    open(path, "w").write('[{{"computeMs": 3, "latencyMs": 4}}]')
    print(*sys.argv, file=open("{tmp_path / "said"}", "w"))
""")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trtexec.measure(Path("model.onnx"), SHAPE, Effort(2, 0, 0)) == [{"computeMs": 3.0, "latencyMs": 4.0}]
    assert ("--includeDataTransfers" in (tmp_path / "said").read_text()) == (known == "--includeDataTransfers")


def test_the_naive_script_writes_every_frame(tiny_model, tmp_path):
    pytest.importorskip("cv2")
    from benchmarks.peers.naive_video import open_script
    from benchmarks.shared.made_clip import make_clip
    from runtime.video import VideoReader

    source, output = tmp_path / "source.mp4", tmp_path / "sharp.mp4"
    make_clip(BLURRY, 7, 100, 66, source)
    assert open_script(tiny_model)(source, output) == 7
    with VideoReader(source) as reader:
        blurry = [frame.luma.copy() for frame in reader]
    with VideoReader(output) as reader:
        sharp = [frame.luma.copy() for frame in reader]
    assert len(sharp) == 7
    assert psnr(np.stack(sharp), np.stack(blurry), 255) > 25  # the tiny network hardly changes anything


def test_what_a_library_prints_is_not_the_first_window(given):
    pytest.importorskip("polygraphy")
    found = cold_start.measure("polygraphy onnxruntime", given, None)  # it prints lines of its own
    assert found.seconds > 0.1
    assert 30 < found.peak < 5000


def test_what_a_fresh_process_says_when_it_fails(given):
    with pytest.raises(BackendError, match=r"a fresh process failed: error: .*"):
        cold_start.measure("nothing.onnx@onnxruntime", given, None)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nope.engine"], "nope.engine: no such file, expected a model, an engine or a bundle"),
        (["{model}", "--peers", "foo"], "no peer 'foo', expected some of: pytorch fp32"),
        (["{model}", "--shapes=1x5"], "--shapes is '1x5', expected blurry:Nx5xHxW"),
        (["{model}", "--size", "20x20", "--peers", "none"], "the size is 20x20, expected 64 pixels"),
        (["{model}", "--clip", "nix.mp4", "--peers", "none", "--on", "onnxruntime"], "nix.mp4: no such file"),
        (["{model}", "--checkpoint", "{model}"], "was exported from another checkpoint than"),
    ],
)
def test_wrong_input_is_one_line(arguments, words, tiny_model, capsys):
    assert bench.main([argument.format(model=tiny_model) for argument in arguments]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert words in errors[0]
