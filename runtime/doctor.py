"""`videodeblur doctor`: what this machine has, what would run here and why, and the pip line for what is missing."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import USER_ERROR, command
from runtime.files.contract import MIN_PARITY
from runtime.machine import hardware, shadows
from runtime.machine.memory import memory_at_hand, memory_size
from runtime.machine.packages import ERROR, NOTE, WARNING, Finding, conflicts, install, installed_packages
from runtime.probes import ABSENT, BROKEN, WORKS, Probe, ask

LIBRARIES = {  # probe: its extra in setup.cfg
    "openvino": "cpu",
    "onnxruntime": "cpu",
    "av": "video",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "tensorrt_lean": "tensorrt-lean",
}
TENSORRTS = ("tensorrt", "tensorrt_rtx", "tensorrt_lean")
CUDA_PROVIDER = "CUDAExecutionProvider"
TOOLS = {
    "cuda-bindings": "gpu",
    "scikit-image": "export",
    "torch": "export",
    "onnx": "export",
    "matplotlib": "export",
}  # by metadata
PARALLEL = 4  # probes at once
MEASURED, UNMEASURED = "bf16 measured", "bf16 not measured"  # of an fp32 file


@dataclass(frozen=True)
class Machine:
    """What the software runs on."""

    cpu: str
    cores: int  # that this process may use
    extensions: dict[str, bool] | None  # see hardware.EXTENSIONS; None where the system does not say
    memory: int | None  # bytes
    memory_at_hand: int | None  # bytes, within the control group too
    system: str
    python: str
    gpu: dict[str, Any] | None  # runtime.backends.device_memory.Gpu of the first one
    why_no_gpu: str
    driver: str | None  # NVIDIA's


@dataclass(frozen=True)
class Diagnosis:
    """What was found."""

    machine: Machine
    libraries: dict[str, Probe]  # keys of LIBRARIES
    packages: dict[str, str | None]  # versions of numpy and TOOLS
    chosen: dict[str, Probe]  # what would run an fp32 file, by MEASURED and UNMEASURED
    model: Probe | None  # of the one that was named
    findings: tuple[Finding, ...]  # the worst first

    @property
    def runs_videos(self) -> bool:
        """Whether a video can be deblurred here, with the model that was named."""
        return not any(finding.level == ERROR for finding in self.findings)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, examines, prints; status 1 when no video can be deblurred here."""
    parser = argparse.ArgumentParser(prog="videodeblur doctor", description=__doc__)
    parser.add_argument("model", type=Path, nargs="?", help="model, engine or bundle to open here")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    arguments = parser.parse_args(argv)
    diagnosis = examine(arguments.model)
    print(json.dumps({**asdict(diagnosis), "runs_videos": diagnosis.runs_videos}) if arguments.json else text(diagnosis))
    return 0 if diagnosis.runs_videos else USER_ERROR


