"""`videodeblur to-triton`: a bundle -> a model repository for NVIDIA's Triton Inference Server; see docs/serving.md."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import command, quoted
from runtime.run import arguments
from serving.start_triton import LOOPBACK
from serving.triton_server.host import Hosting
from serving.triton_server.options import BACKENDS, TritonOptions
from serving.triton_server.repository import PERF_DATA, Repository, write_repository


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, writes the repository, prints what is in it and how to start it."""
    options = _options(_parser().parse_args(argv))
    print(summary(write_repository(options), options.backend))
    return 0


def summary(repository: Repository, backend: str) -> str:
    """The repository as text, with the commands that serve it on this machine alone."""
    path = repository.path.resolve()
    addresses = " ".join(f"--{name}-address={LOOPBACK}" for name in ("http", "grpc", "metrics"))
    return "\n".join(
        [
            f"{repository.path}: {', '.join(repository.models)}; {repository.size / 1e6:.1f} MB",
            f"the server needs {repository.source.needs}",
            f"next: {quoted('tritonserver', f'--model-repository={path}')} {addresses}",
            *(
                [f"  or: {quoted('videodeblur', 'start-triton', repository.path)}, where nvidia-pytriton is installed"]
                if backend == "python"
                else []
            ),
            *(
                [f"load: perf_analyzer -m {repository.models[0]} -i grpc -u {LOOPBACK}:8001 --input-data {quoted(data)}"]
                if (data := path / repository.models[0] / PERF_DATA).is_file()
                else []
            ),
            f"then: videodeblur run IN.mp4 OUT.mp4 --server grpc://{LOOPBACK}:8001 --server-model {repository.models[0]}",
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="videodeblur to-triton", description=__doc__)
    add = parser.add_argument
    add("model", type=Path, metavar="BUNDLE", help="bundle; an .onnx file or an engine will do")
    add("repository", type=Path, metavar="REPO", help="folder to write")
    add("--overwrite", action="store_true", help="replace REPO if this command wrote it")
    add(
        "--backend",
        choices=BACKENDS,
        default="python",
        help="backend of Triton: python (default) with the bundle's Engine, or onnxruntime or tensorrt with the graph alone",
    )
    add("--member", metavar="FILE", help="member of the bundle, for onnxruntime and tensorrt (default: fp32; the first engine)")
    add("--name", default="videodeblur", help="name of the model on the server (default: %(default)s)")
    add("--version", type=int, default=1, metavar="N", help="version; the server takes the highest (default: %(default)s)")
    batching = parser.add_argument_group("batches, queues and instances")
    add = batching.add_argument
    add("--max-batch", type=int, default=4, metavar="N", help="windows of one size that are run together (default: %(default)s)")
    add(
        "--queue-delay",
        type=float,
        default=3,
        metavar="MS",
        help="milliseconds that a window waits for others (default: %(default)g)",
    )
    add("--queue-size", type=int, default=64, metavar="N", help="windows that may wait; more are refused (default: %(default)s)")
    add("--queue-timeout", type=float, default=60, metavar="S", help="seconds that a window may wait (default: %(default)g)")
    add("--instances", type=int, default=1, metavar="N", help="engines side by side (default: %(default)s)")
    add(
        "--gpus",
        type=_numbers,
        default=(),
        metavar="0,1",
        help="GPUs, each with so many --instances (default: CPU; tensorrt: GPU 0)",
    )
    engine = parser.add_argument_group("the python backend")
    add = engine.add_argument
    add("--engine-backend", default="auto", metavar="NAME", help=arguments.BACKENDS)
    add("--precision", default="auto", metavar="NAME", help=arguments.ARITHMETIC)
    add("--threads", type=int, metavar="N", help="CPU cores of each engine (default: all)")
    add("--warm-up", type=_size, action="append", default=[], metavar="WxH", help="size to run before the model is ready; repeat")
    add(
        "--max-pixels",
        type=int,
        default=Hosting("").max_pixels,
        metavar="N",
        help="pixels of a frame, at most (default: %(default)s)",
    )
    add("--streams", type=int, default=8, metavar="N", help="streams open at once; 0: no streaming model (default: %(default)s)")
    add("--stream-idle", type=float, default=60, metavar="S", help="seconds until a stream is forgotten (default: %(default)g)")
    return parser


def _options(given: argparse.Namespace) -> TritonOptions:
    hosting = Hosting(
        "", given.engine_backend, given.precision, given.threads, given.max_pixels, tuple(given.warm_up), given.stream_idle
    )
    return TritonOptions(
        model=given.model,
        repository=given.repository,
        backend=given.backend,
        name=given.name,
        version=given.version,
        member=given.member,
        max_batch=given.max_batch,
        queue_delay=given.queue_delay / 1000,
        queue_size=given.queue_size,
        queue_timeout=given.queue_timeout,
        instances=given.instances,
        gpus=given.gpus,
        streams=given.streams,
        hosting=hosting,
        overwrite=given.overwrite,
    )


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers such as 0,1") from None


def _size(text: str) -> tuple[int, int]:
    """(height, width)"""
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a size such as 1280x720")
    return int(height), int(width)


if __name__ == "__main__":
    raise SystemExit(main(None))
