"""A whole video through `videodeblur run` against its parts alone: the engine, decoding, encoding; and peak memory by length."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks import memory
from benchmarks.shared.arguments import count, size
from benchmarks.shared.made_clip import make_clip
from benchmarks.shared.timing import Timing, interleave, ratio
from runtime import Engine
from runtime.command_line import command
from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.machine.hardware import cpu_name
from runtime.run.options import DeblurOptions
from runtime.video import VideoReader, VideoWriter

GOAL = 0.9  # of the engine's own rate, end to end, on a CPU
END_TO_END, ENGINE, DECODE, ENCODE = "end to end", "engine only", "decode only", "encode only"


@dataclass(frozen=True)
class PipelineOptions:
    """What is timed."""

    video: Path  # any; it is scaled, and repeated until it is long enough
    model: Path  # ONNX file
    frames: int  # a round
    width: int  # pixels
    height: int
    rounds: int
    codec: str
    lengths: tuple[int, ...]  # frames, for peak memory; none = do not measure that


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/pipeline.py", description=__doc__)
    parser.add_argument("video", type=Path, help="any video; it is scaled, and repeated until it is long enough")
    parser.add_argument("--model", type=Path, required=True, help="ONNX file from export/to_onnx.py")
    parser.add_argument("--frames", type=count, default=50, help="frames of a round (default: %(default)s)")
    parser.add_argument("--size", default="320x184", metavar="WxH", help="pixels (default: %(default)s)")
    parser.add_argument("--rounds", type=count, default=5, help="rounds to measure (default: %(default)s)")
    parser.add_argument("--codec", default="libx264", help="encoder (default: %(default)s)")
    parser.add_argument(
        "--lengths",
        type=count,
        nargs="*",
        default=[30, 300],
        help="lengths in frames at which peak memory is compared (default: 30 300)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here too")
    arguments = parser.parse_args(argv)
    width, height = size(arguments.size)
    chosen = (arguments.video, arguments.model, arguments.frames, width, height, arguments.rounds, arguments.codec)
    options = PipelineOptions(*chosen, tuple(arguments.lengths))
    timings = measure_rates(options)
    print(table(timings, options), flush=True)
    peaks = memory.measure(_memory_options(options)) if options.lengths else []
    if peaks:
        print(memory.table(peaks, _memory_options(options)))
    if arguments.json:
        figures = {"cpu": cpu_name(), "timings": [asdict(each) for each in timings], "peaks": [asdict(each) for each in peaks]}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure_rates(options: PipelineOptions) -> list[Timing]:
    """Times the whole and its parts on the same clip, interleaved; milliseconds for `options.frames` frames."""
    with tempfile.TemporaryDirectory() as folder, Engine(options.model) as engine:
        clip = Path(folder) / "clip.mp4"
        make_clip(options.video, options.frames, options.width, options.height, clip)
        return interleave(_candidates(clip, engine, options), options.rounds, warmup=1)


def table(timings: Sequence[Timing], options: PipelineOptions) -> str:
    """The figures as text, one row a candidate."""
    lines = [
        f"{options.frames} frames of {options.width}x{options.height} on {cpu_name()}, {options.rounds} rounds, interleaved",
        f"{'':14}{'fps':>9}{'p10':>9}{'p90':>9}{'CPU ms a frame':>16}",
    ]
    spent = {timing.name: float(np.median(timing.processor)) / options.frames for timing in timings}
    for timing in timings:
        median, slow, fast = (1000 * options.frames / timing.percentile(percent) for percent in (50, 90, 10))
        lines.append(f"{timing.name:14}{median:9.1f}{slow:9.1f}{fast:9.1f}{spent[timing.name]:16.1f}")
    by_name = {timing.name: timing for timing in timings}
    share, low, high = ratio(by_name[ENGINE], by_name[END_TO_END])
    most = spent[ENGINE] / (spent[ENGINE] + spent[DECODE] + spent[ENCODE])
    lines.append(f"end to end is {share:.2f} ({low:.2f} to {high:.2f}) of the engine's own rate (goal on a CPU: {GOAL})")
    lines.append(f"where the engine alone fills the cores, {most:.2f} is what decoding and encoding leave it of them")
    return "\n".join(lines)


def _candidates(clip: Path, engine: Engine, options: PipelineOptions) -> dict[str, Callable[[], object]]:
    output, encoder = clip.with_name("out.mp4"), EncoderOptions(options.codec)
    whole = DeblurOptions(clip, output, encoder=encoder, overwrite=True)
    return {
        END_TO_END: lambda: deblur_video(whole, engine=engine),
        ENGINE: _engine_only(clip, engine),
        DECODE: lambda: _decode(clip),
        ENCODE: _encode_only(clip, output, encoder),
    }


def _engine_only(clip: Path, engine: Engine) -> Callable[[], object]:
    """Every window that a run would have, its frames already in memory."""
    with VideoReader(clip) as reader:
        info, lumas = reader.info, [frame.luma for frame in reader]
    length = engine.contract.frames
    starts = range(0, len(lumas), length)
    windows = [np.stack([lumas[min(start + at, len(lumas) - 1)] for at in range(length)])[None] for start in starts]
    return lambda: [engine.run(window, info.bits, info.color_range) for window in windows]


def _encode_only(clip: Path, output: Path, encoder: EncoderOptions) -> Callable[[], object]:
    with VideoReader(clip) as reader:
        frames = list(reader)

    def encode() -> None:
        with VideoReader(clip) as reader, VideoWriter(output, reader, encoder) as writer:
            for frame in frames:
                writer.write(frame, frame.luma)

    return encode


def _decode(clip: Path) -> int:
    with VideoReader(clip) as reader:
        return sum(1 for _ in reader)


def _memory_options(options: PipelineOptions) -> memory.MemoryOptions:
    model = ("--model", str(options.model), "--codec", options.codec)
    return memory.MemoryOptions(options.video, options.lengths, options.width, options.height, model)


if __name__ == "__main__":
    raise SystemExit(main())
