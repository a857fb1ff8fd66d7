"""`begin_library`: which videos a folder has, where their outputs go, and with what they are deblurred."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from runtime import Engine
from runtime.default_model import default_model
from runtime.encoder_options import EncoderOptions
from runtime.errors import InputError, ModelError
from runtime.fastest import PROMISED, TIMED_SIZE
from runtime.files.differences import differences
from runtime.files.on_disk import file_sha256
from runtime.progress import Say
from serving.library.plan import PLAN, WORK, Entry, Library, Settings, folder_name, load_library, part_name, save

VIDEOS = {".mp4", ".mkv", ".mov", ".m4v", ".avi", ".webm", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".nut"}
KEPT = {".mp4", ".mkv", ".mov", ".m4v"}  # suffixes that outputs have too; others get ELSE after their own
ELSE = ".mkv"
MANIFEST = "manifest.json"  # of a bundle
OWN_MODEL = "model.onnx"  # in WORK, a copy of the shipped one
ENCODER_THREADS = "4"  # fixed, since some encoders write other bits with other numbers; machines have different ones


@dataclass(frozen=True)
class LibraryRequest:
    """What a user asks for."""

    source: Path  # folder with the videos, and with folders of them
    output: Path  # folder for the results, which is made; it gets the same folders
    model: Path | None = None  # see DeblurOptions, for these
    budget: float | None = None  # of the shipped bundle, from which the model is taken where none is named
    backend: str = "auto"
    precision: str = "auto"
    threads: int | None = None
    stride: int | None = None
    tile: int | None = None
    memory: float | None = None
    scene_threshold: float = 0.3
    strength: float = 1.0
    segment: int = 250  # frames, about
    suffix: str | None = None  # of all outputs; None = the source's, where it is in KEPT
    encoder: EncoderOptions = field(default_factory=EncoderOptions)

    def __post_init__(self) -> None:
        """Raises InputError when there is no such folder, the results are to lie just there or above it, or an option is none."""
        if not self.source.is_dir():
            raise InputError(f"{self.source} is no folder, expected one with videos in it")
        if self.output.exists() and not self.output.is_dir():
            raise InputError(f"{self.output} is a file, expected a folder for the results")
        if self.output.is_dir() and self.output.samefile(self.source):
            raise InputError(f"{self.output} is the input too, expected another folder: the input is never changed")
        if self.output.resolve() in self.source.resolve().parents:
            raise InputError(f"{self.source} lies inside {self.output}, expected a folder for the results beside it or inside it")
        if self.suffix and Path(f"x{self.suffix}").suffix != self.suffix:
            raise InputError(f"the suffix is {self.suffix!r}, expected one with its dot, such as .mkv")
        if self.model and self.budget is not None:
            raise InputError(
                f"--quality and --fast choose from what is shipped, {self.model} is named: leave out the one or the other"
            )
        if self.threads is not None and self.threads < 1:
            raise InputError(f"the network has {self.threads} threads, expected 1 or more")


def begin_library(request: LibraryRequest, say: Say) -> Library:
    """Writes plan.json with all videos, none of them planned yet; an earlier plan of the same settings is gone on with.

    The model is opened to see what "auto" comes to on this machine, unless backend and precision are both named. Raises InputError
    when there is no video, two would have one output, or an earlier plan was made with other settings; Engine's errors.
    """
    work = request.output.absolute() / WORK
    work.mkdir(parents=True, exist_ok=True)  # first, since it shows whether names that differ in case are two files there
    entries = tuple(_entries(request))
    if not entries:
        raise InputError(f"{request.source} has no videos, expected files such as *.mp4 ({', '.join(sorted(VIDEOS))})")
    request = request if request.model else _with_own_model(request, work, say)
    model = Path(request.model or work / OWN_MODEL).absolute()
    settings = _settings(request, model, say)
    library = Library(
        source=str(request.source.absolute()),
        output=str(request.output.absolute()),
        model=str(model),
        memory=request.memory,
        settings=settings,
        fingerprint=settings.fingerprint,
        videos=entries,
    )
    library.options(entries[0])  # what it refuses is refused now, not for each video
    if (work / PLAN).exists():
        before = load_library(request.output)
        _check_same(before, library)
        planned = {entry.file: entry for entry in before.videos}
        library = replace(library, videos=tuple(planned.get(entry.file, entry) for entry in entries))
    save(library, work / PLAN)
    return library


def open_engine(library: Library, threads: int | None, model: Path | None = None) -> Engine:
    """The engine that was planned, from the library's model or a copy of it elsewhere.

    Raises ModelError when the file is not the one that was planned, or computes otherwise here; Engine's errors.
    """
    path, settings = model or Path(library.model), library.settings
    found = model_sha256(path)
    if found != settings.model_sha256:
        raise ModelError(
            f"{path} is not the model of the plan: its sha256 is {found[:12]}, expected {settings.model_sha256[:12]}: copy it again"
        )
    engine = Engine(path, settings.backend, settings.precision, threads)
    got = f"{engine.backend} {engine.precision}"
    if got != settings.arithmetic:
        engine.close()
        raise ModelError(
            f"{path} runs as {got} here, the plan says {settings.arithmetic}: name --backend and --precision in a new plan"
        )
    return engine


def model_sha256(model: Path) -> str:
    """Of the file; of a bundle's manifest, which has those of all its files, and Engine checks them."""
    try:
        return file_sha256(model / MANIFEST if model.is_dir() else model)
    except OSError as error:
        raise ModelError(f"{model}: {error.strerror}: make it visible under this path on every machine") from error


