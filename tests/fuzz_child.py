"""The child of fuzz.py: reads damaged files as the product does, one a line of standard input, and tells how each ended."""

import json
import os
import resource
import sys
import traceback
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from calibration.onnx_file import load_model
from calibration.ranges import Ranges
from export.graph.layer_precision import read_precisions
from runtime import DeployError, Engine
from runtime.deblur_video import deblur_video
from runtime.files.engine_record import load_record
from runtime.run.options import DeblurOptions

MOST_MEMORY = 24 << 30  # bytes of addresses, most of which libraries never touch
FRAMES = 6  # of a video, more than a window


def main():
    """Answers on what was standard output, which libraries write to as well."""
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    shared = Path(sys.argv[1])
    for line in sys.stdin:
        kind, path = line.rstrip("\n").split(" ", 1)
        answers.write(json.dumps(ended(kind, Path(path), shared)) + "\n")


def ended(kind, path, shared):
    """(how, text): "read", the name of a DeployError, or "traceback"."""
    try:
        READ[kind](path, shared)
    except DeployError as error:
        return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "runtime.errors"), str(error)
    except BaseException:
        return "traceback", traceback.format_exc()
    return "read", ""


def bundle(path, shared):
    Engine(path, "onnxruntime", threads=1).close()


def model_on(backend):
    def read(path, shared):
        with Engine(path, backend, "fp32", threads=1) as engine:
            engine.run(np.zeros((1, 5, 16, 16), np.float32))

    return read


def record(path, shared):
    found = load_record(path)
    found.check_machine(found.library, found.version, (8, 9))
    found.profile_of((1, 5, 64, 96))


def video(path, shared):
    output = path.with_name("sharp.mkv")
    deblur_video(DeblurOptions(path, output, frames=FRAMES, tile=0, overwrite=True), engine=engine_of(shared))


@cache
def engine_of(model):
    """One for all videos."""
    return Engine(model, "onnxruntime", threads=1)


READ = {
    "manifest": bundle,
    "array": bundle,
    "onnxruntime": model_on("onnxruntime"),
    "openvino": model_on("openvino"),
    "onnx": lambda path, shared: load_model(path),
    "ranges": lambda path, shared: Ranges.load(path),
    "precision": lambda path, shared: read_precisions(path),
    "record": record,
    "video": video,
}


if __name__ == "__main__":
    main()
