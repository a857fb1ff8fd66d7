"""What a window costs more when a Triton server runs it: over gRPC, HTTP and shared memory, against the engine in this process.

Start the server first, on this machine and with the same model: `videodeblur to-triton`, `videodeblur start-triton`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import tritonclient.grpc
from tritonclient.utils import shared_memory

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.shared.arguments import count
from benchmarks.shared.timing import Timing, interleave
from runtime import Engine
from runtime.command_line import command
from runtime.machine.hardware import cpu_name

LOCAL = "this process, uint8"
REGIONS = ("blurry", "sharp")


@dataclass(frozen=True)
class ServedOptions:
    """What is timed."""

    model: Path  # that the server has, too
    precision: str  # of the local engine
    host: str
    grpc_port: int
    http_port: int
    name: str  # of the model on the server
    height: int  # pixels
    width: int  # pixels
    rounds: int


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(prog="benchmarks/served.py", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="bundle or file that the server has")
    parser.add_argument("--precision", default="auto", help="arithmetic of the engine in this process (default: %(default)s)")
    parser.add_argument("--host", default="127.0.0.1", help="machine of the server (default: %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=8001, help="port of gRPC (default: %(default)s)")
    parser.add_argument("--http-port", type=int, default=8000, help="port of HTTP (default: %(default)s)")
    parser.add_argument("--name", default="videodeblur", help="name of the model on the server (default: %(default)s)")
    parser.add_argument("--height", type=count, default=720, help="pixels of a window's height (default: %(default)s)")
    parser.add_argument("--width", type=count, default=1280, help="pixels of a window's width (default: %(default)s)")
    parser.add_argument("--rounds", type=count, default=15, help="calls of each candidate (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(argv)
    written = options.json
    del options.json
    settings = ServedOptions(**vars(options))
    timings, engines = measure(settings)
    print(table(timings, engines, settings))
    if written:
        figures = {"cpu": cpu_name(), "engines": engines, "timings": [asdict(timing) for timing in timings]}
        written.write_text(json.dumps({**figures, "options": {**asdict(settings), "model": str(settings.model)}}, indent=1) + "\n")
    return 0


def measure(options: ServedOptions) -> tuple[list[Timing], dict[str, str]]:
    """Times every way on the same random window, after a check that all give the same result; and what the engines run on."""
    shape = (1, 5, options.height, options.width)
    codes = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    unit = np.float32(1 / 255) * codes
    with ExitStack() as opened:
        local = opened.enter_context(Engine(options.model, precision=options.precision))
        grpc = opened.enter_context(Engine(f"grpc://{options.host}:{options.grpc_port}/{options.name}"))
        http = opened.enter_context(Engine(f"http://{options.host}:{options.http_port}/{options.name}"))
        shared = opened.enter_context(through_shared_memory(options, codes))
        calls: dict[str, Callable[[], npt.NDArray[np.uint8]]] = {
            LOCAL: lambda: local.run(codes),
            "gRPC, uint8": lambda: grpc.run(codes),
            "HTTP, uint8": lambda: http.run(codes),
            "gRPC with shared memory, uint8": shared,
        }
        expected = calls[LOCAL]()
        for name, call in calls.items():
            largest = int(np.abs(call().astype(int) - expected).max())
            if largest:
                print(f"note: {name} differs by up to {largest} codes: does the server run the same model and arithmetic?")
        floats = {"gRPC, float32": lambda: grpc.run(unit), "HTTP, float32": lambda: http.run(unit)}
        timings = interleave({**calls, **floats}, options.rounds)
        return timings, {"this process": local.reason, "the server": grpc.reason}


@contextmanager
def through_shared_memory(options: ServedOptions, codes: npt.NDArray[np.uint8]) -> Iterator[Callable[[], npt.NDArray[np.uint8]]]:
    """A call that leaves the window where the server can read it, and reads the result where the server left it."""
    client = tritonclient.grpc.InferenceServerClient(f"{options.host}:{options.grpc_port}")
    with ExitStack() as opened:
        opened.callback(client.close)
        handles = {}
        for name in REGIONS:
            handles[name] = shared_memory.create_shared_memory_region(name, f"/videodeblur_{name}", codes.nbytes)
            opened.callback(shared_memory.destroy_shared_memory_region, handles[name])
            client.register_system_shared_memory(name, f"/videodeblur_{name}", codes.nbytes)
            opened.callback(client.unregister_system_shared_memory, name)
        given = tritonclient.grpc.InferInput("blurry_u8", list(codes.shape), "UINT8")
        given.set_shared_memory("blurry", codes.nbytes)
        asked = tritonclient.grpc.InferRequestedOutput("sharp_u8")
        asked.set_shared_memory("sharp", codes.nbytes)

        def call() -> npt.NDArray[np.uint8]:
            shared_memory.set_shared_memory_region(handles["blurry"], [codes])
            client.infer(options.name, [given], outputs=[asked])
            return np.array(shared_memory.get_contents_as_numpy(handles["sharp"], np.uint8, codes.shape))

        yield call


def table(timings: Sequence[Timing], engines: dict[str, str], options: ServedOptions) -> str:
    """The figures as text, one row a way.

    What is more is the difference of the shortest calls, which a busy machine disturbs least, and the median of the differences
    within a round.
    """
    local = next(timing for timing in timings if timing.name == LOCAL)
    lines = [
        f"one window 1x5x{options.height}x{options.width} on {cpu_name()}, {options.rounds} rounds, interleaved; client and server",
        "share the machine",
        *(f"{name}: {reason}" for name, reason in engines.items()),
        f"{'':32}{'least':>9}{'median':>9}{'p90':>9}{'more: of the least':>24}{'median':>12}",
    ]
    for timing in timings:
        least, of_local = min(timing.milliseconds), min(local.milliseconds)
        more, usual = least - of_local, float(np.median(np.subtract(timing.milliseconds, local.milliseconds)))
        told = "" if timing is local else f"{more:+12.1f} ms {100 * more / of_local:+6.1f} % {usual:+9.1f} ms"
        lines.append(f"{timing.name:32}{least:9.1f}{timing.median:9.1f}{timing.percentile(90):9.1f} {told}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main(None))
