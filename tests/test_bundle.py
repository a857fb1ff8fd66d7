"""Bundles: what is checked before anything runs, which member is taken, and how the others are told."""

import json
import logging
import random
import re
import shutil

import numpy as np
import onnx
import pytest
from signed import save_signed

from export.to_bf16 import to_bf16
from export.to_bundle import BundleRequest, main, write_bundle
from runtime import BackendError, Engine, InputError, ModelError
from runtime.bundle import least_parity, middle, mirrored
from runtime.files.contract import METADATA_KEY
from runtime.files.engine_record import read_engine, record_path
from runtime.files.manifest import MANIFEST, check_files, load_manifest, manifest_text
from runtime.files.on_disk import file_sha256

NO_GPU = "no NVIDIA driver|GPU"


@pytest.fixture(scope="module")
def made(tiny_model, tiny_engine, tmp_path_factory):
    """An engine and two models, in this order."""
    folder = tmp_path_factory.mktemp("bundle")
    bf16 = to_bf16(tiny_model, folder / "tiny.bf16.onnx").path
    write_bundle(BundleRequest(tiny_model, (tiny_engine, bf16), folder / "tiny.bundle"))
    return folder / "tiny.bundle"


@pytest.fixture
def bundle(made, tmp_path):
    """A copy to be damaged."""
    return shutil.copytree(made, tmp_path / "copy.bundle")


def rewrite(bundle, **changes):
    path = bundle / MANIFEST
    path.write_text(manifest_text({**json.loads(path.read_text()), **changes}))


def window():
    return np.random.default_rng(0).random((1, 5, 24, 40), np.float32)


def test_manifest_tells_all(made):
    manifest = load_manifest(made)
    assert [member.file for member in manifest.members] == ["tiny.engine", "tiny.bf16.onnx", "tiny.onnx"]
    assert [member.precision for member in manifest.members] == ["tf32", "bf16", "fp32"]
    assert {path.name for path in made.iterdir()} == {*manifest.files, MANIFEST}
    assert manifest.members[2].parity > 60
    assert manifest.members[2].milliseconds > 0
    assert manifest.versions["onnx"]


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_first_member_that_runs_is_taken(made, caplog):
    with caplog.at_level(logging.WARNING, "videodeblur.bundle"), Engine(made) as engine:
        assert engine.backend == "openvino"
        assert "tiny.bf16.onnx is within" in engine.reason
        assert "not tiny.engine: no NVIDIA driver" in engine.reason
        assert np.abs(engine.run(window()) - window()).max() > 1e-3
    assert "tiny.engine is not used: no NVIDIA driver" in caplog.text


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="this machine has a GPU")
def test_production_that_prefers_to_stop(made):
    with pytest.raises(BackendError, match=NO_GPU):
        Engine(made, fallback=False)
    with pytest.raises(BackendError, match=r"nothing in .* runs here: not tiny\.engine"):
        Engine(made, backend="tensorrt")


def test_backend_picks_among_the_models(made):
    with Engine(made, backend="onnxruntime") as engine:
        assert engine.reason.startswith("onnxruntime fp32: tiny.onnx is within inf dB")


