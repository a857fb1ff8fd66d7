"""`videodeblur trtexec`: built for real by TensorRT-RTX without a GPU, measured on a GPU that only keeps recorded time."""

import json
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recorded_gpu import LAYERS, RecordedEngine

from export import make_engine, trtexec
from export.engine.flags import parse_flags
from export.engine.measure_flags import parse_measure_flags
from export.engine.performance_report import MOST_LINES, print_performance
from export.engine.time_statistics import Measured
from export.engine.trtexec_log import TrtexecLog, _version_words
from export.engine.unused_flags import RESULTS
from export.trtexec import main
from runtime.backends.inference_loop import Trace
from runtime.errors import InputError
from runtime.files.engine_record import load_record

ROOT = Path(__file__).resolve().parents[1]
SHAPE = (1, 5, 64, 96)
RTX = ("--runtime", "rtx")
FLAGS = [line.split() for line in (Path(__file__).parent / "trtexec_flags.txt").read_text().splitlines()]  # (since when, flag)
STAMP = r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[[IWEV]\] "

PAIR = ("--loadInputs=blurry:a.raw", "--loadRefOutputs=sharp:b.raw")
REMEDIES = (
    *(
        "leave it out",
        "use ",
        "name ",
        "expected ",
        "is the first of",
        "is not offered",
        "set TMPDIR",
        "its name is ",
        "no such file",
    ),
    *("here: ", "run", "only builds", "videodeblur verify"),
)
WITH_VALUE = {  # flag: what it is given, with what it needs beside it
    "--accuracyAlgorithm": ("--accuracyAlgorithm=l1",),
    "--accuracyThreshold": ("--accuracyThreshold=0.1", *PAIR),
    "--allocationStrategy": ("--allocationStrategy=profile",),
    "--builderOptimizationLevel": ("--builderOptimizationLevel=5",),
    "--excludeLeanRuntime": ("--excludeLeanRuntime", "--vc"),
    "--hardwareCompatibilityLevel": ("--hardwareCompatibilityLevel=Ampere+",),
    "--layerPrecisions": ("--layerPrecisions=c1*:fp16",),
    "--loadInputs": PAIR[:1],
    "--loadRefOutputs": PAIR,
    "--memPoolSize": ("--memPoolSize=workspace:64",),
    "--nvtxMode": ("--nvtxMode=none",),
    "--percentile": ("--percentile=50,99.9",),
    "--persistentCacheRatio": ("--persistentCacheRatio=0.5",),
    "--preview": ("--preview=+aliasedPluginIO1003",),
    "--profile": ("--profile=0", "--shapes=blurry:1x5x64x64", "--profile=1", "--shapes=blurry:1x5x64x96"),
    "--profilingVerbosity": ("--profilingVerbosity=verbose", "--profilingVerbosity=none"),
    "--refPair": ("--refPair=0", *PAIR, "--refPair=1", *PAIR),
    "--runtimePlatform": ("--runtimePlatform=WindowsAMD64",),
    "--sparsity": ("--sparsity=enable",),
    "--tacticSources": ("--tacticSources=-edge_mask_convolutions",),
    "--tilingOptimizationLevel": ("--tilingOptimizationLevel=2",),
    "--useRuntime": ("--useRuntime=lean",),
    "--workspace": ("--workspace=2048",),
    **{f"--{side}Shapes": (f"--{side}Shapes=blurry:1x5x64x64",) for side in ("min", "opt", "max")},
    "--shapes": ("--shapes=blurry:1x5x64x64",),
    **{f"--{side}IOFormats": (f"--{side}IOFormats=chw16",) for side in ("input", "output")},
    **{
        f"--{name}": (f"--{name}=7",)
        for name in ("avgRuns", "avgTiming", "device", "duration", "idleTime", "infStreams", "streams")
    },
    **{f"--{name}": (f"--{name}=7",) for name in ("iterations", "l2LimitForTiling", "maxAuxStreams", "maxTactics", "sleepTime")},
    **{f"--{name}": (f"--{name}=7",) for name in ("useProfile", "warmUp", "atol", "rtol", "minTiming")},
    **{f"--{name}": (f"--{name}={name}.engine",) for name in ("exportLayerInfo", "exportOutput", "exportProfile", "exportTimes")},
    **{f"--{name}": (f"--{name}={name}.engine",) for name in ("loadEngine", "saveEngine", "timingCacheFile", "onnx", "calib")},
    "--precisionConstraints": ("--precisionConstraints=obey",),
}


