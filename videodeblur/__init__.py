"""The umbrella: `videodeblur NAME ...` is `python -m MODULE ...`; modules are imported when they are called.

`from videodeblur import Engine, StreamDeblurrer` is `from runtime import ...`, and as late; the filter for VapourSynth is in
`videodeblur.vapoursynth`.
"""

from __future__ import annotations

import difflib
import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runtime import Engine, StreamDeblurrer

__all__ = ["Engine", "StreamDeblurrer", "main"]

INTERRUPTED = 130  # 128 + SIGINT, as shells report it
COMMANDS = {  # name: (module with a main(argv), what it does)
    "run": ("runtime.deblur_video", "deblur a video"),
    "plan": ("runtime.plan_video", "frames, tiles, memory and time of a run, before it"),
    "doctor": ("runtime.doctor", "what this machine has, what would run here, what is missing"),
    "export": ("export.to_onnx", "checkpoint -> verified ONNX"),
    "calibrate": ("calibration.collect_ranges", "measure a model's tensors on real clips -> ranges.json"),
    "fp16": ("export.to_fp16", "fp32 ONNX -> FP16, tensors near its limit kept fp32"),
    "bf16": ("export.to_bf16", "fp32 ONNX -> BF16"),
    "quantize": ("export.to_qdq", "fp32 ONNX and ranges.json -> INT8 or FP8 convolutions as Q/DQ"),
    "calibration-cache": ("export.to_calibration_cache", "ranges.json -> TensorRT's own text cache, for 8.6 to 10"),
    "types": ("export.type_shares", "which type each convolution really runs in"),
    "build": ("export.to_engine", "ONNX -> TensorRT engine, with trtexec's flags"),
    "trtexec": ("export.trtexec", "NVIDIA's trtexec, which no wheel brings: build, load and measure an engine"),
    "adopt": ("export.adopt", "take in engines and rewritten graphs of trtexec, Polygraphy, onnxslim, ModelOpt"),
    "compare": ("export.compare_engines", "what got slower, larger or less exact from one engine to the next"),
    "bundle": ("export.to_bundle", "models, engines and golden frames -> one folder that checks itself"),
    "report": ("export.to_report", "one HTML page about a bundle: before and after, quality, parity, speed, memory"),
    "ship": ("export.ship", "checkpoint -> verified bundle, in one command"),
    "library": ("serving.deblur_library", "deblur a folder of videos, on this machine or a Ray cluster"),
    "plan-library": ("serving.plan_library", "folder of videos -> segments, for a scheduler's array jobs"),
    "run-segment": ("serving.run_segment", "one segment, or one task's share of them"),
    "join": ("serving.join_library", "finished segments -> videos"),
    "to-triton": ("serving.to_triton", "bundle -> model repository for NVIDIA's Triton Inference Server"),
    "start-triton": ("serving.start_triton", "serve a model repository with nvidia-pytriton's wheel, on a CPU"),
    "search": ("export.search_precision", "precision of every layer under a PSNR budget"),
    "bench": ("benchmarks.bench", "speed, parity and quality of models and their peers in one table"),
    "verify": ("export.verify", "hold one model to another on real clips"),
    "train": ("training.train", "train a checkpoint"),
    "evaluate": ("training.evaluate", "PSNR and SSIM on the VideoDeblurring data set"),
    "synthesize": ("training.synthesize", "make blurry and sharp clips from photographs"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Dispatches to the command named first. Returns its exit status; 2 when there is no such command.

    Where another package of this environment has the name of one of ours, the failing import ends in one line that says so.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: videodeblur COMMAND [options]; videodeblur COMMAND --help tells more\n")
        for name, (_, purpose) in COMMANDS.items():
            print(f"  {name:<18}{purpose}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        print(f"error: no command {name!r}{f', did you mean {near[0]!r}?' if near else ''}; videodeblur --help", file=sys.stderr)
        return 2
    try:
        return int(importlib.import_module(COMMANDS[name][0]).main(rest))
    except KeyboardInterrupt:  # while modules are loaded; commands answer for what comes after
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except ImportError as error:
        shadowed = _shadowed(error.name or "")
        if shadowed is None:
            raise
        print(f"error: {shadowed}", file=sys.stderr)
        return 1


def __getattr__(name: str) -> Any:
    """What of `runtime` is offered here; imported late, since help needs neither numpy nor a backend."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("runtime"), name)
    except (ImportError, AttributeError) as error:
        shadowed = _shadowed(getattr(error, "name", None) or "runtime") or _shadowed("runtime")
        if shadowed is None:
            raise
        raise ImportError(shadowed, name="runtime") from error


def _shadowed(module: str) -> str | None:
    """Whose file Python takes for the package of `module`, and the remedy; None when it takes ours."""
    shadows = runpy.run_path(str(Path(__file__).parents[1] / "runtime" / "machine" / "shadows.py"))  # `runtime` may be another's
    told = shadows["told"](module.partition(".")[0])
    return told and f"{told}: {shadows['REMEDY']}"
