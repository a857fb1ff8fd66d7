"""Damages files by the thousand and has a child read each, under a watchdog: `python tests/fuzz.py --inputs 10000`.

Bundles' manifests, their golden arrays, ONNX files, ranges, precision files, engines' records and small videos, of the tiny network
of the tests. Each must be read, or be refused with a DeployError: a crash, a hang and a traceback are faults, and are kept. What
hashes would refuse at once gets true hashes after the damage, so that the code behind them is reached.
"""

import argparse
import json
import random
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runtime.files.engine_record import record_path
from runtime.files.manifest import MANIFEST, manifest_text
from runtime.files.on_disk import file_sha256

CHILD = Path(__file__).with_name("fuzz_child.py")
SECONDS = 60  # of an input, after which the child hangs
FIRST = 300  # of the first, since the child imports everything
FAULTS = ("crash", "hang", "traceback")
TEXTS = ("manifest", "ranges", "precision", "record")  # JSON, which is damaged as such, too
KINDS = ("manifest", "array", "onnxruntime", "openvino", "onnx", "ranges", "precision", "record", "video")
JUNK = [None, -1, 10**30, 0.5, "", "x", "x" * 5000, "../x", [], {}, True, [[]], float("nan"), 2**63, "\ud800"]


@dataclass(frozen=True)
class Seeds:
    """Files that are whole."""

    bundle: Path
    engine: Path  # with its record
    model: Path  # that deblurs the videos
    unsigned: bytes  # the model as of before hashes, so that libraries see its damage
    ranges: bytes
    precision: bytes
    videos: tuple[Path, ...]


@dataclass
class Report:
    """How the inputs ended."""

    ends: Counter = field(default_factory=Counter)  # by (kind, how)
    faults: list = field(default_factory=list)  # (kind, how, text)

    def __str__(self):
        kinds = sorted({kind for kind, _ in self.ends})
        lines = [f"{sum(self.ends.values())} inputs"]
        for kind in kinds:
            ends = {how: count for (of, how), count in sorted(self.ends.items()) if of == kind}
            lines.append(f"  {kind}: {sum(ends.values())}, " + ", ".join(f"{count} {how}" for how, count in ends.items()))
        totals = {fault: sum(count for (_, how), count in self.ends.items() if how == fault) for fault in FAULTS}
        lines.append(", ".join(f"{count} {fault}{'es' if fault == 'crash' else 's'}" for fault, count in totals.items()))
        return "\n".join([*lines, *(f"{kind} {how}: {text}" for kind, how, text in self.faults)])


def fuzz(seeds, inputs, seed=0, kinds=KINDS, keep=None, say=lambda text: None):
    """Tries that many inputs, of each kind in turn, or until Ctrl-C; what is at fault is copied to `keep`."""
    chance, report = random.Random(seed), Report()
    with tempfile.TemporaryDirectory() as folder, Child(seeds.model, Path(folder, "log")) as child, suppress(KeyboardInterrupt):
        for number in range(inputs):
            kind, place = kinds[number % len(kinds)], Path(folder, "input")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            path = written(kind, seeds, place, chance)
            how, text = child.ask(kind, path)
            report.ends[kind, how] += 1
            if how in FAULTS:
                report.faults.append((kind, how, text))
                if keep:
                    shutil.copytree(place, Path(keep, f"{seed}-{number}-{kind}-{how}"), symlinks=True)
            if number % 500 == 499:
                say(f"{number + 1} inputs, {len(report.faults)} faults")
    return report


def written(kind, seeds, place, chance):
    """Writes a damaged input into a folder; returns what is to be read."""
    if kind in ("manifest", "array"):
        return damaged_bundle(kind, seeds, place / "x.bundle", chance)
    if kind == "record":
        engine = Path(shutil.copy(seeds.engine, place / "m.engine"))
        record_path(engine).write_bytes(damaged(record_path(seeds.engine).read_bytes(), chance, kind))
        return engine
    if kind == "video":
        source = chance.choice(seeds.videos)
        data, path = source.read_bytes(), place / source.name
    else:
        data, path = {"ranges": seeds.ranges, "precision": seeds.precision}.get(kind, seeds.unsigned), place / "m.onnx"
    path.write_bytes(damaged(data, chance, kind))
    return path


