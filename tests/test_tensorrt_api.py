"""Every TensorRT name that our code says exists in the real bindings of every version, or is in `MISSING`, with what guards it.

TensorRT-RTX is asked itself. The names of full TensorRT 8.6.0 and 11.4, and of the lean runtime 11.4, were read from their
bindings once and are kept in tensorrt_names/: `CLASS: name name ...`, and `module:` for the module's own. `read_names.py` there
reads those of a wheel (11.4 and lean; 8.6.0's IProfiler is from its source, python/src/infer/pyCore.cpp of release/8.6).
"""

import ast
from pathlib import Path

import pytest
import tensorrt_rtx

from export.engine import config, request
from runtime.backends.run_options import STRATEGIES

ROOT = Path(__file__).resolve().parents[1]
BUILDERS = ("tensorrt-8.6", "tensorrt-11.4", "tensorrt_rtx")
RUNTIMES = (*BUILDERS, "tensorrt_lean-11.4")

RECEIVERS = {  # file: {expression: the TensorRT class behind it}
    "runtime/backends/tensorrt_library.py": {"module": "module", "trt": "module", "trt.ILogger": "ILogger"},
    "runtime/backends/tensorrt_bindings.py": {"context": "IExecutionContext"},
    "runtime/backends/tensorrt_engine.py": {
        "trt": "module",
        "library.module": "module",
        "self.library.module": "module",
        "trt.EngineValidity": "EngineValidity",
        "trt.DynamicShapesKernelSpecializationStrategy": "DynamicShapesKernelSpecializationStrategy",
        "self.library.module.LayerInformationFormat": "LayerInformationFormat",
        "self._runtime": "Runtime",
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "self.engine": "ICudaEngine",
        "loaded.engine": "ICudaEngine",
        "self.engine.create_engine_inspector()": "EngineInspector",
        "config": "IRuntimeConfig",
        "context": "IExecutionContext",
        "self._cache": "IRuntimeCache",
    },
    "runtime/backends/measured_engine.py": {
        "trt": "module",
        "self._loaded.engine": "ICudaEngine",
        "inspector": "EngineInspector",
        "context": "IExecutionContext",
        "self.context": "IExecutionContext",
    },
    "runtime/backends/layer_times.py": {"trt": "module", "trt.IProfiler": "IProfiler"},
    "runtime/backends/tensorrt_facts.py": {"trt": "module", "runtime": "Runtime", "engine": "ICudaEngine"},
    "export/engine/builder.py": {
        "library.module": "module",
        "trt": "module",
        "runtime": "Runtime",
        "trt.LayerInformationFormat": "LayerInformationFormat",
        "engine": "ICudaEngine",
        "engine.create_engine_inspector()": "EngineInspector",
        "builder": "Builder",
        "network": "INetworkDefinition",
        "network.get_input(0)": "ITensor",
        "network.get_input(i)": "ITensor",
        "parser": "OnnxParser",
        "error": "ParserError",
        "config": "IBuilderConfig",
        "added": "IOptimizationProfile",
    },
    "export/engine/config.py": {
        "library.module": "module",
        "builder": "Builder",
        "config": "IBuilderConfig",
    },
    "export/engine/monitor.py": {"trt": "module", "trt.IProgressMonitor": "IProgressMonitor"},
    "export/engine/timing_cache.py": {"config": "IBuilderConfig", "self._config": "IBuilderConfig", "merged": "ITimingCache"},
}
OF_PYTHON = {"__init__", "__members__", "__version__", "args"}

RTX_ONLY = {*BUILDERS, "tensorrt_lean-11.4"} - {"tensorrt_rtx"}
OLD = {"tensorrt-8.6"}
LEAN = {"tensorrt_lean-11.4"}
MISSING = {  # (class, name): where it is not; the code asks hasattr for it, or for what it belongs to, first
    ("module", "EngineValidity"): RTX_ONLY,  # get_engine_validity
    ("module", "EngineInvalidityDiagnostics"): RTX_ONLY,
    ("module", "CudaGraphStrategy"): RTX_ONLY,  # asked for by this name
    ("module", "DynamicShapesKernelSpecializationStrategy"): RTX_ONLY,
    ("module", "ComputeCapability"): RTX_ONLY,  # num_compute_capabilities
    ("module", "IProgressMonitor"): OLD,
    ("Runtime", "get_engine_validity"): RTX_ONLY,
    ("Runtime", "engine_header_size"): RTX_ONLY,
    ("IRuntimeConfig", "cuda_graph_strategy"): RTX_ONLY,  # of CudaGraphStrategy
    ("IRuntimeConfig", "dynamic_shapes_kernel_specialization_strategy"): RTX_ONLY,
    ("IRuntimeConfig", "create_runtime_cache"): RTX_ONLY,
    ("IRuntimeConfig", "set_runtime_cache"): RTX_ONLY,
    ("module", "ExecutionContextAllocationStrategy"): OLD,
    ("ICudaEngine", "create_execution_context_without_device_memory"): {"tensorrt-11.4", "tensorrt_lean-11.4", "tensorrt_rtx"},
    ("IExecutionContext", "set_device_memory"): OLD,
    ("IExecutionContext", "update_device_memory_size_for_shapes"): OLD,
    ("EngineInspector", "execution_context"): LEAN,
    ("IRuntimeConfig", "set_execution_context_allocation_strategy"): OLD,  # of CudaGraphStrategy
    ("IRuntimeCache", "serialize"): RTX_ONLY,
    ("IRuntimeCache", "deserialize"): RTX_ONLY,
    ("EngineValidity", "INVALID"): RTX_ONLY,
    ("EngineValidity", "VALID"): RTX_ONLY,
    ("DynamicShapesKernelSpecializationStrategy", "EAGER"): RTX_ONLY,
    ("ICudaEngine", "create_runtime_config"): OLD,  # of CudaGraphStrategy
    ("EngineInspector", "get_engine_information"): LEAN,  # the lean runtime has the method that makes one, and no class for it
    ("ICudaEngine", "device_memory_size_v2"): OLD,
    ("ICudaEngine", "device_memory_size"): {"tensorrt-11.4", "tensorrt_lean-11.4", "tensorrt_rtx"},
    ("IProgressMonitor", "phase_start"): OLD,
    ("IProgressMonitor", "step_complete"): OLD,
    ("IProgressMonitor", "phase_finish"): OLD,
    ("ParserError", "node_name"): OLD,
    ("ParserError", "node_operator"): OLD,
    ("IBuilderConfig", "progress_monitor"): OLD,  # of IProgressMonitor
    ("IBuilderConfig", "num_compute_capabilities"): {"tensorrt-8.6", "tensorrt-11.4"},
    ("IBuilderConfig", "set_compute_capability"): {"tensorrt-8.6", "tensorrt-11.4"},
    ("IBuilderConfig", "runtime_platform"): OLD,  # its enumeration is asked for first
}


