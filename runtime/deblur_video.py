"""`videodeblur run`: deblurs a video file."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Protocol

import numpy.typing as npt

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import command
from runtime.comparison import KINDS, Comparison
from runtime.default_model import default_model
from runtime.encoder_options import DEFAULT_CODEC, DEFAULT_CRF, EncoderOptions
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.pipeline import overlap
from runtime.plan import file_sha256
from runtime.progress import ProgressBar
from runtime.streaming import StreamDeblurrer
from runtime.tiling import Grid, TiledEngine, fitting_grid, square_grid, whole_grid

if TYPE_CHECKING:
    from runtime.video import Frame, VideoInfo, VideoReader

Plane = npt.NDArray[Any]
Progress = Callable[[int, Optional[int]], None]  # (frames done, frames expected, None when unknown)
Say = Callable[[str], None]

MAX_RATE_DENOMINATOR = 1001  # as in 30000/1001 frames per second
MIN_SEGMENT = 10  # frames, two windows
GB = 1_000_000_000  # bytes
DEFAULT_SCENE_THRESHOLD = 0.3  # the lowest that FFmpeg recommends: a cut too many costs a little context, one too few mixes scenes

PIPES = {"y4m": "yuv4mpegpipe", "mkv": "matroska"}  # usual names of FFmpeg's formats
RAW_CODECS = {"yuv4mpegpipe": "wrapped_avframe", "nut": "ffv1"}  # of formats made for pipes

EPILOG = f"""
Quality without --crf: {", ".join(f"crf {crf} for {codec}" for codec, crf in DEFAULT_CRF.items())}.
Lossless: `-e qp=0` with libx264; `-c ffv1` and an .mkv output, which also takes odd sizes and every pixel format.
Pipes: `ffmpeg -i in.mp4 -f nut - | videodeblur run - - | x264 --demuxer y4m -o out.264 -`; `-f nut` keeps times and sound.
All but luma is carried over: chroma, times, sound, subtitles, chapters, metadata, rotation, colour tags.
"""


@dataclass(frozen=True)
class DeblurOptions:
    """What to deblur, with what, into what."""

    source: Path  # a video file, "-" for standard input, a sequence such as %05d.png, or a folder of pictures
    output: Path  # its suffix chooses the container; "-" for standard output, %05d.png or a folder for pictures
    model: Path | None = None  # an .onnx file; None = the shipped checkpoint, see default_model
    backend: str = "auto"  # see Engine
    precision: str = "auto"  # see Engine
    threads: int | None = None  # CPU cores for the network; None = all
    stride: int | None = None  # frames between the starts of two windows; None = the window's length
    rate: float = 25.0  # frames per second at which pictures are shown
    frames: int | None = None  # stop after so many; None = all
    tile: int | None = None  # side in pixels that a tile adds; 0 = the whole picture; None = what memory allows
    memory: float | None = None  # GB (10^9 bytes) for the network on a CPU; None = half of what is at hand
    scene_threshold: float = DEFAULT_SCENE_THRESHOLD  # FFmpeg's scene score above which a scene starts; 0 = one scene
    compare: str | None = None  # one of comparison.KINDS: a before/after video instead of the sharp one
    salvage: bool = False  # of a damaged video, deliver what is before the damage, instead of refusing
    resume: bool = False  # keep finished segments beside the output, and go on from those of an earlier run
    resume_every: int = 250  # frames of a segment, about; what a kill can cost
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    overwrite: bool = False  # replace the output if it exists

    def __post_init__(self) -> None:
        """Raises InputError where the output is the source, or exists and may not be replaced, or segments are too short."""
        if self.output.exists() and self.source.exists() and self.output.samefile(self.source):
            raise InputError(f"{self.output} is the input too, expected another file: the input is never changed")
        if self.resume and (self.to_pictures or "-" in (str(self.source), str(self.output))):
            raise InputError("a run can be resumed from a video file to a video file only: leave out --resume")
        if not self.rate > 0:
            raise InputError(f"the rate is {self.rate} frames per second, expected more than 0")
        if self.resume_every < MIN_SEGMENT:
            raise InputError(f"a segment has {self.resume_every} frames, expected {MIN_SEGMENT} or more")
        if self.to_pictures:
            self._check_pictures()
        elif self.output.exists() and not self.overwrite:
            raise InputError(f"{self.output} exists already: add -y to overwrite it, or choose another name")

    def _check_pictures(self) -> None:
        folder, source = _folder(self.output) or self.output, _folder(self.source)
        if source and source.exists() and folder.exists() and folder.samefile(source):
            raise InputError(f"{folder} is the input's folder too, expected another: the input is never changed")
        if not self.overwrite and any(folder.glob("*.png")):
            raise InputError(f"{folder} has pictures already: add -y to replace those of the same name, or choose another folder")

    @property
    def to_pictures(self) -> bool:
        """Whether the output is pictures: a numbered name, or a folder, which is there or comes from pictures."""
        folder = not self.output.suffix and str(self.output) != "-" and (self.output.is_dir() or _folder(self.source) is not None)
        return "%" in self.output.name or folder


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    output: str
    frames: int
    scenes: int  # found by --scene-thresh, each deblurred for itself
    seconds: float  # from the first frame to the finished file
    fps: float  # frames per second of that time
    backend: str
    precision: str
    reason: str  # why these two
    notes: tuple[str, ...]  # what could not be carried over, a line each


class Writer(Protocol):
    """What `deblur_video` needs of a `VideoWriter`, `ResumableWriter` or `PictureWriter`."""

    frames: int
    notes: list[str]

    def write(self, frame: Frame, luma: Plane, chroma: tuple[Plane, ...] | None = None) -> None:
        """Takes a frame's sharp luma."""
        ...

    def finish(self) -> None:
        """Completes the output."""
        ...

    def __enter__(self) -> Writer: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Deblurrer(Protocol):
    """What `sharpen` needs of a `StreamDeblurrer`."""

    def push(self, frame: Plane) -> list[Plane]:
        """One frame in; those that became final out, oldest first."""
        ...

    def flush(self) -> list[Plane]:
        """The rest."""
        ...


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    arguments = _parser().parse_args(argv)
    options = DeblurOptions(
        source=arguments.source,
        output=arguments.output,
        frames=arguments.frames,
        **network_options(arguments),
        compare=arguments.compare,
        encoder=_encoder(arguments),
        rate=arguments.rate,
        salvage=arguments.salvage,
        resume=arguments.resume,
        resume_every=arguments.resume_every,
        overwrite=arguments.overwrite,
    )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's stop cleans up as Ctrl-C does
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
    if arguments.json:
        print(json.dumps(asdict(summary)), file=told)
    else:
        print(
            f"{summary.output}: {summary.frames} frames, {summary.fps:.1f} fps, {summary.backend} {summary.precision},"
            f" {summary.seconds:.1f} s",
            file=told,
        )
    return 0


