"""Polygraphy's runners, as in its Python API's examples."""

from __future__ import annotations

from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx

from benchmarks.peers import Call, PeerInput
from runtime.backends.device_memory import open_gpu


def open_onnxruntime(given: PeerInput) -> Call:
    """`OnnxrtRunner` on the CPU."""
    runner = OnnxrtRunner(SessionFromOnnx(str(given.model)))
    runner.activate()  # and never deactivated: the process ends first
    return lambda window: runner.infer({"blurry": window})["sharp"]


def open_tensorrt(given: PeerInput) -> Call:
    """`TrtRunner` on an engine built with the defaults for one shape; TensorRT 11 builds what the file says, here fp32 and TF32.

    Not yet run on a GPU.
    """
    open_gpu()
    from polygraphy.backend.trt import CreateConfig, EngineFromNetwork, NetworkFromOnnxPath, Profile, TrtRunner

    profile = Profile().add("blurry", given.shape, given.shape, given.shape)
    network = NetworkFromOnnxPath(str(given.model))
    runner = TrtRunner(EngineFromNetwork(network, CreateConfig(tf32=True, profiles=[profile])))
    runner.activate()
    return lambda window: runner.infer({"blurry": window})["sharp"]
