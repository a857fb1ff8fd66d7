"""Model repositories: what is in them, what is refused, and that an earlier one is replaced whole or not at all."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import onnx
import pytest

from export.to_bundle import BundleRequest, write_bundle
from runtime import InputError, ModelError, read_contract
from runtime.files.contract import Contract
from runtime.files.engine_record import load_record, record_path
from runtime.files.manifest import check_files, load_manifest, manifest_text
from runtime.files.on_disk import file_sha256
from runtime.files.records import read_record
from serving.start_triton import main as start
from serving.to_triton import main
from serving.triton_server.config import graph_config, window_config
from serving.triton_server.host import Hosting
from serving.triton_server.options import TritonOptions
from serving.triton_server.repository import write_repository
from serving.triton_server.source import engine_source, onnx_source, plan_source


@pytest.fixture(scope="module")
def bundle(tiny_model, tiny_engine, tmp_path_factory):
    """An engine of TensorRT-RTX, and a model."""
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(BundleRequest(tiny_model, (tiny_engine,), folder / "tiny.bundle"))
    return folder / "tiny.bundle"


@pytest.fixture
def codes_model(tiny_model, tmp_path):
    """The tiny model with the contract of one that takes bytes; its graph is not looked at."""
    return with_contract(tiny_model, tmp_path / "codes.onnx", io="u8", bits=8, color_range="limited")


def with_contract(model, path, **changes):
    proto = onnx.load(model)
    (entry,) = proto.metadata_props
    entry.value = replace(Contract.from_json(entry.value), **changes).to_json()
    onnx.save(proto, path)
    return path


def parameter(text, key):
    """A parameter's JSON, as Triton reads the text."""
    (found,) = re.findall(rf'key: "{key}" value {{ string_value: (".*") }} }}', text)
    return json.loads(json.loads(found))


def test_layout(bundle, tmp_path):
    made = write_repository(TritonOptions(bundle, tmp_path / "repo", version=3))
    assert made.models == ("videodeblur", "videodeblur_stream")
    for name in made.models:
        folder = made.path / name
        more = ["perf_analyzer.json"] if name == "videodeblur" else []
        assert sorted(path.name for path in folder.iterdir()) == ["3", "config.pbtxt", *more]
        assert {path.name for path in (folder / "3").iterdir()} == {"model.py", "model.bundle", "runtime", "serving"}
        assert not check_files(folder / "3" / "model.bundle", load_manifest(bundle))
    assert not [path for path in made.path.rglob("*") if path.is_symlink() or path.suffix in (".pyc", ".pkl")]
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_code_in_the_repository_stands_alone(bundle, tmp_path):
    """What model.py imports, but for Triton's own module, is beside it and wants numpy alone."""
    made = write_repository(TritonOptions(bundle, tmp_path / "repo"))
    for name in made.models:
        version = made.path / name / "1"
        imports = [line for line in (version / "model.py").read_text().splitlines() if re.match("from (runtime|serving)", line)]
        assert len(imports) > 2
        code = "\n".join(
            [
                "import sys",
                f"sys.path[:0] = [{str(version)!r}]",
                *imports,
                "print(HostedEngine.__module__, sys.modules['runtime'].__file__)",
            ]
        )
        found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
        assert found.stdout.split() == ["serving.triton_server.host", str(version / "runtime" / "__init__.py")]


def test_configs(bundle, tmp_path):
    hosting = Hosting("", "openvino", "fp32", 2, 1000, ((48, 64),), 5.0)
    options = TritonOptions(
        bundle, tmp_path / "repo", name="sharp", max_batch=2, queue_delay=0.01, instances=3, gpus=(0, 2), streams=5, hosting=hosting
    )
    write_repository(options)
    windows, streams = ((tmp_path / "repo" / name / "config.pbtxt").read_text() for name in ("sharp", "sharp_stream"))
    for line in (
        'name: "sharp"',
        "max_batch_size: 1",  # of the engine, which takes no more
        '  { name: "blurry_u8" data_type: TYPE_UINT8 dims: [ 5, -1, -1 ] optional: true },',
        "  max_queue_delay_microseconds: 10000",
        "instance_group [ { count: 3 kind: KIND_GPU gpus: [ 0, 2 ] } ]",
        "version_policy { latest { num_versions: 1 } }",
        '  name: "1 x 64x48" batch_size: 1',
    ):
        assert line in windows.splitlines()
    assert "  oldest { max_candidate_sequences: 5 }" in streams.splitlines()
    assert "  max_sequence_idle_microseconds: 5000000" in streams.splitlines()
    for text in (windows, streams):
        assert read_record(Hosting, parameter(text, "hosting")) == replace(hosting, model="model.bundle")
        assert parameter(text, "contract")["frames"] == 5


