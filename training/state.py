"""What a run leaves on disk: its checkpoint, and the state to resume from; each file appears whole or not at all."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from model import DeblurNetwork, save_checkpoint
from runtime.errors import DeployError, InputError
from runtime.files.on_disk import partial_file

NAME = "state.pt"


class SaveError(DeployError):
    """A file that could not be written, mostly for want of space; what was there before is intact."""


def write_checkpoint(network: DeblurNetwork, path: Path, notes: dict[str, str]) -> None:
    """Replaces the checkpoint by the network in fp16. Raises SaveError."""
    try:
        save_checkpoint(network, path, notes=notes)
    except (SafetensorError, OSError) as error:
        raise SaveError(f"{path} cannot be written ({error}): free some space and resume") from error


def write_state(content: dict[str, Any], folder: Path) -> None:
    """Replaces the folder's state. Raises SaveError."""
    try:
        with partial_file(folder / NAME) as partial:
            torch.save(content, partial)
    except (RuntimeError, OSError) as error:  # torch's writer reports a full disk as RuntimeError
        raise SaveError(f"{folder / NAME} cannot be written ({error}): free some space and resume") from error


def has_state(folder: Path) -> bool:
    """Whether the folder holds a run to go on with."""
    return (folder / NAME).exists()


def read_state(folder: Path) -> dict[str, Any]:
    """The folder's state. Raises InputError when there is none, or it is broken."""
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder} holds no {NAME} to resume from: begin a run there first")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}; begin another run from this one's checkpoint with --start") from error
