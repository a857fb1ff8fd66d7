"""trtexec's command line, on engines that TensorRT-RTX builds without a GPU."""

import json
import os
import shutil
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from calibration.collect_ranges import CollectOptions, collect
from calibration.fingerprints import model_hash
from export import make_engine as maker
from export.engine.builder import BuiltEngine
from export.engine.built_types import inspector_types
from export.engine.flags import parse_flags
from export.engine.request import MIN_TYPE_SHARE
from export.graph.layer_precision import asked_precisions, layers
from export.graph.qdq_rules import QdqOptions
from export.make_engine import make_engine
from export.shipped_clips import DEFAULT_CLIP
from export.to_engine import main
from export.to_qdq import QuantizeRequest, to_qdq
from export.to_trt8 import for_tensorrt_8, to_trt8
from runtime import InputError, ModelError
from runtime.engine import Engine
from runtime.errors import BackendError
from runtime.files.contract import read_contract, read_versions
from runtime.files.engine_record import Profile, load_record

RTX = ("--runtime", "rtx")


@pytest.fixture(scope="module")
def ranges(tiny_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("ranges") / "ranges.json"
    collect(CollectOptions(DEFAULT_CLIP, tiny_model, windows=1, crop=(64, 96))).save(path)
    return path


def flags(model, *more):
    return parse_flags([f"--onnx={model}", *RTX, *more])


def test_trtexecs_forms(tiny_model):
    request = flags(
        tiny_model,
        "--saveEngine=m.engine",
        "--minShapes=blurry:1x5x64x64",
        "--optShapes=blurry:1x5x96x96",
        "--maxShapes='blurry':2x5x128x128",
        "--memPoolSize=workspace:512,tacticSharedMem:64K",
        "--builderOptimizationLevel",
        "4",
        "--noTF32",
        "--tacticSources=-EDGE_MASK_CONVOLUTIONS,+CUDNN",
        "--hardwareCompatibilityLevel=ampere+",
        "--tilingOptimizationLevel=2",
        "--profilingVerbosity=detailed",
        "--computeCapabilities=8.6,sm89,120",
        "--sparsity=enable",
    )
    assert str(request.engine) == "m.engine"
    assert request.profiles == (Profile((1, 5, 64, 64), (1, 5, 96, 96), (2, 5, 128, 128)),)
    assert request.memory_pools == (("WORKSPACE", 512 << 20), ("TACTIC_SHARED_MEMORY", 64 << 10))
    assert (request.optimization_level, request.tf32, request.tiling_level, request.sparsity) == (4, False, "moderate", True)
    assert request.tactic_sources == ("-EDGE_MASK_CONVOLUTIONS", "+CUDNN")
    assert request.hardware_compatibility == "ampere+"
    assert request.compute_capabilities == ((8, 6), (8, 9), (12, 0))


def test_profiles_are_numbered(tiny_model):
    two = (
        "--profile=0",
        "--shapes=blurry:1x5x64x64",
        "--profile=1",
        "--minShapes=blurry:1x5x64x64",
        "--maxShapes=blurry:1x5x96x96",
    )
    assert flags(tiny_model, *two).profiles == (
        Profile(*[(1, 5, 64, 64)] * 3),
        Profile((1, 5, 64, 64), (1, 5, 96, 96), (1, 5, 96, 96)),
    )
    with pytest.raises(InputError, match=r"got profiles \[1\], expected 0 to 0"):
        flags(tiny_model, "--profile=1", "--shapes=blurry:1x5x64x64")


def test_one_profile_for_each_preset(tiny_model):
    profiles = flags(tiny_model, "--for", "720p,1080p,100x50,98x52").profiles
    assert [profile.opt for profile in profiles] == [(1, 5, 720, 1280), (1, 5, 1080, 1920), (1, 5, 56, 104)]
    assert all(profile.min == profile.max for profile in profiles)
    with pytest.raises(InputError, match="got --for and shapes"):
        flags(tiny_model, "--for=720p", "--shapes=blurry:1x5x64x64")


@pytest.mark.parametrize(
    ("given", "types"),
    [
        ((), (None, "fp32")),
        (("--fp16",), (None, "fp16")),
        (("--best",), ("int8", "fp16")),
        (("--int8", "--bf16"), ("int8", "bf16")),
    ],
)
def test_precision_flags(tiny_model, given, types):
    request = flags(tiny_model, *given)
    assert (request.quantised, request.rest) == types


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--fp61", "did you mean --fp16"),
        ("--OptShapes=blurry:1x5x64x64", "did you mean --optShapes"),
        ("--timingCachefile=x", "did you mean --timingCacheFile"),
        ("model.onnx", "name the model with --onnx=model.onnx"),
        ("--int4", "use --int8"),
        ("--calibProfile=1", "use --calib DATA"),
        ("--inputIOFormats=fp16:chw", r"to_onnx\.py --io u8"),
        ("--for=721p", "expected some of 360p"),
        ("--optShapes=image:1x3x64x64", "expected blurry:NxFxHxW"),
        ("--optShapes=blurry:1,5,64,64", "expected blurry:NxFxHxW"),
        ("--memPoolSize=workspce:3", "expected one of workspace"),
        ("--memPoolSize=workspace:lots", "expected a number of MiB"),
        ("--minTypeShare=110%", "expected 0 to 1"),
        ("--computeCapabilities=ada", "such as 8.6,8.9"),
        ("--hardwareCompatibilityLevel=hopper", "invalid choice: 'hopper'"),
        ("--builderOptimizationLevel=9", "expected 0 to 5"),
        ("--layerPrecisions=fp16", "PATTERN:TYPE"),
        ("--tacticSources=CUBLAS", r"expected a \+ or - before each"),
        ("--loadEngine=m.engine", "go together"),
        ("--fp32", "keeps the types of the file: leave it out"),
        ("--safe", "not offered"),
        ("--maxBatch=4", "the first of --optShapes"),
        ("--nothingLikeIt", "no flag --nothingLikeIt; --help lists them"),
        ("--saveEngine=", "--saveEngine: got an empty name"),
        ("--exportLayerInfo= ", "--exportLayerInfo: got an empty name"),
        ("--saveEngine=s3://bucket/m.engine", "got the address"),
        ("--saveEngine=model", r"expected a name that ends with \.engine, \.plan, \.trt"),
        ("--saveEngine=m.bin", "nothing opens another"),
        ("--explicitBatch=12", "--explicitBatch takes no value, got '12': write it alone"),
        ("--sparsity=force", "changes the picture"),
        ("--layerPrecisions=c1*:fp61", "got the type 'fp61', expected one of fp32"),
        ("--calib=nowhere", "no such file or folder"),
    ],
)
def test_what_is_not_understood(tiny_model, given, message):
    with pytest.raises(InputError, match=message):
        flags(tiny_model, given)


