"""How far each part of the network is from what this machine can do: FLOPs, bytes, rate, its share of the peak, what bounds it.

python benchmarks/roofline.py model.onnx@openvino:bf16 int8.onnx@openvino:bf16 model.onnx@onnxruntime --size 1280x720
python benchmarks/roofline.py model.onnx@openvino:bf16 --trtexec-profile profile.json      a GPU's, by trtexec --exportProfile
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from benchmarks.kernels.kernel_profiles import (
    GROUPS,
    RECONSTRUCTION,
    Kernel,
    Planes,
    Profile,
    conv_flops,
    onnxruntime_profile,
    openvino_profile,
    trtexec_profile,
)
from benchmarks.kernels.machine_peak import MachinePeak, measure_gpu_peak, measure_peak
from benchmarks.shared.arguments import count, size
from benchmarks.shared.windows import BLURRY, read_material
from runtime.command_line import command
from runtime.errors import BackendError, InputError
from runtime.files.contract import read_contract
from runtime.files.model_spec import parse
from runtime.machine.hardware import cpu_name
from runtime.progress import Say

RUNS = 5  # of which the profiles are the fastest
ALL = "whole network"
BOUNDS = {"arithmetic": "arithmetic", "memory": "memory", "kernels": "neither arithmetic nor memory"}
NEAR = 0.5  # share of the peak under which neither limit explains the time
TRUSTED = 0.1  # difference from the unprofiled run, as a share of it, above which a profile is marked, and not advised on
KINDS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "i8"}  # of an engine's convolutions, by its model's precision

MARKERS = "osD^v*"
INTENSITIES = np.logspace(0, 4, 100)  # operations a byte


@dataclass(frozen=True)
class GroupRow:
    """One group of layers of one profile."""

    profile: str  # FILE@BACKEND:PRECISION
    group: str  # a key of GROUPS, RECONSTRUCTION, or ALL
    milliseconds: float  # of one window
    gflop: float
    megabytes: float  # moved, at least: every tensor read once and written once
    tflops: float  # attained, 10^12 a second
    share: float | None  # of the peak: the least time that arithmetic and bytes need, over the time taken; None: no peak known
    bound: str  # "arithmetic" or "memory", whichever limit takes longer; "kernels" where both are far: share under NEAR; or ""
    elsewhere: float  # share of the time outside convolutions
    unprofiled_ms: float | None = None  # of ALL: what the same run took without a profile; None where that is not known

    @property
    def trusted(self) -> bool:
        """Whether the profile agrees with the run without it."""
        return self.unprofiled_ms is None or abs(self.milliseconds / self.unprofiled_ms - 1) <= TRUSTED


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
    convolution_tflops: dict[str, float] = field(default_factory=dict)  # of a convolution, by type
    skipped: tuple[str, ...] = ()  # profiles that cannot be had here, with the reason

    @property
    def best_tflops(self) -> dict[str, float]:
        """The better of both, by type: what shares are of."""
        return {kind: max(rate, self.convolution_tflops.get(kind, 0.0)) for kind, rate in self.peak_tflops.items()}


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, profiles, prints."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/roofline.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("profiles", nargs="+", metavar="FILE@BACKEND[:PRECISION]", help="ONNX files with float I/O")
    parser.add_argument("--size", default="320x184", metavar="WxH", help="pixels, multiples of 8 (default %(default)s)")
    parser.add_argument("--runs", type=count, default=RUNS, help="runs to profile, the fastest counts (default %(default)s)")
    parser.add_argument("--trtexec-profile", type=Path, help="file of trtexec --exportProfile for the first file, at this size")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--chart", type=Path, help="draw the attained rate against arithmetic intensity, .svg or .png")
    given = parser.parse_args(argv)
    width, height = size(given.size)
    roofline = measure(given.profiles, height, width, given.runs, given.trtexec_profile)
    print(table(roofline))
    if given.json:
        given.json.write_text(json.dumps(asdict(roofline), indent=1) + "\n")
    if given.chart:
        save_chart(roofline, given.chart)
    return 0


def measure(
    profiles: Sequence[str],
    height: int,
    width: int,
    runs: int = RUNS,
    trtexec: Path | None = None,
    say: Say = lambda _: None,
) -> Roofline:
    """Profiles each, with the machine's peak measured before and after, the better of the two taken.

    Raises InputError on another backend than OpenVINO and ONNX Runtime, and sizes that are no multiples of 8.
    """
    if height % 8 or width % 8:
        raise InputError(f"the size is {width}x{height}, expected multiples of 8")
    window = read_material(BLURRY, None, 1, (1, 5, height, width)).blurry[0]
    say("the machine's peak")
    peak = measure_peak()
    found: dict[str, Profile] = {}
    skipped = []
    for text in profiles:
        say(f"profile of {Path(text).name}")
        try:
            found[text] = _profile(text, window, runs)
        except BackendError as error:
            skipped.append(f"{Path(text).name}: {error}")
    say("the machine's peak again")
    peak = better(peak, measure_peak())
    rows = [row for name, profile in found.items() for row in group_rows(Path(name).name, profile, peak)]
    if trtexec:
        rows += _gpu_rows(Path(parse(profiles[0]).file), trtexec, window.shape)
    return Roofline(
        cpu=cpu_name(),
        load=os.getloadavg()[0],
        height=height,
        width=width,
        peak_tflops={kind: rate / 1e12 for kind, rate in peak.products.items()},
        copy_gb_s=peak.bandwidth / 1e9,
        rows=tuple(rows),
        advice=tuple(advice(rows, {Path(name).name: profile.kernels for name, profile in found.items()}, peak)),
        convolution_tflops={kind: rate / 1e12 for kind, rate in peak.convolutions.items()},
        skipped=tuple(skipped),
    )


def _profile(text: str, window: Planes, runs: int) -> Profile:
    name, backend, precision = parse(text)
    if backend == "openvino":
        return openvino_profile(Path(name), window, precision or "fp32", runs)
    if backend == "onnxruntime":
        return onnxruntime_profile(Path(name), window, runs)
    raise InputError(f"{text}: expected FILE@openvino:PRECISION or FILE@onnxruntime, the backends that tell of their kernels")


def _gpu_rows(model: Path, trtexec: Path, shape: Sequence[int]) -> list[GroupRow]:
    """Against the GPU that is here, where its rate in the model's type can be measured."""
    kind = KINDS.get(read_contract(model).precision)
    profile = trtexec_profile(trtexec, conv_flops(model, shape), kind or "")
    return group_rows(trtexec.name, profile, measure_gpu_peak() if kind else None)


