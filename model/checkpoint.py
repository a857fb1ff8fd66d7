"""Checkpoints: safetensors files whose metadata carries the network's configuration."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from model.config import NetworkConfig
from model.network import DeblurNetwork
from model.sizes import DEFAULT_SIZE

WEIGHTS = Path(__file__).parent / "weights"
CONFIG_KEY = "videodeblur.config"  # in the safetensors metadata, a JSON object
HOLDERS = ("params_ema", "ema", "ema_state_dict", "state_dict", "model_state_dict", "params", "model", "net")  # an average first
PREFIXES = ("module.", "_orig_mod.", "ema_model.", "model.", "net.")  # of DataParallel, torch.compile, averages, Lightning
COUNTERS = ("initted", "step", "n_averaged")  # of averages of weights
LFS_POINTER = b"version https://git-lfs"


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the network asked for."""


def default_checkpoint(size: str = DEFAULT_SIZE) -> Path:
    """The checkpoint of a size that ships with the project. Raises CheckpointError for a size that none is shipped of."""
    path = WEIGHTS / f"videodeblur_{size}.safetensors"
    if not path.is_file():
        sizes = sorted(found.stem.removeprefix("videodeblur_") for found in WEIGHTS.glob("videodeblur_*.safetensors"))
        raise CheckpointError(
            f"no weights of size {size!r} are shipped, only {', '.join(sizes) or 'none'}: name a checkpoint instead"
        )
    return path


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
    dictionaries of others (read with `weights_only=True`) `config` says which network they hold, I5T3 when it is None. They may
    lie under a key of HOLDERS, and names may have any of PREFIXES. Raises CheckpointError when the file is missing, broken, of
    another configuration than `config`, or holds numbers that are none.
    """
    path = path or default_checkpoint()
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint")
    tensors, stored = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_pickle(path), None)
    if stored and config and stored != config:
        raise CheckpointError(
            f"{path} holds another network: {_differences(stored, config)}; drop the variant, or bring its checkpoint"
        )
    tensors = _fitted(_without_memory(stored or config, path), tensors, path)
    network = DeblurNetwork(stored or config)
    network.load_state_dict(tensors)
    return network.float().eval()


def read_notes(path: Path) -> dict[str, str]:
    """What `save_checkpoint` was given to note, and the configuration; nothing for the state dictionaries of others.

    Raises CheckpointError when a .safetensors file is missing or broken.
    """
    if path.suffix != ".safetensors":
        return {}
    with _explained(path), safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], NetworkConfig | None]:
    with _explained(path):
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(CONFIG_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        return tensors, NetworkConfig.from_dict(json.loads(text)) if text else None


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """What safetensors and a damaged configuration raise, as a CheckpointError."""
    try:
        yield
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError, KeyError, ArithmeticError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint: {_what_it_is(path) or error}") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is no pickle raises anything; PyTorch's advice to load it unsafely is not passed on
        reason = _what_it_is(path) or "it is broken, cut off, or holds more than tensors, which could run code"
        raise CheckpointError(
            f"{path} is not a state dictionary that can be read safely: {reason}; save network.state_dict() alone, or copy it again"
        ) from error
    return _state_dictionary(content, path)


def _what_it_is(path: Path) -> str:
    """What a file is that is no checkpoint, where its first bytes tell; empty where they do not."""
    try:
        with path.open("rb") as file:
            head = file.read(256).lstrip().lower()
    except OSError:
        return ""
    if head.startswith(LFS_POINTER):
        return "it is a pointer of Git LFS, not the file: run git lfs pull"
    if head.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page, not the file: download it again from its raw address"
    return "" if head else "it is empty"


def _state_dictionary(content: object, path: Path) -> dict[str, Tensor]:
    """The tensors by name, wherever a training script put them."""
    for key in HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            return _state_dictionary(content[key], path)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        held = f"a dictionary of {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(f"{path} holds {held}, expected tensors by name, or such a dictionary under {', '.join(HOLDERS)}")
    return {str(name): value for name, value in content.items()}


def _without_memory(config: NetworkConfig | None, path: Path) -> DeblurNetwork:
    """The network's shapes alone: a configuration may ask for more memory than there is."""
    try:
        with torch.device("meta"):
            return DeblurNetwork(config)
    except (RuntimeError, OverflowError) as error:
        raise CheckpointError(f"{path} describes a network that cannot be ({str(error).splitlines()[0]})") from error


def _fitted(network: DeblurNetwork, tensors: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    expected = network.state_dict()
    tensors = _without_prefixes(tensors, expected)
    wrong = [name for name in expected if name not in tensors or tensors[name].shape != expected[name].shape]
    extra = sorted(set(tensors) - set(expected))
    if wrong or extra:
        raise CheckpointError(
            f"{path} does not fit the configuration: {len(wrong)} tensors missing or of another shape {wrong[:2]}, "
            f"{len(extra)} unknown {extra[:2]}; {_remedy(wrong, expected)}"
        )
    unsound = [name for name, value in tensors.items() if not value.isfinite().all()]
    if unsound:
        raise CheckpointError(f"{path} holds NaN or infinite numbers in {len(unsound)} tensors {unsound[:2]}: take one from before")
    return tensors


def _remedy(wrong: list[str], expected: dict[str, Tensor]) -> str:
    if len(wrong) == len(expected):
        return "it is of another network than this project's"
    return "name the variant that it was trained as"


def _without_prefixes(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what wrappers put before every name, in any order, and what an average counts beside the weights."""
    tensors = {name: value for name, value in tensors.items() if name not in COUNTERS}
    while prefix := next((each for each in PREFIXES if tensors and all(name.startswith(each) for name in tensors)), None):
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def _differences(stored: NetworkConfig, asked: NetworkConfig) -> str:
    a, b = stored.to_dict(), asked.to_dict()
    return ", ".join(f"{key} is {a[key]}, asked {b[key]}" for key in a if a[key] != b[key])
