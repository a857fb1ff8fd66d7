"""Runs ONNX files with ONNX Runtime on an NVIDIA GPU: buffers bound once per shape, CUDA graphs, and no CPU in disguise."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from runtime.backends.device_memory import open_gpu
from runtime.errors import BackendError, InputError, ModelError
from runtime.files.contract import INPUT, OUTPUT
from runtime.machine.requirements import requirement

PROVIDER = "CUDAExecutionProvider"
PRECISIONS = ("fp32", "tf32")
SHAPES = 4  # input shapes whose buffers are kept
ERRORS_ONLY = 3  # log severity
NO_GRAPH = -1
INSTALL = f"pip uninstall onnxruntime, then pip install '{requirement('onnxruntime-gpu')}'"

log = logging.getLogger("videodeblur.onnxruntime")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class _Bound:
    """The buffers of one input shape on the GPU, and how they are run."""

    source: onnxruntime.OrtValue
    target: onnxruntime.OrtValue
    binding: onnxruntime.IOBinding
    options: onnxruntime.RunOptions
    graph: int  # number of the graph that is recorded of them; NO_GRAPH for none


class OnnxRuntimeCudaRunner:
    """A `Runner` on ONNX Runtime's CUDA provider.

    `graph_precision` is what the file's contract says. `precision` "fp32" computes fp32 graphs exactly, "tf32" rounds the inputs
    of their convolutions to 10 bits. `cuda_graph` records the work of each shape once, where all of it runs on the GPU. `data` are
    the bytes of the file where it was read already. Callers may be of any thread: the session keeps handles and graphs for each
    thread that it meets, so it meets one.
    Raises BackendError when there is no GPU, no driver, or this onnxruntime has no CUDA; its TensorRT provider is not offered:
    that wheel links TensorRT 10, and `runtime.backends.tensorrt_runner` runs every version.
    """

    name = "onnxruntime-cuda"

    def __init__(
        self,
        path: Path,
        graph_precision: str,
        device: int = 0,
        precision: str = "fp32",
        cuda_graph: bool = True,
        data: bytes | None = None,
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision is {precision!r}, ONNX Runtime on CUDA offers {' and '.join(PRECISIONS)}")
        self.precision = precision if graph_precision == "fp32" else graph_precision
        self.gpu = open_gpu(device)
        if PROVIDER not in onnxruntime.get_available_providers():
            raise BackendError(f"this onnxruntime {onnxruntime.__version__} has no CUDA: {INSTALL}")
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onnxruntime-cuda")
        self._session: onnxruntime.InferenceSession | None = None
        try:
            with redirect_stdout(sys.stderr):  # both print, and standard output may be a video
                onnxruntime.preload_dlls()  # CUDA and cuDNN, where pip brought them
                self._session = self._thread.submit(self._open, path, data, precision == "tf32", cuda_graph).result()
        except BaseException:
            self._thread.shutdown()
            raise
        self._bound: OrderedDict[tuple[int, ...], _Bound] = OrderedDict()
        self._shapes_met = 0

    def run(self, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Runner.run`. The first call with a shape allocates its buffers and searches its kernels."""
        if self._session is None:
            raise BackendError("the runner is closed")
        return self._thread.submit(self._run, self._session, blurry).result()

    def close(self) -> None:
        """Frees the session and its buffers."""
        self._thread.shutdown()
        self._bound.clear()
        self._session = None

    def _run(self, session: onnxruntime.InferenceSession, blurry: npt.NDArray[Any]) -> npt.NDArray[Any]:
        try:
            bound = self._buffers(session, blurry)
            bound.source.update_inplace(np.ascontiguousarray(blurry))
            session.run_with_iobinding(bound.binding, bound.options)
            sharp: npt.NDArray[Any] = np.array(bound.target.numpy())
        except Exception as error:  # its exceptions share no base but Exception
            raise BackendError(f"ONNX Runtime failed on shape {blurry.shape}: {error}") from error
        return sharp

    def _open(self, path: Path, data: bytes | None, tf32: bool, cuda_graph: bool) -> onnxruntime.InferenceSession:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        provider = {
            "device_id": str(self.gpu.index),
            "use_tf32": str(int(tf32)),
            "prefer_nhwc": "1",
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            "enable_cuda_graph": str(int(cuda_graph)),
        }
        try:
            given = str(path) if data is None else data
            session = onnxruntime.InferenceSession(given, options, providers=[(PROVIDER, provider)])
        except Exception as error:  # its exceptions share no base but Exception
            if cuda_graph:  # it refuses graphs of which a node would run on the CPU
                log.warning("CUDA graphs are off for %s: %s", path, error)
                return self._open(path, data, tf32, cuda_graph=False)
            raise ModelError(f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {error}") from error
        if PROVIDER not in session.get_providers():  # it says so in its log only, and goes on with the CPU
            raise BackendError(f"ONNX Runtime {onnxruntime.__version__} could not start CUDA on {self.gpu.name}: {INSTALL}")
        self.cuda_graph = cuda_graph
        return session

    def _buffers(self, session: onnxruntime.InferenceSession, blurry: npt.NDArray[Any]) -> _Bound:
        shape = blurry.shape
        if shape not in self._bound:
            if len(self._bound) == SHAPES:
                _, oldest = self._bound.popitem(last=False)
                if oldest.graph != NO_GRAPH and hasattr(session, "release_captured_graph"):
                    session.release_captured_graph(oldest.graph)
            self._bound[shape] = self._bind(session, blurry)
        self._bound.move_to_end(shape)
        return self._bound[shape]

    def _bind(self, session: onnxruntime.InferenceSession, blurry: npt.NDArray[Any]) -> _Bound:
        place = ("cuda", self.gpu.index)
        source = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(blurry), *place)
        target = onnxruntime.OrtValue.ortvalue_from_shape_and_type(blurry.shape, blurry.dtype.type, *place)
        binding = session.io_binding()
        binding.bind_ortvalue_input(INPUT, source)
        binding.bind_ortvalue_output(OUTPUT, target)
        options = onnxruntime.RunOptions()
        self._shapes_met += 1  # graphs are told apart by a number; one is never used for other buffers
        graph = self._shapes_met if self.cuda_graph else NO_GRAPH
        options.add_run_config_entry("gpu_graph_id", str(graph))
        return _Bound(source, target, binding, options, graph)
