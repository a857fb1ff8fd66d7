"""Whole videos through `videodeblur run` with networks of different sizes, or any model files, interleaved in one run.

python benchmarks/sizes.py VIDEO light paper.onnx --naive paper.onnx --size 1280x720
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.shared.arguments import count, size
from benchmarks.shared.made_clip import make_clip
from benchmarks.shared.timing import Timing, interleave, ratio
from runtime.command_line import command
from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.machine.hardware import cpu_name
from runtime.run.options import DeblurOptions, open_engine


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints a row a model."""
    parser = argparse.ArgumentParser(prog="benchmarks/sizes.py", description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path, help="any video; it is scaled, and repeated until it is long enough")
    parser.add_argument(
        "models",
        type=Path,
        nargs="+",
        metavar="MODEL",
        help="shipped sizes by name, model files, engines or bundles, as after --model",
    )
    parser.add_argument("--naive", type=Path, metavar="ONNX", help="file that a script of OpenCV and ONNX Runtime runs too, last")
    parser.add_argument("--frames", type=count, default=20, help="frames of a round (default: 20)")
    parser.add_argument("--size", default="320x184", metavar="WxH", help="pixels (default: 320x184)")
    parser.add_argument("--rounds", type=count, default=5, help="rounds, each with every model (default: 5)")
    arguments = parser.parse_args(argv)
    width, height = size(arguments.size)
    lengths = arguments.frames, arguments.rounds
    timings = measure(arguments.video, arguments.models, *lengths, (height, width), arguments.naive)
    print(f"{arguments.frames} frames of {width}x{height}, file to file, on {cpu_name()}, {arguments.rounds} rounds, interleaved")
    print(table(timings, arguments.frames))
    return 0


def measure(
    video: Path, models: Sequence[Path], frames: int, rounds: int, size: tuple[int, int], naive: Path | None = None
) -> list[Timing]:
    """Milliseconds for the whole clip, by model; engines are opened before, as `videodeblur run --model` opens them for frames of
    `size` (height, width). `naive` is what the script runs."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        clip = Path(folder) / "clip.mp4"
        make_clip(video, frames, *size[::-1], clip)

        def run(model: Path) -> Callable[[], object]:
            settings = DeblurOptions(clip, clip.with_name("out.mp4"), model, encoder=EncoderOptions("libx264"), overwrite=True)
            engine = opened.enter_context(open_engine(settings, size, lambda reason: print(f"{model}: {reason}", file=sys.stderr)))
            return lambda: deblur_video(settings, engine=engine)

        calls = {str(model): run(model) for model in models}
        if naive:
            from benchmarks.peers.naive_video import open_script  # here, so that nothing else needs OpenCV

            script = open_script(naive)
            calls[f"{naive.name}, naive script"] = lambda: script(clip, clip.with_name("naive.mp4"))
        return interleave(calls, rounds, warmup=1)


def table(timings: Sequence[Timing], frames: int) -> str:
    """A row a model: frames a second, and how many times as fast as the last one."""
    lines = [f"{'':<32}{'fps':>8}  times as fast as the last (p10 to p90)"]
    for timing in timings:
        middle, low, high = ratio(timings[-1], timing)
        lines.append(f"{Path(timing.name).name:<32}{1000 * frames / timing.median:8.1f}  {middle:.2f} ({low:.2f} to {high:.2f})")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
