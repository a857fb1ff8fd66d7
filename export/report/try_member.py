"""Runs one member of a bundle over a clip in a process of its own: its parity, speed and peak memory here, as JSON.

The command deblurs CLIP into OUTPUT without loss, as `videodeblur run` would with this member.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from runtime import backends
from runtime.bundle import self_test
from runtime.command_line import command
from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.engine import Engine
from runtime.errors import BackendError, InputError
from runtime.files.manifest import check_files, load_manifest, reader
from runtime.files.records import parse_object, read_record
from runtime.machine.memory import peak
from runtime.run.options import DeblurOptions

LOSSLESS = EncoderOptions("ffv1", drop_unsupported=True)
SUFFIX = ".mkv"


@dataclass(frozen=True)
class Trial:
    """What a member did here."""

    backend: str
    precision: str  # arithmetic
    machine: str | None  # the GPU's name; None on a CPU
    parity: float | None  # dB of the golden frames against the reference; None where they are equal
    frames: int
    network_fps: float  # frames per second of the network alone, without its first call, while decoding and encoding go on
    fps: float  # from decoding to lossless encoding, the first window and its preparation included
    peak_memory: int | None  # bytes of resident memory of the process, Python and video included; None where not told


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, runs, prints JSON."""
    parser = argparse.ArgumentParser(prog="export/report/try_member.py", description=__doc__)
    parser.add_argument("bundle", type=Path, help="bundle to open")
    parser.add_argument("member", help="file that the manifest lists as a member")
    parser.add_argument("clip", type=Path, help="video, or a folder of pictures")
    parser.add_argument("output", type=Path, help=f"{SUFFIX} file to write")
    parser.add_argument("--frames", type=int, help="frames of the clip to run (default: all)")
    given = parser.parse_args(argv)
    print(json.dumps(asdict(run_member(given.bundle, given.member, given.clip, given.output, given.frames))))
    return 0


def run_member(bundle: Path, name: str, clip: Path, output: Path, frames: int | None) -> Trial:
    """Tests the member on its golden frames, then deblurs the clip with it. Raises what opening and running raise."""
    manifest = load_manifest(bundle)
    check_files(bundle, manifest)
    members = {member.file: member for member in manifest.members}
    if name not in members:
        raise InputError(f"{bundle} has no member {name!r}, expected one of {', '.join(members)}")
    golden = manifest.goldens[members[name].golden]
    read = reader(bundle, manifest)
    choice = backends.open_model(bundle / name, backends.How(), read)
    gpu = getattr(choice.runner, "gpu", None)
    with closing(choice.runner):
        parity = self_test(bundle, golden, choice, read)
    seconds: list[float] = []
    with Engine(bundle / name) as engine:
        engine.observe(lambda _, took, __: seconds.append(took))
        options = DeblurOptions(clip, output, frames=frames, encoder=LOSSLESS, overwrite=True)
        summary = deblur_video(options, engine=engine)
    return Trial(
        backend=summary.backend,
        precision=summary.precision,
        machine=gpu.name if gpu else None,
        parity=None if parity == float("inf") else parity,
        frames=summary.frames,
        network_fps=summary.frames / (statistics.mean(seconds[1:] or seconds) * len(seconds)),
        fps=summary.fps,
        peak_memory=peak(),
    )


def try_member(bundle: Path, name: str, clip: Path, output: Path, frames: int | None) -> Trial:
    """`run_member` in a process of its own, which tells its memory from ours and may crash.

    Raises BackendError, with the reason, where the member does not run here.
    """
    asked = [str(path) for path in (Path(__file__).resolve(), bundle, name, clip, output)]
    limit = [] if frames is None else ["--frames", str(frames)]
    done = subprocess.run([sys.executable, *asked, *limit], capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"the process ended with status {done.returncode}"]
        raise BackendError(said[-1].removeprefix("error: "))
    return read_record(Trial, parse_object(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    raise SystemExit(main())
