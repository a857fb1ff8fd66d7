"""Puts models, engines and golden frames into one folder that checks itself wherever it is opened; verifies one.

See docs/bundle.md.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from calibration.onnx_file import load_model
from export.compare.golden_frames import golden_kind, write_golden
from export.compare.luma import against_truth, run_luma
from export.compare.parity import RunsModel, clip_windows
from export.shipped_clips import DEFAULT_CLIP, DEFAULT_PAIR, SIZE_COMPARED
from runtime import backends
from runtime.bundle import run_golden, self_test, signatures
from runtime.command_line import command, quoted
from runtime.engine import Engine
from runtime.errors import BackendError, InputError, ModelError
from runtime.files.arrays import read_array
from runtime.files.contract import Contract
from runtime.files.engine_record import SUFFIXES, load_record, record_path
from runtime.files.manifest import SIGNATURE, Golden, Manifest, Member, check_files, load_manifest
from runtime.files.on_disk import file_sha256, partial_folder
from runtime.machine.hardware import cpu_name
from runtime.machine.packages import installed_version
from runtime.pixels.metrics import decibels_for_json

JUDGED = 4  # windows of the shipped pair of clips on which a member's loss is measured
TIMED = 3  # runs of the golden window, the fastest counts
RECORDED = ("numpy", "onnx", "onnxruntime", "openvino", "torch", "tensorrt", "tensorrt_rtx", "cuda-bindings")


@dataclass(frozen=True)
class BundleRequest:
    """What goes into a bundle."""

    reference: Path  # fp32 ONNX file from videodeblur export, which the golden frames are made with; a member, too
    models: tuple[Path, ...]  # other ONNX files and engines, in the order in which they are tried; the reference comes last
    output: Path  # a folder that is not there yet
    attachments: tuple[Path, ...] = ()  # ranges.json, reports and whatever else should travel, unread
    clip: Path = DEFAULT_CLIP  # that the golden frames are from
    sign: Path | None = None  # private key; None: not signed


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, writes the bundle, prints what is in it."""
    parser = argparse.ArgumentParser(prog="videodeblur bundle", description=__doc__)
    parser.add_argument("--onnx", type=Path, help="fp32 file of videodeblur export: the reference, and the last member")
    parser.add_argument(
        "--engine",
        type=Path,
        action="append",
        default=[],
        help="engine or typed .onnx file, tried in this order, before --onnx; repeat",
    )
    parser.add_argument("--output", type=Path, help="folder to make, such as x.bundle")
    parser.add_argument(
        "--attach", type=Path, action="append", default=[], help="file to put beside them, such as ranges.json; repeat"
    )
    parser.add_argument(
        "--clip", type=Path, default=DEFAULT_CLIP, help="video that the golden frames are from (default: the shipped clip)"
    )
    parser.add_argument("--sign", type=Path, metavar="KEY", help="private key that signs the bundle (pip install '.[signing]')")
    parser.add_argument("--verify", type=Path, metavar="BUNDLE", help="check every byte of a bundle, and make none")
    parser.add_argument("--trust", type=Path, metavar="KEY", help="public key whose owner must have signed what is verified")
    given = parser.parse_args(argv)
    if given.verify:
        print(verified(given.verify, given.trust))
        return 0
    if given.trust:
        raise InputError("--trust goes with --verify: name the bundle there")
    if not (given.onnx and given.output):
        raise InputError("a bundle is made of --onnx as --output: name both, or one to --verify")
    request = BundleRequest(given.onnx, tuple(given.engine), given.output, tuple(given.attach), given.clip, given.sign)
    print(summary(request.output, write_bundle(request)))
    return 0


def write_bundle(request: BundleRequest) -> Manifest:
    """Writes the folder; it appears whole or not at all.

    Raises InputError when the folder is there, ModelError when a member is of another checkpoint or was changed since it was made,
    what reading the members raises.
    """
    if request.output.exists():
        raise InputError(f"{request.output} is there already: name another folder with --output, or remove it")
    signer = signatures().signer(request.sign) if request.sign else None
    _, contract = load_model(request.reference)
    if contract.precision != "fp32":
        raise ModelError(f"{request.reference} is in {contract.precision}, expected the fp32 file that the others were made of")
    with partial_folder(request.output) as partial:
        manifest = _fill(partial, request, contract)
        manifest.save(partial)
        if signer:
            signatures().sign(partial, signer)
    return manifest


def verified(folder: Path, trust: Path | None) -> str:
    """What was verified of a bundle, as text. Raises ModelError where a byte, or the signature, is not as it must be."""
    manifest = load_manifest(folder, signatures().verify(folder, trust) if trust else None)
    if missing := check_files(folder, manifest):
        raise ModelError(f"{folder} lacks {', '.join(sorted(missing))}: copy the bundle again")
    author = "signed, by whom was not asked (--trust)" if (folder / SIGNATURE).exists() else "nobody signed it"
    if trust:
        author = f"signed by the owner of {trust}"
    return f"{folder}: {len(manifest.files)} files are as its manifest says; {author}"


