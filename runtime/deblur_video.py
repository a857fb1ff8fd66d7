"""`videodeblur run`: deblurs a video file."""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import clean_up_when_stopped, command, print_summary, stop_if_told
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.files.on_disk import file_sha256
from runtime.machine.background import begin
from runtime.pixels.strength import Strength
from runtime.progress import Progress, ProgressBar, Say
from runtime.run.arguments import read_arguments
from runtime.run.comparison import View
from runtime.run.frames_in_step import sharpen, take_up
from runtime.run.latency import Punctuality, longest_delay, told
from runtime.run.metrics_file import metrics_file
from runtime.run.options import DEFAULT_RATE, DeblurOptions, open_engine
from runtime.run.pipeline import ended_with_the_program, overlap
from runtime.run.tiling import Grid, TiledEngine, grid_for
from runtime.run.window_time import seconds_of_a_tile
from runtime.streaming import StreamDeblurrer

if TYPE_CHECKING:
    from runtime.video import Frame, VideoInfo, VideoReader
    from runtime.video.output_writer import OutputWriter

Plane = npt.NDArray[Any]

MAX_RATE_DENOMINATOR = 1001  # as in 30000/1001 frames per second

log = logging.getLogger("videodeblur.run")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    output: str
    frames: int
    scenes: int  # found by --scene-thresh, each deblurred for itself
    seconds: float  # from the first frame to the finished file
    fps: float  # frames per second of that time, without those that an earlier run had done
    backend: str
    precision: str
    reason: str  # why these two
    notes: tuple[str, ...]  # what could not be copied, a line each


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    options, arguments = read_arguments(argv)
    logging.basicConfig(level=arguments.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    clean_up_when_stopped()
    with ProgressBar() as bar:
        try:
            summary = deblur_video(options, None if arguments.no_progress else bar, _say)
        except KeyboardInterrupt:
            if options.resume:
                _say(f"{options.output}.resume has what is done; the same command goes on from there")
            raise
    for note in summary.notes:
        _say(f"note: {note}")
    told = sys.stderr if str(options.output) == "-" else sys.stdout
    line = (
        f"{summary.output}: {summary.frames} frames, {summary.fps:.1f} fps, {summary.backend} {summary.precision},"
        f" {summary.seconds:.1f} s"
    )
    print_summary(json.dumps(asdict(summary)) if arguments.json else line, told)
    return 0


def deblur_video(
    options: DeblurOptions, progress: Progress | None = None, say: Say | None = None, engine: Engine | None = None
) -> Summary:
    """Deblurs a file; the output appears under its name when it is complete, or not at all.

    Memory does not grow with the length of the video: decoding, inference and encoding overlap, a window ahead of each other.
    `progress` is called after every frame, from the thread that writes; `say` with what
    is worth telling before the first. `engine` is one that is open already and stays open; the options that choose one are then
    not looked at. Raises the DeployErrors of VideoReader, VideoWriter, default_model and Engine.
    """
    from runtime.video.look_ahead import look_ahead  # here, so that options and help need no PyAV
    from runtime.video.part import Ranges
    from runtime.video.scene_cuts import mark_scenes

    with ended_with_the_program(), _open_reader(options) as reader:
        info = reader.info
        view, strength = View(options.compare, info), _strength(options, info)
        ranges = Ranges(options.ranges, reader.path, info, reader.origin)
        with _open_writer(options, reader, view.width) as writer, ExitStack() as at_the_end:
            looked = begin("videodeblur-look", look_ahead, reader)
            at_the_end.callback(wait, [looked])
            opened = nullcontext(engine) if engine else open_engine(options, (info.height, info.width), say)
            with opened as engine, metrics_file(engine, options.metrics):
                looked.result()
                stop_if_told()
                grid = grid_for(options, info, engine)
                done, grid = _begin(writer, options, info, engine, grid)
                _tell(done, grid, say)
                delay = _delay(options, info, engine, grid, say)
                stream = StreamDeblurrer(
                    TiledEngine(engine, grid),
                    options.stride,
                    info.bits,
                    info.color_range,
                    ahead=0 if delay is not None else 1,
                    strength=strength,
                    delay=delay,
                )
                watch = Punctuality(options.latency, info.time_base) if options.latency else None
                sink = _Sink(writer, view, progress, _expected(info, options.frames), watch)
                frames = watch.watch(reader) if watch else reader
                scenes = _Scenes(ranges.mark(mark_scenes(frames, info, options.scene_threshold)))
                segment = options.resume_every if options.resume else None
                started = time.perf_counter()
                left = take_up(scenes, stream, done, engine.contract.frames)
                overlap(left, lambda frames: sharpen(frames, stream, segment), sink, engine.contract.frames)
            _check_count(reader, writer)
            writer.finish()
            seconds = time.perf_counter() - started
    log.info("%s: %d frames in %.1f s, %d scenes", options.output, writer.frames, seconds, scenes.count)
    return Summary(
        output=str(options.output),
        frames=writer.frames,
        scenes=scenes.count,
        seconds=seconds,
        fps=(writer.frames - done) / seconds,
        backend=engine.backend,
        precision=engine.precision,
        reason=engine.reason,
        notes=(*reader.notes, *writer.notes, *ranges.notes(), *(watch.notes() if watch else ())),
    )


def _check_count(reader: VideoReader, writer: OutputWriter) -> None:
    if writer.frames != reader.frames:
        raise RuntimeError(f"{reader.frames} frames went in and {writer.frames} came out")


def _open_reader(options: DeblurOptions) -> VideoReader:
    from runtime.video import VideoReader  # here, so that options and help need no PyAV

    rate = Fraction(options.rate or DEFAULT_RATE).limit_denominator(MAX_RATE_DENOMINATOR)
    live = options.latency is not None
    return VideoReader(options.source, options.frames, rate, options.salvage, options.playlist, options.part, live)


def _strength(options: DeblurOptions, info: VideoInfo) -> Strength:
    """Of all samples, or of each where there is a mask. Raises InputError on a mask of another size."""
    if options.mask is None:
        return options.strength
    from runtime.video import read_luma  # here, so that options and help need no PyAV

    mask = read_luma(options.mask, alone=True)
    if mask.shape != (info.height, info.width):
        turned = ", as it is coded, before it is turned" if info.rotation else ""
        raise InputError(
            f"{options.mask}: is {mask.shape[1]}x{mask.shape[0]} pixels, the video {info.width}x{info.height}{turned}:"
            " expected a mask of that size"
        )
    weights: Plane = np.clip(mask, 0, 1) * np.float32(options.strength)
    return weights


def _delay(options: DeblurOptions, info: VideoInfo, engine: Engine, grid: Grid, say: Say | None) -> int | None:
    """Frames that one may wait for, where there is a bound on its delay."""
    if options.latency is None:
        return None
    size, rate = engine.contract.frames, info.frame_rate or Fraction(options.rate or DEFAULT_RATE)
    window = np.zeros((1, size, info.height, info.width), np.uint8 if info.bits == 8 else np.uint16)
    seconds = seconds_of_a_tile(engine, grid, window, info.bits, info.color_range) * grid.count
    delay = longest_delay(options.latency, seconds, rate, size)
    for line in told(options.latency, seconds, rate, delay):
        (say or log.info)(line)
    return delay


class _Scenes:
    """Counts the scenes of the frames that go by."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames, self.count = frames, 1

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self.count += frame.starts_scene
            yield frame


def _open_writer(options: DeblurOptions, reader: VideoReader, width: int) -> OutputWriter:
    if options.to_pictures:
        from runtime.video.picture_writer import PictureWriter  # here, so that options and help need no PyAV

        return PictureWriter(options.output, reader, width)
    if options.resume:
        from runtime.video.segments import ResumableWriter  # here, since it needs a Unix

        return ResumableWriter(options.output, reader, options.encoder, width)
    if options.ranges:
        from runtime.video.splice import open_splicer  # here, so that options and help need no PyAV

        return open_splicer(options.output, reader, options.encoder, options.ranges, width, options.compare is not None)
    from runtime.video import VideoWriter  # here, so that options and help need no PyAV

    return VideoWriter(options.output, reader, options.encoder, width)


def _tell(done: int, grid: Grid, say: Say | None) -> None:
    if say and done:
        say(f"{done} frames are done already")
    if say and grid.count > 1:
        say(f"{grid.picture[1]}x{grid.picture[0]} pixels in {grid}")


def _begin(writer: OutputWriter, options: DeblurOptions, info: VideoInfo, engine: Engine, grid: Grid) -> tuple[int, Grid]:
    """The frames that an earlier run has finished, and its tiles, since the memory at hand may be another now."""
    if not options.resume:
        return 0, grid
    from runtime.video.segments import describe_encoder, describe_source

    job = {
        **describe_source(options.source, info),
        "model": file_sha256(engine.file) if engine.file.is_file() else engine.contract.checkpoint_sha256,
        "engine": f"{engine.backend} {engine.precision}",
        **{name: getattr(options, name) for name in ("tile", "stride", "frames", "scene_threshold", "compare", "resume_every")},
        **_less_than_all(options),
        **describe_encoder(options.encoder),
    }
    done, tile = writer.begin(job, grid.tile)
    return done, replace(grid, tile=tile)


def _less_than_all(options: DeblurOptions) -> dict[str, Any]:
    """What a journal says where a run does not change all samples of all frames; None as earlier versions, which say nothing."""
    return {
        "strength": None if options.strength == 1 else options.strength,
        "mask": file_sha256(options.mask) if options.mask else None,
        "part": str(options.part) if options.part else None,
        "ranges": "; ".join(map(str, options.ranges)) or None,
    }


class _Sink:
    """Where sharp frames go: written, counted, told."""

    def __init__(
        self, writer: OutputWriter, view: View, progress: Progress | None, expected: int | None, watch: Punctuality | None
    ) -> None:
        self._writer, self._view, self._progress, self._expected, self._watch = writer, view, progress, expected, watch

    def __call__(self, frame_and_sharp: tuple[Frame, Plane]) -> None:
        frame, sharp = frame_and_sharp
        self._writer.write(frame, *self._view.planes(frame, sharp))
        if self._watch:
            self._watch.out(frame)
        if self._progress:
            self._progress(self._writer.frames, self._expected)


def _expected(info: VideoInfo, limit: int | None) -> int | None:
    known = [count for count in (info.expected_frames, limit) if count]
    return min(known) if known else None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(None))
