import json

import numpy as np
import pytest

from benchmarks import roofline
from benchmarks.kernel_profiles import (
    GROUPS,
    RECONSTRUCTION,
    Kernel,
    conv_flops,
    onnxruntime_profile,
    openvino_profile,
    trtexec_profile,
)
from benchmarks.machine_peak import MachinePeak, measure_peak
from runtime.errors import InputError

SHAPE = (1, 5, 64, 96)
WINDOW = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
PEAK = MachinePeak({"f32": 100e9, "bf16": 200e9, "i8": 400e9}, 10e9)


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
    found = conv_flops(tiny_model, SHAPE)
    seen_whole = {name for name in counted if name.startswith("temporal.cells") and ".x_" in name}  # they see 5 frames, not 3
    assert {name.removesuffix("/Conv"): flops for name, flops in found.items()} == {
        name: flops * 5 // 3 if name in seen_whole else flops for name, flops in counted.items()
    }


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_a_profile_has_every_convolution_and_group(backend, tiny_model):
    kernels = (
        openvino_profile(tiny_model, WINDOW, "fp32", 2) if backend == "openvino" else onnxruntime_profile(tiny_model, WINDOW, 2)
    )
    assert {kernel.group for kernel in kernels if kernel.flops} == {*GROUPS, RECONSTRUCTION}
    assert all(kernel.milliseconds >= 0 and kernel.bytes >= 0 for kernel in kernels)
    expected = sum(conv_flops(tiny_model, SHAPE).values())
    found = sum(kernel.flops for kernel in kernels)
    # ONNX Runtime names a fused convolution after its activation, and pads channels to its blocks: 2 to 16 in a tiny network
    assert found == expected if backend == "openvino" else expected <= found < 16 * expected


def test_bytes_are_inputs_filters_and_outputs(tiny_model):
    kernels = {kernel.name: kernel for kernel in openvino_profile(tiny_model, WINDOW, "fp32", 1)}
    first = next(kernel for name, kernel in kernels.items() if name.startswith("temporal.generator.layer0/Conv"))
    samples = 64 * 96 * (5 + 2) + 2 * 5 * 9  # planes in and out, filters; the bias and padding of channels come on top
    assert 4 * samples <= first.bytes < 2 * 4 * samples


def test_a_row_is_held_against_the_peak():
    kernels = [
        Kernel("c1/Conv", "Convolution", 20.0, int(1e9), 1000, "f32"),
        Kernel("c1/Tanh", "Subgraph", 10.0, 0, int(50e6), "f32"),
    ]
    (row, whole) = roofline.group_rows("m", kernels, PEAK)
    assert (row.group, whole.group) == (RECONSTRUCTION, roofline.ALL)
    assert row.tflops == pytest.approx(1 / 30)
    assert row.share == pytest.approx((10 + 5) / 30)  # 10 ms of arithmetic, then 5 ms of copying
    assert row.bound == "arithmetic"
    assert row.elsewhere == pytest.approx(1 / 3)


def test_int8_is_held_against_the_int8_product():
    assert PEAK.limit_ms(int(4e9), 0, "u8") == pytest.approx(10)
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
    rows = [row for name, found in kernels.items() for row in roofline.group_rows(name, found, PEAK)]
    whole, part, rest = roofline.advice(rows, kernels, PEAK)
    assert whole.startswith("fast.onnx takes 60 ms where its arithmetic and bytes need 20 ms")
    assert "Most is left in the ConvGRUs: 40 ms at 25% of the peak, bound by neither" in part
    assert "8 ms (13%), most of it in Interpolate (8 ms)" in rest


@pytest.mark.slow
def test_the_command_prints_groups_and_writes_a_chart(tiny_model, tmp_path, capsys):
    chart, figures = tmp_path / "roofline.svg", tmp_path / "roofline.json"
    specs = [f"{tiny_model}@openvino:fp32", f"{tiny_model}@onnxruntime"]
    assert roofline.main([*specs, "--size", "96x64", "--runs", "1", "--chart", str(chart), "--json", str(figures)]) == 0
    printed = capsys.readouterr().out
    for group in (*GROUPS, RECONSTRUCTION, roofline.ALL):
        assert printed.count(group) >= 2
    assert chart.is_file()
    assert len(json.loads(figures.read_text())["advice"]) == 3


@pytest.mark.slow
def test_the_peak_of_this_machine_is_plausible():
    peak = measure_peak()
    assert peak.bandwidth > 1e9
    assert all(rate > 1e9 for rate in peak.flops.values())


def test_a_profile_of_trtexec(tmp_path):
    path = tmp_path / "profile.json"
    names = ["temporal.generator.layer0/Conv + temporal.generator/Relu", "Reformatting CopyNode for Input Tensor 0"]
    path.write_text(
        json.dumps([{"count": 10}, *({"name": name, "timeMs": 5.0, "averageMs": 0.5, "percentage": 50} for name in names)])
    )
    first, second = trtexec_profile(path, {"temporal.generator.layer0/Conv": 1000}, "f16")
    assert (first.group, first.flops, first.milliseconds) == ("temporal generator", 1000, 0.5)
    assert (second.group, second.flops) == (RECONSTRUCTION, 0)
    path.write_text("{}")
    assert trtexec_profile(path, {}, "f16") == []
    path.write_text("[")
    with pytest.raises(InputError, match="exportProfile"):
        trtexec_profile(path, {}, "f16")


def test_sizes_and_backends_that_cannot_be_profiled(tiny_model, capsys):
    assert roofline.main([str(tiny_model), "--size", "90x64"]) == 1
    assert "expected multiples of 8" in capsys.readouterr().err
