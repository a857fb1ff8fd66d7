"""The model that is used when none is named: the shipped checkpoint, exported once into the user's cache."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from runtime.errors import ModelError
from runtime.files.on_disk import PART_ONNX, cache_folder, partial_file
from runtime.progress import Say

ROOT = Path(__file__).resolve().parents[1]
MADE_BY = (  # the code that decides what the exported file holds
    "model/*.py",
    "export/network/*.py",
    "export/graph/*.py",
    "export/export_options.py",
    "export/to_onnx.py",
    "runtime/files/contract.py",
)
PREFIX = "videodeblur_"
SIZE = "light"  # of the weights that are used where none are named
KEY_LENGTH = 12  # characters of a SHA-256
BRING_ONE = "on a machine with torch, make one with `python -m export.to_onnx --output deblur.onnx`, and name it with --model"


def default_model(say: Say, size: str = SIZE) -> Path:
    """The path of the exported model; the first call on a machine makes it, which takes a minute and needs torch.

    Raises ModelError when there is no checkpoint, no torch, or the export fails; the message says which file to bring.
    """
    checkpoint = _shipped_checkpoint(size)
    path = cache_folder() / f"{checkpoint.stem}-{_key(checkpoint)}.onnx"
    if path.is_file():
        return path
    if find_spec("torch") is None or find_spec("onnx") is None:
        raise ModelError(f"no --model was named, and exporting the shipped checkpoint needs torch and onnx: {BRING_ONE}")
    say(f"exporting the shipped checkpoint, once; it takes about a minute: {path}")
    _export(checkpoint, path)
    return path


def shipped_sizes() -> list[str]:
    """The sizes of the network that weights are shipped of."""
    return sorted(path.stem.removeprefix(PREFIX) for path in (ROOT / "model" / "weights").glob(f"{PREFIX}*.safetensors"))


def _shipped_checkpoint(size: str) -> Path:
    path = ROOT / "model" / "weights" / f"{PREFIX}{size}.safetensors"
    if not path.is_file():
        raise ModelError(f"no weights of size {size!r} are shipped, only {', '.join(shipped_sizes()) or 'none'}: {BRING_ONE}")
    return path


def _key(checkpoint: Path) -> str:
    """Names the checkpoint's content, and that of the code that exports it: another of either is another file."""
    digest = hashlib.sha256(checkpoint.read_bytes())
    for pattern in MADE_BY:
        for source in sorted(ROOT.glob(pattern)):
            digest.update(source.read_bytes())
    return digest.hexdigest()[:KEY_LENGTH]


def _export(checkpoint: Path, path: Path) -> None:
    """In a process of its own, since the runtime never imports torch; under a name of its own, since others may be at it too."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial_file(path, suffix=PART_ONNX) as partial:
            command = [sys.executable, "-m", "export.to_onnx", str(checkpoint), "--output", str(partial)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            if done.returncode or not partial.stat().st_size:
                reason = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]
                raise ModelError(f"the export of the shipped checkpoint failed ({reason}): {BRING_ONE}")
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror}: set XDG_CACHE_HOME to a folder that can be written") from error
