"""Files that somebody else sent: what they say of themselves is not believed, and every way out is a DeployError with a remedy."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from signed import save_signed, unsigned

from calibration.ranges import Ranges
from export.to_bundle import BundleRequest, write_bundle
from runtime import BackendError, DeployError, Engine, InputError, ModelError
from runtime.files.arrays import read_array
from runtime.files.contract import METADATA_KEY, Contract, read_contract
from runtime.files.manifest import MANIFEST, load_manifest, manifest_text
from runtime.files.on_disk import file_sha256
from runtime.files.records import parse_object, read_record

ROOT = Path(__file__).resolve().parents[1]
LONG = "x" * 5000
BACKENDS = ["openvino", "onnxruntime"]


@pytest.fixture(scope="module")
def made(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("strangers") / "tiny.bundle"
    write_bundle(BundleRequest(tiny_model, (), folder))
    return folder


@pytest.fixture
def bundle(made, tmp_path):
    return shutil.copytree(made, tmp_path / "copy.bundle")


def rewrite(bundle, change):
    """The manifest changed, and true again of what lies beside it."""
    values = json.loads((bundle / MANIFEST).read_text())
    values["files"] = {name: file_sha256(bundle / name) for name in values["files"]}
    change(values)
    (bundle / MANIFEST).write_text(manifest_text(values))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": %s}' % ("9" * 400), "a number has 400 digits, expected 20 at most"),
        ('{"a": "\\ud800"}', "surrogates not allowed"),
        ("[" * 100_000, "it nests too deeply"),
    ],
)
def test_json_with_numbers_and_letters_that_are_none(text, reason):
    with pytest.raises(ValueError, match=reason):
        parse_object(text)


@pytest.mark.parametrize("value", [10**400, float("nan"), float("inf"), True, "1"])
def test_a_number_that_is_none_is_no_float(value):
    values = json.loads(CONTRACT) | {"parity": {"openvino:fp32": value}}
    with pytest.raises(ValueError, match=r"parity: got .*, expected a number"):
        read_record(Contract, values)


CONTRACT = Contract(5, 8, 0, "f32", None, None, None, None, None, "fp32", "0" * 64).to_json()


@pytest.mark.parametrize(
    "change", [{"multiple": 10**9}, {"frames": 10**9}, {"bits": 10**9}, {"io": "u8"}, {"io": "u16", "bits": 8}, {"precision": LONG}]
)
def test_a_contract_that_would_take_all_memory_is_none(change):
    with pytest.raises(ModelError, match=r"cannot be true .*: export it again") as refused:
        Contract.from_json(json.dumps(json.loads(CONTRACT) | change))
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda values: values["goldens"][0].update(height=20_000, width=20_000), "golden frames are 20000x20000, expected 1 to"),
        (lambda values: values["goldens"][0].update(height=10**9), "expected 1 to"),
        (lambda values: values["goldens"][0].update(height=2**63), "expected 1 to"),
        (lambda values: values["members"][0].update(precision="fp3"), "precision 'fp3', expected one of fp32, "),
        (lambda values: values["files"].update({LONG: "0" * 64}), r"files: 'x+\.\.\. is no name of a file in the folder"),
        (lambda values: values["members"][0].update(file=LONG), r"there is no sha256 of 'x+\.\.\."),
        (lambda values: values["members"][0].update(golden=10**400), "a number has 401 digits"),
        (lambda values: values.update(created="\ud800"), "surrogates not allowed"),
    ],
)
def test_a_manifest_is_not_believed(bundle, change, reason):
    rewrite(bundle, change)
    with pytest.raises(ModelError, match=reason):
        Engine(bundle)


def header(shape, descr="<f4", rest=b""):
    """A .npy file of version 1."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + rest


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (header((5, 10**9, 10**9)), "it has 0 bytes, its header says 20000000000000000000"),
        (header((2**63, 2**63, 5)), "its header says"),
        (header((5, -1, -4)), "expected frames in rows"),
        (header((1, 1, 1), "|O", b"12345678"), "it is of object"),
        (header((1, 1, 1), "<f8", b"12345678"), "it is of float64"),
        (header("(" * 500), ""),
        (b"frames, honestly\n", "magic string"),
        (b"PK\x03\x04 a zip", "magic string"),
        (b"", ""),
    ],
)
def test_the_header_of_an_array_is_not_believed(tmp_path, data, reason):
    path = tmp_path / "golden.npy"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=rf"golden\.npy is not a readable array \(.*{reason}.*: make the bundle again"):
        read_array(path)
    with pytest.raises(ModelError, match="No such file"):
        read_array(tmp_path / "none.npy")


