"""`DeblurOptions`: what `videodeblur run` is told, checked before anything is opened; `open_engine` opens what they name."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path

from runtime.backends import CPU_BACKENDS
from runtime.default_model import SIZE, default_model, shipped_sizes
from runtime.encoder_options import EncoderOptions
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.fastest import PROMISED, TIMED_SIZE
from runtime.files.numbered_names import is_numbered, is_sequence
from runtime.files.time_ranges import TimeRange, in_order
from runtime.pixels.strength import checked_strength
from runtime.progress import Say
from runtime.run.network_memory import FIXED_BYTES

MIN_SEGMENT = 10  # frames, two windows
DEFAULT_SERVER_MODEL = "videodeblur"
MEMORIES = (FIXED_BYTES / 1e9, 1e9)  # GB for the network
SHIPPED_FRAMES = 5  # of a window of the shipped sizes
DEFAULT_SEGMENT = 250  # frames
DEFAULT_RATE = 25.0  # frames per second of pictures, as in FFmpeg
LATENCIES = 60.0  # seconds
AT_ONCE = {"wrapped_avframe", "rawvideo", "ffv1"}  # encoders that give a frame for a frame
RATES = (0.001, 1000.0)  # frames per second of pictures
DEFAULT_SCENE_THRESHOLD = 0.3  # the lowest that FFmpeg recommends: a cut too many costs a little context, one too few mixes scenes

log = logging.getLogger("videodeblur.run")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class DeblurOptions:
    """What to deblur, with what, into what."""

    source: Path  # a video file, "-" for standard input, a sequence such as %05d.png, or a folder of pictures
    output: Path  # its suffix chooses the container; "-" for standard output, %05d.png or a folder for pictures
    model: Path | None = None  # a file, or the name of a shipped size; None = the default size, see default_model
    budget: float | None = None  # dB that the fastest member of a bundle may lose; None = PROMISED for shipped ones, else its order
    backend: str = "auto"  # see Engine
    precision: str = "auto"  # see Engine
    threads: int | None = None  # CPU cores for the network; None = all
    device: int = 0  # the GPU, where one runs the network
    server: str | None = None  # "grpc://HOST:PORT" or "http://HOST:PORT" of a Triton server that runs the network
    server_model: str = DEFAULT_SERVER_MODEL  # its name there
    stride: int | None = None  # frames between the starts of two windows; None = the window's length
    rate: float | None = None  # frames per second at which pictures are shown, DEFAULT_RATE if None; a video has its own
    frames: int | None = None  # stop after so many; None = all
    tile: int | None = None  # side in pixels that a tile adds; 0 = the whole picture; None = what memory allows
    memory: float | None = None  # GB (10^9 bytes) for the network on a CPU; None = half of what is at hand
    scene_threshold: float = DEFAULT_SCENE_THRESHOLD  # FFmpeg's scene score above which a scene starts; 0 = one scene
    strength: float = 1.0  # of what the network changes, 0 (nothing) to 1
    mask: Path | None = None  # a picture of the video's size: black is left as it is, white deblurred; None = all is
    latency: float | None = None  # seconds after which a frame is out again, which chooses the stride; None = no bound
    part: TimeRange | None = None  # what is read of the source; None = all
    ranges: tuple[TimeRange, ...] = ()  # what is deblurred of that, the rest passes as it is; none = all
    compare: str | None = None  # one of comparison.KINDS: a before/after video instead of the sharp one
    salvage: bool = False  # of a damaged video, deliver what is before the damage, instead of refusing
    playlist: bool = False  # the source may be a list of other files (HLS, DASH, concat)
    resume: bool = False  # keep finished segments beside the output, and go on from those of an earlier run
    resume_every: int = DEFAULT_SEGMENT  # frames of a segment, about; what a kill can cost
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    overwrite: bool = False  # replace the output if it exists
    metrics: Path | None = None  # see metrics_file

    def __post_init__(self) -> None:
        """Raises InputError where the output is the source, or exists and may not be replaced, or options contradict each other.

        A path may be given as a str.
        """
        for name in ("source", "output", "model", "mask", "metrics"):
            given = getattr(self, name)
            if not isinstance(given, (str, Path)) and (given is not None or name in ("source", "output")):
                raise InputError(f"{name} is {given!r:.80}, expected a file's name: a str or a Path")
            object.__setattr__(self, name, None if given is None else Path(given))
        if self.output.exists() and self.source.exists() and self.output.samefile(self.source):
            raise InputError(f"{self.output} is the input too, expected another file: the input is never changed")
        if self.resume and (self.to_pictures or self._source_folder or "-" in (str(self.source), str(self.output))):
            raise InputError("a run can be resumed from a video file to a video file only: leave out --resume")
        if self.server and "://" not in self.server:
            raise InputError(f"the server is {self.server!r}, expected grpc://HOST:PORT or http://HOST:PORT")
        chosen = (self.model, self.budget, self.backend, self.precision, self.threads, self.device)
        if self.server and chosen != (None, None, "auto", "auto", None, 0):
            flags = "--model, --quality, --fast, --backend, --precision, --threads, --device"
            raise InputError(f"{self.server} has its own model and backend: leave out {flags}")
        self._check_network()
        if self.rate is not None and self._source_folder is None:
            raise InputError(f"--rate {self.rate:g} is for pictures, and {self.source} is a video, which has its own: leave it out")
        if self.playlist and (self._source_folder or str(self.source) == "-"):
            raise InputError(f"--playlist is for a file that lists others, and {self.source} is none: leave it out")
        if self.rate is not None and not RATES[0] <= self.rate <= RATES[1]:
            raise InputError(f"the rate is {self.rate} frames per second, expected {RATES[0]} to {RATES[1]:g}")
        if self.resume_every < MIN_SEGMENT:
            raise InputError(f"a segment has {self.resume_every} frames, expected {MIN_SEGMENT} or more")
        if self.to_pictures:
            self._check_pictures()
        elif self.output.exists() and not self.overwrite:
            raise InputError(f"{self.output} exists already: add -y to overwrite it, or choose another name")

    def _check_network(self) -> None:
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads is {self.threads}, expected 1 or more, or leave it out for all cores")
        if self.stride is not None and self.stride < 1:
            raise InputError(f"--stride is {self.stride}, expected 1 to the frames of a window")
        if self.tile is not None and self.tile < 0:
            raise InputError(f"--tile is {self.tile}, expected pixels, or 0 for one piece")
        if self.memory is not None and self.tile is not None:
            raise InputError(f"got --memory {self.memory:g} and --tile {self.tile}, which both say how large tiles are: drop one")
        if self.memory is not None and not MEMORIES[0] < self.memory <= MEMORIES[1]:
            least = f"{MEMORIES[0]:g} GB, which the libraries take alone"
            raise InputError(f"--memory is {self.memory:g} GB, expected a finite number above {least}")
        if not 0 <= self.scene_threshold <= 1:
            raise InputError(f"--scene-thresh is {self.scene_threshold:g}, expected 0 (off) to 1")
        checked_strength(self.strength)
        in_order(self.ranges)
        if self.latency is not None:
            self._check_latency(self.latency)

    def _check_latency(self, seconds: float) -> None:
        if not 0 < seconds <= LATENCIES:
            raise InputError(f"--latency is {seconds:g} s, expected more than 0 and at most {LATENCIES:g}")
        if self.stride is not None:
            raise InputError(f"got --stride {self.stride} and --latency, which chooses the stride: leave out one of them")
        if self.resume or self.to_pictures or self.ranges:
            raise InputError("--latency is for a stream that is shown as it comes: leave out --resume, --segments and pictures")
        if self.encoder.codec not in AT_ONCE and self.encoder.options.get("tune") != "zerolatency":
            raise InputError(
                f"{self.encoder.codec} holds frames back, expected an encoder that does not with --latency: write y4m or -f nut to"
                " standard output, or add -e tune=zerolatency"
            )

    def _check_pictures(self) -> None:
        used = replace(EncoderOptions(), leave_out=self.encoder.leave_out, drop_unsupported=self.encoder.drop_unsupported)
        if self.encoder != used:
            raise InputError(f"{self.output} is pictures, which are written as PNG: leave out -c, --crf, -e and -f")
        folder, source = self.output.parent if is_numbered(self.output) else self.output, self._source_folder
        if source and source.exists() and folder.exists() and folder.samefile(source):
            raise InputError(f"{folder} is the input's folder too, expected another: the input is never changed")
        if not self.overwrite and any(folder.glob("*.png")):
            raise InputError(f"{folder} has pictures already: add -y to replace those of the same name, or choose another folder")

    @property
    def to_pictures(self) -> bool:
        """Whether the output is pictures: a numbered name, or a folder, which is there or comes from pictures."""
        folder = not self.output.suffix and str(self.output) != "-" and (self.output.is_dir() or self._source_folder is not None)
        return is_numbered(self.output) or folder

    @property
    def _source_folder(self) -> Path | None:
        """Where the pictures of a sequence or a folder are; None for anything else."""
        if is_sequence(self.source):
            return self.source.parent
        return self.source if self.source.is_dir() else None


def open_engine(options: DeblurOptions, size: tuple[int, int], say: Say | None) -> Engine:
    """The engine that the options name, for frames of `size` (height, width). Raises InputError where its windows are shorter than
    the stride."""
    say = say or (lambda _: None)
    if options.server is None and (options.model is None or _is_shipped(options.model)):
        _check_stride(options, SHIPPED_FRAMES)
    how = options.backend, options.precision, options.threads, options.device
    if options.server:
        engine = Engine(f"{options.server.rstrip('/')}/{options.server_model}", *how)
    else:
        engine = engine_named(options.model, how, _timed_at(options, size), options.budget)
    ignored = [name for name in ("memory", "threads") if getattr(options, name) is not None]
    if ignored and engine.backend not in CPU_BACKENDS:
        engine.close()
        raise InputError(f"--{ignored[0]} is for a network on the CPU, and this one runs on {engine.backend}: leave it out")
    if options.stride is not None:
        try:
            _check_stride(options, engine.contract.frames)
        except InputError:
            engine.close()
            raise
    log.info("%s: %s", options.source, engine.reason)
    say(engine.reason)
    return engine


def engine_named(
    named: Path | None, how: tuple[str, str, int | None, int], size: tuple[int, int], budget: float | None = None
) -> Engine:
    """The engine of what --model names: a file, a bundle, the name of a shipped size, or None, the default size.

    `how` is backend, precision, threads and device. Of a shipped bundle the fastest file for frames of `size` (height, width) is
    taken, of another only with a `budget`. Raises InputError where that is given for one file, and what Engine raises.
    """
    if named is None or _is_shipped(named):
        path = default_model(str(named or SIZE))
        return Engine(path, *how, fastest_at=size, budget=PROMISED if budget is None else budget)
    if budget is None:
        return Engine(named, *how)
    if named.is_file():
        raise InputError(f"{named} is one file: --quality and --fast choose from a bundle's files; leave them out")
    return Engine(named, *how, fastest_at=size, budget=budget)


def _timed_at(options: DeblurOptions, size: tuple[int, int]) -> tuple[int, int]:
    """The size that files are timed at: that of the frames, or of what the options let be computed at once."""
    limit = TIMED_SIZE if options.memory is not None else (options.tile or max(size),) * 2
    return min(size[0], limit[0]), min(size[1], limit[1])


def _is_shipped(named: Path) -> bool:
    return named.name in shipped_sizes() and str(named) == named.name and not named.exists()


def _check_stride(options: DeblurOptions, frames: int) -> None:
    if options.stride is not None and options.stride > frames:
        raise InputError(f"--stride is {options.stride}, expected 1 to {frames} (the frames of a window)")
