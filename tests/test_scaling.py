import statistics

from benchmarks import scaling
from benchmarks.scaling import AXES, ScalingOptions, cost_per_pixel, measure
from benchmarks.timing import Effort
from runtime import Engine

SIZES = ((128, 192), (256, 384))  # four times the pixels
TOLERANCE = 1.6  # a cost that grew with the side would make 2, with the pixels 4


def test_a_pixel_costs_the_same_at_all_sizes(tiny_model):
    with Engine(tiny_model, "onnxruntime", threads=1) as engine:
        costs = cost_per_pixel(engine, SIZES, Effort(9, 0, 0))
    least = {size: min(values) for size, values in costs.items()}  # what other work adds is no cost of ours
    assert max(least.values()) / min(least.values()) < TOLERANCE


def test_every_sweep_is_measured(tiny_model, tmp_path):
    options = ScalingOptions(f"{tiny_model}@onnxruntime", ((64, 64), (64, 96)), (64, 64), (1, 2), Effort(2, 0, 0))
    found = measure(options)
    assert {point.axis for point in found.points} == set(AXES)
    assert [point.setting for point in found.points if point.axis == "stride"] == ["5", "4", "3", "2", "1"]
    strides = [point.cost for point in found.points if point.axis == "stride"]
    assert strides[-1] > statistics.median(strides[:2])  # every frame is computed five times
    assert all(point.low <= point.cost <= point.high for point in found.points)
    scaling.table(found)
    from benchmarks.scaling_chart import save_chart

    save_chart(found, tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").is_file()


def test_a_size_that_takes_too_much_memory_is_left_out(tiny_model):
    options = ScalingOptions(f"{tiny_model}@onnxruntime", ((64, 64), (1 << 20, 1 << 16)), (64, 64), (1,), Effort(1, 0, 0))
    found = measure(options)
    assert [point.setting for point in found.points if point.axis == "resolution"] == ["64x64"]
    assert found.skipped[0].startswith("65536x1048576 in one piece takes about")