def test_contradiction(tiny_model):
    with pytest.raises(InputError, match="--fp16 and --bf16, expected one of them"):
        flags(tiny_model, "--fp16", "--bf16")


def test_two_ways_to_name_layers(tiny_model):
    with pytest.raises(InputError, match="--layerPrecisions and --precision, expected one of them"):
        flags(tiny_model, "--layerPrecisions=c1*:fp32", "--precision=p.json")


def test_folder_that_cannot_be_written_is_told_at_once(tiny_model, tmp_path):
    (tmp_path / "file").touch()
    told = []
    for engine in (tmp_path / "file" / "m.engine", "/proc/m.engine"):
        with pytest.raises(InputError, match="name another with --saveEngine"):
            make_engine(flags(tiny_model, "--fp16", f"--saveEngine={engine}", "--for=96x64"), say=told.append)
    assert not told


def test_flags_of_old_scripts_are_read_and_told(tiny_model):
    found = flags(
        tiny_model, "--explicitBatch", "--useCudaGraph", "--iterations=10", "--workspace=4096", "--heuristic", "--buildOnly"
    )
    told = " ".join(found.notes)
    for flag in ("--explicitBatch", "--useCudaGraph", "--iterations", "--heuristic", "--buildOnly"):
        assert flag in told
    assert found.memory_pools == (("WORKSPACE", 4096 << 20),)
    assert found.optimization_level == 2


def test_fp16_engine_from_the_command_line(tiny_model, ranges, tmp_path, capsys):
    engine = tmp_path / "m.engine"
    asked = [f"--onnx={tiny_model}", f"--saveEngine={engine}", "--fp16", f"--ranges={ranges}", *RTX]
    asked.append("--optShapes=blurry:1x5x64x96")
    assert main([*asked, f"--exportLayerInfo={tmp_path / 'layers.txt'}"]) == 0
    assert "convolution FLOPs run in 100.0% fp16" in capsys.readouterr().out
    record = load_record(engine)
    assert record.type_shares == {"fp16": 1.0}
    assert record.contract.precision == "fp16"
    assert record.contract.parity == {}
    assert "Datatype: Half" in (tmp_path / "layers.txt").read_text()
    assert "Layers:" in (tmp_path / "m.engine.log").read_text()
    with Engine(tmp_path / "tiny.fp16.onnx", "onnxruntime") as typed:
        assert typed.contract.precision == "fp16"
    assert main([f"--loadEngine={engine}", "--getPlanVersionOnly"]) == 0
    assert capsys.readouterr().out == f"tensorrt_rtx {record.version}\n"


