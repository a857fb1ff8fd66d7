"""How far each part of the network is from what this machine can do: FLOPs, bytes, rate, its share of the peak, what bounds it.

python benchmarks/roofline.py model.onnx@openvino:bf16 int8.onnx@openvino:bf16 model.onnx@onnxruntime --size 1280x720
python benchmarks/roofline.py model.onnx@openvino:bf16 --trtexec-profile profile.json      a GPU's, by trtexec --exportProfile
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

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
from benchmarks.memory import size
from benchmarks.subjects import parse
from benchmarks.windows import BLURRY, read_material
from runtime.command_line import command
from runtime.errors import InputError
from runtime.hardware import cpu_name

RUNS = 5  # of which the profiles are means
ALL = "whole network"
BOUNDS = {"arithmetic": "arithmetic", "memory": "memory", "kernels": "neither arithmetic nor memory"}
NEAR = 0.5  # share of the peak under which neither limit explains the time


@dataclass(frozen=True)
class GroupRow:
    """One group of layers of one profile."""

    profile: str  # FILE@BACKEND:PRECISION
    group: str  # a key of GROUPS, RECONSTRUCTION, or ALL
    milliseconds: float  # of one window
    gflop: float
    megabytes: float  # moved, at least: every tensor read once and written once
    tflops: float  # attained, 10^12 a second
    share: float  # of the peak: the least time that arithmetic and bytes need, over the time taken
    bound: str  # "arithmetic" or "memory", whichever limit takes longer; "kernels" where both are far: share under NEAR
    elsewhere: float  # share of the time outside convolutions


@dataclass(frozen=True)
class Roofline:
    """All profiles, and what they are measured against."""

    cpu: str
    load: float  # the system's load average when it ended
    height: int
    width: int
    peak_tflops: dict[str, float]  # of a matrix product, by type
    copy_gb_s: float  # read and written bytes together
    rows: tuple[GroupRow, ...]
    advice: tuple[str, ...]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, profiles, prints."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/roofline.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profiles", nargs="+", metavar="FILE@BACKEND[:PRECISION]", help="ONNX files with float I/O")
    parser.add_argument("--size", default="320x184", metavar="WxH", help="pixels, multiples of 8 (default %(default)s)")
    parser.add_argument("--runs", type=int, default=RUNS, help="of which the times are means (default %(default)s)")
    parser.add_argument("--trtexec-profile", type=Path, help="a file of trtexec --exportProfile for the first file, at this size")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    parser.add_argument("--chart", type=Path, help="attained rate against arithmetic intensity, .svg or .png")
    given = parser.parse_args(argv)
    width, height = size(given.size)
    roofline = measure(given.profiles, height, width, given.runs, given.trtexec_profile)
    print(table(roofline))
    if given.json:
        given.json.write_text(json.dumps(asdict(roofline), indent=1) + "\n")
    if given.chart:
        from benchmarks.roofline_chart import save_chart  # matplotlib, where a chart is wanted

        save_chart(roofline, given.chart)
    return 0


def measure(profiles: Sequence[str], height: int, width: int, runs: int = RUNS, trtexec: Path | None = None) -> Roofline:
    """Profiles each, with the machine's peak measured before and after, the better of the two taken.

    Raises InputError on another backend than OpenVINO and ONNX Runtime, and sizes that are no multiples of 8.
    """
    if height % 8 or width % 8:
        raise InputError(f"the size is {width}x{height}, expected multiples of 8")
    window = read_material(BLURRY, None, 1, (1, 5, height, width)).blurry[0]
    peak = measure_peak()
    found: dict[str, list[Kernel]] = {}
    for text in profiles:
        name, backend, precision = parse(text)
        if backend == "openvino":
            found[text] = openvino_profile(Path(name), window, precision or "fp32", runs)
        elif backend == "onnxruntime":
            found[text] = onnxruntime_profile(Path(name), window, runs)
        else:
            raise InputError(
                f"{text}: expected FILE@openvino:PRECISION or FILE@onnxruntime, the backends that tell of their kernels"
            )
    if trtexec:
        found[trtexec.name] = trtexec_profile(trtexec, conv_flops(Path(parse(profiles[0]).file), window.shape), "f16")
    peak = better(peak, measure_peak())
    rows = tuple(row for name, kernels in found.items() for row in group_rows(Path(name).name, kernels, peak))
    return Roofline(
        cpu=cpu_name(),
        load=os.getloadavg()[0],
        height=height,
        width=width,
        peak_tflops={kind: rate / 1e12 for kind, rate in peak.flops.items()},
        copy_gb_s=peak.bandwidth / 1e9,
        rows=rows,
        advice=tuple(advice(rows, found, peak)),
    )


def better(one: MachinePeak, other: MachinePeak) -> MachinePeak:
    """The higher of each figure: a busy machine can only hide what it can do."""
    flops = {kind: max(rate, other.flops.get(kind, 0)) for kind, rate in one.flops.items()}
    return MachinePeak(flops, max(one.bandwidth, other.bandwidth))


def group_rows(profile: str, kernels: Sequence[Kernel], peak: MachinePeak) -> list[GroupRow]:
    """A row for every group that has kernels, and one for all."""
    rows = [_row(profile, group, [each for each in kernels if each.group == group], peak) for group in (*GROUPS, RECONSTRUCTION)]
    return [row for row in (*rows, _row(profile, ALL, kernels, peak)) if row.milliseconds > 0]


def _row(profile: str, group: str, kernels: Sequence[Kernel], peak: MachinePeak) -> GroupRow:
    milliseconds = sum(each.milliseconds for each in kernels)
    flops, moved = sum(each.flops for each in kernels), sum(each.bytes for each in kernels)
    arithmetic = sum(1000 * each.flops / peak.flops_of(each.type) for each in kernels)
    memory = 1000 * moved / peak.bandwidth
    least = limit(kernels, peak)
    outside = sum(each.milliseconds for each in kernels if not each.flops)
    return GroupRow(
        profile,
        group,
        milliseconds,
        flops / 1e9,
        moved / 1e6,
        flops / milliseconds / 1e9 if milliseconds else 0.0,
        least / milliseconds if milliseconds else 0.0,
        _bound(arithmetic, memory, milliseconds, least),
        outside / milliseconds if milliseconds else 0.0,
    )


def _bound(arithmetic: float, memory: float, milliseconds: float, least: float) -> str:
    if least < NEAR * milliseconds:
        return "kernels"
    return "arithmetic" if arithmetic >= memory else "memory"


def limit(kernels: Iterable[Kernel], peak: MachinePeak) -> float:
    """The least milliseconds in which the machine could do these kernels one after the other."""
    return sum(peak.limit_ms(each.flops, each.bytes, each.type) for each in kernels)


def advice(rows: Sequence[GroupRow], found: dict[str, list[Kernel]], peak: MachinePeak) -> list[str]:
    """Three sentences, for the profile that takes least: what is left on the whole, in which part, and outside convolutions."""
    whole = min((row for row in rows if row.group == ALL), key=lambda row: row.milliseconds)
    kernels = next(kernels for name, kernels in found.items() if Path(name).name == whole.profile)
    least = limit(kernels, peak)
    parts = [row for row in rows if row.profile == whole.profile and row.group != ALL]
    worst = max(parts, key=lambda row: row.milliseconds * (1 - row.share))
    rest: dict[str, float] = {}
    for each in kernels:
        if not each.flops:
            rest[each.kind] = rest.get(each.kind, 0.0) + each.milliseconds
    first = max(rest, key=lambda kind: rest[kind], default="")
    return [
        f"{whole.profile} takes {whole.milliseconds:.0f} ms where its arithmetic and bytes need {least:.0f} ms at this machine's "
        f"measured peak ({whole.share:.0%}), so without fewer or cheaper operations nothing can make it more than "
        f"{whole.milliseconds / least:.1f} times as fast here.",
        f"Most is left in the {worst.group}: {worst.milliseconds:.0f} ms at {worst.share:.0%} of the peak, bound by "
        f"{BOUNDS[worst.bound]}; at the peak it would save {worst.milliseconds * (1 - worst.share):.0f} ms.",
        f"Outside convolutions go {sum(rest.values()):.0f} ms ({sum(rest.values()) / whole.milliseconds:.0%})"
        + (f", most of it in {first} ({rest[first]:.0f} ms)" if first else "")
        + ": fusing them away could gain no more than that.",
    ]


def table(roofline: Roofline) -> str:
    """The figures as text."""
    peaks = ", ".join(f"{kind} {rate:.2f}" for kind, rate in roofline.peak_tflops.items())
    lines = [
        f"one window of {roofline.width}x{roofline.height} on {roofline.cpu}, load {roofline.load:.1f}",
        f"best matrix product: {peaks} TFLOP/s; copy: {roofline.copy_gb_s:.0f} GB/s read and written",
    ]
    for profile in dict.fromkeys(row.profile for row in roofline.rows):
        lines.append(f"{profile:32}{'ms':>9}{'GFLOP':>9}{'MB':>9}{'TFLOP/s':>9}{'of peak':>9}  {'bound by':12}{'not conv':>9}")
        lines += [
            f"  {row.group:30}{row.milliseconds:9.1f}{row.gflop:9.1f}{row.megabytes:9.0f}{row.tflops:9.2f}{row.share:9.0%}"
            f"  {row.bound:12}{row.elsewhere:9.0%}"
            for row in roofline.rows
            if row.profile == profile
        ]
    return "\n".join([*lines, *roofline.advice])


def markdown(roofline: Roofline) -> str:
    """The figures as Markdown."""
    peaks = ", ".join(f"{kind} {rate:.2f}" for kind, rate in roofline.peak_tflops.items())
    lines = [
        f"One window of {roofline.width}x{roofline.height}, {roofline.cpu}; load average {roofline.load:.1f}. Best matrix product "
        f"(2048 x 2048): {peaks} TFLOP/s; copy: {roofline.copy_gb_s:.0f} GB/s, read and written bytes together.",
        "",
        "| profile | layers | ms | GFLOP | MB | TFLOP/s | of the peak | bound by | outside convolutions |",
        "|" + "---|" * 9,
    ]
    lines += [
        f"| {row.profile} | {row.group} | {row.milliseconds:.1f} | {row.gflop:.1f} | {row.megabytes:.0f} | {row.tflops:.2f} | "
        f"{row.share:.0%} | {row.bound} | {row.elsewhere:.0%} |"
        for row in roofline.rows
    ]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in roofline.advice)])


if __name__ == "__main__":
    raise SystemExit(main())
