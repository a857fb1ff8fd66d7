import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import roofline
from benchmarks.kernels import kernel_profiles, machine_peak
from benchmarks.kernels.kernel_profiles import (
    GROUPS,
    RECONSTRUCTION,
    Kernel,
    Profile,
    conv_flops,
    onnxruntime_kernels,
    onnxruntime_profile,
    openvino_profile,
    trtexec_profile,
)
from benchmarks.kernels.machine_peak import MachinePeak, measure_peak
from runtime.errors import InputError

SHAPE = (1, 5, 64, 96)
WINDOW = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
PEAK = MachinePeak({"f32": 100e9, "bf16": 160e9, "i8": 400e9}, {"f32": 90e9, "bf16": 200e9}, 10e9)


@pytest.fixture(scope="module")
def counted(tiny_checkpoint):
    """FLOPs of the convolutions that PyTorch runs, by hooks: c3 to c6 are among them, which the export folds away."""
    import torch

    from model import load_checkpoint

    network, found = load_checkpoint(tiny_checkpoint).eval(), {}

    def count(name):
        def hook(module, _, output):
            found[name] = 2 * output.numel() * module.weight[0].numel()

        return hook

    for name, module in network.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(count(name))
    with torch.inference_mode():
        network(torch.from_numpy(WINDOW))
    return {name: flops for name, flops in found.items() if "projections" not in name}