def better(one: MachinePeak, other: MachinePeak) -> MachinePeak:
    """The higher of each figure: a busy machine can only hide what it can do."""

    def higher(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
        return {kind: max(rate, second.get(kind, 0.0)) for kind, rate in first.items()}

    products, convolutions = higher(one.products, other.products), higher(one.convolutions, other.convolutions)
    return MachinePeak(products, convolutions, max(one.bandwidth, other.bandwidth))


def group_rows(name: str, profile: Profile, peak: MachinePeak | None) -> list[GroupRow]:
    """A row for every group that has kernels, and one for all; without shares where the peak is not known."""
    by_group = {group: [each for each in profile.kernels if each.group == group] for group in (*GROUPS, RECONSTRUCTION)}
    rows = [_row(name, group, kernels, peak) for group, kernels in by_group.items()]
    whole = replace(_row(name, ALL, profile.kernels, peak), unprofiled_ms=profile.unprofiled_ms)
    return [row for row in (*rows, whole) if row.milliseconds > 0]


def _row(profile: str, group: str, kernels: Sequence[Kernel], peak: MachinePeak | None) -> GroupRow:
    milliseconds = sum(each.milliseconds for each in kernels)
    flops, moved = sum(each.flops for each in kernels), sum(each.bytes for each in kernels)
    outside = sum(each.milliseconds for each in kernels if not each.flops)
    share, bound = None, ""
    if peak and milliseconds:
        least = limit(kernels, peak)
        arithmetic = sum(1000 * each.flops / peak.flops_of(each.type) for each in kernels)
        share, bound = least / milliseconds, _bound(arithmetic, 1000 * moved / peak.bandwidth, milliseconds, least)
    return GroupRow(
        profile,
        group,
        milliseconds,
        flops / 1e9,
        moved / 1e6,
        flops / milliseconds / 1e9 if milliseconds else 0.0,
        share,
        bound,
        outside / milliseconds if milliseconds else 0.0,
    )


def _bound(arithmetic: float, memory: float, milliseconds: float, least: float) -> str:
    if least < NEAR * milliseconds:
        return "kernels"
    return "arithmetic" if arithmetic >= memory else "memory"


def limit(kernels: Iterable[Kernel], peak: MachinePeak) -> float:
    """The least milliseconds in which the machine could do these kernels one after the other."""
    return sum(peak.limit_ms(each.flops, each.bytes, each.type) for each in kernels)


def advice(rows: Sequence[GroupRow], found: Mapping[str, list[Kernel]], peak: MachinePeak) -> list[str]:
    """Three sentences, for the profile that takes least: what is left on the whole, in which part, and outside convolutions.

    None where no profile agrees with the run without it.
    """
    fit = [row for row in rows if row.group == ALL and row.profile in found and row.trusted]
    if not fit:
        return []
    whole = min(fit, key=lambda row: row.milliseconds)
    kernels = found[whole.profile]
    least = limit(kernels, peak)
    parts = {row.group: row.milliseconds * (1 - (row.share or 0)) for row in rows if row.profile == whole.profile}
    worst = max((row for row in rows if row.profile == whole.profile and row.group != ALL), key=lambda row: parts[row.group])
    rest: dict[str, float] = {}
    for each in kernels:
        if not each.flops:
            rest[each.kind] = rest.get(each.kind, 0.0) + each.milliseconds
    first = max(rest, key=lambda kind: rest[kind], default="")
    return [
        f"{whole.profile} takes {whole.milliseconds:.0f} ms where its arithmetic and bytes need {least:.0f} ms at the best rates "
        f"measured here ({_percent(whole.share)}): at those rates, and without fewer or cheaper operations, it would be "
        f"{whole.milliseconds / least:.1f} times as fast.",
        f"Most is left in the {worst.group}: {worst.milliseconds:.0f} ms at {_percent(worst.share)} of the peak, bound by "
        f"{BOUNDS[worst.bound]}; at the peak it would save {parts[worst.group]:.0f} ms.",
        f"Outside convolutions go {sum(rest.values()):.0f} ms ({sum(rest.values()) / whole.milliseconds:.0%})"
        + (f", most of it in {first} ({rest[first]:.0f} ms)" if first else "")
        + ": fusing them away could gain no more than that.",
    ]


def table(roofline: Roofline) -> str:
    """The figures as text."""
    lines = [
        f"one window of {roofline.width}x{roofline.height} on {roofline.cpu}, load {roofline.load:.1f}",
        f"matrix product and convolution: {_peaks(roofline)}; copy: {roofline.copy_gb_s:.0f} GB/s read and written",
    ]
    for profile in dict.fromkeys(row.profile for row in roofline.rows):
        heads = f"{'ms':>9}{'unprofiled':>12}{'GFLOP':>9}{'MB':>9}{'TFLOP/s':>9}{'of peak':>9}"
        lines.append(f"{profile:32}{heads}  {'bound by':12}{'not conv':>9}")
        lines += [
            f"  {row.group:30}{row.milliseconds:9.1f}{_unprofiled(row):>12}{row.gflop:9.1f}{row.megabytes:9.0f}{row.tflops:9.2f}"
            f"{_percent(row.share):>9}  {row.bound or '-':12}{row.elsewhere:9.0%}"
            for row in roofline.rows
            if row.profile == profile
        ]
    return "\n".join([*lines, *_notes(roofline), *roofline.advice])


def markdown(roofline: Roofline) -> str:
    """The figures as Markdown."""
    lines = [
        f"One window of {roofline.width}x{roofline.height}, {roofline.cpu}; load average {roofline.load:.1f}. Matrix product and "
        f"convolution: {_peaks(roofline)}; copy: {roofline.copy_gb_s:.0f} GB/s, read and written bytes together.",
        "",
        "| profile | layers | ms | unprofiled ms | GFLOP | MB | TFLOP/s | of the peak | bound by | outside convolutions |",
        "|" + "---|" * 10,
    ]
    lines += [
        f"| {row.profile} | {row.group} | {row.milliseconds:.1f} | {_unprofiled(row)} | {row.gflop:.1f} | {row.megabytes:.0f} | "
        f"{row.tflops:.2f} | {_percent(row.share)} | {row.bound or '-'} | {row.elsewhere:.0%} |"
        for row in roofline.rows
    ]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in (*_notes(roofline), *roofline.advice))])