@pytest.mark.parametrize(("since", "flag"), FLAGS)
def test_every_flag_is_acted_on_or_answered(since, flag):
    if flag == "--help":
        return  # test_words and test_house read it
    asked = WITH_VALUE.get(flag, (flag,))
    try:
        plain, found = (parse_measure_flags([*RTX, "--onnx=m.onnx", *more]) for more in ((), asked))
    except InputError as error:
        told = str(error)
        assert flag in told or "got --loadEngine and" in told
        assert any(remedy in told for remedy in REMEDIES), told
        assert not re.search("did you mean|no flag|invalid|expected one argument", told), told
        assert "\n" not in told
    else:
        assert found != plain, f"{flag} is read and does nothing"  # what has no effect is a note of the request


def test_build_does_not_swallow_what_asks_for_results():
    for flag, takes_value in RESULTS.items():
        with pytest.raises(InputError, match="videodeblur trtexec builds and measures"):
            parse_flags(["--onnx=m.onnx", *RTX, flag + ("=x" if takes_value else "")])
    notes = parse_flags(["--onnx=m.onnx", *RTX, "--warmUp=5", "--useSpinWait"]).notes
    assert [note.split()[0] for note in notes] == ["--useSpinWait", "--warmUp"]
    assert all("videodeblur trtexec builds and measures" in note for note in notes)


def test_shape_that_is_run_is_of_the_profile():
    two = ("--onnx=m.onnx", *RTX, "--profile=0", "--shapes=blurry:1x5x64x64", "--profile=1", "--shapes=blurry:1x5x64x96")
    assert parse_measure_flags(two).run.shape == (1, 5, 64, 64)
    assert parse_measure_flags([*two, "--useProfile=1"]).run.shape == (1, 5, 64, 96)
    assert parse_measure_flags(["--loadEngine=m.engine", "--useProfile=1", "--shapes=blurry:1x5x64x96"]).run.shape == (1, 5, 64, 96)


@pytest.fixture(scope="module")
def fixed(tiny_checkpoint, tmp_path_factory):
    """The tiny network for one window of 64x96 pixels, as most files in those threads are."""
    from export.export_options import ExportOptions
    from export.network.exporter import export_onnx

    output = tmp_path_factory.mktemp("fixed") / "model.onnx"
    return export_onnx(ExportOptions(checkpoint=tiny_checkpoint, output=output, batch=1, height=64, width=96)).path


# From issues of GitHub; the files' names are replaced, nothing else. None: an engine is built
THREADS = [
    ("NVIDIA/TensorRT#2460", "trtexec.exe --onnx=M --saveEngine=E --workspace=2048 --fp16", None),
    ("NVIDIA/TensorRT#2961", "trtexec --onnx=M --best", None),
    ("NVIDIA/TensorRT#3734", "trtexec.exe --onnx=M --saveEngine=E --explicitBatch", None),
    (
        "NVIDIA/TensorRT#1221",
        "/usr/src/tensorrt/bin/trtexec --onnx=M --best --workspace=5000 --saveEngine=E --inputIOFormats=fp32:chw "
        "--outputIOFormats=fp32:chw --noDataTransfers --dumpProfile --separateProfileRun",
        None,
    ),
    (
        "NVIDIA/TensorRT#4048",
        "trtexec.exe --onnx=M --saveEngine=E --explicitBatch --fp16 --int8 --dumpProfile --noDataTransfers --useCudaGraph "
        "--useSpinWait --separateProfileRun --dumpLayerInfo --exportLayerInfo=J",
        None,
    ),
    ("NVIDIA/TensorRT#4020", "trtexec --onnx=M --fp16 --int8 --saveEngine=E --exportProfile=J --exportLayerInfo=J", None),
    ("NVIDIA/TensorRT#1387", "trtexec --onnx=M --saveEngine=E --batch=16 --workspace=2048", "is the first of --optShapes, such as"),
    (
        "NVIDIA/TensorRT#1703",
        "trtexec --onnx=M --int8 --saveEngine=E --calib=C --verbose",
        "is TensorRT's calibration cache: name a video or a folder",
    ),
    (
        "NVIDIA/TensorRT#2043",
        "trtexec --onnx=M --explicitBatch --int8 --allowGPUFallback --useDLACore=1 --workspace=2048 --shapes=data:1x3x224x224",
        "got the shape 'data:1x3x224x224', expected blurry:NxFxHxW",
    ),
    (
        "NVIDIA/TensorRT#3229",
        "trtexec.exe --onnx=M --saveEngine=E --minShapes=x:2x4x64x64,context:2x77x768,timesteps:2 "
        "--maxShapes=x:2x4x64x64,context:2x77x768,timesteps:2 --fp16 --workspace=8192",
        "expected blurry:NxFxHxW such as blurry:1x5x720x1280",
    ),
    (
        "OE4T/meta-tegra#2243",
        "/usr/src/tensorrt/bin/trtexec --onnx=M --saveEngine=E --optShapes=image:1x3x416x416 --skipInference",
        "expected blurry:NxFxHxW",
    ),
    (
        "NVIDIA/TensorRT#2514",
        "trtexec --verbose --noDataTransfers --useCudaGraph --separateProfileRun --useSpinWait --nvtxMode=verbose --loadEngine=E "
        "--exportTimes=J --exportProfile=J --exportLayerInfo=J --timingCacheFile=./timing.cache --int8",
        "no such engine file",
    ),
]


