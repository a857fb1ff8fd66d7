"""What cannot work together, or is too old: installed packages and the driver -> findings with their remedies."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata

from runtime.machine.requirements import REQUIREMENTS, least_version

ERROR, WARNING, NOTE = "error", "warning", "note"
CHECKED = (  # whose age is looked at
    "numpy",
    "openvino",
    "onnxruntime",
    "onnxruntime-gpu",
    "av",
    "tensorrt",
    "tensorrt-lean",
    "tensorrt-rtx",
    "cuda-bindings",
)
ONNXRUNTIMES = {"onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino", "onnxruntime-qnn"}
FULL_TENSORRT = re.compile(r"tensorrt(-cu\d+)?(-bindings|-libs)?")  # not -rtx, -lean, -dispatch: modules of their own
CUDA_13 = 13  # the major version that TensorRT 11 and the PyPI wheel of onnxruntime-gpu 1.31 are built for


@dataclass(frozen=True)
class Finding:
    """Something to know, and what to do about it."""

    level: str  # ERROR: no video can be deblurred; WARNING: something installed does not work; NOTE: something could be better
    text: str
    remedy: str = ""  # mostly a pip line, for the repository's root


def install(*extras: str) -> str:
    """The pip line for extras of setup.cfg."""
    return f"pip install '.[{','.join(extras)}]'"


def installed_version(name: str) -> str | None:
    """The version of a package, None where it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def installed_packages() -> dict[str, str]:
    """Versions by name, in lower case with dashes; what has no readable metadata is left out."""
    found: dict[str, str] = {}
    for package in metadata.distributions():
        name, version = package.metadata["Name"], package.metadata["Version"]
        if name and version:
            found.setdefault(re.sub(r"[-_.]+", "-", name).lower(), version)  # the first on the path is what is imported
    return found


def conflicts(
    packages: Mapping[str, str], driver_cuda: int | None, python: tuple[int, int] = sys.version_info[:2]
) -> list[Finding]:
    """Findings about `packages` (as of `installed_packages`), on a driver for CUDA up to this major version; None: no driver."""
    found = [*_too_old(packages), *_same_files(packages), *_beside_numpy(packages)]
    return found + list(_beyond_driver(packages, driver_cuda)) + list(_beyond_python(packages, python))


def _too_old(packages: Mapping[str, str]) -> Iterator[Finding]:
    for name in CHECKED:
        (extra, wanted), least = REQUIREMENTS[name], least_version(name)
        if name in packages and _numbers(packages[name]) < _numbers(least):
            remedy = install(extra) if extra else f"pip install '{wanted}'"
            yield Finding(WARNING, f"{name} is {packages[name]}, expected {least} or newer", remedy)


def _same_files(packages: Mapping[str, str]) -> Iterator[Finding]:
    """Packages that overwrite each other."""
    both = sorted(ONNXRUNTIMES & packages.keys())
    if len(both) > 1:
        kept = "gpu" if "onnxruntime-gpu" in both else "cpu"
        remedy = f"pip uninstall -y {' '.join(both)}, then {install(kept)}"
        yield Finding(WARNING, f"{' and '.join(both)} are installed and own the same files: which one runs is chance", remedy)
    full = {name: version for name, version in packages.items() if FULL_TENSORRT.fullmatch(name)}
    if len({_numbers(version)[:1] for version in full.values()}) > 1:
        told = ", ".join(f"{name} {version}" for name, version in sorted(full.items()))
        remedy = f"pip uninstall -y {' '.join(sorted(full))}, then {install('tensorrt')}"
        yield Finding(WARNING, f"two releases of TensorRT are installed over each other ({told})", remedy)


def _beside_numpy(packages: Mapping[str, str]) -> Iterator[Finding]:
    numpy = _numbers(packages.get("numpy", "1.26"))
    if numpy >= (3,):
        yield Finding(WARNING, f"numpy is {packages['numpy']}, this version was tested below 3", "pip install 'numpy<3'")
    if numpy >= (2,) and "nvidia-pytriton" in packages:
        text = f"nvidia-pytriton's server hands out empty tensors beside numpy {packages['numpy']}"
        yield Finding(WARNING, text, "give it an environment of its own with numpy<2")


def _beyond_driver(packages: Mapping[str, str], driver: int | None) -> Iterator[Finding]:
    if driver is None:
        return
    bindings = packages.get("cuda-bindings", "0")
    if _numbers(bindings)[0] > driver:
        text = f"cuda-bindings {bindings} needs a driver for CUDA {_numbers(bindings)[0]}, this one is for {driver}"
        yield Finding(WARNING, text, f"update the driver, or pip install 'cuda-bindings<{driver + 1}'")
    for name, least in (("tensorrt", (11,)), ("onnxruntime-gpu", (1, 31))):
        if name in packages and _numbers(packages[name]) >= least and driver < CUDA_13:
            text = f"{name} {packages[name]} is built for CUDA {CUDA_13}, this driver is for {driver}"
            yield Finding(WARNING, text, f"update the driver, or install an older {name}")


def _beyond_python(packages: Mapping[str, str], python: tuple[int, int]) -> Iterator[Finding]:
    if _numbers(packages.get("tensorrt", "0")) >= (11,) and python < (3, 10):
        text = f"TensorRT {packages['tensorrt']} needs Python 3.10, this is {python[0]}.{python[1]}"
        yield Finding(WARNING, text, "make an environment with a newer Python, or install TensorRT 10")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:3]) or (0,)