def test_one_engine_takes_several_sizes(tiny_model, tmp_path, capsys):
    engine = tmp_path / "m.engine"
    assert main([f"--onnx={tiny_model}", "--bf16", "--for=96x64,64x96", f"--saveEngine={engine}", *RTX]) == 0
    told = capsys.readouterr().out
    assert "input 1x5x64x96 or 1x5x96x64" in told
    assert "run in 100.0% bf16" in told
    assert f"videodeblur bundle --engine {engine} --onnx {tiny_model}" in told
    assert ("not measured here (" in told) == (load_record(engine).measured is None)
    record = load_record(engine)
    assert [record.profile_of((1, 5, *size)) for size in ((64, 96), (96, 64))] == [0, 1]
    assert (record.narrowed.batch, record.narrowed.height, record.narrowed.width) == (1, None, None)


def test_int8_calibrates_by_itself(tiny_model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(maker, "CALIBRATION_WINDOWS", 1)
    engine = tmp_path / "m.engine"
    assert main([f"--onnx={tiny_model}", "--int8", "--for=96x64", f"--saveEngine={engine}", *RTX]) == 0
    assert "no --ranges: measuring 1 windows of" in capsys.readouterr().err
    assert load_record(engine).type_shares["int8"] > 0.2
    assert load_record(engine).contract.precision == "int8"
    assert list(tmp_path.glob("*.ranges.json"))


def test_int8_is_refused_where_it_would_run_in_something_else(tiny_model, ranges, tmp_path, capsys):
    """TensorRT-RTX builds INT8 for Turing, and runs it in another type."""
    engine = tmp_path / "turing.engine"
    asked = [f"--onnx={tiny_model}", f"--saveEngine={engine}", "--int8", f"--ranges={ranges}", "--for=96x64", *RTX]
    assert main([*asked, "--computeCapabilities=7.5"]) == 1
    message = capsys.readouterr().err
    assert "of the convolution FLOPs that asked for less than fp32 got it, expected 90%" in message
    assert "turing.engine.log" in message
    assert not engine.exists()


def test_types_of_single_layers_in_a_new_folder(tiny_model, ranges, tmp_path):
    asked = ("--fp16", f"--ranges={ranges}", f"--saveEngine={tmp_path / 'new' / 'm.engine'}", "--for=96x64")
    made = make_engine(flags(tiny_model, "--layerPrecisions=c1*:fp32,r?:fp32", *asked))
    assert set(made.record.type_shares) == {"fp16", "fp32"}
    assert made.record.contract.precision == "mixed"
    with pytest.raises(InputError, match="no layer is called 'nothing'"):
        make_engine(flags(tiny_model, "--layerPrecisions=nothing:fp16", *asked))


def test_typed_file_keeps_its_types(tiny_model, tmp_path):
    made = make_engine(flags(tiny_model, "--bf16", f"--saveEngine={tmp_path / 'm.engine'}", "--for=96x64"))
    again = make_engine(flags(made.onnx, f"--saveEngine={tmp_path / 'n.engine'}", "--for=96x64"))
    assert again.onnx == made.onnx
    assert again.record.type_shares == {"bf16": 1.0}
    for given in (["--fp16"], ["--int8", "--bf16"], ["--best"], ["--layerPrecisions=c1*:fp32"], ["--precision=p.json", "--bf16"]):
        with pytest.raises(InputError, match="is in bf16 already"):
            make_engine(flags(made.onnx, *given, f"--saveEngine={tmp_path / 'o.engine'}", "--for=96x64"))


def test_typed_file_and_the_type_of_its_rest(int8, tmp_path):
    asked = (f"--saveEngine={tmp_path / 'm.engine'}", "--for=96x64")
    assert make_engine(flags(int8, "--int8", *asked)).onnx == int8
    with pytest.raises(InputError, match="is in int8 already, got --fp16 --int8"):
        make_engine(flags(int8, "--int8", "--fp16", *asked))  # its rest is fp32


def test_verbosity_that_hides_the_types(tiny_model, tmp_path):
    made = make_engine(flags(tiny_model, "--profilingVerbosity=none", f"--saveEngine={tmp_path / 'm.engine'}", "--for=96x64"))
    assert made.record.type_shares == {}
    assert "--profilingVerbosity=detailed" in made.notes[-1]


def test_commands_errors_are_one_line(tiny_model, capsys):
    assert main([f"--onnx={tiny_model}", "--fp61"]) == 1
    assert capsys.readouterr().err == "error: no flag --fp61, did you mean --fp16?; --help lists them\n"
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("error: name the model with --onnx=FILE")


def test_flags_without_effect_on_rtx_are_told(tiny_model):
    found = flags(tiny_model, "--device=7", "--builderOptimizationLevel=5", "--hardwareCompatibilityLevel=ampere+")
    assert found.notes == ("TensorRT-RTX's builder ignores --builderOptimizationLevel, --device, --hardwareCompatibilityLevel",)
    assert not flags(tiny_model, "--device=0").notes
    assert flags(tiny_model, "--strictTypes").notes == (
        "--strictTypes has no effect: types are written into the graph, which all but TensorRT 8.6 obey",
    )


@pytest.mark.parametrize("given", [["--onnx="], ["--onnx=", "--for=720p"], ["--onnx=https://x.org/model.onnx"]])
def test_empty_name_or_address_of_a_model(given, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*given, *RTX]) == 1
    assert capsys.readouterr().err.startswith("error: argument --onnx: got ")
    assert not list(tmp_path.iterdir())