def summary(folder: Path, manifest: Manifest) -> str:
    """The bundle as text."""
    size = sum((folder / name).stat().st_size for name in manifest.files)
    lines = [f"{folder}: {len(manifest.files)} files, {size / 1e6:.1f} MB; members in the order in which they are tried:"]
    for member in manifest.members:
        ran = f"run by {member.measured_on}: {member.parity:.1f} dB" if member.parity is not None else "not run here"
        lines.append(f"  {member.file}: {member.precision}, {ran}")
    lines.append(f"next: {quoted('videodeblur', 'run', 'IN.mp4', 'OUT.mp4', '--model', folder)}")
    return "\n".join(lines)


def _fill(folder: Path, request: BundleRequest, contract: Contract) -> Manifest:
    """Copies and writes everything but the manifest."""
    paths = (*request.models, request.reference)
    contracts = [_contract_of(path) for path in paths]
    for path, found in zip(paths, contracts):
        _check_kin(path, found, request.reference, contract)
    _copy([*paths, *(record_path(path) for path in paths if path.suffix in SUFFIXES), *request.attachments], folder)
    kinds = [golden_kind(path, found) for path, found in zip(paths, contracts)]
    goldens = {kind: write_golden(folder, request.reference, request.clip, contract.frames, kind) for kind in dict.fromkeys(kinds)}
    numbers = list(goldens)
    members = tuple(
        Member(path.name, _precision_of(path, found), numbers.index(kind)) for path, found, kind in zip(paths, contracts, kinds)
    )
    frames, truth = tuple(goldens.values()), _Truth(request.reference, contract)
    return Manifest(
        checkpoint_sha256=contract.checkpoint_sha256,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        files={path.name: file_sha256(path) for path in sorted(folder.iterdir())},
        members=tuple(_measured(folder, member, frames[member.golden], truth) for member in members),
        goldens=frames,
        versions={name: version for name in RECORDED if (version := installed_version(name))},
    )


def _contract_of(path: Path) -> Contract:
    return load_record(path).contract if path.suffix in SUFFIXES else load_model(path)[1]


def _precision_of(path: Path, contract: Contract) -> str:
    return load_record(path).precision if path.suffix in SUFFIXES else contract.precision


def _check_kin(path: Path, found: Contract, reference: Path, contract: Contract) -> None:
    if (found.checkpoint_sha256, found.configuration, found.frames) != (
        contract.checkpoint_sha256,
        contract.configuration,
        contract.frames,
    ):
        raise ModelError(f"{path} is of another checkpoint or network than {reference}: make both from one")
    smallest = load_record(path).profiles[0].min[0] if path.suffix in SUFFIXES else found.batch or 1
    if smallest != 1:
        raise ModelError(f"{path} takes {smallest} windows at least, a bundle's members take one: build or export it with N = 1")


def _copy(paths: Sequence[Path], folder: Path) -> None:
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}: no such file to bundle")
        if (folder / path.name).exists():
            raise InputError(f"two files are called {path.name}: rename one")
        shutil.copyfile(path, folder / path.name)


class _Truth:
    """How much a member loses against the truth of the shipped pair of clips, compared with the reference."""

    def __init__(self, reference: Path, contract: Contract) -> None:
        self._size = contract.height or SIZE_COMPARED[0], contract.width or SIZE_COMPARED[1]
        self._blurry, self._sharp = (clip_windows(path, contract.frames, JUDGED, *self._size) for path in DEFAULT_PAIR)
        with Engine(reference, "onnxruntime", "fp32") as engine:
            self._reached = self._quality(engine)

    def loss(self, engine: Engine) -> float | None:
        """dB, positive is worse; None of an engine, and of a model of another size."""
        contract = engine.contract
        size = contract.height or self._size[0], contract.width or self._size[1]
        return None if engine.path.suffix in SUFFIXES or size != self._size else self._reached - self._quality(engine)

    def _quality(self, engine: RunsModel) -> float:
        return against_truth([run_luma(engine, window[None]) for window in self._blurry], list(self._sharp[:, None]))


def _measured(folder: Path, member: Member, golden: Golden, truth: _Truth) -> Member:
    """The member with its parity, loss and speed, where this machine runs it. Raises BackendError when it runs and is not the
    network."""
    try:
        engine = Engine(folder / member.file)
    except BackendError:  # no GPU, or no library: it is for another machine
        return member
    with engine:
        choice = backends.Choice(engine.runner, engine.contract, engine.reason)
        decibels = self_test(folder, golden, choice)
        codes = read_array(folder / golden.input)
        times = [_seconds(lambda: run_golden(choice.runner, choice.contract, golden, codes)) for _ in range(TIMED)]
        loss = truth.loss(engine)
    machine = choice.runner.gpu.name if hasattr(choice.runner, "gpu") else cpu_name()
    where = f"{choice.runner.name} {choice.runner.precision}, {machine}"
    parity, milliseconds = round(decibels_for_json(decibels), 2), round(1000 * min(times), 2)
    lost = None if loss is None else round(loss, 4)
    return replace(member, parity=parity, milliseconds=milliseconds, measured_on=where, loss=lost)


def _seconds(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    raise SystemExit(main())
