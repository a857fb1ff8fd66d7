"""Any frame in any order is the frame that a stream over its scene gives; strength lies between blurry and sharp."""

import random
import threading
from types import SimpleNamespace

import numpy as np
import pytest

from runtime import InputError, StreamDeblurrer
from runtime.pixels.strength import blend
from runtime.run.frames_on_demand import FramesOnDemand


class Mixer:
    """A window's frames, each changed by its place in the window and by all frames of it."""

    contract = SimpleNamespace(frames=5)

    def __init__(self):
        self.windows = 0

    def run(self, window, bits=None, color_range=None):
        assert (bits, color_range) == (10, "limited")
        self.windows += 1
        place = np.arange(5).reshape(1, 5, 1, 1)
        return (window // 2 + window.mean(1, keepdims=True).astype(window.dtype) // 2 + 7 * place).astype(window.dtype)


class Noise:
    """Frames of noise in scenes of so many."""

    color_range = "limited"

    def __init__(self, scenes):
        self.count, self.cuts, self.asked = sum(scenes), set(np.cumsum(scenes)), []
        self.frames = np.random.default_rng(0).integers(0, 1024, (self.count, 2, 3)).astype(np.uint16)

    def luma(self, number):
        assert 0 <= number < self.count
        return self.frames[number]

    def starts_scene(self, number):
        assert 0 < number < self.count
        self.asked.append(number)
        return number in self.cuts


def streamed(source, stride):
    """What a run gives: a stream for each scene."""
    deblurrer, sharp = StreamDeblurrer(Mixer(), stride, 10, "limited"), []
    for number in range(source.count):
        if number in source.cuts:
            sharp += deblurrer.flush()
        sharp += deblurrer.push(source.luma(number))
    return sharp + deblurrer.flush()


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("scenes", [[1], [2], [4], [5], [6], [9], [10], [11], [23], [1, 1, 7], [5, 2, 1, 12], [70, 3]])
def test_any_order_gives_the_frames_of_the_stream(scenes, stride):
    source, order = Noise(scenes), list(range(sum(scenes))) * 2
    random.Random(stride).shuffle(order)
    demand, expected = FramesOnDemand(Mixer(), source, stride, bits=10), streamed(source, stride)
    for number in order:
        assert np.array_equal(demand.frame(number), expected[number]), number
    assert sorted(source.asked) == list(range(1, source.count))  # once each


def test_in_order_every_window_is_run_once_and_little_is_looked_at_ahead():
    engine, source = Mixer(), Noise([12, 11])
    demand = FramesOnDemand(engine, source, bits=10)
    for number in range(source.count):
        demand.frame(number)
        in_scene = number if number < 12 else number - 12
        assert max(source.asked) <= number - in_scene % 5 + 4  # the end of its window
    assert engine.windows == 3 + 3


def test_seeking_reads_back_to_the_start_of_the_scene_and_no_further():
    source = Noise([500, 40])
    FramesOnDemand(Mixer(), source, bits=10).frame(530)
    assert min(source.asked) > 440


def test_threads_get_the_same_frames():
    source = Noise([30, 33])
    demand, expected, wrong = FramesOnDemand(Mixer(), source, 2, bits=10), streamed(source, 2), []

    def read(seed):
        for number in random.Random(seed).sample(range(source.count), source.count):
            if not np.array_equal(demand.frame(number), expected[number]):
                wrong.append(number)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"stride": 0}, "stride is 0, expected 1 to 5"),
        ({"stride": 6}, "stride is 6, expected 1 to 5"),
        ({"stride": 2.5}, "stride is 2.5"),
        ({"strength": 1.5}, "strength is 1.5, expected 0"),
        ({"strength": float("nan")}, "strength is nan"),
    ],
)
def test_what_is_no_stride_or_strength_is_refused(options, told):
    with pytest.raises(InputError, match=told):
        FramesOnDemand(Mixer(), Noise([3]), **options)


def test_frames_beyond_the_end_are_refused():
    with pytest.raises(InputError, match="got frame 3, expected 0 to 2"):
        FramesOnDemand(Mixer(), Noise([3])).frame(3)


def test_strength_lies_between_blurry_and_sharp():
    source = Noise([7])
    sharp = FramesOnDemand(Mixer(), source, bits=10).frame(4)
    found = {s: FramesOnDemand(Mixer(), source, strength=s, bits=10).frame(4).astype(int) for s in (0, 0.25, 0.5, 1)}
    blurry = source.luma(4).astype(int)
    assert np.array_equal(found[0], blurry)
    assert np.array_equal(found[1], sharp)
    assert np.abs(found[0.5] - (blurry + sharp) / 2).max() <= 0.5
    assert np.abs(found[0.25] - (blurry * 3 + sharp) / 4).max() <= 0.5


def test_blend_rounds_half_to_even_and_leaves_floats_unrounded():
    codes = blend(np.array([0, 1, 65534, 65535], np.uint16), np.array([1, 2, 65535, 0], np.uint16), 0.5)
    assert codes.dtype == np.uint16
    assert codes.tolist() == [0, 2, 65534, 32768]
    unit = blend(np.array([0.25], np.float32), np.array([0.75], np.float32), 0.25)
    assert unit.dtype == np.float32
    assert unit.tolist() == [0.375]