def test_misspelt_model_makes_no_folder(tmp_path, capsys):
    assert main([f"--onnx={tmp_path / 'mdoel.onnx'}", f"--saveEngine={tmp_path / 'new' / 'm.engine'}", *RTX]) == 1
    assert "No such file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--saveEngine", "--exportLayerInfo"])
@pytest.mark.parametrize("way", ["as it is", "relative", "link", "hard link", "through a linked folder"])
def test_source_is_not_overwritten(tiny_model, tmp_path, monkeypatch, flag, way):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "model.engine"  # whatever its name
    shutil.copyfile(tiny_model, source)
    (tmp_path / "folder").symlink_to(tmp_path)
    output = tmp_path / "other.engine"
    if way == "link":
        output.symlink_to(source)
    elif way == "hard link":
        os.link(source, output)
    else:
        output = {"as it is": source, "relative": "model.engine"}.get(way, tmp_path / "folder" / "model.engine")
    engine = () if flag == "--saveEngine" else ("--saveEngine=m.engine",)
    with pytest.raises(InputError, match=r"is the input .* too"):
        make_engine(flags(source, f"{flag}={output}", *engine, "--for=96x64"))
    assert source.read_bytes() == tiny_model.read_bytes()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--shapes=blurry:1x5x100x50",), "has 1x5x100x50, expected .* multiples of 8: take 1x5x104x56, or --for, which pads"),
        (("--minShapes=blurry:1x5x60x64", "--maxShapes=blurry:1x5x64x64"), "take 1x5x64x64"),
        ((), r"\?x5x\?x\? is free in the file: name its sizes with --optShapes"),
        (("--shapes=blurry:1x4x64x64",), r"the profile has 1x4x64x64, the model takes \?x5x\?x\?"),
        (("--shapes=blurry:1x5x64",), "the profile has 1x5x64"),
        (("--for=96x64", "--layerPrecisions=c1*:fp32,nothing:int8"), "no layer is called 'nothing'"),
        (("--for=96x64", "--precision=nowhere.json"), "nowhere.json: No such file"),
    ],
)
def test_slips_are_told_before_anything_runs(tiny_model, tmp_path, given, message):
    told, started = [], time.process_time()
    with pytest.raises(InputError, match=message):
        make_engine(flags(tiny_model, "--int8", f"--saveEngine={tmp_path / 'new' / 'm.engine'}", *given), say=told.append)
    assert time.process_time() - started < 1
    assert not told
    assert not list(tmp_path.iterdir())


def test_calibration_cache_is_no_data(tiny_model, tmp_path):
    (tmp_path / "calib.cache").write_text("TRT-8600-EntropyCalibration2\nblurry: 3c010a14\n")
    with pytest.raises(InputError, match="is TensorRT's calibration cache: name a video or a folder"):
        flags(tiny_model, "--int8", f"--calib={tmp_path / 'calib.cache'}")


