"""A tiny network of the real code, with an eighth of the channels, as a checkpoint and as the ONNX file that export makes of it."""

import pytest
import torch

from export.export_options import ExportOptions
from export.onnx_exporter import export_onnx
from model import DeblurNetwork, NetworkConfig, save_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    network = DeblurNetwork(NetworkConfig(channel_divisor=8))
    torch.nn.init.normal_(network.r2.weight, std=0.01)  # a new network is the identity, which would test nothing
    path = tmp_path_factory.mktemp("tiny") / "tiny.safetensors"
    save_checkpoint(network, path)
    return path


@pytest.fixture(scope="session")
def tiny_model(tiny_checkpoint):
    return export_onnx(ExportOptions(checkpoint=tiny_checkpoint, output=tiny_checkpoint.with_suffix(".onnx"))).path
