"""The network of the tests: the real code with an eighth of the channels."""


def write_checkpoint(path):
    """Writes its checkpoint; returns the path."""
    import torch

    from model import PAPER, DeblurNetwork, NetworkConfig, save_checkpoint

    torch.manual_seed(0)
    network = DeblurNetwork(NetworkConfig(widths=PAPER.divided(8)))
    torch.nn.init.normal_(network.r2.weight, std=0.01)  # a new network is the identity, which would test nothing
    save_checkpoint(network, path)
    return path


def write_model(checkpoint):
    """Exports it beside the checkpoint; returns the path."""
    from export.export_options import ExportOptions
    from export.network.exporter import export_onnx

    return export_onnx(ExportOptions(checkpoint=checkpoint, output=checkpoint.with_suffix(".onnx"))).path


def write_engine(model, engine):
    """Builds a TensorRT-RTX engine of it for 64x96 pixels, with its record; returns the path."""
    from export.engine.request import EngineRequest
    from export.make_engine import make_engine
    from runtime.files.engine_record import Profile

    shape = (1, 5, 64, 96)
    return make_engine(EngineRequest(model, engine, "tensorrt_rtx", (Profile(shape, shape, shape),))).engine