@pytest.mark.parametrize(("issue", "line", "answer"), THREADS, ids=[thread[0] for thread in THREADS])
def test_lines_from_public_threads(fixed, tmp_path, capsys, monkeypatch, issue, line, answer):
    monkeypatch.setattr(make_engine, "CALIBRATION_WINDOWS", 1)
    (tmp_path / "calib.cache").write_text("TRT-8600-EntropyCalibration2\nblurry: 3c010a14\n")
    names = {"M": fixed, "E": tmp_path / "m.engine", "J": tmp_path / "m.json", "C": tmp_path / "calib.cache"}
    words = [re.sub("=([MEJC])$", lambda found: f"={names[found[1]]}", word) for word in shlex.split(line)[1:]]
    status = main([*words, *RTX, "--skipInference"])
    told = capsys.readouterr()
    first, last = told.out.splitlines()[0], told.out.splitlines()[-1]
    command = re.escape(" ".join(["videodeblur", "trtexec", *words]))
    assert re.match(rf"&&&& RUNNING TensorRT\.trtexec \[TensorRT v\d+\] \[b\d+\] # {command}", first)
    if answer is None:
        assert status == 0, told.err
        assert last.startswith("&&&& PASSED TensorRT.trtexec")
        assert re.search(rf"(?m)^{STAMP}Engine built in [0-9.]+ sec\.$", told.out)
        assert (tmp_path / "m.engine").exists() == ("=E" in line)
    else:
        assert status == 1
        assert last.startswith("&&&& FAILED TensorRT.trtexec")
        errors = [each for each in told.err.splitlines() if "[E]" in each]
        assert len(errors) == 1
        assert answer in errors[0]


@pytest.mark.parametrize("command", ["build", "trtexec"])
def test_missing_sizes_are_told_at_once(tiny_model, command):
    """Of the whole process: less than two seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    asked = [sys.executable, ROOT / "videodeblur", command, f"--onnx={tiny_model}", "--fp16", *RTX]
    done = subprocess.run(asked, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 1
    assert "is free in the file: name its sizes with --optShapes" in done.stderr
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_gpu_is_asked_for_before_the_build(fixed, capsys):
    try:
        from runtime.backends.device_memory import open_gpu

        open_gpu()
    except Exception:
        assert main([f"--onnx={fixed}", *RTX]) == 1
        told = capsys.readouterr()
        assert "or only build, with --skipInference" in told.err
        assert "Engine built" not in told.out


@pytest.fixture
def recorded(monkeypatch):
    """The engines that were opened, each on recorded GPUs, with what these are made with."""
    opened, made_with = [], {}

    def open_engine(path, how):
        assert load_record(path)
        opened.append(RecordedEngine(how, **made_with))
        return opened[-1]

    monkeypatch.setattr(trtexec, "_open_engine", open_engine)
    monkeypatch.setattr(trtexec, "_open_gpu", lambda device: RecordedEngine(None).gpu)
    return opened, made_with


SHORT = ("--warmUp=30", "--duration=0", "--iterations=40")


def sections(log):
    """{header: {key: value}} of the lines that trtexec's readers take: stamp, [I], key, colon, value."""
    found, inside = {}, None
    for line in log.splitlines():
        text = re.sub(rf"^{STAMP}", "", line)
        if header := re.fullmatch("=== (.*) ===", text):
            inside = found.setdefault(header[1], {})
        elif inside is not None and ": " in text:
            inside.setdefault(*text.split(": ", 1))
    return found


