"""Checkpoints: safetensors files whose metadata carries the network's configuration."""

from __future__ import annotations

import json
import pickle
import secrets
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.config import NetworkConfig
from model.network import DeblurNetwork

WEIGHTS = Path(__file__).parent / "weights"
CONFIG_KEY = "videodeblur.config"  # in the safetensors metadata, a JSON object


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the network asked for."""


def default_checkpoint() -> Path:
    """The checkpoint that ships with the project."""
    found = sorted(WEIGHTS.glob("*.safetensors"))
    if len(found) != 1:
        raise CheckpointError(f"{WEIGHTS} holds {len(found)} .safetensors files, expected one: name the checkpoint instead")
    return found[0]


def save_checkpoint(
    network: DeblurNetwork, path: Path, dtype: torch.dtype = torch.float16, notes: dict[str, str] | None = None
) -> None:
    """Writes the weights as `dtype` with the configuration and `notes` as metadata; the file appears whole or not at all."""
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in network.state_dict().items()}
    metadata = {**(notes or {}), CONFIG_KEY: json.dumps(network.config.to_dict())}
    partial = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with partial.open("xb") as file:  # save_file's mode is 0600: others could not read the file
            file.write(save(tensors, metadata))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(path: Path | None = None, config: NetworkConfig | None = None) -> DeblurNetwork:
    """The network in a checkpoint, in float32, on the CPU, in evaluation mode.

    `path` defaults to the shipped checkpoint. `.safetensors` files carry their configuration; for the `.pth` and `.pt` state
    dictionaries of others (read with `weights_only=True`) `config` says which network they hold, I5T3 when it is None.
    Raises CheckpointError when the file is missing, broken, or of another configuration than `config`.
    """
    path = path or default_checkpoint()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    tensors, stored = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_pickle(path), None)
    if stored and config and stored != config:
        raise CheckpointError(
            f"{path} holds another network: {_differences(stored, config)}; drop the variant, or bring its checkpoint"
        )
    network = DeblurNetwork(stored or config)
    _fill(network, tensors, path)
    return network.float().eval()


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], NetworkConfig | None]:
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CONFIG_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return tensors, NetworkConfig.from_dict(json.loads(text)) if text else None
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {error}") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a state dictionary that can be read safely (weights_only=True): {reason}") from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{path} holds {type(content).__name__}, expected a dictionary of tensors")
    return {name.removeprefix("module."): value for name, value in content.items()}


def _fill(network: DeblurNetwork, tensors: dict[str, Tensor], path: Path) -> None:
    expected = network.state_dict()
    wrong = [name for name in expected if name not in tensors or tensors[name].shape != expected[name].shape]
    extra = sorted(set(tensors) - set(expected))
    if wrong or extra:
        raise CheckpointError(
            f"{path} does not fit the configuration: {len(wrong)} tensors missing or of another shape {wrong[:2]}, "
            f"{len(extra)} unknown {extra[:2]}; name the variant that it was trained as"
        )
    network.load_state_dict(tensors)


def _differences(stored: NetworkConfig, asked: NetworkConfig) -> str:
    a, b = stored.to_dict(), asked.to_dict()
    return ", ".join(f"{key} is {a[key]}, asked {b[key]}" for key in a if a[key] != b[key])