def damaged_bundle(kind, seeds, folder, chance):
    shutil.copytree(seeds.bundle, folder)
    path = folder / MANIFEST
    if kind == "manifest":
        path.write_bytes(damaged(path.read_bytes(), chance, kind))
        return folder
    values = json.loads(path.read_text())
    name = chance.choice([name for name in values["files"] if name.endswith(".npy")])
    (folder / name).write_bytes(damaged((folder / name).read_bytes(), chance, kind))
    values["files"][name] = file_sha256(folder / name)
    path.write_text(manifest_text(values))
    return folder


def damaged(data, chance, kind):
    """One to three changes; of JSON, in half of the cases, to its values."""
    if kind in TEXTS and chance.random() < 0.5:
        values = json.loads(data)
        for _ in range(chance.choice([1, 1, 2, 3])):
            values = retyped(values, chance)
        return (manifest_text(values) if kind == "manifest" else json.dumps(values)).encode()
    for _ in range(chance.choice([1, 1, 2, 3])):
        data = mutated(data, chance)
    return data


def mutated(data, chance):
    """Bytes flipped, cut off, left out, repeated or overwritten."""
    kind, at = chance.randrange(5), chance.randrange(max(len(data), 1))
    size = chance.choice([1, 4, 64, 4096])
    if kind == 0:
        return data[:at] + bytes([(data[at] if data else 0) ^ 1 << chance.randrange(8)]) + data[at + 1 :]
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + data[at + size :]
    if kind == 3:
        return data[:at] + data[at : at + size] + data[at:]
    return data[:at] + chance.randbytes(size) + data[at + size :]


def retyped(values, chance):
    """A JSON object with one value, somewhere, of another type, or gone."""
    holder, key = chance.choice(list(places(values)) or [({}, "x")])
    if chance.random() < 0.2 and isinstance(holder, dict) and key in holder:
        del holder[key]
    else:
        holder[key] = chance.choice(JUNK)
    return values


def places(values):
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield values, key
        if isinstance(value, (dict, list)):
            yield from places(value)


class Child:
    """A process that reads inputs; another is started after a crash or a hang."""

    def __init__(self, model, log):
        self._model, self._log, self._process = model, log, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._end()

    def ask(self, kind, path):
        """(how, text) of an input."""
        seconds = SECONDS
        if self._process is None:
            command, pipe, seconds = [sys.executable, str(CHILD), str(self._model)], subprocess.PIPE, FIRST
            with self._log.open("wb") as log:
                self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)
        self._process.stdin.write(f"{kind} {path}\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self._end()
            return "hang", f"nothing after {seconds} s"
        if line := self._process.stdout.readline():
            return json.loads(line)
        status = self._process.wait()
        self._end()
        return "crash", f"status {status}: {self._log.read_text(errors='replace')[-2000:]}"

    def _end(self):
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process = None


def main(argv=None):
    """The command line; status 1 where there is a fault."""
    parser = argparse.ArgumentParser(prog="tests/fuzz.py", description=__doc__)
    parser.add_argument("--inputs", type=int, default=10_000, help="inputs to try (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="number that decides the damage (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="kinds of files (default: all)")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-faults"), help="folder for inputs at fault (default: %(default)s)")
    given = parser.parse_args(argv)
    from fuzz_seeds import make_seeds  # here, since it needs PyTorch

    with tempfile.TemporaryDirectory() as folder:
        report = fuzz(
            make_seeds(Path(folder)), given.inputs, given.seed, given.kinds, given.keep, lambda text: print(text, file=sys.stderr)
        )
    print(report)
    return 1 if report.faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