@pytest.mark.parametrize("place", ["nowhere/layers.txt", "."])
def test_place_of_the_layers_is_tried_before_the_build(tiny_model, tmp_path, place):
    asked = (f"--exportLayerInfo={tmp_path / place}", f"--saveEngine={tmp_path / 'm.engine'}", "--for=96x64")
    with pytest.raises(InputError, match="name another with --exportLayerInfo"):
        make_engine(flags(tiny_model, *asked))
    assert not list(tmp_path.iterdir())


def test_files_of_the_user_are_not_replaced(tiny_model, ranges, tmp_path):
    shutil.copyfile(tiny_model, tmp_path / "tiny.fp16.onnx")
    asked = ("--fp16", f"--ranges={ranges}", f"--saveEngine={tmp_path / 'm.engine'}", "--for=96x64")
    with pytest.raises(InputError, match=r"tiny\.fp16\.onnx is there and no build has written it"):
        make_engine(flags(tiny_model, *asked))
    (tmp_path / "tiny.fp16.onnx").unlink()
    made = make_engine(flags(tiny_model, *asked))
    assert make_engine(flags(tiny_model, *asked)).onnx == made.onnx  # those of a build are


@pytest.mark.parametrize("flag", ["--refit", "--stripWeights"])
def test_what_needs_a_gpu_says_so(tiny_model, tmp_path, flag):
    try:
        make_engine(flags(tiny_model, flag, f"--saveEngine={tmp_path / 'm.engine'}", "--for=96x64"))
    except BackendError as error:
        assert "with --refit or --stripWeights TensorRT-RTX needs a GPU" in str(error)  # noqa: PT017 - with one it builds


@pytest.fixture(scope="module")
def int8(tiny_model, ranges, tmp_path_factory):
    """INT8 in fp32."""
    return to_qdq(QuantizeRequest(tiny_model, ranges, tmp_path_factory.mktemp("int8") / "int8.onnx")).path