def test_log_is_trtexecs(tiny_engine, recorded, capsys):
    assert main([f"--loadEngine={tiny_engine}", *SHORT, "--includeDataTransfers", "--avgRuns=5", "--percentile=50,99"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("&&&& RUNNING TensorRT.trtexec [TensorRT v")
    assert lines[-1].startswith("&&&& PASSED TensorRT.trtexec [TensorRT v")
    assert all(re.match(STAMP, line) for line in lines[1:-1])
    found = sections(out)
    assert found["Inference Options"]["Input inference shape "] == "blurry=1x5x64x96"
    assert found["Inference Options"]["Data transfers"] == "Enabled"
    assert found["Device Information"]["Selected Device"] == "a GPU"
    summary = found["Performance summary"]
    assert float(re.fullmatch(r"([0-9.]+) qps", summary["Throughput"])[1]) == pytest.approx(1000 / 3, rel=0.05)
    parts = (
        r"min = ([0-9.]+) ms, max = ([0-9.]+) ms, mean = ([0-9.]+) ms, median = ([0-9.]+) ms, percentile\(50%\) = ([0-9.]+) ms, "
    )
    values = {
        name: [float(value) for value in re.fullmatch(rf"{parts}percentile\(99%\) = ([0-9.]+) ms", summary[name]).groups()]
        for name in ("Latency", "Enqueue Time", "H2D Latency", "GPU Compute Time", "D2H Latency")
    }
    assert values["H2D Latency"] == pytest.approx([2] * 6)
    assert values["D2H Latency"] == pytest.approx([1] * 6)
    assert re.search(
        r"(?m)^.*\[I\] Average on 5 runs - GPU latency: [0-9.]+ ms - Host latency: [0-9.]+ ms \(enqueue [0-9.]+ ms\)$", out
    )
    assert re.search(r"Warmup completed \d+ queries over 30 ms", out)


def test_files_are_trtexecs(tiny_engine, recorded, tmp_path, capsys):
    np.full(SHAPE, 0.5, np.float32).tofile(tmp_path / "in.raw")
    names = {kind: tmp_path / f"{kind}.json" for kind in ("Times", "Output", "Profile", "LayerInfo")}
    exports = [f"--export{kind}={path}" for kind, path in names.items()]
    asked = [f"--loadInputs=blurry:{tmp_path / 'in.raw'}", "--dumpProfile", "--dumpLayerInfo", "--dumpOptimizationProfile"]
    assert main([f"--loadEngine={tiny_engine}", *SHORT, *exports, *asked]) == 0
    out = capsys.readouterr().out
    times, output, profile, layers = (json.loads(path.read_text()) for path in names.values())
    assert len(times) >= 40
    assert times[0]["startComputeMs"] >= 30
    assert times[0]["latencyMs"] == times[0]["computeMs"] == pytest.approx(3)
    assert (output[0]["name"], output[0]["dimensions"]) == ("sharp", "1x5x64x96")
    assert output[0]["values"] == [0.5] * (5 * 64 * 96)
    assert [layer["name"] for layer in profile[1:]] == list(LAYERS)
    assert [layer["averageMs"] for layer in profile[1:]] == list(LAYERS.values())
    assert profile[0]["count"] == len(recorded[0][0].devices[1].lanes) * 50 or profile[0]["count"] >= 40
    assert layers == {"Layers": ["c1/Conv"]}
    assert f"=== Profile ({profile[0]['count']} iterations ) ===" in out
    assert re.search(r"(?m)^.*\[I\] +\d+\.\d\d +0\.2500 +0\.2500 +33\.3   c1/Conv \+ c1/Relu$", out)
    assert re.search(r"(?m)^.*\[I\] +\d+\.\d\d +0\.7500 +0\.7500 +100\.0   Total$", out)
    assert "Model input blurry (profile 0): min=1x5x64x96, opt=1x5x64x96, max=1x5x64x96" in out
    assert all(device.closed for device in recorded[0][0].devices)


def test_numbers_without_words_reach_the_loop(tiny_engine, recorded, capsys):
    opened, made_with = recorded
    made_with["compute"] = (3.0, 4.0)
    more = ("--infStreams=2", "--threads", "--idleTime=2", "--sleepTime=5", "--noCudaGraph", "--useSpinWait", "--noSpinWait")
    assert main([f"--loadEngine={tiny_engine}", *SHORT, *more]) == 0
    told = capsys.readouterr()
    how, gpu = opened[0].how, opened[0].devices[0]
    assert (how.streams, how.cuda_graph, how.spin, how.shape) == (2, False, False, SHAPE)
    assert set(gpu.slept) == {2.0}
    assert gpu.start - gpu.began == 5
    assert "Multiple inference streams are used" in told.err
    assert "GPU compute time is unstable, with coefficient of variance = " in told.err
    assert "--useSpinWait has no effect: it is what happens anyway, --noSpinWait turns it off" in told.err


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [("l0", 1.0), ("l1", 0.25), ("l2", 0.0625), ("lInf", 0.25), ("cos", 0.0)],
)
def test_outputs_are_compared(tiny_engine, recorded, tmp_path, capsys, algorithm, expected):
    """The output is the input here, which is a quarter above its reference."""
    np.full(SHAPE, 0.75, np.float32).tofile(tmp_path / "in.raw")
    np.full(SHAPE, 0.5, np.float32).tofile(tmp_path / "out.raw")
    files = [f"--loadInputs=blurry:{tmp_path / 'in.raw'}", f"--loadRefOutputs=sharp:{tmp_path / 'out.raw'}"]
    asked = [f"--loadEngine={tiny_engine}", *SHORT, *files, f"--accuracyAlgorithm={algorithm}", "--accuracyThreshold=0.05"]
    assert main(asked) == (0 if expected < 0.05 else 1)
    told = capsys.readouterr()
    found = re.search(
        r"Accuracy loss for tensor sharp \((L0|L1|L2|LInf|CosineSimilarity)\): ([0-9.]+)( \[FAIL: >= threshold)?", told.out
    )
    assert float(found[2]) == pytest.approx(expected, abs=1e-6)
    assert bool(found[3]) == ("Accuracy validation FAILED" in told.err) == (expected >= 0.05)
    assert "=== Performance summary ===" in told.out  # trtexec measures all the same
    loose = ["--atol=0.3"] if algorithm == "l0" else ["--accuracyThreshold=0.3"]
    assert main([*asked, *loose]) == 0


def test_samples_that_are_no_numbers_are_wrong(tiny_engine, recorded, tmp_path):
    np.full(SHAPE, np.nan, np.float32).tofile(tmp_path / "nan.raw")
    files = [f"--loadInputs=blurry:{tmp_path / 'nan.raw'}", f"--loadRefOutputs=sharp:{tmp_path / 'nan.raw'}"]
    for algorithm in ("l0", "l2", "cos"):
        asked = [*files, f"--accuracyAlgorithm={algorithm}", "--accuracyThreshold=0.5"]
        assert main([f"--loadEngine={tiny_engine}", *SHORT, *asked]) == 1


def test_pairs_are_numbered(tiny_engine, recorded, tmp_path, capsys):
    for number in (0, 1):
        np.full(SHAPE, number, np.float32).tofile(tmp_path / f"{number}.raw")
    pairs = [f"--refPair={n} --loadInputs=blurry:{tmp_path}/{n}.raw --loadRefOutputs=sharp:{tmp_path}/0.raw" for n in (0, 1)]
    asked = [f"--loadEngine={tiny_engine}", *SHORT, *" ".join(pairs).split(), "--accuracyThreshold=0.5", "--dumpOutput"]
    assert main(asked) == 1
    out = capsys.readouterr().out
    assert re.findall(r"Accuracy loss for tensor sharp \(L0\): ([0-9.]+)", out) == ["0.000000", "1.000000"]
    assert re.search(r"sharp: \(1x5x64x96\)\n.*\[I\] 1 1 1 ", out)  # the last pair's input is the one that is measured


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--loadInputs=blurry:short.raw",), r"short.raw has 12 bytes, expected 122880 bytes, raw float32 samples of 1x5x64x96"),
        (("--loadInputs=blurry:none.raw",), "none.raw: No such file"),
        (("--loadInputs=image:short.raw",), "got 'image:short.raw', expected blurry:FILE"),
        (("--loadRefOutputs=sharp:short.raw",), "no --loadInputs: the reference is of an input"),
        (("--accuracyThreshold=1",), "name it with --loadRefOutputs=sharp:FILE"),
        (("--accuracyAlgorithm=l2", "--atol=1"), "--atol is of --accuracyAlgorithm=l0 alone"),
        (("--percentile=101",), "expected 0 to 100"),
        (("--infStreams=0",), "expected 1 or more"),
        (("--useProfile=1",), "the engine has 1, numbered from 0"),
        (("--shapes=blurry:1x5x64x64",), "--shapes has 1x5x64x64, profile 0 holds 1x5x64x96"),
        (("--maxShapes=blurry:1x5x64x96",), "name the one to run with --shapes"),
        (("--saveEngine=m.engine",), "got --loadEngine and --saveEngine"),
        (("--exportTimes=nowhere/t.json",), "cannot write to the folder .*nowhere"),
        (("--exportTimes=.",), "--exportTimes is ., which is a folder"),
        (("--useRuntime=dispatch",), "use full or lean"),
    ],
)
def test_slips_are_told_before_anything_is_measured(tiny_engine, recorded, tmp_path, monkeypatch, capsys, given, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.raw").write_bytes(b"x" * 12)
    assert main([f"--loadEngine={tiny_engine}", *given]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if "[E]" in line]
    assert len(errors) == 1
    assert re.search(message, errors[0])
    assert not recorded[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.raw"]


def test_engine_is_not_overwritten_by_a_result(tiny_engine, recorded, capsys):
    before = tiny_engine.read_bytes()
    assert main([f"--loadEngine={tiny_engine}", f"--exportTimes={tiny_engine}"]) == 1
    assert "would replace: name another output" in capsys.readouterr().err
    assert tiny_engine.read_bytes() == before


def test_flags_of_a_build_on_a_loaded_engine_are_told(tiny_engine, recorded, capsys):
    assert main([f"--loadEngine={tiny_engine}", *SHORT, "--fp16", "--memPoolSize=workspace:64", "--explicitBatch"]) == 0
    assert "--fp16, --memPoolSize, --explicitBatch: of a build, without effect on an engine" in capsys.readouterr().err


def test_raw_tensors_and_the_version(tiny_engine, recorded, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([f"--loadEngine={tiny_engine}", *SHORT, "--dumpRawBindingsToFile"]) == 0
    assert (tmp_path / "sharp.output.1.5.64.96.Float.raw").stat().st_size == 4 * 5 * 64 * 96
    assert main([f"--loadEngine={tiny_engine}", "--getPlanVersionOnly"]) == 0
    assert f"Plan was created with tensorrt_rtx version {load_record(tiny_engine).version}" in capsys.readouterr().out


def test_long_traces_are_cut_in_the_middle(capsys):
    traces = tuple(Trace(0, n, n + 0.1, n, n, n, n + 1, n + 1, n + 1) for n in range(1000))
    print_performance(Measured(0, traces, 1000.0), 0.0, 1, (99,), 1, TrtexecLog())
    out = capsys.readouterr().out
    assert "... Omitting 600 lines" in out
    assert len(re.findall("Average on 1 runs", out)) == 2 * MOST_LINES


def test_version_in_trtexecs_words():
    assert _version_words("11.4.0.106") == "[TensorRT v110400] [b106]"
    assert _version_words("10.2.0") == "[TensorRT v100200] [b0]"
    assert _version_words("8.6.1") == "[TensorRT v8601]"


@pytest.mark.gpu
def test_on_a_gpu(tiny_model, tmp_path, capsys):
    """Never run yet: builds and measures with whatever TensorRT is installed."""
    times, profile = tmp_path / "times.json", tmp_path / "profile.json"
    asked = [f"--onnx={tiny_model}", "--shapes=blurry:1x5x64x96", "--duration=1", "--includeDataTransfers", "--infStreams=2"]
    assert main([*asked, f"--exportTimes={times}", f"--exportProfile={profile}", "--dumpLayerInfo", "--sleepTime=20"]) == 0
    out = capsys.readouterr().out
    assert "Successfully" not in capsys.readouterr().err
    for call in json.loads(times.read_text()):
        assert 0 < call["computeMs"] <= call["latencyMs"]
        assert call["h2dMs"] > 0
    assert len(json.loads(profile.read_text())) > 10
    assert "&&&& PASSED" in out
