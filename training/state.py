"""The state of an interrupted run: one file that appears whole or not at all."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch

from runtime.errors import InputError

NAME = "state.pt"


def write_state(content: dict[str, Any], folder: Path) -> None:
    """Replaces the folder's state; raises OSError, with the previous state intact, when there is no space."""
    partial = folder / f".{NAME}.{os.getpid()}.part"
    try:
        torch.save(content, partial)
        partial.replace(folder / NAME)
    except RuntimeError as error:  # torch's writer reports a full disk so
        raise OSError(f"{partial} cannot be written: {error}; free some space and resume") from error
    finally:
        partial.unlink(missing_ok=True)


def read_state(folder: Path) -> dict[str, Any]:
    """The folder's state. Raises InputError when there is none, or it is broken."""
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder} holds no {NAME} to resume from: start without --resume")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; begin from the folder's checkpoint with --start") from error