def test_arrays_are_read_as_they_were_saved(tmp_path):
    for dtype in (np.uint8, np.uint16, np.float32):
        array = np.arange(30).reshape(5, 2, 3).astype(dtype)
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("kind", ["input", "reference"])
@pytest.mark.parametrize(
    "data", [b"text\n", header((5, 10**6, 10**6)), header((1, 2), rest=bytes(8)), header((1, 1, 1), rest=bytes(4))]
)
def test_golden_frames_are_not_believed(bundle, kind, data):
    (bundle / getattr(load_manifest(bundle).goldens[0], kind)).write_bytes(data)
    rewrite(bundle, lambda values: None)
    with pytest.raises(DeployError, match=r"make the bundle again|self-test reached"):
        Engine(bundle, fallback=False)


@pytest.mark.parametrize("name", [LONG, f"{LONG}.onnx", f"{LONG}.engine", "y" * 251 + ".trt", "a\0b.onnx", "a\0b", "\ud800.onnx"])
def test_names_that_no_file_can_have(name, tmp_path):
    with pytest.raises(DeployError) as refused:
        Engine(tmp_path / name)
    assert len(str(refused.value)) < 500


PIPES = """
import os, sys
from pathlib import Path
from runtime import DeployError, Engine
for name in ("m.onnx", "x.bundle/manifest.json", "m.engine", "n.engine.json"):
    path = Path(sys.argv[1], name)
    path.parent.mkdir(exist_ok=True)
    os.mkfifo(path)
Path(sys.argv[1], "n.engine").touch()
for name in ("m.onnx", "x.bundle", "m.engine", "n.engine"):
    try:
        Engine(Path(sys.argv[1], name))
    except DeployError as error:
        print(error)
"""


