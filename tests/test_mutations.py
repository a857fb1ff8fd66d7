"""Damaged files: whatever happened to an engine, a model or a manifest, it ends in a DeployError, or in a result.

A crash would end the process, and a hang the test: what a native library reads is tried in a process of its own.
"""

import json
import random
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from fuzz import mutated, retyped
from signed import unsigned

from export.to_bundle import BundleRequest, write_bundle
from runtime import DeployError, Engine
from runtime.files.engine_record import load_record, read_header, record_path
from runtime.files.manifest import MANIFEST, manifest_text

ROOT = Path(__file__).resolve().parents[1]
MUTATIONS = 25  # of each kind of file; tests/fuzz.py takes as many as asked for
SECONDS = 240  # for all models together


@pytest.fixture(scope="module")
def bundle(tiny_model, tiny_engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mutated") / "tiny.bundle"
    write_bundle(BundleRequest(tiny_model, (tiny_engine,), folder))
    return folder


def test_mutated_engines(tiny_engine, tmp_path):
    path, chance = tmp_path / "m.engine", random.Random(1)
    data = tiny_engine.read_bytes()
    shutil.copy(record_path(tiny_engine), record_path(path))
    for _ in range(MUTATIONS):
        changed = mutated(data, chance)
        path.write_bytes(changed)
        if changed == data:
            continue
        with pytest.raises(DeployError):
            Engine(path)
        with suppress(DeployError):
            read_header(path)


def test_mutated_records(tiny_engine, tmp_path):
    path, chance = tmp_path / "m.engine", random.Random(2)
    shutil.copy(tiny_engine, path)
    data, refused = record_path(tiny_engine).read_bytes(), 0
    for _ in range(MUTATIONS):
        record_path(path).write_bytes(mutated(data, chance))
        try:
            load_record(path)  # some digits may change unnoticed, such as those of build_seconds
        except DeployError:
            refused += 1
    assert refused > MUTATIONS // 2


def test_mutated_members(bundle, tmp_path):
    """In a bundle every change is noticed, since the manifest has every file's hash."""
    copy, chance = shutil.copytree(bundle, tmp_path / "copy"), random.Random(3)
    names = sorted(path.name for path in bundle.iterdir() if path.name != MANIFEST)
    for _ in range(MUTATIONS):
        name = chance.choice(names)
        data = (bundle / name).read_bytes()
        changed = mutated(data, chance)
        (copy / name).write_bytes(changed)
        if changed != data:
            with pytest.raises(DeployError, match=name):
                Engine(copy)
        shutil.copy(bundle / name, copy / name)


def test_mutated_manifests(bundle, tmp_path):
    """A manifest vouches for itself, too."""
    copy, chance = shutil.copytree(bundle, tmp_path / "copy"), random.Random(4)
    data = (bundle / MANIFEST).read_bytes()
    for _ in range(MUTATIONS):
        changed = mutated(data, chance)
        (copy / MANIFEST).write_bytes(changed)
        if changed != data:
            with pytest.raises(DeployError, match=MANIFEST):
                Engine(copy, backend="onnxruntime")


def test_manifests_of_other_types(bundle, tmp_path):
    copy, chance = shutil.copytree(bundle, tmp_path / "copy"), random.Random(5)
    text = (bundle / MANIFEST).read_text()
    for _ in range(MUTATIONS):
        (copy / MANIFEST).write_text(manifest_text(retyped(json.loads(text), chance)))
        with suppress(DeployError):
            Engine(copy, backend="onnxruntime").close()


def test_records_of_other_types(tiny_engine, tmp_path):
    path, chance = tmp_path / "m.engine", random.Random(6)
    shutil.copy(tiny_engine, path)
    text = record_path(tiny_engine).read_text()
    for _ in range(MUTATIONS):
        record_path(path).write_text(json.dumps(retyped(json.loads(text), chance)))
        with suppress(DeployError):
            record = load_record(path)
            record.check_machine("tensorrt_rtx", "1.7.1.116", (8, 9))
            record.profile_of((1, 5, 64, 96))


TRY = """
import sys
from contextlib import suppress
from pathlib import Path
from calibration.onnx_file import load_onnx
from export.engine.request import EngineRequest
from export.engine.builder import build_engine
from runtime import DeployError, Engine
from runtime.files.engine_record import Profile
shape = (1, 5, 64, 96)
for path in sorted(Path(sys.argv[1]).glob("*.onnx")):
    for run in (
        lambda: load_onnx(path),
        lambda: Engine(path, "onnxruntime").close(),
        lambda: Engine(path, "openvino", "fp32").close(),
        lambda: build_engine(EngineRequest(path, path.with_suffix(".engine"), "tensorrt_rtx", (Profile(shape, shape, shape),))),
    ):
        try:
            run()
            print(path.name, "ran", flush=True)
        except DeployError as error:
            print(path.name, type(error).__name__, flush=True)
"""


def test_mutated_models(tiny_model, tmp_path):
    """Of a file of before hashes, which the libraries get to see. Half of the changes fall on the graph, which is the file's
    beginning and end; the weights between them are most of it."""
    chance, data = random.Random(7), unsigned(tiny_model)
    edge = len(data) // 50
    for number in range(MUTATIONS):
        start = chance.choice([0, 0, len(data) - edge])
        changed = data[:start] + mutated(data[start : start + edge], chance) + data[start + edge :]
        (tmp_path / f"{number:02}.onnx").write_bytes(changed if number % 2 else mutated(data, chance))
    found = subprocess.run([sys.executable, "-c", TRY, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS)
    assert found.returncode == 0, f"after {found.stdout[-200:]}: {found.stderr[-2000:]}"
    ended = re.findall(r"^\d\d\.onnx (\w+)$", found.stdout, re.MULTILINE)  # the libraries print, too
    assert len(ended) == 4 * MUTATIONS
    assert ended.count("ModelError") > MUTATIONS