def test_every_flipped_byte_is_refused_by_name(bundle):
    for name in load_manifest(bundle).files:
        path = bundle / name
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 0x10
        path.write_bytes(data)
        with pytest.raises(ModelError, match=rf"{name} was changed: its sha256 is"):
            Engine(bundle)
        data[len(data) // 3] ^= 0x10
        path.write_bytes(data)
    Engine(bundle).close()


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_zeroed_weight_is_not_opened(tiny_model, tmp_path, backend):
    proto = onnx.load(tiny_model)
    weight = max(proto.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weight.raw_data = bytes(len(weight.raw_data))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"m\.onnx was changed after it was made: .* videodeblur adopt"):
        Engine(tmp_path / "m.onnx", backend)


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_no_damaged_byte_of_a_graph_is_run(tiny_model, tmp_path, backend):
    """Flipped, added or left out, anywhere but in the metadata, which tells what the graph is."""
    data, chance = tiny_model.read_bytes(), random.Random(0)
    end = data.index(METADATA_KEY.encode()) - 8
    for kind in range(60):
        at = chance.randrange(end)
        changed = data[: at + kind % 3 // 2] + [bytes([data[at] ^ 1 << chance.randrange(8)]), b"", b"\0"][kind % 3] + data[at + 1 :]
        (tmp_path / "m.onnx").write_bytes(changed)
        if changed != data:
            with pytest.raises(ModelError, match=r"m\.onnx "):
                Engine(tmp_path / "m.onnx", backend)


def test_a_changed_engine_is_not_loaded(tiny_engine, tmp_path):
    """By what reads it for the library, too."""
    path = shutil.copy(tiny_engine, tmp_path / "m.engine")
    shutil.copy(record_path(tiny_engine), record_path(path))
    assert read_engine(path)[1] == tiny_engine.read_bytes()
    with pytest.raises(ModelError, match=r"m\.engine has sha256"):
        read_engine(path, lambda asked: asked.read_bytes() + b"\0" * (asked == path))


def test_every_byte_of_the_manifest_counts(bundle):
    path = bundle / MANIFEST
    data = path.read_bytes()
    for changed in [
        *(data + byte for byte in (b" ", b"\n", b"\0", b"\r")),
        data[:-1],
        data.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + data,
        *(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data), 7)),
        *(data[:at] + b" " + data[at:] for at in range(0, len(data), 101)),
        *(data[:at] + data[at + 1 :] for at in range(0, len(data), 101)),
    ]:
        path.write_bytes(changed)
        with pytest.raises(ModelError, match=re.escape(str(path))):
            load_manifest(bundle)
    path.write_bytes(data)
    load_manifest(bundle)


def test_a_manifest_that_has_lost_its_seal_is_no_older_one(bundle):
    path = bundle / MANIFEST
    text = path.read_text()
    path.write_text(text.replace('"schema": 2', '"schema": 1'))
    with pytest.raises(ModelError, match=r"manifest\.json was changed"):
        Engine(bundle)
    path.write_text(text.replace('"sha256": "', '"sha257": "'))
    with pytest.raises(ModelError, match=r"manifest\.json was changed"):
        Engine(bundle)


def test_a_manifest_with_fields_of_a_later_version_opens(bundle):
    rewrite(bundle, colour="green")
    Engine(bundle, "onnxruntime").close()


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("../elsewhere")
    path.with_name("elsewhere").rename(path.parent.parent / "elsewhere")


STRANGE = {
    "a file too many": (lambda folder: (folder / "weights.bin").touch(), r"weights\.bin' is not in the bundle's manifest: move"),
    "a hidden one": (lambda folder: (folder / ".hidden").touch(), r"\.hidden' is not in the bundle's manifest"),
    "a folder": (lambda folder: (folder / "sub").mkdir(), r"sub' is not in the bundle's manifest"),
    "a link": (lambda folder: link(folder / "tiny.onnx"), r"tiny\.onnx is a link, expected the file itself"),
    "a link for the manifest": (lambda folder: link(folder / MANIFEST), r"manifest\.json is a link"),
    "swapped files": (
        lambda folder: shutil.copy(folder / "tiny.bf16.onnx", folder / "tiny.onnx"),
        r"tiny\.onnx was changed: its sha256 is",
    ),
    "a way out": (
        lambda folder: rewrite(folder, files={**load_manifest(folder).files, "../outside.onnx": "0" * 64}),
        r"'\.\./outside\.onnx' is no name of a file in the folder",
    ),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_does_not_belong_is_refused_by_name(bundle, kind):
    change, message = STRANGE[kind]
    change(bundle)
    with pytest.raises(ModelError, match=message):
        Engine(bundle)


@pytest.mark.parametrize("name", ["tiny.onnx", "golden-f32-160x96-input.npy"])
def test_what_is_loaded_is_what_was_checked(bundle, monkeypatch, name):
    """A file that is exchanged between the check of all and the use of one."""

    def checked(*arguments):
        missing = check_files(*arguments)
        data = (bundle / name).read_bytes()
        half = len(data) // 2
        (bundle / name).write_bytes(data[:half] + bytes([data[half] ^ 1]) + data[half + 1 :])
        return missing

    monkeypatch.setattr("runtime.bundle.check_files", checked)
    with pytest.raises(BackendError, match=rf"not tiny\.onnx: .*{name} was changed: its sha256 is"):
        Engine(bundle, "onnxruntime")


def test_missing_members_are_told_and_passed_over(bundle):
    (bundle / "tiny.engine").unlink()
    (bundle / "tiny.bf16.onnx").unlink()
    with Engine(bundle) as engine:
        assert "tiny.onnx is within" in engine.reason
        assert "tiny.engine is missing: copy the bundle again" in engine.reason
    with pytest.raises(ModelError, match=r"tiny\.engine is missing"):
        Engine(bundle, fallback=False)


def test_missing_golden_frames(bundle):
    for path in bundle.glob("golden-*"):
        path.unlink()
    with pytest.raises(BackendError, match=r"nothing in .* runs here: not tiny\.engine: .*missing"):
        Engine(bundle)


def test_member_that_is_another_network_fails_its_test(bundle):
    """A model whose last convolution was lost, and a manifest that vouches for it: only the golden frames tell."""
    path = bundle / "tiny.onnx"
    proto = onnx.load(path)
    last = next(tensor for tensor in proto.graph.initializer if tensor.name == "r2.weight")
    last.raw_data = bytes(len(last.raw_data))
    save_signed(proto, path)
    files = {**load_manifest(bundle).files, path.name: file_sha256(path)}
    rewrite(bundle, files=files)
    with pytest.raises(BackendError, match=r"its self-test reached \d+\.\d dB parity with the reference, expected 100"):
        Engine(bundle, backend="onnxruntime", fallback=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 3}, "has schema 3, this version reads 2: update, or make the bundle again"),
        ({"kind": "holiday.photos"}, "its kind is 'holiday.photos'"),
        ({"members": [{"file": "../../etc/passwd", "precision": "fp32", "golden": 0}]}, "there is no sha256 of '../../etc/passwd'"),
        ({"files": {"../../etc/passwd": "00"}}, "'../../etc/passwd' is no name of a file in the folder"),
        ({"goldens": []}, "has no golden frames"),
        ({"members": "all"}, "members: got 'all', expected a list"),
    ],
)
def test_manifest_that_is_refused(bundle, change, message):
    rewrite(bundle, **change)
    with pytest.raises(ModelError, match=message):
        Engine(bundle)