def test_graph_for_tensorrt_8_computes_the_same(int8, tmp_path):
    lowered = for_tensorrt_8(onnx.load(int8))
    assert lowered.opset_import[0].version == 17
    constants = {tensor.name for tensor in lowered.graph.initializer}
    from_constants = [node for node in lowered.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    assert not from_constants  # 8.6 takes no stored codes
    assert to_trt8(int8, tmp_path / "lowered.onnx") >= 80
    window = np.random.default_rng(0).random((1, 5, 64, 96), np.float32)
    with Engine(int8, "onnxruntime") as a, Engine(tmp_path / "lowered.onnx", "onnxruntime") as b:
        np.testing.assert_allclose(a.run(window), b.run(window), atol=1e-5)
    assert read_contract(tmp_path / "lowered.onnx") == replace(
        read_contract(int8), parity={}, graph_sha256=model_hash(onnx.load(tmp_path / "lowered.onnx"))
    )


def test_types_are_read_through_weights_that_are_quantised_in_the_graph(int8):
    model = onnx.load(int8)
    lowered = for_tensorrt_8(model)
    assert layers(lowered) == layers(model)
    assert asked_precisions(lowered) == asked_precisions(model)
    assert "int8" in asked_precisions(lowered).values()


def test_rest_that_opset_17_cannot_say(tiny_model, ranges, tmp_path):
    typed = to_qdq(QuantizeRequest(tiny_model, ranges, tmp_path / "int8.onnx", how=QdqOptions(rest="fp16"))).path
    before = set(tmp_path.iterdir())
    with pytest.raises(ModelError, match="--rest fp32"):
        to_trt8(typed, tmp_path / "lowered.onnx")
    with pytest.raises(InputError, match="cannot write"):
        to_trt8(tiny_model, tmp_path / "nowhere" / "lowered.onnx")
    assert set(tmp_path.iterdir()) == before


def test_builder_that_chooses_types_by_itself(tiny_model, int8, tmp_path):
    """TensorRT 8.6's half of the work, which needs no TensorRT."""
    to_trt8(int8, tmp_path / "lowered.onnx")
    assert maker._builder_types(tmp_path / "lowered.onnx", ()) == ("int8",)
    both = flags(tmp_path / "lowered.onnx", "--int8", "--fp16")
    assert maker._builder_types(both.onnx, maker._asked(both)) == ("fp16", "int8")
    assert maker.typed_graph(both, None, False, print) == (both.onnx, (maker.WEAK_FP16,))
    assert maker.typed_graph(flags(tiny_model, "--fp16"), None, False, print) == (
        tiny_model,
        (maker.WEAK_FP16,),
    )
    old = SimpleNamespace(name="tensorrt", version="8.6.0")
    lowered = maker._readable_graph(tiny_model, tmp_path / "m.engine", old)
    assert read_versions(lowered)[1] == 17
    assert maker._readable_graph(lowered, tmp_path / "m.engine", old) == lowered
    with pytest.raises(InputError, match="need TensorRT 10 or newer"):
        maker.checked(flags(tiny_model, "--fp16", "--layerPrecisions=c1*:fp32"), False)
    with pytest.raises(InputError, match="is in int8 already"):
        maker.checked(flags(both.onnx, "--fp16"), False)


INSPECTED = {  # what the inspectors of TensorRT 8 to 10, and of 11, call a layer's types
    "8": {
        "Name": "c1/Conv + c1/Relu",
        "Inputs": [{"Name": "x", "Format/Datatype": "Channel major FP16 format where channel % 8 == 0"}],
    },
    "10": {
        "Name": "__myl_Conv",
        "Inputs": [{"Name": "x", "Format/Datatype": "Half NHWC"}],
        "Metadata": "[ONNX Layer: c1/Conv]\x1e[ONNX Layer: c1/Relu]",
    },
    "11": {"Name": "conv", "Inputs": [{"Name": "x", "Format": "NHWC", "Datatype": "Half"}], "Metadata": "[ONNX Layer: c1/Conv]"},
}


@pytest.mark.parametrize("version", INSPECTED)
def test_inspectors_of_all_versions(version):
    assert inspector_types(json.dumps({"Layers": [INSPECTED[version]]})) == {"c1/Conv": "fp16"}


def inspected(*found):
    return json.dumps({"Layers": list(found)})


HIDDEN = {"Name": "x", "Format/Datatype": "N/A due to dynamic shapes"}


def test_dynamic_shapes_leave_the_type_of_the_weights():
    layer = {"Name": "c1/Conv + c1/Relu [profile 1]", "LayerType": "CaskConvolution", "Inputs": [HIDDEN]}
    typed = {**layer, "Weights": {"Type": "Int8", "Count": 9}}
    both = {**typed, "Name": "c2/Conv || c3.weight + c3/Conv [profile 1]"}
    assert inspector_types(inspected(typed, both)) == dict.fromkeys(("c1/Conv", "c2/Conv", "c3/Conv"), "int8")
    with pytest.raises(ModelError, match="tells the type of no convolution: build for one shape"):
        inspector_types(inspected(layer))


def test_copies_are_no_convolutions():
    copy = {
        "Name": "Reformatting CopyNode for Input Tensor 0 to c1.weight + c1.weight/QuantizeLinear + c1/Conv",
        "LayerType": "Reformat",
        "Inputs": [{"Name": "x", "Format/Datatype": "Row major linear FP32"}],
        "Metadata": "",
    }
    real = {"Name": "c1.weight + c1/Conv", "LayerType": "CaskConvolution", "Inputs": [{"Format/Datatype": "Int8 NC/32HW32"}]}
    assert inspector_types(inspected(copy, real)) == {"c1/Conv": "int8"}


def test_what_the_inspector_hides_is_no_refusal(int8, tmp_path):
    """As full TensorRT would answer for the engine of `int8`; none was asked."""

    def judged(kinds):
        told = [{"Name": node, "Inputs": [HIDDEN], "Weights": {"Type": kind} if kind else {}} for node, kind in kinds.items()]
        built = BuiltEngine(b"", "tensorrt", "10.3.0", (), (Profile(*[(1, 5, 64, 96)] * 3),), inspected(*told), 0.0, (), ())
        return maker._type_shares(int8, built, "fp32", MIN_TYPE_SHARE, tmp_path)

    asked = asked_precisions(onnx.load(int8))
    nodes = {node: asked[name] for name, layer in layers(onnx.load(int8)).items() for node in layer.nodes}
    shares, notes = judged(nodes)
    assert set(shares) == {"int8", "fp32"}
    assert not notes
    first = next(node for node, kind in nodes.items() if kind == "int8")
    shares, notes = judged({**nodes, first: None})
    assert 0 < shares["not read"] < 0.2
    assert notes == (f"the library does not tell the type of {shares['not read']:.1%} of the convolution FLOPs",)
    assert judged(dict.fromkeys(nodes))[0] == {}
    with pytest.raises(BackendError, match="expected 90%"):
        judged(dict.fromkeys(nodes, "Float"))


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": ["c1/Conv"]}'])
def test_inspector_that_tells_nothing(text):
    with pytest.raises(ModelError):
        inspector_types(text)
