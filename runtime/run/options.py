"""`DeblurOptions`: what `videodeblur run` is told, checked before anything is opened; `open_engine` opens what they name."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from runtime.default_model import default_model, shipped_sizes
from runtime.encoder_options import EncoderOptions
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.files.numbered_names import is_numbered, is_sequence
from runtime.progress import Say
from runtime.run.network_memory import FIXED_BYTES

MIN_SEGMENT = 10  # frames, two windows
DEFAULT_SERVER_MODEL = "videodeblur"
MEMORIES = (FIXED_BYTES / 1e9, 1e9)  # GB for the network
SHIPPED_FRAMES = 5  # of a window of the shipped sizes
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
    backend: str = "auto"  # see Engine
    precision: str = "auto"  # see Engine
    threads: int | None = None  # CPU cores for the network; None = all
    device: int = 0  # the GPU, where one runs the network
    server: str | None = None  # "grpc://HOST:PORT" or "http://HOST:PORT" of a Triton server that runs the network
    server_model: str = DEFAULT_SERVER_MODEL  # its name there
    stride: int | None = None  # frames between the starts of two windows; None = the window's length
    rate: float = 25.0  # frames per second at which pictures are shown
    frames: int | None = None  # stop after so many; None = all
    tile: int | None = None  # side in pixels that a tile adds; 0 = the whole picture; None = what memory allows
    memory: float | None = None  # GB (10^9 bytes) for the network on a CPU; None = half of what is at hand
    scene_threshold: float = DEFAULT_SCENE_THRESHOLD  # FFmpeg's scene score above which a scene starts; 0 = one scene
    compare: str | None = None  # one of comparison.KINDS: a before/after video instead of the sharp one
    salvage: bool = False  # of a damaged video, deliver what is before the damage, instead of refusing
    playlist: bool = False  # the source may be a list of other files (HLS, DASH, concat)
    resume: bool = False  # keep finished segments beside the output, and go on from those of an earlier run
    resume_every: int = 250  # frames of a segment, about; what a kill can cost
    encoder: EncoderOptions = field(default_factory=EncoderOptions)
    overwrite: bool = False  # replace the output if it exists
    metrics: Path | None = None  # see metrics_file

    def __post_init__(self) -> None:
        """Raises InputError where the output is the source, or exists and may not be replaced, or options contradict each other."""
        if self.output.exists() and self.source.exists() and self.output.samefile(self.source):
            raise InputError(f"{self.output} is the input too, expected another file: the input is never changed")
        if self.resume and (self.to_pictures or self._source_folder or "-" in (str(self.source), str(self.output))):
            raise InputError("a run can be resumed from a video file to a video file only: leave out --resume")
        if self.server and "://" not in self.server:
            raise InputError(f"the server is {self.server!r}, expected grpc://HOST:PORT or http://HOST:PORT")
        if self.server and (self.model, self.backend, self.precision, self.threads, self.device) != (None, "auto", "auto", None, 0):
            flags = "--model, --backend, --precision, --threads, --device"
            raise InputError(f"{self.server} has its own model and backend: leave out {flags}")
        self._check_network()
        if not RATES[0] <= self.rate <= RATES[1]:
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
        if self.memory is not None and not MEMORIES[0] < self.memory <= MEMORIES[1]:
            least = f"{MEMORIES[0]:g} GB, which the libraries take alone"
            raise InputError(f"--memory is {self.memory:g} GB, expected a finite number above {least}")
        if not 0 <= self.scene_threshold <= 1:
            raise InputError(f"--scene-thresh is {self.scene_threshold:g}, expected 0 (off) to 1")

    def _check_pictures(self) -> None:
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


def open_engine(options: DeblurOptions, say: Say | None) -> Engine:
    """The engine that the options name. Raises InputError where its windows are shorter than the stride."""
    say = say or (lambda _: None)
    if options.server is None and (options.model is None or _is_shipped(options.model)):
        _check_stride(options, SHIPPED_FRAMES)
    served = f"{options.server.rstrip('/')}/{options.server_model}" if options.server else None
    path = served or _model(options.model, say)
    engine = Engine(path, options.backend, options.precision, options.threads, options.device)
    if options.stride is not None:
        try:
            _check_stride(options, engine.contract.frames)
        except InputError:
            engine.close()
            raise
    log.info("%s: %s", options.source, engine.reason)
    say(engine.reason)
    return engine


def _model(named: Path | None, say: Say) -> Path:
    """The file that --model names, itself or by a shipped size of the network."""
    if named is None:
        return default_model(say)
    return default_model(say, named.name) if _is_shipped(named) else named


def _is_shipped(named: Path) -> bool:
    return named.name in shipped_sizes() and str(named) == named.name and not named.exists()


def _check_stride(options: DeblurOptions, frames: int) -> None:
    if options.stride is not None and options.stride > frames:
        raise InputError(f"--stride is {options.stride}, expected 1 to {frames} (the frames of a window)")
