"""Writes a model repository for Triton: the models, their configs, and for the python backend the code that runs them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import runtime
from runtime.errors import InputError
from runtime.files.engine_record import SUFFIXES, record_path
from runtime.files.on_disk import partial_folder
from serving.triton_server.config import graph_config, stream_config, stream_name, window_config
from serving.triton_server.host import CONTRACT
from serving.triton_server.options import TritonOptions
from serving.triton_server.perf_data import perf_data
from serving.triton_server.source import Source, engine_source, onnx_source, plan_source

CONFIG = "config.pbtxt"
PERF_DATA = "perf_analyzer.json"  # beside a model's config: the golden frames of a bundle
GRAPH_FILES = {"onnxruntime": "model.onnx", "tensorrt": "model.plan"}  # names that these backends look for
# of serving/, what a model.py imports
CODE = ("__init__.py", *(f"triton_server/{name}.py" for name in ("__init__", "host", "metrics", "requests", "streams")))
RUNTIME, SERVING = Path(str(runtime.__file__)).parent, Path(__file__).resolve().parents[1]
TEMPLATES = SERVING / "triton_server" / "models"


@dataclass(frozen=True)
class Repository:
    """What was written."""

    path: Path
    models: tuple[str, ...]  # their names on the server
    source: Source
    size: int  # bytes of all files


def write_repository(options: TritonOptions) -> Repository:
    """Writes the folder; it appears whole or not at all, and replaces only what an earlier call wrote.

    Raises InputError when something is in the way, and what the checks of the model raise.
    """
    if options.backend == "tensorrt" and not options.gpus:
        options = replace(options, gpus=(0,))
    source = _source(options)
    target = options.repository
    if target.exists():
        _check_replaceable(target, options.overwrite)
    with partial_folder(target, options.overwrite) as new:
        models = _fill(new, options, source)
    return Repository(target, models, source, sum(path.stat().st_size for path in target.rglob("*") if path.is_file()))


def _source(options: TritonOptions) -> Source:
    if options.backend == "onnxruntime":
        return onnx_source(options.model, options.member)
    if options.backend == "tensorrt":
        return plan_source(options.model, options.member)
    return engine_source(options.model)


def _check_replaceable(target: Path, overwrite: bool) -> None:
    if not overwrite:
        raise InputError(f"{target} is there already: add --overwrite to replace it, or name another folder")
    for entry in target.iterdir() if target.is_dir() else [target]:
        config = entry / CONFIG
        if not config.is_file() or f'key: "{CONTRACT}"' not in config.read_text(encoding="utf-8", errors="replace"):
            raise InputError(f"{entry} was not written by this command: name another folder, or remove it yourself")


def _fill(folder: Path, options: TritonOptions, source: Source) -> tuple[str, ...]:
    """Writes the models. Returns their names."""
    if options.backend != "python":
        version = _model(folder, options.name, graph_config(options, source), options.version)
        shutil.copyfile(source.path, version / GRAPH_FILES[options.backend])
        if options.model.is_dir():
            (folder / options.name / PERF_DATA).write_text(perf_data(options.model, source.path.name, source.contract))
        return (options.name,)
    name = f"model{''.join(source.path.suffixes[-1:])}" if source.path.is_file() else "model.bundle"
    _engine_model(folder, options, source, "window.py", options.name, window_config(options, source, name), name)
    if options.model.is_dir():
        (folder / options.name / PERF_DATA).write_text(perf_data(options.model, None, None))
    if not options.streams:
        return (options.name,)
    _engine_model(folder, options, source, "stream.py", stream_name(options), stream_config(options, source, name), name)
    return (options.name, stream_name(options))


def _engine_model(folder: Path, options: TritonOptions, source: Source, template: str, name: str, config: str, model: str) -> None:
    """A model of the python backend, with all that it needs beside numpy and what runs its engine."""
    version = _model(folder, name, config, options.version)
    shutil.copyfile(TEMPLATES / template, version / "model.py")
    shutil.copytree(RUNTIME, version / "runtime", ignore=shutil.ignore_patterns("__pycache__"))
    for file in CODE:
        (version / "serving" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(SERVING / file, version / "serving" / file)
    if source.path.is_dir():
        shutil.copytree(source.path, version / model)
        return
    shutil.copyfile(source.path, version / model)
    if source.path.suffix in SUFFIXES:
        shutil.copyfile(record_path(source.path), record_path(version / model))


def _model(folder: Path, name: str, config: str, version: int) -> Path:
    """Writes a model's config. Returns the folder of its version."""
    path = folder / name / str(version)
    path.mkdir(parents=True)
    (folder / name / CONFIG).write_text(config, encoding="utf-8")
    return path