def save_chart(roofline: Roofline, path: Path) -> None:
    """Writes it; the suffix chooses the format."""
    from benchmarks.shared.chart_file import Figure, save  # matplotlib, where a chart is wanted

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for kind, rate in roofline.best_tflops.items():
        roof = np.minimum(rate, INTENSITIES * roofline.copy_gb_s / 1000)
        axes.loglog(INTENSITIES, roof, color="black", linewidth=0.8)
        axes.annotate(f"{kind} {rate:.2f}", (INTENSITIES[-1], rate), ha="right", va="bottom", fontsize=8)
    groups = list(dict.fromkeys(row.group for row in roofline.rows))
    profiles = list(dict.fromkeys(row.profile for row in roofline.rows))
    for row in roofline.rows:
        if not row.megabytes:
            continue
        axes.plot(
            1000 * row.gflop / row.megabytes,
            row.tflops,
            MARKERS[profiles.index(row.profile) % len(MARKERS)],
            color=f"C{groups.index(row.group)}",
            markersize=3 + 9 * (row.milliseconds / max(each.milliseconds for each in roofline.rows)) ** 0.5,
        )
    for number, group in enumerate(groups):
        axes.plot([], [], "o", color=f"C{number}", label=group)
    for number, profile in enumerate(profiles):
        axes.plot([], [], MARKERS[number % len(MARKERS)], color="grey", label=profile)
    axes.legend(fontsize=8)
    axes.set_xlabel("operations for each byte moved (area: time)")
    axes.set_ylabel("10^12 operations a second")
    axes.set_title(f"one window of {roofline.width}x{roofline.height}, {roofline.cpu}", fontsize=9)
    save(figure, path)


def _peaks(roofline: Roofline) -> str:
    rates = (f"{kind} {rate:.2f} and {roofline.convolution_tflops.get(kind, 0):.2f}" for kind, rate in roofline.peak_tflops.items())
    return f"{', '.join(rates)} TFLOP/s"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def _unprofiled(row: GroupRow) -> str:
    return "-" if row.unprofiled_ms is None else f"{row.unprofiled_ms:.1f}"


def _notes(roofline: Roofline) -> list[str]:
    """Of what is not to be trusted, and what is missing."""
    return [
        *(
            f"MARKED: the kernels of {row.profile} sum to {row.milliseconds:.0f} ms, and without a profile it took "
            f"{_unprofiled(row)}: its rows show something else than a usual run."
            for row in roofline.rows
            if not row.trusted
        ),
        *(f"skipped: {text}" for text in roofline.skipped),
    ]


if __name__ == "__main__":
    raise SystemExit(main())
