"""What a model repository is made of: a bundle or a file, what it takes, and what a server must have to run it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from runtime.errors import InputError, ModelError
from runtime.files.contract import Contract, read_contract, read_versions
from runtime.files.engine_record import SUFFIXES, load_record
from runtime.files.manifest import Manifest, check_files, load_manifest

# What ONNX Runtime 1.19 reads, which is that of Triton 2.51: the oldest server that this is meant for
OLDEST_ONNXRUNTIME, MAX_IR_VERSION, MAX_OPSET = "1.19", 10, 21


@dataclass(frozen=True)
class Source:
    """A model that can be served."""

    path: Path  # a bundle's folder, an .onnx file, or an engine
    contract: Contract  # that clients are told
    precision: str  # of the graph
    largest_batch: int | None  # windows that it takes at once, None = any
    needs: str  # of the server, for people


def engine_source(model: Path) -> Source:
    """All that `Engine` opens: for the python backend. Raises ModelError, and InputError when members take different inputs."""
    if not model.is_dir():
        return _file(model)
    manifest = _whole_manifest(model)
    members = [_file(model / member.file) for member in manifest.members]
    contracts = [each.contract for each in members]
    kinds = {(each.frames, each.io, each.bits, each.color_range) for each in contracts}
    if len(kinds) != 1:
        raise InputError(f"the members of {model} take different inputs ({sorted(kinds, key=str)}): make a bundle of one kind")
    contract = replace(
        contracts[0],
        batch=_common([each.batch for each in contracts]),
        height=_common([each.height for each in contracts]),
        width=_common([each.width for each in contracts]),
    )
    batches = [each.largest_batch for each in members if each.largest_batch]
    needs = "numpy, and what runs one of " + ", ".join(member.file for member in manifest.members)
    return Source(model, contract, members[0].precision, min(batches, default=None), needs)


def onnx_source(model: Path, member: str | None = None) -> Source:
    """An ONNX file for Triton's onnxruntime backend: `member` of a bundle; by default the last fp32 one, of codes if there is one.

    Raises InputError when there is none, ModelError when the oldest server could not read it.
    """
    files = _members(model, member, (".onnx",))
    if not files:
        raise InputError(f"{model} has no ONNX file: take --backend python or tensorrt, or name a file from export/to_onnx.py")
    exact = [each for each in files if each.contract.precision == "fp32"] or files[-1:]
    chosen = next((each for each in exact if each.contract.io == "u8"), exact[-1])
    ir_version, opset = read_versions(chosen.path)
    if ir_version > MAX_IR_VERSION or opset > MAX_OPSET:
        raise ModelError(
            f"{chosen.path} has IR version {ir_version} and opset {opset}, ONNX Runtime {OLDEST_ONNXRUNTIME} in Triton 2.51 reads "
            f"{MAX_IR_VERSION} and {MAX_OPSET}: export it with --opset 20, or take --backend python"
        )
    return replace(
        chosen,
        needs=f"the onnxruntime backend, ONNX Runtime {OLDEST_ONNXRUNTIME} or later (IR version {ir_version}, opset {opset})",
    )


def plan_source(model: Path, member: str | None = None) -> Source:
    """An engine for Triton's tensorrt backend: `member` of a bundle, by default the first of full TensorRT.

    Raises InputError when there is none.
    """
    found = _members(model, member, SUFFIXES)
    usable = [each for each in found if (record := load_record(each.path)).library == "tensorrt" and not record.stripped]
    if not usable:
        what = f"only engines of {load_record(found[0].path).library}" if found else "no engine"
        raise InputError(
            f"{model} has {what}, Triton's tensorrt backend runs those of full TensorRT: `videodeblur build` with the release that "
            "the server has, and `videodeblur bundle --engine`; or take --backend python"
        )
    record = load_record(usable[0].path)
    gpus = " or ".join(f"{major}.{minor}" for major, minor in record.compute_capabilities) or "any"
    later = " or later, with --backend-config=tensorrt,version-compatible=true" if record.version_compatible else ", no other"
    return replace(
        usable[0], needs=f"the tensorrt backend with TensorRT {record.version}{later}; a GPU of compute capability {gpus}"
    )


def _members(model: Path, member: str | None, suffixes: tuple[str, ...]) -> list[Source]:
    """Those with one of the suffixes, in order."""
    if not model.is_dir():
        if member:
            raise InputError(f"{model} is a file, not a bundle: leave out --member")
        return [_file(model)] if model.suffix in suffixes else []
    names = [each.file for each in _whole_manifest(model).members]
    if member and member not in names:
        raise InputError(f"{model} has no member {member!r}, it has {', '.join(names)}")
    chosen = [name for name in ([member] if member else names) if Path(name).suffix in suffixes]
    return [_file(model / name) for name in chosen]


def _whole_manifest(bundle: Path) -> Manifest:
    manifest = load_manifest(bundle)
    if missing := check_files(bundle, manifest):
        raise ModelError(f"{bundle} lacks {', '.join(sorted(missing))}: copy it again before it is served")
    return manifest


def _file(path: Path) -> Source:
    if path.suffix in SUFFIXES:
        record = load_record(path)
        largest = max(profile.max[0] for profile in record.profiles)
        return Source(path, record.contract, record.precision, largest, f"numpy, {record.library} {record.version}")
    if path.suffix != ".onnx":
        raise ModelError(f"{path} is not an .onnx file, an engine or a bundle's folder: make one with export/to_bundle.py")
    contract = read_contract(path)
    return Source(path, contract, contract.precision, contract.batch, "numpy, and openvino or onnxruntime")


def _common(values: list[int | None]) -> int | None:
    return values[0] if len(set(values)) == 1 else None
