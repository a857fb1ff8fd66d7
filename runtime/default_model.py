"""The models that come with this package: a bundle for each size that weights are shipped of."""

from __future__ import annotations

from pathlib import Path

from runtime.errors import ModelError
from runtime.files.manifest import load_manifest

ROOT = Path(__file__).resolve().parents[1]
PREFIX, SUFFIX = "videodeblur_", ".bundle"
SIZE = "light"  # that is used where none is named
BRING_ONE = "on a machine with torch, make one with `videodeblur export --output deblur.onnx`, and name it with --model"


def default_model(size: str = SIZE) -> Path:
    """The folder of a shipped bundle. Raises ModelError where there is none of that size."""
    path = ROOT / "model" / "weights" / f"{PREFIX}{size}{SUFFIX}"
    if not path.is_dir():
        raise ModelError(f"no model of size {size!r} is shipped, only {', '.join(shipped_sizes()) or 'none'}: {BRING_ONE}")
    return path


def default_onnx(size: str = SIZE) -> Path:
    """The fp32 file in a shipped bundle, which the others were made of. Raises ModelError where there is none."""
    folder = default_model(size)
    return folder / load_manifest(folder).members[-1].file


def shipped_sizes() -> list[str]:
    """The sizes that bundles are shipped of."""
    folders = (ROOT / "model" / "weights").glob(f"{PREFIX}*{SUFFIX}")
    return sorted(path.name.removeprefix(PREFIX).removesuffix(SUFFIX) for path in folders)