def test_batches_of_a_model_of_any_size(tiny_model, tmp_path):
    text = window_config(TritonOptions(tiny_model, tmp_path, max_batch=3), engine_source(tiny_model), "model.onnx")
    assert "max_batch_size: 3" in text
    assert "preferred_batch_size: [ 3 ]" in text


def test_single_files_are_served_too(tiny_model, tiny_engine, tmp_path):
    write_repository(TritonOptions(tiny_model, tmp_path / "onnx", streams=0))
    assert file_sha256(tmp_path / "onnx" / "videodeblur" / "1" / "model.onnx") == file_sha256(tiny_model)
    write_repository(TritonOptions(tiny_engine, tmp_path / "engine", streams=0))
    assert load_record(tmp_path / "engine" / "videodeblur" / "1" / "model.engine") == load_record(tiny_engine)


def test_onnxruntime_backend(bundle, tiny_model, tmp_path):
    options = TritonOptions(bundle, tmp_path / "repo", backend="onnxruntime")
    made = write_repository(options)
    assert made.models == ("videodeblur",)
    assert "ONNX Runtime 1.19 or later (IR version 10, opset 20)" in made.source.needs
    assert file_sha256(made.path / "videodeblur" / "1" / "model.onnx") == file_sha256(tiny_model)
    text = (made.path / "videodeblur" / "config.pbtxt").read_text()
    assert '  { name: "blurry" data_type: TYPE_FP32 dims: [ 5, -1, -1 ] }' in text.splitlines()
    assert "# not run by this project's tests" in text


def test_graphs_of_bytes_come_first(tiny_model, codes_model, tmp_path):
    """A bundle whose members take different inputs serves graphs, and no Engine."""
    write_bundle(BundleRequest(tiny_model, (), tmp_path / "x.bundle"))
    shutil.copy(codes_model, tmp_path / "x.bundle")
    path = tmp_path / "x.bundle" / "manifest.json"
    values = json.loads(path.read_text())
    values["files"][codes_model.name] = file_sha256(codes_model)
    values["members"].insert(0, {**values["members"][0], "file": codes_model.name})
    path.write_text(manifest_text(values))
    chosen = onnx_source(tmp_path / "x.bundle")
    assert chosen.path.name == "codes.onnx"
    assert "data_type: TYPE_UINT8 dims: [ 5, -1, -1 ]" in graph_config(
        TritonOptions(chosen.path, tmp_path, backend="onnxruntime"), chosen
    )
    assert onnx_source(tmp_path / "x.bundle", "tiny.onnx").contract.io == "f32"
    with pytest.raises(InputError, match=r"has no member 'other\.onnx', it has codes\.onnx, tiny\.onnx"):
        onnx_source(tmp_path / "x.bundle", "other.onnx")
    with pytest.raises(InputError, match=r"take different inputs .*: make a bundle of one kind"):
        engine_source(tmp_path / "x.bundle")


def test_fixed_graphs_have_their_batch_in_the_dims(tiny_model, tmp_path):
    path = with_contract(tiny_model, tmp_path / "fixed.onnx", batch=2, height=48, width=64, io="u16", bits=10, color_range="full")
    text = graph_config(TritonOptions(path, tmp_path, backend="onnxruntime"), onnx_source(path))
    assert "max_batch_size: 0" in text
    assert "dims: [ 2, 5, 48, 64, 2 ]" in text
    assert "dynamic_batching" not in text


def test_graph_that_is_too_new(tiny_model, tmp_path):
    proto = onnx.load(tiny_model)
    proto.opset_import[0].version = 22
    onnx.save(proto, tmp_path / "new.onnx")
    with pytest.raises(
        ModelError, match=r"IR version 10 and opset 22, ONNX Runtime 1\.19 in Triton 2\.51 reads 10 and 21: export it"
    ):
        onnx_source(tmp_path / "new.onnx")