def names(binding):
    """{class: its public names}."""
    if binding == "tensorrt_rtx":
        found = {"module": set(dir(tensorrt_rtx))}
        return {**found, **{name: set(dir(getattr(tensorrt_rtx, name))) for name in found["module"]}}
    lines = (Path(__file__).parent / "tensorrt_names" / f"{binding}.txt").read_text().splitlines()
    return {kind: set(listed.split()) for kind, _, listed in (line.partition(":") for line in lines)}


def said(file):
    """(class, name) of all that a file's code reads or sets on TensorRT's things, or implements of its interfaces."""
    receivers = RECEIVERS[file]
    for node in ast.walk(ast.parse((ROOT / file).read_text())):
        if isinstance(node, ast.Attribute) and node.attr not in OF_PYTHON:
            expression = ast.unparse(node.value)
            if expression in receivers:
                yield receivers[expression], node.attr
        elif isinstance(node, ast.ClassDef) and node.bases and ast.unparse(node.bases[0]) in receivers:
            methods = [part.name for part in node.body if isinstance(part, ast.FunctionDef)]
            yield from ((receivers[ast.unparse(node.bases[0])], name) for name in methods if not name.startswith("_"))


def cases():
    for file in RECEIVERS:
        for binding in BUILDERS if file.startswith("export/") else RUNTIMES:
            yield file, binding


@pytest.mark.parametrize(("file", "binding"), list(cases()))
def test_every_name_is_in_the_bindings(file, binding):
    known = names(binding)
    wrong = {
        (kind, name)
        for kind, name in set(said(file))
        if (name in known.get(kind, set())) == (binding in MISSING.get((kind, name), set()))
    }
    assert not wrong, f"{binding}: not there, or there though MISSING says no: {wrong}"


def test_tables_name_what_the_code_says():
    everything = {pair for file in RECEIVERS for pair in said(file)}
    assert set(MISSING) <= everything | {("module", "ComputeCapability")}
    for file, receivers in RECEIVERS.items():
        unused = set(receivers.values()) - {kind for kind, _ in said(file)}
        assert not unused, f"{file} says nothing of {unused}"


def enumeration_members():
    """(enumeration, member) that the builder looks up by their names as strings."""
    yield from (("BuilderFlag", name) for name in request.TYPE_FLAGS.values())
    yield from (("HardwareCompatibilityLevel", name) for name in config.HARDWARE_VALUES.values())
    yield from (("RuntimePlatform", name) for name in config.PLATFORM_VALUES.values())
    yield from (("TilingOptimizationLevel", name.upper()) for name in request.TILING_LEVELS)
    yield from (("ProfilingVerbosity", name.upper()) for name in request.VERBOSITIES)
    yield "PreviewFeature", config.SHARED_PROFILES
    tree = ast.parse((ROOT / "export/engine/config.py").read_text())
    flags = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == "_set_flags")
    wanted = next(node for node in ast.walk(flags) if isinstance(node, ast.Dict))
    yield from (("BuilderFlag", key.value) for key in wanted.keys)


GONE = {  # of weakly typed builders
    *(("BuilderFlag", name) for name in ("FP16", "BF16", "INT8", "FP8")),
    ("PreviewFeature", config.SHARED_PROFILES),
}
NEWER = {  # than 8.6: `_member` refuses them there, naming what there is
    ("BuilderFlag", "BF16"),
    ("BuilderFlag", "STRIP_PLAN"),
    ("BuilderFlag", "ERROR_ON_TIMING_CACHE_MISS"),
    ("BuilderFlag", "DISABLE_COMPILATION_CACHE"),
    ("BuilderFlag", "DISTRIBUTIVE_INDEPENDENCE"),
    ("HardwareCompatibilityLevel", "SAME_COMPUTE_CAPABILITY"),
    *(("RuntimePlatform", name) for name in config.PLATFORM_VALUES.values()),
    *(("TilingOptimizationLevel", name.upper()) for name in request.TILING_LEVELS),
}


@pytest.mark.parametrize("binding", RUNTIMES)
def test_ways_to_allocate(binding):
    ways = names(binding).get("ExecutionContextAllocationStrategy", set())
    assert ways >= set(STRATEGIES.values()) or (binding in OLD and not ways)


@pytest.mark.parametrize("binding", BUILDERS)
def test_members_of_enumerations(binding):
    known, absent = names(binding), NEWER if binding in OLD else GONE
    wrong = {pair for pair in enumeration_members() if (pair[1] in known.get(pair[0], set())) == (pair in absent)}
    assert not wrong
