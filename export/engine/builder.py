"""`build_engine`: an ONNX file -> a TensorRT engine, with full TensorRT 8.6 to 11 or TensorRT-RTX, as `EngineRequest` say.

Strongly typed wherever the library can be (TensorRT 10 and newer, TensorRT-RTX): the types of the ONNX file are the types of the
engine. TensorRT 8.6 chooses types itself, among those that `EngineRequest.types` allows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from export.engine.config import configure, gone_sources
from export.engine.monitor import Progress, build_monitor
from export.engine.request import EngineRequest
from export.engine.timing_cache import TimingCache, cache_name
from runtime.backends.tensorrt_library import Library, Messages, load_library
from runtime.errors import BackendError, DeployError, InputError, MissingPackageError, ModelError
from runtime.files.contract import INPUT, refuse_external_data
from runtime.files.engine_record import Profile
from runtime.files.on_disk import cache_folder
from runtime.machine.requirements import requirement

if TYPE_CHECKING:
    from runtime.backends.device_memory import Gpu

LAYERS = "Layers:\n"  # begins the builder's message that lists what it built


@dataclass(frozen=True)
class BuiltEngine:
    """A built engine and what is known of it."""

    plan: bytes  # the engine, as it is written to a file
    library: str  # that built it
    version: str  # of the library
    compute_capabilities: tuple[tuple[int, int], ...]  # that it is for; empty: any, says TensorRT-RTX
    profiles: tuple[Profile, ...]
    layer_log: str  # its layers: TensorRT-RTX's own text, or the inspector's JSON; "" below verbosity "detailed"
    seconds: float  # the build took
    messages: tuple[str, ...]  # everything the library said
    notes: tuple[str, ...]  # what the user should know: options without effect


def build_engine(options: EngineRequest, progress: Progress | None = None) -> BuiltEngine:
    """Builds an engine. Full TensorRT needs the GPU that it is for; TensorRT-RTX needs none.

    Raises ModelError when the file does not parse, InputError on an option that the library lacks, BackendError when the build
    fails; each quotes what the library said.
    """
    library = load_library(options.library)
    gpu = _open_gpu(options.device) if library.name == "tensorrt" else None
    started = time.monotonic()
    with _on_gpu(gpu), library.messages(verbose=True) as messages, _log_file(options.log, messages):
        builder = library.module.Builder(library.logger)
        network, parser = _parse(library, builder, options.onnx, messages)
        config = configure(library, builder, options)
        profiles = _add_profiles(builder, config, network, options.profiles)
        monitor = _monitor(library, config, progress)
        with _timing_cache(config, library, options, gpu) as cache_notes:
            plan = builder.build_serialized_network(network, config)
        del parser  # it owned the weights until here
        if monitor is not None and monitor.failure is not None:
            raise monitor.failure
        if plan is None:
            raise BackendError(f"{library.name} {library.version} could not build the engine{_hint(options)}: {messages.reason()}")
        data = bytes(memoryview(plan))
        layers = _layers(library, options, data, messages)
    return BuiltEngine(
        plan=data,
        library=library.name,
        version=library.version,
        compute_capabilities=(gpu.compute_capability,) if gpu else options.compute_capabilities,
        profiles=profiles,
        layer_log=layers,
        seconds=time.monotonic() - started,
        messages=tuple(messages.all),
        notes=(*cache_notes, *gone_sources(library, options.tactic_sources)),
    )


def _hint(options: EngineRequest) -> str:
    needs_gpu = options.library == "tensorrt_rtx" and (options.refit or options.strip_weights)
    return " (with --refit or --stripWeights TensorRT-RTX needs a GPU to build)" if needs_gpu else ""


@contextmanager
def _log_file(path: Path | None, messages: Messages) -> Iterator[None]:
    """Keeps the messages; an error names the file."""
    try:
        yield
    except DeployError as error:
        if path is not None:
            error.args = (f"{error} (all that the library said: {path})",)
        raise
    finally:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(messages.all) + "\n")


def _open_gpu(device: int) -> Gpu:
    try:
        from runtime.backends.device_memory import open_gpu  # its CUDA library is not needed to build for TensorRT-RTX
    except ImportError as error:
        raise MissingPackageError(requirement("cuda-bindings"), "building on a GPU") from error
    return open_gpu(device)


def _on_gpu(gpu: Gpu | None) -> AbstractContextManager[None]:
    """It is built on the GPU that is current."""
    if gpu is None:
        return nullcontext()
    from runtime.backends.device_memory import on_gpu

    return on_gpu(gpu)


def _parse(library: Library, builder: Any, path: Path, messages: Messages) -> tuple[Any, Any]:
    """The network, and the parser that owns its weights."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    refuse_external_data(path)
    trt = library.module
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse_from_file(str(path.resolve())):
        errors = [_parser_error(parser.get_error(i)) for i in range(parser.num_errors)]
        raise ModelError(f"{library.name} {library.version} cannot read {path}: {'; '.join(errors) or messages.reason()}")
    return network, parser