def test_tensorrt_backend_wants_full_tensorrt(bundle, tiny_model, tiny_engine, tmp_path):
    with pytest.raises(InputError, match="has only engines of tensorrt_rtx, Triton's tensorrt backend runs those of full TensorRT"):
        plan_source(bundle)
    with pytest.raises(InputError, match="has no engine"):
        plan_source(tiny_model)
    full = tmp_path / "full.engine"  # a record alone: the engine of full TensorRT that it tells of was never built
    shutil.copy(tiny_engine, full)
    values = {**json.loads(record_path(tiny_engine).read_text()), "library": "tensorrt", "version": "10.13.3.9"}
    record_path(full).write_text(json.dumps(values))
    made = write_repository(TritonOptions(full, tmp_path / "repo", backend="tensorrt"))
    assert "TensorRT 10.13.3.9, no other; a GPU of compute capability" in made.source.needs
    assert file_sha256(made.path / "videodeblur" / "1" / "model.plan") == file_sha256(full)
    assert "kind: KIND_GPU gpus: [ 0 ]" in (made.path / "videodeblur" / "config.pbtxt").read_text()


def test_changed_bundle(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy.bundle")
    (copy / "tiny.onnx").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"tiny\.onnx was changed"):
        write_repository(TritonOptions(copy, tmp_path / "repo"))
    (copy / "tiny.onnx").unlink()
    with pytest.raises(ModelError, match=r"lacks tiny\.onnx: copy it again"):
        write_repository(TritonOptions(copy, tmp_path / "repo"))
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "pytorch"}, "backend is 'pytorch', expected one of python, onnxruntime, tensorrt"),
        ({"name": "../up"}, r"the name is '\.\./up', expected letters"),
        ({"max_batch": 0}, "max_batch is 0, expected 1 or more"),
        ({"queue_timeout": 0.0}, "times are 0 seconds or more"),
        ({"gpus": (-1,)}, "expected numbers as nvidia-smi counts them"),
        ({"member": "tiny.onnx"}, "takes the first member that proves itself on the server"),
        ({"hosting": Hosting("", backend="cuda")}, "backend is 'cuda', expected one of auto"),
        ({"hosting": Hosting("", warm_up=((0, 5),))}, "sizes are 1 pixel or more"),
    ],
)
def test_options_that_no_server_takes(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        TritonOptions(tmp_path, tmp_path, **change)


def test_command_replaces_only_what_it_wrote(bundle, tiny_model, tmp_path, capsys):
    asked = [str(bundle), str(tmp_path / "repo")]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "--http-address=127.0.0.1 --grpc-address=127.0.0.1 --metrics-address=127.0.0.1" in said
    assert "--server grpc://127.0.0.1:8001 --server-model videodeblur" in said
    assert main(asked) == 1
    assert "is there already: add --overwrite" in capsys.readouterr().err
    assert main([str(tiny_model), asked[1], "--overwrite", "--name", "other", "--streams", "0"]) == 0
    assert [path.name for path in (tmp_path / "repo").iterdir()] == ["other"]
    (tmp_path / "repo" / "diary.txt").write_text("dear")
    assert main([*asked, "--overwrite"]) == 1
    assert "diary.txt was not written by this command" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]
    assert (tmp_path / "repo" / "diary.txt").read_text() == "dear"


def test_start_says_what_is_missing(bundle, tmp_path, capsys):
    assert start([str(tmp_path)]) == 1
    assert "is no model repository: write one with `videodeblur to-triton`" in capsys.readouterr().err
    write_repository(TritonOptions(bundle, tmp_path / "repo", streams=0))
    assert start([str(tmp_path / "repo"), "--python", str(tmp_path / "python")]) == 1
    assert "is no Python that runs" in capsys.readouterr().err
    assert start([str(tmp_path / "repo")]) == 1
    assert "has no nvidia-pytriton: name another with --python; to make one: python -m venv" in capsys.readouterr().err


def test_contract_is_that_of_the_model(tiny_model):
    assert engine_source(tiny_model).contract == read_contract(tiny_model)