def examine(model: Path | None = None) -> Diagnosis:
    """Looks at the machine, and opens `model`, without running a video.

    Every library is imported in a process of its own: one that raises, crashes or hangs is a finding. Never raises by itself.
    """
    asked: dict[str, tuple[str, ...]] = {name: (name,) for name in (*LIBRARIES, "gpu")}
    asked.update({MEASURED: ("fp32", str(MIN_PARITY["bf16"])), UNMEASURED: ("fp32", "")})
    if model:
        asked["model"] = ("model", str(model))
    with ThreadPoolExecutor(PARALLEL) as pool:
        probes = dict(zip(asked, pool.map(lambda words: ask(*words), asked.values())))
    packages = installed_packages()
    libraries = {name: probes[name] for name in LIBRARIES}
    machine, chosen = _machine(probes["gpu"]), {name: probes[name] for name in (MEASURED, UNMEASURED)}
    found = [
        *_needed(libraries, chosen[UNMEASURED], machine),
        *_model_finding(probes.get("model")),
        *(_broken(name, probe) for name, probe in libraries.items() if probe.state == BROKEN),
        *_shadowed(),
        *conflicts(packages, machine.gpu["driver"] // 1000 if machine.gpu else None),
        *_better(libraries, packages, machine),
    ]
    order = (ERROR, WARNING, NOTE)
    return Diagnosis(
        machine=machine,
        libraries=libraries,
        packages={name: packages.get(name) for name in ("numpy", *TOOLS)},
        chosen=chosen,
        model=probes.get("model"),
        findings=tuple(sorted(found, key=lambda finding: order.index(finding.level))),
    )


def text(diagnosis: Diagnosis) -> str:
    """The diagnosis for people."""
    parts = (_machine_lines, _library_lines, _choice_lines, _finding_lines)
    return "\n".join(line for part in parts for line in (*part(diagnosis), "")).rstrip()


def _machine(gpu: Probe) -> Machine:
    return Machine(
        cpu=hardware.cpu_model(),
        cores=hardware.usable_cores(),
        extensions=hardware.cpu_extensions(),
        memory=memory_size(),
        memory_at_hand=memory_at_hand(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        python=platform.python_version(),
        gpu=gpu.facts if gpu.state == WORKS else None,
        why_no_gpu=gpu.reason,
        driver=hardware.nvidia_driver(),
    )


def _needed(libraries: Mapping[str, Probe], fp32: Probe, machine: Machine) -> Iterator[Finding]:
    """What a video cannot be deblurred without."""
    if libraries["av"].state == ABSENT:
        yield Finding(ERROR, "PyAV is not installed: videos cannot be read or written", install("video"))
    elif libraries["av"].state == BROKEN:
        yield Finding(
            ERROR, "PyAV does not load: videos cannot be read or written", f"pip uninstall -y av, then {install('video')}"
        )
    engines = machine.gpu and any(libraries[name].state == WORKS for name in TENSORRTS)
    if fp32.state != WORKS and not engines:
        yield Finding(ERROR, f"nothing here runs a model: {fp32.reason}", install("cpu"))


def _model_finding(model: Probe | None) -> Iterator[Finding]:
    if model and model.state != WORKS:
        yield Finding(ERROR, f"the model does not open here: {model.reason}")


def _broken(name: str, probe: Probe) -> Finding:
    package = name.replace("_", "-")
    return Finding(
        WARNING,
        f"{name} is installed and does not load: {probe.reason}",
        f"pip uninstall -y {package}, then {install(LIBRARIES[name])}",
    )


def _shadowed() -> Iterator[Finding]:
    """Our packages whose names another's files took."""
    for name in shadows.OURS:
        text = shadows.told(name)
        if text:
            yield Finding(WARNING, text, shadows.REMEDY)
        for other in shadows.overwriters(name):
            yield Finding(WARNING, f"{other} has put its own files over the package {name!r} of videodeblur", shadows.REMEDY)


def _better(libraries: Mapping[str, Probe], packages: Mapping[str, str], machine: Machine) -> Iterator[Finding]:
    """What works without, and would be better with."""
    if libraries["openvino"].state == ABSENT and libraries["onnxruntime"].state == WORKS:
        yield Finding(NOTE, "OpenVINO is not installed, which is often the faster backend on a CPU", install("cpu"))
    if not {"torch", "onnx"} <= packages.keys():
        yield Finding(NOTE, "without torch and onnx nothing is exported here: name a model with --model", install("export"))
    if machine.driver and "cuda-bindings" not in packages:
        yield Finding(NOTE, f"there is an NVIDIA driver ({machine.driver}), and cuda-bindings is not installed", install("gpu"))
    if machine.gpu:
        yield from _better_on_gpu(libraries)


def _better_on_gpu(libraries: Mapping[str, Probe]) -> Iterator[Finding]:
    if all(libraries[name].state == ABSENT for name in TENSORRTS):
        yield Finding(
            NOTE, "no TensorRT is installed, the fastest on this GPU", f"{install('tensorrt-rtx')}, or {install('tensorrt')}"
        )
    if CUDA_PROVIDER not in libraries["onnxruntime"].facts.get("providers", ()):
        remedy = f"pip uninstall -y onnxruntime, then {install('gpu')}"
        yield Finding(NOTE, "this ONNX Runtime does not use the GPU", remedy)
    yield Finding(NOTE, "an .onnx file runs on the CPU unless --backend onnxruntime-cuda is given; bundles and engines use the GPU")


def _machine_lines(diagnosis: Diagnosis) -> Iterator[str]:
    machine = diagnosis.machine
    yield f"cpu      {machine.cpu}, {machine.cores} cores; {_extensions(machine.extensions)}"
    if machine.memory:
        free = f", {machine.memory_at_hand / 1e9:.1f} GB at hand" if machine.memory_at_hand else ""
        yield f"memory   {machine.memory / 1e9:.1f} GB{free}"
    yield f"gpu      {_gpu(machine)}"
    yield f"system   {machine.system}, Python {machine.python}"


def _extensions(extensions: dict[str, bool] | None) -> str:
    if extensions is None:
        return "extensions unknown"
    have, lack = ([name for name, there in extensions.items() if there is wanted] for wanted in (True, False))
    return "; ".join([*([" ".join(have)] if have else []), *([f"no {', no '.join(lack)}"] if lack else [])])


def _gpu(machine: Machine) -> str:
    if machine.gpu is None:
        return f"none: {machine.why_no_gpu}"
    gpu, (major, minor) = machine.gpu, machine.gpu["compute_capability"]
    cuda = f"CUDA {gpu['driver'] // 1000}.{gpu['driver'] % 1000 // 10}"
    return (
        f"{gpu['name']}, {gpu['memory'] / 1e9:.0f} GB, compute capability {major}.{minor}, driver {machine.driver or '?'}, {cuda}"
    )


def _library_lines(diagnosis: Diagnosis) -> Iterator[str]:
    yield f"numpy          {diagnosis.packages['numpy'] or '?'}"
    for name, probe in diagnosis.libraries.items():
        version = str(probe.facts.get("version", probe.state)).partition("-")[0]
        yield f"{name:<15}{version:<13}{_detail(name, probe, diagnosis.machine)}".rstrip()
    for name, extra in TOOLS.items():
        yield f"{name:<15}{diagnosis.packages[name] or f'{ABSENT:<13}needs {install(extra)}'}"
    codecs = diagnosis.libraries["av"].facts
    if codecs:
        yield f"encoders       {' '.join(codecs['encoders'])}"
        yield f"decoders       {' '.join(codecs['decoders'])}"


def _detail(name: str, probe: Probe, machine: Machine) -> str:
    facts = probe.facts
    if probe.state != WORKS:
        return probe.reason if probe.state == BROKEN else f"needs {install(LIBRARIES[name])}"
    if name == "openvino":
        return f"{' '.join(facts['devices'])}, {'bf16 in hardware' if facts['bf16'] else 'no bf16 in this CPU'}"
    if name == "onnxruntime":
        return " ".join(facts["providers"])
    if name == "av":
        nvenc = "" if machine.gpu else "; its nvenc encoders need a GPU"
        return f"FFmpeg {facts['ffmpeg']}{nvenc}"
    return "loads" if machine.gpu else "loads; runs engines on a GPU only"


def _choice_lines(diagnosis: Diagnosis) -> Iterator[str]:
    yield "Engine would take"
    measured, unmeasured = (diagnosis.chosen[name] for name in (MEASURED, UNMEASURED))
    if measured == unmeasured:
        yield f"  for an fp32 .onnx file: {_choice(measured)}"
    else:
        yield f"  for an fp32 .onnx file whose bf16 reached {MIN_PARITY['bf16']:.0f} dB at export: {_choice(measured)}"
        yield f"  for one where that was not measured: {_choice(unmeasured)}"
    if diagnosis.model and diagnosis.model.state == WORKS:
        yield f"  for the one that was named: {diagnosis.model.facts['reason']}"


def _choice(probe: Probe) -> str:
    return "{backend} {precision}: {reason}".format(**probe.facts) if probe.state == WORKS else f"nothing: {probe.reason}"


def _finding_lines(diagnosis: Diagnosis) -> Iterator[str]:
    for finding in diagnosis.findings:
        yield f"{finding.level}: {finding.text}"
        if finding.remedy:
            yield f"    {finding.remedy}"
    yield "videos can be deblurred here" if diagnosis.runs_videos else "no video can be deblurred here"


if __name__ == "__main__":
    raise SystemExit(main(None))