def _network_flags(trt: Any) -> int:
    """By name, since the bits mean other things in other versions."""
    known = trt.NetworkDefinitionCreationFlag.__members__
    return sum(1 << int(known[name]) for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED") if name in known)


def _parser_error(error: Any) -> str:
    text = error.desc()
    if not hasattr(error, "node_name"):  # TensorRT 8.6 knows the number only
        return f"node {error.node()}: {text}"
    name, operator = error.node_name(), error.node_operator()
    module = name.rpartition("/")[0]
    return f"node {name} ({operator}{f', of the PyTorch module {module}' if module else ''}): {text}" if name else text


def _add_profiles(builder: Any, config: Any, network: Any, profiles: tuple[Profile, ...]) -> tuple[Profile, ...]:
    """Adds the profiles; a network of fixed shape has one without being told.

    One fixed profile fixes the network's input: full TensorRT hides the types of layers whose shapes are free. TensorRT-RTX builds
    the same bytes either way.
    """
    shape = tuple(network.get_input(0).shape)
    if network.num_inputs != 1 or network.get_input(0).name != INPUT:
        raise ModelError(f"the network has inputs {_input_names(network)}, expected {INPUT}: use export/to_onnx.py's file")
    for profile in profiles:
        added = builder.create_optimization_profile()
        added.set_shape(INPUT, profile.min, profile.opt, profile.max)
        if config.add_optimization_profile(added) < 0:
            raise InputError(f"the library refuses the profile {profile.min}, {profile.opt}, {profile.max} for {INPUT} {shape}")
    if len(profiles) == 1 and profiles[0].min == profiles[0].max:
        network.get_input(0).shape = profiles[0].opt
    return profiles or (Profile(shape, shape, shape),)


def _input_names(network: Any) -> str:
    return ", ".join(network.get_input(i).name for i in range(network.num_inputs))


def _monitor(library: Library, config: Any, progress: Progress | None) -> Any:
    """TensorRT 8.6 has no monitor: the build is silent there."""
    if progress is None or not hasattr(library.module, "IProgressMonitor"):
        return None
    monitor = build_monitor(library.module, progress)
    config.progress_monitor = monitor
    return monitor


@contextmanager
def _timing_cache(config: Any, library: Library, options: EngineRequest, gpu: Gpu | None) -> Iterator[list[str]]:
    """Full TensorRT's measurements, kept from build to build; TensorRT-RTX measures nothing when it builds.

    Yields notes, complete when it is left: a cache that cannot be read or kept costs time, not the engine.
    """
    notes: list[str] = []
    if gpu is None or not options.builder_cache:
        yield notes
        return
    own = cache_folder() / "timing" / cache_name(library.name, library.version, gpu.name, gpu.compute_capability)
    path, cache = options.timing_cache or own, None
    try:
        cache = TimingCache(path, config)
    except OSError as failure:
        notes.append(f"no timing cache at {path} ({failure.strerror}): name a file that can be written with --timingCacheFile")
    yield notes
    try:
        if cache is not None:
            cache.keep()
    except OSError as failure:
        notes.append(f"the timing cache {path} was not kept ({failure.strerror}): name another with --timingCacheFile")


def _layers(library: Library, options: EngineRequest, plan: bytes, messages: Messages) -> str:
    if options.profiling_verbosity != "detailed" or options.exclude_lean_runtime:  # without that runtime here, it does not load
        return ""
    if library.name == "tensorrt_rtx":  # its builder tells, and its inspector would need the GPU
        return "\n".join(message[len(LAYERS) :] for message in messages.all if message.startswith(LAYERS))
    trt = library.module
    runtime = trt.Runtime(library.logger)
    if options.version_compatible:
        runtime.engine_host_code_allowed = True  # what it executes was written by this very library
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BackendError(f"{library.name} cannot load the engine that it has just built: {messages.reason()}")
    return str(engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON))
