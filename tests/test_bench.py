import json
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench, cold_start
from benchmarks.bench_options import NAIVE
from benchmarks.bench_report import BenchReport, Row, Skipped, Spread, read_report
from benchmarks.peers import PEERS, PeerInput, open_peer, trtexec
from benchmarks.subjects import check_size, parse
from benchmarks.timing import Effort, interleave_for
from benchmarks.windows import BLURRY, SHARP, read_material
from runtime.contract import read_contract
from runtime.errors import BackendError, DeployError, InputError
from runtime.metrics import psnr

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
SHAPE = (1, 5, 64, 96)
IN_A_MOMENT = ["--iterations", "2", "--warmUp", "0", "--duration", "0", "--size", "96x64"]


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
    assert all(set(call) == {"computeMs", "latencyMs"} for calls in times.values() for call in calls)


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
        check_size(replace(contract, io="u8"), (8, 5, 60, 96))


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


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "bench.json"
    path.write_text('{"schema": 0}')
    with pytest.raises(InputError, match="schema is 0, expected 1"):
        read_report(path)


def test_rounds_last_as_long_as_asked():
    calls = []
    timing, _ = interleave_for({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, Effort(3, 0, 0))
    assert calls[:2] == ["a", "b"]  # one each to warm up
    assert [set(calls[at : at + 2]) for at in (2, 4, 6)] == [{"a", "b"}] * 3
    assert len(timing.milliseconds) == len(timing.processor) == 3
    long, _ = interleave_for({"a": lambda: None, "b": lambda: None}, Effort(1, 0, 0.005))
    assert len(long.milliseconds) > 10


CPU_PEERS = [name for name, peer in PEERS.items() if not peer.gpu and "compile" not in name and "nncf" not in name]


@pytest.mark.parametrize("name", CPU_PEERS)
def test_a_peer_computes_the_network(name, given):
    if name.startswith("polygraphy"):
        pytest.importorskip("polygraphy")
    found = open_peer(name, given)(given.calibration[0])
    expected = open_peer("pytorch fp32", given)(given.calibration[0])
    assert found.shape == SHAPE
    assert psnr(np.array(found), expected, 1.0) > (100 if PEERS[name].precision == "fp32" else 55)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["torch.compile fp32", "openvino nncf int8", "openvino nncf int8 max_drop"])
@pytest.mark.filterwarnings("ignore")  # of libraries that are not ours
def test_a_peer_that_prepares_itself(name, given):
    if "nncf" in name:
        pytest.importorskip("nncf")
    expected = open_peer("pytorch fp32", given)(given.calibration[0])
    assert psnr(np.array(open_peer(name, given)(given.calibration[0])), expected, 1.0) > (30 if "nncf" in name else 100)


@pytest.mark.parametrize("name", [name for name, peer in PEERS.items() if peer.gpu])
def test_a_peer_without_its_gpu_says_so(name, given):
    try:
        from runtime.device_memory import open_gpu

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


def test_the_naive_script_writes_every_frame(tiny_model, tmp_path):
    pytest.importorskip("cv2")
    from benchmarks.memory import MemoryOptions, make_clip
    from benchmarks.peers.naive_video import open_script
    from runtime.video import VideoReader

    source, output = tmp_path / "source.mp4", tmp_path / "sharp.mp4"
    make_clip(MemoryOptions(BLURRY, (7,), 100, 66, ()), 7, source)
    assert open_script(tiny_model)(source, output) == 7
    with VideoReader(source) as reader:
        blurry = [frame.luma.copy() for frame in reader]
    with VideoReader(output) as reader:
        sharp = [frame.luma.copy() for frame in reader]
    assert len(sharp) == 7
    assert psnr(np.stack(sharp), np.stack(blurry), 255) > 25  # the tiny network hardly changes anything


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