def _settings(request: LibraryRequest, model: Path, say: Say) -> Settings:
    backend, precision = request.backend, request.precision
    arithmetic = f"{backend} {precision}"
    if "auto" in (backend, precision):
        with Engine(model, backend, precision, request.threads) as engine:
            say(engine.reason)
            arithmetic, backend = f"{engine.backend} {engine.precision}", engine.backend
            if backend == "openvino":  # the others take their arithmetic from the graph alone
                precision = engine.precision
    encoder = request.encoder
    return Settings(
        model_sha256=model_sha256(model),
        arithmetic=arithmetic,
        backend=backend,
        precision=precision,
        stride=request.stride,
        tile=request.tile,
        scene_threshold=request.scene_threshold,
        segment=request.segment,
        codec=encoder.codec,
        crf=encoder.crf,
        encoder={"threads": ENCODER_THREADS, **encoder.options},
        leave_out=encoder.leave_out,
        drop_unsupported=encoder.drop_unsupported,
        strength=request.strength,
    )


def _entries(request: LibraryRequest) -> Iterator[Entry]:
    source, results = request.source.resolve(), request.output.resolve()
    case_counts = not (request.output / WORK.upper()).exists()
    outputs: dict[str, str] = {}
    for path in sorted(source.rglob("*")):
        inside = path.relative_to(source)
        hidden = any(part.startswith(".") for part in inside.parts)
        if path.suffix.lower() not in VIDEOS or hidden or results in path.parents or not path.is_file():
            continue
        target = str(_output_name(inside, request.suffix))
        file = target if case_counts else target.casefold()
        if file in outputs:
            raise InputError(f"{outputs[file]} and {inside} would both become {target}: rename one, or leave out --suffix")
        outputs[file] = str(inside)
        yield Entry(str(inside), target, folder_name(str(inside)))


def _output_name(inside: Path, suffix: str | None) -> Path:
    if suffix:
        return inside.with_suffix(suffix)
    return inside if inside.suffix.lower() in KEPT else inside.with_name(inside.name + ELSE)


def _with_own_model(request: LibraryRequest, work: Path, say: Say) -> LibraryRequest:
    """The request with the shipped model that is fastest here, copied into the folder that every machine sees.

    A library that was begun keeps its copy and how it is run: another release may ship another model, or measure otherwise.
    """
    own = work / OWN_MODEL
    begun = own.exists() and (work / PLAN).exists()
    if begun and request.budget is None:
        before = load_library(request.output).settings
        return _run_as(request, own, before.backend, before.precision)
    budget = PROMISED if request.budget is None else request.budget
    how = request.backend, request.precision, request.threads
    with Engine(default_model(), *how, fastest_at=TIMED_SIZE, budget=budget) as engine:
        say(engine.reason)
        if not begun:
            partial = part_name(own)
            shutil.copyfile(engine.file, partial)
            partial.replace(own)
        elif file_sha256(own) != file_sha256(engine.file):
            raise InputError(f"{work} was begun with another file than {engine.file.name}: leave out --quality and --fast to go on")
    return _run_as(request, own, engine.backend, engine.precision if engine.backend == "openvino" else request.precision)


def _run_as(request: LibraryRequest, model: Path, backend: str, precision: str) -> LibraryRequest:
    """The request for a model, and how it is run where the user left that open."""
    if request.backend == "auto":
        request = replace(request, backend=backend)
    return replace(request, model=model, budget=None, precision=precision if request.precision == "auto" else request.precision)


def _check_same(before: Library, now: Library) -> None:
    was, is_now = ({"source": library.source, **asdict(library.settings.of_segments)} for library in (before, now))
    other = differences(was, is_now)
    outputs = {entry.file: entry.output for entry in before.videos}
    moved = [entry for entry in now.videos if outputs.get(entry.file, entry.output) != entry.output]
    if moved:
        other.append(f"the output of {moved[0].file} was {outputs[moved[0].file]!r}, is {moved[0].output!r}: look at --suffix")
    if other:
        raise InputError(
            f"{before.work} holds a run that was begun differently ({'; '.join(other)}): go on as it was, or delete the folder"
        )