def test_flops_are_those_of_pytorch(tiny_model, counted):
    expected = {}
    for name, flops in counted.items():
        if name.startswith("temporal.cells"):  # exported as one: it sees 5 frames where each saw 3, and 3 states where each saw 1
            gate = name.rpartition(".")[2]
            name, flops = f"temporal.cell.{gate}", flops * 5 // 3 if gate.startswith("x_") else flops * 3
        if name == "r1":  # exported as the sum of two
            expected |= {f"{name}.0": flops // 2, f"{name}.1": flops // 2}
        else:
            expected[name] = expected.get(name, 0) + flops
    assert {name.removesuffix("/Conv"): flops for name, flops in conv_flops(tiny_model, SHAPE).items()} == expected


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_profile_has_every_convolution_and_group(backend, tiny_model):
    profile = (
        openvino_profile(tiny_model, WINDOW, "fp32", 2) if backend == "openvino" else onnxruntime_profile(tiny_model, WINDOW, 2)
    )
    assert 0 < profile.unprofiled_ms < 1000
    kernels = profile.kernels
    assert {kernel.group for kernel in kernels if kernel.flops} == {*GROUPS, RECONSTRUCTION}
    assert all(kernel.milliseconds >= 0 and kernel.bytes >= 0 for kernel in kernels)
    expected = sum(conv_flops(tiny_model, SHAPE).values())
    found = sum(kernel.flops for kernel in kernels)
    # ONNX Runtime names a fused convolution after its activation, and pads channels to its blocks: 2 to 16 in a tiny network
    assert found == expected if backend == "openvino" else expected <= found < 16 * expected


def test_bytes_are_inputs_filters_and_outputs(tiny_model):
    kernels = {kernel.name: kernel for kernel in openvino_profile(tiny_model, WINDOW, "fp32", 1).kernels}
    first = next(kernel for name, kernel in kernels.items() if name.startswith("temporal.generator.layer0/Conv"))
    samples = 64 * 96 * (5 + 2) + 2 * 5 * 9  # planes in and out, filters; the bias and padding of channels come on top
    assert 4 * samples <= first.bytes < 2 * 4 * samples


def test_a_row_is_held_against_the_peak():
    kernels = [
        Kernel("c1/Conv", "Convolution", 20.0, int(1e9), 1000, "f32"),
        Kernel("c1/Tanh", "Subgraph", 10.0, 0, int(50e6), "f32"),
    ]
    (row, whole) = roofline.group_rows("m", Profile(kernels, 20.0), PEAK)
    assert (row.group, whole.group) == (RECONSTRUCTION, roofline.ALL)
    assert row.tflops == pytest.approx(1 / 30)
    assert row.share == pytest.approx((10 + 5) / 30)  # 10 ms of arithmetic, then 5 ms of copying
    assert row.bound == "arithmetic"
    assert row.elsewhere == pytest.approx(1 / 3)
    assert row.trusted
    assert not whole.trusted  # 30 ms of kernels, and 20 without a profile


def test_without_a_peak_there_is_no_share():
    kernels = [Kernel("c1/Conv", "layer", 20.0, int(1e9), 0, "f16")]
    rows = roofline.group_rows("m", Profile(kernels), None)
    assert [(row.share, row.bound, row.trusted) for row in rows] == [(None, "", True)] * 2
    assert roofline.advice(rows, {}, PEAK) == []


def test_a_profile_that_differs_from_the_run_without_it_is_marked_and_not_advised_on():
    kernels = [Kernel("c1/Conv", "Convolution", 20.0, int(1e9), 0, "f32")]
    found = {"slow": Profile(kernels, 12.0), "usual": Profile([*kernels, replace(kernels[0], milliseconds=5.0)], 25.5)}
    rows = [row for name, profile in found.items() for row in roofline.group_rows(name, profile, PEAK)]
    advice = roofline.advice(rows, {name: profile.kernels for name, profile in found.items()}, PEAK)
    assert advice[0].startswith("usual takes 25 ms")
    shown = roofline.markdown(roofline.Roofline("a CPU", 0.0, 64, 96, {"f32": 0.1}, 10.0, tuple(rows), tuple(advice)))
    assert "- MARKED: the kernels of slow sum to 20 ms, and without a profile it took 12.0" in shown
    assert shown.count("MARKED") == 1


def test_the_fastest_run_of_a_trace_is_taken():
    facts = {"op_name": "Conv", "input_type_shape": [], "output_type_shape": []}
    times = {"a/Conv": (90, 7, 2, 5), "b/Conv": (90, 1, 3, 9)}  # of four runs, of which the first warms up
    events = [
        {"cat": "Node", "name": f"{name}_kernel_time", "dur": 1000 * times[name][run], "args": facts}
        for run in range(4)
        for name in times
    ]
    assert [kernel.milliseconds for kernel in onnxruntime_kernels(events, {})] == [2, 3]


def test_arithmetic_that_the_cpu_lacks_is_a_line(tiny_model, monkeypatch):
    monkeypatch.setattr(kernel_profiles, "native_bf16", lambda: False)
    monkeypatch.setattr(roofline, "measure_peak", lambda: PEAK)
    found = roofline.measure([f"{tiny_model}@openvino:bf16", f"{tiny_model}@openvino:fp32"], 64, 96, 1)
    assert {row.profile for row in found.rows} == {f"{tiny_model.name}@openvino:fp32"}
    assert "has no bf16 arithmetic" in found.skipped[0]
    assert "has no bf16 arithmetic" in roofline.table(found)


def test_int8_is_held_against_the_int8_product():
    assert PEAK.limit_ms(int(4e9), 0, "u8") == pytest.approx(10)
    assert PEAK.flops == {"f32": 100e9, "bf16": 200e9, "i8": 400e9}  # a convolution may be better than a matrix product
    assert PEAK.limit_ms(int(4e9), int(1e9), "bf16") == pytest.approx(100)  # the bytes take longer


def test_three_sentences_name_what_is_worst():
    kernels = {
        "slow.onnx": [Kernel("c1/Conv", "Convolution", 200.0, int(1e9), 0, "f32")],
        "fast.onnx": [
            Kernel("temporal.generator.layer1/Conv", "Convolution", 12.0, int(1e9), 0, "f32"),
            Kernel("temporal.cells.0.x_reset/Conv", "Convolution", 40.0, int(1e9), 0, "f32"),
            Kernel("Resize", "Interpolate", 8.0, 0, 0, "f32"),
        ],
    }
    rows = [row for name, found in kernels.items() for row in roofline.group_rows(name, Profile(found), PEAK)]
    whole, part, rest = roofline.advice(rows, kernels, PEAK)
    assert whole.startswith("fast.onnx takes 60 ms where its arithmetic and bytes need 20 ms")
    assert "at the best rates measured here (33%)" in whole
    assert "Most is left in the ConvGRUs: 40 ms at 25% of the peak, bound by neither" in part
    assert "8 ms (13%), most of it in Interpolate (8 ms)" in rest


@pytest.fixture
def quick_peak(monkeypatch):
    """The peak is measured on small matrices, which takes a second."""
    monkeypatch.setattr(machine_peak, "SIDE", 1024)
    monkeypatch.setattr(machine_peak, "COPIED", 64 << 20)


def test_the_command_prints_groups_and_writes_a_chart(quick_peak, tiny_model, tmp_path, capsys):
    chart, figures = tmp_path / "roofline.svg", tmp_path / "roofline.json"
    specs = [f"{tiny_model}@openvino:fp32", f"{tiny_model}@onnxruntime"]
    assert roofline.main([*specs, "--size", "96x64", "--runs", "1", "--chart", str(chart), "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    for group in (*GROUPS, RECONSTRUCTION, roofline.ALL):
        assert printed.count(group) >= 2
    assert chart.is_file()
    unusual = printed.count("MARKED") == len(specs)  # on a busy machine
    assert len(json.loads(figures.read_text())["advice"]) == (0 if unusual else 3)


def test_the_peak_of_this_machine_is_plausible(quick_peak):
    peak = measure_peak()
    assert peak.bandwidth > 1e9
    assert peak.products.keys() == peak.convolutions.keys()
    assert all(rate > 1e9 for rate in (*peak.products.values(), *peak.convolutions.values()))
    assert peak.flops["i8"] > 1.2 * peak.flops["f32"]  # it is computed in 8 bits, not converted back


def test_a_profile_of_trtexec(tmp_path):
    path = tmp_path / "profile.json"
    names = ["temporal.generator.layer0/Conv + temporal.generator/Relu", "Reformatting CopyNode for Input Tensor 0"]
    path.write_text(
        json.dumps([{"count": 10}, *({"name": name, "timeMs": 5.0, "averageMs": 0.5, "percentage": 50} for name in names)])
    )
    first, second = trtexec_profile(path, {"temporal.generator.layer0/Conv": 1000}, "f16").kernels
    assert (first.group, first.flops, first.milliseconds) == ("temporal generator", 1000, 0.5)
    assert (second.group, second.flops) == (RECONSTRUCTION, 0)
    path.write_text("{}")
    assert trtexec_profile(path, {}, "f16").kernels == []
    path.write_text("[")
    with pytest.raises(InputError, match="exportProfile"):
        trtexec_profile(path, {}, "f16")


def test_a_profile_of_a_gpu_is_not_held_against_the_cpu(tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(roofline, "measure_peak", lambda: PEAK)
    monkeypatch.setattr(roofline, "measure_gpu_peak", lambda: None)  # as on a machine without one
    path = tmp_path / "profile.json"
    path.write_text(json.dumps([{"count": 10}, {"name": "temporal.generator.layer0/Conv", "averageMs": 0.001}]))
    found = roofline.measure([f"{tiny_model}@openvino:fp32"], 64, 96, 1, path)
    rows = [row for row in found.rows if row.profile == path.name]
    assert [(row.share, row.bound) for row in rows] == [(None, ""), (None, "")]
    assert rows[0].gflop > 0
    assert "| - | - |" in roofline.markdown(found)
    assert path.name not in "".join(found.advice)


def test_sizes_and_backends_that_cannot_be_profiled(tiny_model, capsys):
    assert roofline.main([str(tiny_model), "--size", "90x64"]) == 1
    assert "expected multiples of 8" in capsys.readouterr().err


def test_counts_begin_at_one(tiny_model, capsys):
    with pytest.raises(SystemExit):
        roofline.main([str(tiny_model), "--runs", "0"])
    assert "'0', expected a whole number from 1 on" in capsys.readouterr().err