def test_pipes_are_no_files(tmp_path):
    command = [sys.executable, "-c", PIPES, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    told = done.stdout.splitlines()
    assert len(told) == 4, done.stdout
    assert all("it is no regular file" in line for line in told[:2])
    assert all("no such engine file" in line or "has no record" in line for line in told[2:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_whose_output_has_another_rank_or_name(tiny_model, tmp_path, backend):
    window, axes = np.zeros((1, 5, 16, 16), np.float32), onnx.numpy_helper.from_array(np.array([0]), "axes")
    proto = onnx.load(tiny_model)
    proto.graph.initializer.append(axes)
    proto.graph.node.append(onnx.helper.make_node("Unsqueeze", [proto.graph.output[0].name, "axes"], ["ranked"]))
    proto.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("ranked", onnx.TensorProto.FLOAT, None))
    with (
        Engine(save_signed(proto, tmp_path / "other.onnx"), backend, "fp32") as engine,
        pytest.raises(BackendError, match="failed on shape"),
    ):
        engine.run(window)
    for node in proto.graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                names[place] = {"sharp": "plain", "ranked": "sharp"}.get(name, name)
    proto.graph.output[0].name = "sharp"
    with Engine(save_signed(proto, tmp_path / "rank.onnx"), backend, "fp32") as engine:
        for call in (engine.run, lambda given: engine.submit(given).result(60)):
            with pytest.raises(
                ModelError, match=r"makes \(1, 1, 5, 16, 16\) float32 of \(1, 5, 16, 16\) float32, expected the same"
            ):
                call(window)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", [b"\xff\xfe", b"\xed\xa0\x80"])
def test_text_in_a_model_that_is_no_unicode(tiny_model, tmp_path, backend, text):
    """Names of nodes, operators, tensors and of the graph; some libraries take some of them."""
    data, window = unsigned(tiny_model), np.zeros((1, 5, 16, 16), np.float32)
    for name in (b"blurry", b"sharp", b"Conv", b"r2.weight", METADATA_KEY.encode()):
        (tmp_path / "m.onnx").write_bytes(data.replace(name, text + name[len(text) :]))
        try:
            with Engine(tmp_path / "m.onnx", backend, "fp32") as engine:
                engine.run(window)
        except DeployError:
            pass


def test_a_file_of_half_a_gigabyte_of_json_is_not_read(bundle):
    with (bundle / MANIFEST).open("r+b") as file:
        file.truncate(1 << 29)
    with pytest.raises(ModelError, match="it has 536870912 bytes, expected 67108864 at most"):
        Engine(bundle)


@pytest.mark.parametrize("change", [{"frames": "5"}, {"residual": "no"}, {"cell_frames": 3}, {"temporal": 1}, {"frames": None}])
def test_wrong_types_in_the_configuration_of_a_checkpoint(tiny_checkpoint, tmp_path, change):
    with pytest.raises(checkpoints().CheckpointError, match="is not a readable checkpoint"):
        reconfigured(tiny_checkpoint, tmp_path / "c.safetensors", change)


def test_a_checkpoint_that_would_take_all_memory(tiny_checkpoint, tmp_path):
    with pytest.raises(checkpoints().CheckpointError, match=r"does not fit the configuration|cannot be"):
        reconfigured(tiny_checkpoint, tmp_path / "c.safetensors", {"widths": {"spatial_state": 10**6}})


def checkpoints():
    return pytest.importorskip("model.checkpoint")


def reconfigured(source, path, change):
    """Loads a copy whose configuration says something else."""
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(source, framework="np") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 - not a dict
    key = checkpoints().CONFIG_KEY
    save_file(tensors, path, {**metadata, key: json.dumps(json.loads(metadata[key]) | change)})
    return checkpoints().load_checkpoint(path)


ACTIVATION = {"name": "a", "producer": "Conv", "made_by": None, "read_by": [], "known_absmax": None}
TENSOR = {**ACTIVATION, "count": 1, "low": 0.0, "high": 1.0, "nan": 0, "infinite": 0, "histogram": None, "scales": {}}
WINDOW = {"clip": "c", "first": 0, "sha256": "0" * 64, "top": 0, "left": 0, "height": 8, "width": 8}
RANGES = dict.fromkeys(("graph_sha256", "weights_sha256", "checkpoint_sha256"), "0" * 64) | {
    **{"kind": "videodeblur.ranges", "schema": 1, "method": "percentile", "percentile": 99.99},
    **{"windows": [WINDOW], "versions": {}, "tensors": [TENSOR]},
}


@pytest.mark.parametrize(
    "change",
    [
        {"percentile": "much"},
        {"windows": [{**WINDOW, "height": "tall"}]},
        {"tensors": [{**TENSOR, "known_absmax": "one"}]},
        {"tensors": [{**TENSOR, "high": 10**400}]},
        {"tensors": [{**TENSOR, "read_by": "conv"}]},
        {"tensors": "text"},
    ],
)
def test_text_where_ranges_have_numbers(tmp_path, change):
    (tmp_path / "ranges.json").write_text(json.dumps(RANGES))
    assert Ranges.load(tmp_path / "ranges.json").windows[0].height == 8
    (tmp_path / "ranges.json").write_text(json.dumps(RANGES | change))
    with pytest.raises(InputError, match=r"is not a usable ranges\.json .*: run videodeblur calibrate again"):
        Ranges.load(tmp_path / "ranges.json")


@pytest.mark.parametrize("backend", BACKENDS)
def test_too_little_memory_is_told(tiny_model, backend):
    """What a library does without memory is its own; what is raised is ours."""
    code = f"""
import numpy as np, resource
from runtime import DeployError, Engine
try:
    with Engine({str(tiny_model)!r}, {backend!r}, "fp32") as engine:
        window = np.zeros((1, 5, 2160, 3840), np.float32)
        now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (now + (150 << 20), resource.RLIM_INFINITY))
        engine.run(window)
except DeployError as error:
    print("told:", error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.startswith("told:"), done.stderr


def test_a_contract_that_is_read_is_the_one_that_was_written(tiny_model):
    assert read_contract(tiny_model) == Contract.from_json(read_contract(tiny_model).to_json())