def test_folder_without_a_manifest(tmp_path):
    with pytest.raises(ModelError, match=r"manifest\.json: No such file or directory: make a bundle with export/to_bundle\.py"):
        Engine(tmp_path)


def test_command(tiny_model, tmp_path, capsys):
    note = tmp_path / "notes.txt"
    note.write_text("why")
    asked = ["--onnx", str(tiny_model), "--output", str(tmp_path / "x.bundle"), "--attach", str(note)]
    assert main(asked) == 0
    assert "tiny.onnx: fp32" in capsys.readouterr().out
    assert (tmp_path / "x.bundle" / "notes.txt").read_text() == "why"
    assert main(asked) == 1
    assert "is there already" in capsys.readouterr().err
    assert not list(tmp_path.glob(".*.part"))


def test_member_of_another_network(tiny_model, tmp_path):
    proto = onnx.load(tiny_model)
    (entry,) = (entry for entry in proto.metadata_props if entry.key == METADATA_KEY)
    entry.value = json.dumps({**json.loads(entry.value), "checkpoint_sha256": "0" * 64})
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=r"other\.onnx is of another checkpoint or network"):
        write_bundle(BundleRequest(tiny_model, (tmp_path / "other.onnx",), tmp_path / "x.bundle"))
    assert not (tmp_path / "x.bundle").exists()


def test_two_files_of_one_name(tiny_model, tmp_path):
    shutil.copy(tiny_model, tmp_path)
    with pytest.raises(InputError, match=r"two files are called tiny\.onnx"):
        write_bundle(BundleRequest(tiny_model, (tmp_path / "tiny.onnx",), tmp_path / "x.bundle"))


def test_mirroring():
    plane = np.arange(3).reshape(1, 1, 3)
    assert mirrored(plane, 2, 8).tolist() == [[[0, 1, 2, 2, 1, 0, 0, 1]] * 2]
    assert mirrored(plane, 1, 2).tolist() == [[[0, 1]]]
    assert middle(np.arange(16).reshape(1, 4, 4), 2, 2).tolist() == [[[5, 6], [9, 10]]]


def test_a_member_may_lose_what_its_file_or_its_arithmetic_loses():
    kinds = (
        ("fp32", "fp32", "f32"),
        ("bf16", "fp32", "f32"),
        ("fp32", "int8", "f32"),
        ("bf16", "int8", "f32"),
        ("bf16", "fp32", "u8"),
    )
    assert [least_parity(*kind) for kind in kinds] == [100, 60, 50, 50, 50]