def deblur_video(
    options: DeblurOptions, progress: Progress | None = None, say: Say | None = None, engine: Engine | None = None
) -> Summary:
    """Deblurs a file; the output appears under its name when it is complete, or not at all.

    Memory does not grow with the length of the video: decoding, inference and encoding overlap, a window ahead of each other.
    The network runs in the caller's thread. `progress` is called after every frame, from the thread that writes; `say` with what
    is worth telling before the first. `engine` is one that is open already and stays open; the options that choose one are then
    not looked at. Raises the DeployErrors of VideoReader, VideoWriter, default_model and Engine.
    """
    from runtime.scene_cuts import mark_scenes  # here, so that options and help need no PyAV

    with _open_reader(options) as reader:
        info = reader.info
        view = _View(options.compare, info)
        with _open_writer(options, reader, view.width) as writer:
            with nullcontext(engine) if engine else open_engine(options, say) as engine:
                grid = grid_for(options, info, engine)
                if say and grid.count > 1:
                    say(f"{info.width}x{info.height} pixels in {grid}")
                stream = StreamDeblurrer(TiledEngine(engine, grid), options.stride, info.bits, info.color_range)
                done = _begin(writer, options, info, engine, grid, say)
                sink = _Sink(writer, view, progress, _expected(info, options.frames))
                scenes = _Scenes(mark_scenes(reader, info, options.scene_threshold))
                segment = options.resume_every if options.resume else None
                started = time.perf_counter()
                overlap(islice(scenes, done, None), lambda frames: sharpen(frames, stream, segment), sink, engine.contract.frames)
            _check_count(reader, writer)
            writer.finish()
            seconds = time.perf_counter() - started
    return Summary(
        output=str(options.output),
        frames=writer.frames,
        scenes=scenes.count,
        seconds=seconds,
        fps=writer.frames / seconds,
        backend=engine.backend,
        precision=engine.precision,
        reason=engine.reason,
        notes=(*reader.notes, *writer.notes),
    )


def grid_for(options: DeblurOptions, info: VideoInfo, engine: Engine) -> Grid:
    """The tiles of the video's frames, as the options or the memory at hand say."""
    if options.tile is None:
        return fitting_grid(info.height, info.width, engine, None if options.memory is None else int(options.memory * GB))
    if options.tile == 0:
        return whole_grid(info.height, info.width, engine.contract)
    return square_grid(info.height, info.width, engine.contract, options.tile)


