"""Counters of a run in a file for Prometheus, in a model server's own metrics; and what perf_analyzer is fed with."""

import json
import logging
import re

import numpy as np
import pytest
from video_clips import Clip

from export.to_bundle import BundleRequest, write_bundle
from runtime import Engine, InputError, Telemetry, deblur_video
from runtime.files.manifest import load_manifest
from runtime.run import metrics_file as module
from runtime.run.metrics_file import metrics_file
from serving import deblur_library, to_triton
from serving.triton_server.metrics import ModelMetrics
from serving.triton_server.perf_data import perf_data
from serving.triton_server.source import onnx_source

NETWORK = ["--backend", "onnxruntime", "--threads", "1"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "a.mkv"
    Clip("ffv1").write(path)
    return path


@pytest.fixture
def engine(tiny_model):
    with Engine(tiny_model, "onnxruntime", threads=1) as opened:
        yield opened


def values(path):
    return dict(line.rsplit(" ", 1) for line in path.read_text().splitlines() if not line.startswith("#"))


def windows(count):
    return np.random.default_rng(0).integers(0, 256, (count, 5, 16, 24)).astype(np.uint8)


def test_a_run_leaves_its_counters(tiny_model, clip, tmp_path):
    told = tmp_path / "deblur.prom"
    arguments = [
        str(clip),
        str(tmp_path / "out.mkv"),
        "--model",
        str(tiny_model),
        *NETWORK,
        "--metrics",
        str(told),
        "--no-progress",
    ]
    assert deblur_video.main(arguments) == 0
    found = values(told)
    assert int(found["deblur_window_seconds_count"]) >= 3  # 12 frames
    assert int(found["deblur_frames_total"]) == 5 * int(found["deblur_window_seconds_count"])
    assert any(name.startswith('deblur_engine_info{backend="onnxruntime",precision="fp32"') for name in found)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deblur.prom", "out.mkv"]


def test_a_place_that_cannot_be_written_is_told_before_the_work(tiny_model, clip, tmp_path, capsys):
    arguments = [
        str(clip),
        str(tmp_path / "out.mkv"),
        "--model",
        str(tiny_model),
        *NETWORK,
        "--metrics",
        str(tmp_path / "no" / "m"),
    ]
    assert deblur_video.main(arguments) == 1
    assert re.search("cannot write to the folder .*/no: .*: name another with --metrics", capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_kept_up_to_date_and_a_failure_later_is_logged(engine, tmp_path, monkeypatch, caplog):
    path = tmp_path / "m" / "deblur.prom"
    path.parent.mkdir()
    with metrics_file(engine, path):
        assert values(path)["deblur_window_seconds_count"] == "0"
        engine.run(windows(1))
        assert values(path)["deblur_window_seconds_count"] == "0"
        monkeypatch.setattr(module, "EVERY", 0.0)
        engine.run(windows(1))
        assert values(path)["deblur_window_seconds_count"] == "2"
        path.unlink()
        path.parent.rmdir()
        with caplog.at_level(logging.WARNING, "videodeblur.run"):
            engine.run(windows(1))
    assert "deblur.prom are not up to date: No such file" in caplog.text


def test_a_library_leaves_its_counters(tiny_model, clip, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mkv").write_bytes(clip.read_bytes())
    arguments = [str(tmp_path / "in"), str(tmp_path / "out"), "--model", str(tiny_model), *NETWORK, "--no-progress"]
    assert deblur_library.main([*arguments, "--metrics", str(tmp_path / "deblur.prom")]) == 0
    assert int(values(tmp_path / "deblur.prom")["deblur_frames_total"]) >= 12


def test_one_file_is_not_for_many_workers(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    assert deblur_library.main([str(tmp_path / "in"), str(tmp_path / "out"), "--workers", "2", "--metrics", "m.prom"]) == 1
    assert "--metrics is of one engine in this process: leave out --workers" in capsys.readouterr().err


class Library:
    """Triton's module as far as metrics go: what it was told, in Prometheus' text."""

    def __init__(self):
        self.values, library = {}, self

        class MetricFamily:
            COUNTER, GAUGE = "counter", "gauge"

            def __init__(self, name, description, kind):
                assert (bool(name), bool(description), kind in ("counter", "gauge")) == (True, True, True)
                self.name = name

            def Metric(self, labels):  # noqa: N802 - theirs
                key = self.name, tuple(sorted(labels.items()))
                library.values[key] = 0.0
                return Metric(key)

        class Metric:
            def __init__(self, key):
                self.key = key

            def increment(self, value):
                assert value >= 0
                library.values[self.key] += value

            def set(self, value):
                library.values[self.key] = value

        self.MetricFamily = MetricFamily


def test_a_model_server_counts_the_same(engine):
    library, telemetry = Library(), Telemetry()
    metrics = ModelMetrics(library, engine, "videodeblur", "1")
    for observer in (metrics, telemetry):
        engine.observe(observer)
    engine.run(windows(1))
    engine.run(windows(2))
    with pytest.raises(InputError):
        engine.run(windows(1)[0])
    for seconds in (0.004, 0.3, 20.0):
        metrics(5, seconds, False)
        telemetry(5, seconds, False)
    metrics(5, 1.0, True)
    telemetry(5, 1.0, True)
    ours = {}
    for line in telemetry.prometheus(engine).splitlines():
        if line.startswith("deblur_") and "queue" not in line:
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            ours[name, tuple(sorted(re.findall(r'(\w+)="([^"]*)"', (labels or "").replace("+Inf", "inf"))))] = float(value)
    of_model = {("model", "videodeblur"), ("version", "1")}
    theirs = {
        (name, tuple(each for each in labels if each not in of_model)): value for (name, labels), value in library.values.items()
    }
    assert theirs == pytest.approx(ours, abs=1e-5)


@pytest.fixture(scope="module")
def bundle(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("served") / "x.bundle"
    write_bundle(BundleRequest(tiny_model, (), folder))
    return folder


def test_perf_analyzer_gets_the_golden_frames(bundle, tmp_path, capsys):
    assert to_triton.main([str(bundle), str(tmp_path / "repo")]) == 0
    printed = capsys.readouterr().out
    path = tmp_path / "repo" / "videodeblur" / "perf_analyzer.json"
    assert f"load: perf_analyzer -m videodeblur -i grpc -u 127.0.0.1:8001 --input-data {path}" in printed
    ((name, tensor),) = json.loads(path.read_text())["data"][0].items()
    codes = np.load(bundle / load_manifest(bundle).goldens[0].input)
    assert (name, tensor["shape"]) == ("blurry_u8", list(codes.shape))
    assert tensor["content"] == codes.ravel().tolist()


def test_a_graph_alone_gets_them_as_it_takes_them(bundle):
    chosen = onnx_source(bundle)
    ((name, tensor),) = json.loads(perf_data(bundle, chosen.path.name, chosen.contract))["data"][0].items()
    codes = np.load(bundle / load_manifest(bundle).goldens[0].input)
    assert (name, tensor["shape"]) == ("blurry", list(codes.shape))
    np.testing.assert_allclose(np.array(tensor["content"]).reshape(codes.shape), codes / 255, atol=1e-6)
