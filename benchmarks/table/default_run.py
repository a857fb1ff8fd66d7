"""What `videodeblur run` does without options, beside a script with the paper's network, and how soon it begins, as Markdown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.shared.timing import Timing
from benchmarks.table import goals
from benchmarks.table.first_window import FirstWindow
from benchmarks.table.report import Ratio
from benchmarks.table.rows import versions
from runtime.machine.hardware import cpu_name


@dataclass(frozen=True)
class DefaultRun:
    """What was measured on one machine."""

    size: tuple[int, int]  # H, W of the video
    frames: int  # of the video
    ours: Timing  # of the whole video
    script: Timing
    chosen: str  # the file of the default and how it is run
    scripts: str  # the weights of the script's network
    judged: int  # frames of the demo clip
    blurry: float  # dB, PSNR of the demo clip against the truth
    ours_sharp: float  # the same of what the network makes of it
    script_sharp: float
    first: tuple[FirstWindow, ...]


def markdown(found: DefaultRun, cpu_class: str) -> str:
    """Two tables, and the goal of that class of CPU, where it has one."""
    height, width = found.size
    times = Ratio.of(found.script, found.ours)
    rounds = len(found.ours.milliseconds)
    rows = [
        ("`videodeblur run`", found.chosen, _fps(found.ours, found.frames), str(times), f"{found.ours_sharp:.2f}"),
        ("naive script", found.scripts, _fps(found.script, found.frames), "1", f"{found.script_sharp:.2f}"),
        ("the blurry clip", "-", "-", "-", f"{found.blurry:.2f}"),
    ]
    libraries = ", ".join(f"{name} {version}" for name, version in versions().items())
    lines = [
        f"{cpu_name()}; load average {os.getloadavg()[0]:.1f}; {libraries}. {found.frames} frames of {width}x{height}, file to "
        f"file, {rounds} rounds, interleaved; PSNR is of the luma of {found.judged} frames of the demo clip, without an encoder.",
        "",
        "| | network | frames a second | times as fast (p10 to p90) | PSNR against the truth, dB |",
        "|---|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows),
        "",
    ]
    if judged := goals.default_run(cpu_class, width, height, times):
        lines += [goals.markdown(judged), ""]
    lines += [
        "From the start of a process to its first sharp window, seconds, median (least to most):",
        "",
        "| video | with an empty cache: each way to run it is timed | with what that start kept | starts of each |",
        "|---|---|---|---|",
    ]
    lines += [f"| {one.width}x{one.height} | {_spread(one.cold)} | {_spread(one.warm)} | {len(one.cold)} |" for one in found.first]
    return "\n".join(lines)


def _fps(timing: Timing, frames: int) -> str:
    return f"{1000 * frames / timing.median:.1f}"


def _spread(seconds: Sequence[float]) -> str:
    return f"{np.median(seconds):.1f}" + (f" ({min(seconds):.1f} to {max(seconds):.1f})" if len(seconds) > 1 else "")