def _check_count(reader: VideoReader, writer: Writer) -> None:
    if writer.frames != reader.frames:
        raise RuntimeError(f"{reader.frames} frames went in and {writer.frames} came out")


def sharpen(frames: Iterable[Frame], deblurrer: Deblurrer, segment: int | None = None) -> Iterator[tuple[Frame, Plane]]:
    """Each frame with its sharp luma, in order, as soon as that is final. Holds the frames of the window at work, no more.

    A frame that starts a scene starts a new stream: no window holds frames of two scenes. Where nothing is at work after
    `segment` frames, the next is marked as the start of one; overlapping windows always hold some, and are cut off at twice that.
    """
    waiting: deque[Frame] = deque()
    count = 0  # frames of this segment
    for frame in frames:
        if frame.starts_scene or (segment and count >= 2 * segment):
            for sharp in deblurrer.flush():
                yield waiting.popleft(), sharp
        if segment and count >= segment and not waiting:
            frame, count = replace(frame, starts_segment=True), 0
        waiting.append(frame)
        count += 1
        for sharp in deblurrer.push(frame.luma):
            yield waiting.popleft(), sharp
    for sharp in deblurrer.flush():
        yield waiting.popleft(), sharp
    if waiting:
        raise RuntimeError(f"the deblurrer kept {len(waiting)} frames")


def _open_reader(options: DeblurOptions) -> VideoReader:
    from runtime.video import VideoReader  # here, so that options and help need no PyAV

    rate = Fraction(options.rate).limit_denominator(MAX_RATE_DENOMINATOR)
    return VideoReader(options.source, options.frames, rate, options.salvage)


