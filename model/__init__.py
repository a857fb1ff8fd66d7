"""The PyTorch reference of the deblurring network; the only folder that defines a network."""

from model.checkpoint import CheckpointError, default_checkpoint, load_checkpoint, read_notes, save_checkpoint
from model.config import NetworkConfig
from model.network import DeblurNetwork
from model.sizes import SIZES
from model.variants import VARIANTS
from model.widths import PAPER, Widths

__all__ = [
    "PAPER",
    "SIZES",
    "VARIANTS",
    "CheckpointError",
    "DeblurNetwork",
    "NetworkConfig",
    "Widths",
    "default_checkpoint",
    "load_checkpoint",
    "read_notes",
    "save_checkpoint",
]
