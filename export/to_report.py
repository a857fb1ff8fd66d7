"""Bundle -> one self-contained HTML page: before and after, quality of every frame, parity, speed, memory, sensitivity, manifest.

    videodeblur report x.bundle
    videodeblur report x.bundle --clip blurry.mp4 --sharp sharp.mp4 --output report.html

Every member that runs here deblurs the clip, each in a process of its own.
"""

from __future__ import annotations

import argparse
import math
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from export.report.clip_scores import Clips, FrameScore, frame_scores, show, typical_frame
from export.report.facts import Facts, MemberResult
from export.report.page import page
from export.report.records import read_gates, read_searches
from export.report.try_member import SUFFIX, try_member
from export.shipped_clips import DEFAULT_PAIR
from runtime.command_line import command
from runtime.errors import BackendError, InputError
from runtime.files.manifest import Member, check_files, load_manifest
from runtime.files.on_disk import partial_file
from runtime.machine.hardware import cpu_name
from runtime.machine.memory import memory_size
from runtime.machine.packages import installed_packages
from runtime.progress import Say
from runtime.video import VideoReader

DEFAULT_FRAMES = 30
LIBRARIES = (
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx",
    "tensorrt-lean",
    "cuda-bindings",
    "av",
)
HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # of AVColorTransferCharacteristic


@dataclass(frozen=True)
class ReportOptions:
    """What is reported on, with which frames."""

    bundle: Path
    output: Path  # replaced when it is there
    clip: Path = DEFAULT_PAIR[0]  # a video, or a folder of pictures
    sharp: Path | None = DEFAULT_PAIR[1]  # the same frames without blur; None where there are none
    frames: int = DEFAULT_FRAMES  # of the clip, at most

    def __post_init__(self) -> None:
        """Raises InputError on no frames, a clip that is no file or folder, or a page that would replace what it is made from."""
        if self.frames < 1:
            raise InputError(f"the report is of {self.frames} frames, expected 1 or more")
        if self.output.is_dir():
            raise InputError(f"{self.output} is a folder, expected a file such as report.html")
        for path in (self.clip, self.sharp):
            if str(path) == "-":
                raise InputError("standard input cannot be read for every member: name a file or a folder of pictures")
            if path and path.exists() and self.output.exists() and self.output.samefile(path):
                raise InputError(f"{self.output} is an input too, expected another file such as report.html")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, writes, says where."""
    options = _parse(argv)
    facts = write_report(options, lambda text: print(text, file=sys.stderr, flush=True))
    running = sum(result.trial is not None for result in facts.members)
    print(f"{options.output}: {options.output.stat().st_size / 1e6:.1f} MB, {running} of {len(facts.members)} members ran here")
    return 0


def write_report(options: ReportOptions, say: Say) -> Facts:
    """Writes the page, which appears whole or not at all, and returns what is in it.

    A member that does not run here is told with its reason. Raises ModelError when the bundle is damaged, VideoError or InputError
    when a clip is, or the two differ.
    """
    manifest = load_manifest(options.bundle)
    missing = check_files(options.bundle, manifest)
    gates, searches = read_gates(options.bundle, manifest), read_searches(options.bundle, manifest)
    notes = _notes(options)
    with tempfile.TemporaryDirectory() as folder:
        tried = [_try(member, options, Path(folder), say) for member in manifest.members]
        scored = [_scored(result, options, Path(folder)) for result in tried]
        used = next((number for number, result in enumerate(tried) if result.trial), None)
        scores = scored[used][1] if used is not None else []
        clips = None if used is None else _clips(tried[used], options, Path(folder))
        facts = Facts(
            name=options.bundle.resolve().name,
            manifest=manifest,
            missing=tuple(sorted(missing)),
            made=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            clip=options.clip.name,
            truth=options.sharp.name if options.sharp else None,
            members=tuple(result for result, _ in scored),
            used=None if used is None else tried[used].member.file,
            scores=tuple(scores),
            shown=show(clips, typical_frame(scores, clips.frames)) if clips else None,
            notes=notes,
            gates=gates,
            searches=searches,
            environment=_environment(),
        )
    with partial_file(options.output) as partial:
        partial.write_text(page(facts), encoding="utf-8")
    return facts


def _notes(options: ReportOptions) -> tuple[str, ...]:
    """Opens the clips before anything is run, and says what the page cannot show of them."""
    for path in (options.clip, options.sharp):
        if path:
            with VideoReader(path) as reader:
                transfer = HDR_TRANSFERS.get(reader.info.color_tags[3])
            if transfer:
                return (f"{path.name} is HDR ({transfer}) and is shown without tone mapping: its colours look washed out here.",)
    return ()


def _try(member: Member, options: ReportOptions, folder: Path, say: Say) -> MemberResult:
    say(f"trying {member.file}")
    try:
        trial = try_member(options.bundle, member.file, options.clip, folder / f"{member.file}{SUFFIX}", options.frames)
    except BackendError as error:
        say(f"not here: {error}")
        return MemberResult(member, None, str(error))
    return MemberResult(member, trial)


def _scored(result: MemberResult, options: ReportOptions, folder: Path) -> tuple[MemberResult, list[FrameScore]]:
    if result.trial is None or options.sharp is None:
        return result, []
    scores = frame_scores(_clips(result, options, folder))
    finite = [score.psnr_after for score in scores if math.isfinite(score.psnr_after)]
    mean = sum(finite) / len(finite) if finite else math.inf
    return MemberResult(result.member, result.trial, psnr=mean), scores


def _clips(result: MemberResult, options: ReportOptions, folder: Path) -> Clips:
    assert result.trial is not None
    return Clips(options.clip, folder / f"{result.member.file}{SUFFIX}", options.sharp, result.trial.frames)


def _environment() -> dict[str, str]:
    packages, memory = installed_packages(), memory_size()
    return {
        "CPU": cpu_name(),
        **({"memory": f"{memory / 1e9:.1f} GB"} if memory else {}),
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        **{name: packages[name] for name in LIBRARIES if name in packages},
    }


def _parse(argv: Sequence[str] | None) -> ReportOptions:
    parser = argparse.ArgumentParser(
        prog="videodeblur report", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=_folder, help="bundle to report on")
    parser.add_argument("--clip", type=Path, help="blurry video or folder of pictures (default: the shipped clip, with its truth)")
    parser.add_argument("--sharp", type=Path, help="video or folder of the same frames without blur")
    text = "frames of the clip, at most (default %(default)s)"
    parser.add_argument("--frames", type=int, default=DEFAULT_FRAMES, metavar="N", help=text)
    parser.add_argument("--output", type=Path, help="HTML file, replaced when it is there (default: BUNDLE.html)")
    given = parser.parse_args(argv)
    if given.sharp and not given.clip:
        raise InputError("--sharp is the truth of a clip, which was not named: add --clip BLURRY")
    clip, sharp = (given.clip, given.sharp) if given.clip else DEFAULT_PAIR
    return ReportOptions(given.bundle, given.output or default_output(given.bundle), clip, sharp, given.frames)


def _folder(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError("got an empty name, expected a bundle's: is the variable set that it comes from?")
    return Path(text)


def default_output(bundle: Path) -> Path:
    """Beside the bundle."""
    named = bundle if bundle.name.strip(".") else bundle.resolve()  # "." and ".." are names of none
    return named.with_name(f"{named.resolve().name}.html")


if __name__ == "__main__":
    raise SystemExit(main())