class _Scenes:
    """Counts the scenes of the frames that go by."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self._frames, self.count = frames, 1

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._frames:
            self.count += frame.starts_scene
            yield frame


def _open_writer(options: DeblurOptions, reader: VideoReader, width: int) -> Writer:
    if options.to_pictures:
        from runtime.picture_writer import PictureWriter  # here, so that options and help need no PyAV

        return PictureWriter(options.output, reader, width)
    if options.resume:
        from runtime.segments import ResumableWriter  # here, since it needs a Unix

        return ResumableWriter(options.output, reader, options.encoder, width)
    from runtime.video import VideoWriter  # here, so that options and help need no PyAV

    return VideoWriter(options.output, reader, options.encoder, width)


def _begin(writer: Writer, options: DeblurOptions, info: VideoInfo, engine: Engine, grid: Grid, say: Say | None) -> int:
    """The frames that an earlier run has finished."""
    if not options.resume:
        return 0
    from runtime.segments import ResumableWriter, describe_source

    assert isinstance(writer, ResumableWriter)

    job = {
        **describe_source(options.source, info),
        "model": file_sha256(engine.path) if engine.path.is_file() else engine.contract.checkpoint_sha256,
        "engine": f"{engine.backend} {engine.precision}",
        "tiles": str(grid),
        **{name: getattr(options, name) for name in ("stride", "frames", "scene_threshold", "compare", "resume_every")},
        "encoder": asdict(options.encoder),
    }
    done = writer.begin(job)
    if say and done:
        say(f"{done} frames are done already")
    return done


class _Sink:
    """Where sharp frames go: written, counted, told."""

    def __init__(self, writer: Writer, view: _View, progress: Progress | None, expected: int | None) -> None:
        self._writer, self._view, self._progress, self._expected = writer, view, progress, expected

    def __call__(self, frame_and_sharp: tuple[Frame, Plane]) -> None:
        frame, sharp = frame_and_sharp
        self._writer.write(frame, *self._view.planes(frame, sharp))
        if self._progress:
            self._progress(self._writer.frames, self._expected)


class _View:
    """What is written for a frame and its sharp luma: the sharp frame, or a comparison."""

    def __init__(self, compare: str | None, info: VideoInfo) -> None:
        self._comparison = Comparison(compare, info.bits, info.chroma_step) if compare else None
        self._time_base, self._first_pts = info.time_base, info.first_pts
        self.width = self._comparison.width(info.width) if self._comparison else info.width

    def planes(self, frame: Frame, sharp: Plane) -> tuple[Plane, tuple[Plane, ...]]:
        """Luma, and the other planes."""
        if not self._comparison:
            return sharp, frame.chroma
        seconds = float((frame.pts - self._first_pts) * self._time_base)
        luma, *chroma = self._comparison.compose(frame.luma, sharp, frame.chroma, seconds)
        return luma, tuple(chroma)


def open_engine(options: DeblurOptions, say: Say | None) -> Engine:
    """The engine that the options name."""
    say = say or (lambda _: None)
    model = options.model or default_model(say)
    engine = Engine(model, options.backend, options.precision, options.threads)
    say(engine.reason)
    return engine


def _expected(info: VideoInfo, limit: int | None) -> int | None:
    known = [count for count in (info.expected_frames, limit) if count]
    return min(known) if known else None


def _folder(path: Path) -> Path | None:
    """Where the pictures of a sequence or a folder are; None for anything else."""
    if "%" in path.name:
        return path.parent
    return path if path.is_dir() else None


def _encoder(arguments: argparse.Namespace) -> EncoderOptions:
    kind = PIPES.get(arguments.format, arguments.format)
    if kind is None and str(arguments.output) == "-":
        kind = PIPES["y4m"]
    codec = arguments.codec or RAW_CODECS.get(kind or "", DEFAULT_CODEC)
    leave_out = tuple(name for name in ("audio", "subtitle") if not getattr(arguments, f"copy_{name}"))
    return EncoderOptions(codec, arguments.crf, dict(arguments.encoder), kind, leave_out, arguments.drop_unsupported)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videodeblur run",
        description="Deblurs a video file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="INPUT", help="the blurry video; - for standard input, %%05d.png or a folder for pictures")
    add(
        "output",
        type=Path,
        metavar="OUTPUT",
        help="the sharp video, by its suffix (.mp4, .mkv, .mov, ...); - for standard output, %%05d.png or a folder for pictures",
    )
    add("-y", "--overwrite", action="store_true", help="replace OUTPUT if it exists")
    add("--compare", choices=KINDS, help="write a before/after video instead: side by side, a moving divider, or the difference")
    add("--frames", type=int, metavar="N", help="stop after N frames, for a preview")
    add("--rate", type=float, default=25.0, metavar="FPS", help="at which pictures are shown (default: %(default)g)")
    add("--salvage", action="store_true", help="of a damaged INPUT, deliver what is before the damage, instead of refusing it")
    add("--resume", action="store_true", help="keep finished segments in OUTPUT.resume until all is done, and go on from there")
    add("--resume-every", type=int, default=250, metavar="N", help="frames of a segment, about (default: %(default)s)")
    add_network_arguments(parser)
    encoder = parser.add_argument_group("the encoder")
    encoder.add_argument("-c", "--codec", help=f"FFmpeg's name of an encoder (default: {DEFAULT_CODEC})")
    encoder.add_argument(
        "-f", "--format", help="FFmpeg's name of the container (default: by the suffix; y4m to standard output, where nut goes too)"
    )
    encoder.add_argument("--crf", type=float, help="constant rate factor: lower is better and larger")
    encoder.add_argument(
        "-e",
        "--encoder",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the encoder; may be repeated",
    )
    for kind in ("audio", "subtitle"):
        flag = f"--no-copy-{kind}-streams"
        encoder.add_argument(flag, dest=f"copy_{kind}", action="store_false", help=f"leave out the {kind} streams")
    encoder.add_argument(
        "--drop-unsupported", action="store_true", help="leave out sound and subtitles that OUTPUT's container cannot hold"
    )
    output = parser.add_argument_group("what is printed")
    output.add_argument("--no-progress", action="store_true", help="no progress bar")
    output.add_argument("--json", action="store_true", help="the summary as JSON on stdout")
    return parser


def add_network_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that choose and feed the network."""
    model = parser.add_argument_group("the network")
    model.add_argument(
        "--model", type=Path, metavar="ONNX", help="default: the shipped checkpoint, exported once to the user's cache"
    )
    model.add_argument("--backend", default="auto", help="auto (default), openvino or onnxruntime")
    model.add_argument("--precision", default="auto", help="auto (default: the fastest with measured parity), fp32 or bf16")
    model.add_argument("--threads", type=int, metavar="N", help="CPU cores for the network (default: all)")
    model.add_argument(
        "--stride", type=int, metavar="N", help="frames between windows, 1 to 5; below 5 overlapping ones are averaged"
    )
    model.add_argument("--tile", type=int, metavar="PIXELS", help="side that a tile adds; 0 = off (default: what memory allows)")
    model.add_argument(
        "--memory", type=float, metavar="GB", help="that the network may take on a CPU (default: half of what is at hand)"
    )
    model.add_argument(
        "--scene-thresh",
        dest="scene_threshold",
        type=float,
        default=DEFAULT_SCENE_THRESHOLD,
        metavar="SCORE",
        help="FFmpeg's scene score above which a scene starts, which no window crosses; 0 = off (default: %(default)s)",
    )


def network_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of DeblurOptions that `add_network_arguments` reads."""
    names = ("model", "backend", "precision", "threads", "stride", "tile", "memory", "scene_threshold")
    return {name: getattr(arguments, name) for name in names}


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KEY=VALUE")
    return key, value


if __name__ == "__main__":
    raise SystemExit(main(None))
