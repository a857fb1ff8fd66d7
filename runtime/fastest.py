"""`open_fastest`: of a bundle's members that cost no more than a budget of quality, the one that runs fastest on this CPU.

Every way to run one (member, backend, arithmetic) must pass the bundle's own test, then computes a few windows, all ways in turn.
What was found is kept in the user's cache, by bundle, CPU, libraries and size, so that the next run opens one member alone.
What was compiled of that is kept too, and its test is not run again, unless the bundle must be signed: the cache is not.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from runtime import backends
from runtime.bundle import Before, checked_bundle, keep_compiled, open_member, run_golden
from runtime.errors import BackendError, DeployError, InputError
from runtime.files.arrays import read_array
from runtime.files.engine_record import SUFFIXES
from runtime.files.manifest import MANIFEST, Manifest, Member
from runtime.files.on_disk import cache_folder, file_sha256, partial_file
from runtime.machine.hardware import computing_here, multiplies_bf16
from runtime.machine.memory import memory_at_hand
from runtime.machine.packages import installed_version

EXACT, PROMISED, ANY = 0.0, 0.05, math.inf  # dB of PSNR against the truth that a member may lose; EXACT: fp32 alone
TIMED_SIZE = (256, 448)  # pixels, the largest windows that all ways are timed with: enough to tell most apart, in a few seconds
LARGE_SIZE = (720, 1280)  # of those that are timed again, for frames of at least as many pixels: caches are too small there
LARGE_MEMORY = 8e9  # bytes that must be at hand for that
LARGE_SECONDS = 1.0  # that one of them may be expected to take: a slower CPU is bound by arithmetic, which small ones tell as well
CLOSE = 1.25  # times the best time at TIMED_SIZE, of the ways that are timed again
STEP = 8  # pixels, of the sizes that are timed
ROUNDS = 2  # after the first, of the ways that are near the best
NEAR = 2.0  # times the best time of the first round
AHEAD = 1.05  # times as fast as one that loses less, for its loss to be taken
KEY_LENGTH = 16  # characters of a SHA-256

log = logging.getLogger("videodeblur.fastest")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Way:
    """One way to run a bundle."""

    file: str  # of the member
    backend: str
    arithmetic: str  # of what the file has in fp32

    def __str__(self) -> str:
        return f"{self.file} on {self.backend} in {self.arithmetic}"


@dataclass(frozen=True)
class Found:
    """What was measured: frames per second of the ways that were timed at this size, the first that of the choice."""

    ways: tuple[Way, ...]
    rates: tuple[float, ...]
    size: tuple[int, int]  # pixels, height and width
    decibels: float  # that the choice reached in the bundle's own test

    def __str__(self) -> str:
        words = f"{self.rates[0]:.3g} frames/s at {self.size[1]}x{self.size[0]}"
        return words + (f"; next {self.ways[1]}, {self.rates[1]:.3g}" if len(self.ways) > 1 else "")


@dataclass
class _Candidate:
    way: Way
    member: Member
    choice: backends.Choice
    decibels: float
    time: float = math.inf  # seconds of a window, the least that was measured


def open_fastest(
    folder: Path, how: backends.How, size: tuple[int, int], budget: float = PROMISED, trust: Path | None = None
) -> backends.Choice:
    """The fastest member within `budget` dB for frames of `size` (height, width); its reason names the runner-up.

    `trust` as in `open_bundle`. Raises what that raises, and InputError for a bundle of engines, which are tried in order.
    """
    manifest, missing = checked_bundle(folder, trust)
    if any(Path(member.file).suffix in SUFFIXES for member in manifest.members):
        raise InputError(f"{folder} holds engines, whose order is its maker's: open it without a wish for the fastest")
    ways = [way for member in manifest.members for way in _ways(member, how, budget)]
    sizes = _timed_sizes(size)
    place = _place(folder, how, sizes, budget)
    if found := _remembered(place, ways):
        with suppress(DeployError):
            before = Before(found.decibels, size) if trust is None else None
            chosen = _opened(folder, manifest, missing, found.ways[0], how, before)
            return _told(chosen, found, "measured here before")
    candidates, refused = _candidates(folder, manifest, missing, ways, how)
    if not candidates:
        raise BackendError(f"nothing in {folder} runs here within {budget:g} dB: {'; '.join(refused) or 'no member is for it'}")
    try:
        found = _measured(candidates, manifest, folder, sizes)
    finally:
        for candidate in candidates[1:]:
            candidate.choice.runner.close()
    _remember(place, found)
    if trust is None:
        keep_compiled(candidates[0].choice.runner, manifest.files[candidates[0].way.file])
    return _told(candidates[0], found, "measured here now", *refused)


def _ways(member: Member, how: backends.How, budget: float) -> Iterator[Way]:
    """Those that the caller admits, the most exact first."""
    loss = member.loss if member.loss is not None else 0.0 if member.precision == "fp32" else math.inf
    if (
        (member.precision != "fp32") if budget == EXACT else (loss > budget)
    ):  # a loss is of the maker's CPU, in bf16 where it has it
        return
    for backend in backends.CPU_BACKENDS if how.backend == "auto" else (how.backend,):
        offered = ("fp32", "bf16") if backend == "openvino" and budget > EXACT and multiplies_bf16() else ("fp32",)
        for arithmetic in offered if how.precision == "auto" else (how.precision,):
            yield Way(member.file, backend, arithmetic)


def _opened(
    folder: Path, manifest: Manifest, missing: set[str], way: Way, how: backends.How, before: Before | None = None
) -> _Candidate:
    member = next(member for member in manifest.members if member.file == way.file)
    arithmetic = "auto" if way.backend == "onnxruntime" else way.arithmetic  # it computes in the graph's own types
    asked = replace(how, backend=way.backend, precision=arithmetic, fallback=False)
    return _Candidate(way, member, *open_member(folder, manifest, member, missing, asked, before))


def _candidates(
    folder: Path, manifest: Manifest, missing: set[str], ways: list[Way], how: backends.How
) -> tuple[list[_Candidate], list[str]]:
    """Those that open here and pass the test, and why the others do not."""
    candidates, refused = [], []
    for way in ways:
        try:
            candidates.append(_opened(folder, manifest, missing, way, how))
        except DeployError as error:
            log.info("%s: not %s: %s", folder, way, error)
            refused.append(f"not {way}: {error}")
    return candidates, refused


def _measured(candidates: list[_Candidate], manifest: Manifest, folder: Path, sizes: Sequence[tuple[int, int]]) -> Found:
    """Times them, and puts the best first: the most exact of those that none is clearly faster than."""
    timed, left = sizes[0], _rounds(candidates, manifest, folder, sizes[0])
    for size in sizes[1:]:
        close = [one for one in left if one.time <= CLOSE * left[0].time]
        expected = left[0].time * math.prod(size) / math.prod(timed)
        if len(close) > 1 and expected <= LARGE_SECONDS:
            timed, left = size, _rounds(close, manifest, folder, size)
    clear = [one for one in left if one.time <= AHEAD * left[0].time]
    best = min(clear, key=lambda one: (one.member.loss or 0.0, one.time))
    left.sort(key=lambda one: (one is not best, one.time))
    candidates.sort(key=lambda one: one is not best)
    rates = tuple(one.choice.contract.frames / one.time for one in left)
    return Found(tuple(one.way for one in left), rates, timed, best.decibels)


def _rounds(candidates: Sequence[_Candidate], manifest: Manifest, folder: Path, size: tuple[int, int]) -> list[_Candidate]:
    """Times them in turn at one size, those near the best a few times; all of them, the fastest first."""
    for candidate in candidates:
        candidate.time = _seconds(candidate, manifest, folder, size, warm=True)
    for _ in range(ROUNDS):
        least = min(candidate.time for candidate in candidates)
        for candidate in candidates:
            if candidate.time <= NEAR * least:
                candidate.time = min(candidate.time, _seconds(candidate, manifest, folder, size, warm=False))
    return sorted(candidates, key=lambda one: one.time)


def _seconds(candidate: _Candidate, manifest: Manifest, folder: Path, size: tuple[int, int], warm: bool) -> float:
    golden = manifest.goldens[candidate.member.golden]
    contract = candidate.choice.contract
    window = replace(golden, height=contract.height or size[0], width=contract.width or size[1])
    codes = read_array(folder / golden.input)
    if warm:  # the first window of a size is compiled for
        run_golden(candidate.choice.runner, contract, window, codes)
    started = time.perf_counter()
    run_golden(candidate.choice.runner, contract, window, codes)
    return time.perf_counter() - started


def _told(chosen: _Candidate, found: Found, *more: str) -> backends.Choice:
    reason = f"{chosen.way.file}, {found}; within {chosen.decibels:.1f} dB of the bundle's golden frames"
    return replace(chosen.choice, reason="; ".join([reason, *more]))


def _timed_sizes(size: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of the windows that are timed for frames of `size`, one after the other."""
    height, width = (max(STEP, min(given, most) // STEP * STEP) for given, most in zip(size, TIMED_SIZE))
    at_hand = memory_at_hand()
    large = math.prod(size) >= math.prod(LARGE_SIZE) and (at_hand is None or at_hand >= LARGE_MEMORY)
    return [(height, width), *([LARGE_SIZE] if large else [])]


def _place(folder: Path, how: backends.How, sizes: Sequence[tuple[int, int]], budget: float) -> Path:
    machine = [*computing_here(), *map(installed_version, backends.CPU_BACKENDS)]
    asked = [how.backend, how.precision, how.threads, sizes, str(budget)]
    described = json.dumps([file_sha256(folder / MANIFEST), machine, asked])
    return cache_folder() / f"fastest-{hashlib.sha256(described.encode()).hexdigest()[:KEY_LENGTH]}.json"


def _remembered(place: Path, ways: list[Way]) -> Found | None:
    """What an earlier run found; None where there is none, or it is damaged or of other ways: it is measured anew then."""
    try:
        values = json.loads(place.read_text())
        found = Found(
            tuple(Way(**way) for way in values["ways"]),
            tuple(float(rate) for rate in values["rates"]),
            (int(values["size"][0]), int(values["size"][1])),
            float(values["decibels"]),
        )
    except (OSError, ValueError, TypeError, KeyError, IndexError):
        return None
    return found if found.ways and len(found.ways) == len(found.rates) and set(found.ways) <= set(ways) else None


def _remember(place: Path, found: Found) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(place) as partial:
            partial.write_text(json.dumps(asdict(found)) + "\n")
    except (OSError, DeployError) as error:
        log.info("%s is not remembered: %s", place, error)
