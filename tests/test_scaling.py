from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.scaling import AXES, ScalingOptions, measure
from benchmarks.shared.timing import Effort, interleave_for
from runtime import Engine, StreamDeblurrer

SIZES = ((128, 192), (256, 384))  # four times the pixels
TOLERANCE = 1.6  # a cost that grew with the side would make 2, with the pixels 4


def test_a_pixel_costs_the_same_at_all_sizes(tiny_model):
    with Engine(tiny_model, "onnxruntime", threads=1) as engine:
        calls = {f"{height} {width}": scaling._call(engine, (1, 5, height, width)) for height, width in SIZES}
        timings = interleave_for(calls, Effort(9, 0, 0))
    # the least: what other work adds is no cost of ours
    least = [min(timing.processor) / (height * width) for (height, width), timing in zip(SIZES, timings)]
    assert max(least) / min(least) < TOLERANCE


def test_every_sweep_is_measured(tiny_model, tmp_path):
    options = ScalingOptions(f"{tiny_model}@onnxruntime", ((64, 64), (64, 96)), (64, 64), (1, 2), Effort(2, 0, 0))
    found = measure(options)
    assert {point.axis for point in found.points} == set(AXES)
    assert [point.setting for point in found.points if point.axis == "stride"] == ["5", "4", "3", "2", "1"]
    assert all(point.low <= point.cost <= point.high for point in found.points)
    assert "(" not in scaling._cost(found.points[0])  # two calls have no spread
    assert "(" in scaling._cost(replace(found.points[0], calls=3))
    scaling.table(found)
    scaling.save_chart(found, tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").is_file()


class Counted:
    """An engine that counts its windows."""

    contract = SimpleNamespace(frames=5)

    def __init__(self):
        self.windows = 0

    def run(self, window, bits=None, color_range=None):
        self.windows += 1
        return window


@pytest.mark.parametrize("stride", [5, 4, 3, 2, 1])
def test_a_stream_under_way_runs_one_window_for_as_many_frames_as_its_stride(stride):
    engine = Counted()
    frames = np.zeros((10, 8, 8), np.float32)
    call = scaling._under_way(StreamDeblurrer(engine, stride), stride, frames)
    for before in range(engine.windows, engine.windows + 12):
        call()  # raises where other than `stride` frames come back
        assert engine.windows == before + 1


def test_a_size_that_takes_too_much_memory_is_left_out(tiny_model):
    options = ScalingOptions(f"{tiny_model}@onnxruntime", ((64, 64), (1 << 20, 1 << 16)), (64, 64), (1,), Effort(1, 0, 0))
    found = measure(options)
    assert [point.setting for point in found.points if point.axis == "resolution"] == ["64x64"]
    assert found.skipped[0].startswith("65536x1048576 in one piece takes about")
