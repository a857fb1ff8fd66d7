"""`videodeblur start-triton`: serves a model repository with the tritonserver inside nvidia-pytriton's wheel, on a CPU.

The wheel brings the server and its python backend only. It wants a virtual environment of its own, with numpy before 2.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.command_line import command
from runtime.errors import BackendError, InputError

LOOPBACK = "127.0.0.1"
NO_GUESSING = "--disable-auto-complete-config"  # which would run every model.py twice
EXIT_SECONDS = 5  # that requests in flight get when the server stops
INSTALL = "python -m venv .venv-triton; .venv-triton/bin/pip install nvidia-pytriton==0.7.0 'numpy<2' openvino onnxruntime"
ASK = """
import importlib.util, json, sys, sysconfig
found = importlib.util.find_spec("pytriton")
print(json.dumps({
    "package": list(found.submodule_search_locations)[0] if found else None,
    "minor": "%d.%d" % sys.version_info[:2],
    "library": sysconfig.get_config_var("LIBDIR") if sysconfig.get_config_var("Py_ENABLE_SHARED") else None,
    "paths": [path for path in sys.path if path.endswith("-packages")],
}))
"""


@dataclass(frozen=True)
class Ports:
    """Of a server."""

    http: int = 8000
    grpc: int = 8001
    metrics: int = 8002


@dataclass(frozen=True)
class Launch:
    """How to start a server."""

    command: tuple[str, ...]
    environment: dict[str, str]  # in addition to the caller's
    folder: Path  # to start it in: Triton's stub imports from there first


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Parses, and serves until it is stopped."""
    parser = argparse.ArgumentParser(prog="videodeblur start-triton", description=__doc__, epilog=f"To install it: {INSTALL}")
    parser.add_argument("repository", type=Path, metavar="REPO", help="repository that `videodeblur to-triton` wrote")
    parser.add_argument(
        "--python",
        type=Path,
        default=Path(sys.executable),
        help="Python of the environment that has nvidia-pytriton (default: this one)",
    )
    for name, port in vars(Ports()).items():
        parser.add_argument(f"--{name}-port", type=int, default=port, help=f"port for {name} (default: %(default)s)")
    parser.add_argument(
        "--address",
        default=LOOPBACK,
        help="address to listen at (default: %(default)s); any other lets the network in, and Triton asks for no password",
    )
    given = parser.parse_args(argv)
    ports = Ports(given.http_port, given.grpc_port, given.metrics_port)
    with tempfile.TemporaryDirectory(prefix="videodeblur-triton-") as folder:
        launch = prepare(given.python, given.repository, Path(folder), ports, given.address)
        print(f"http://{given.address}:{ports.http}, grpc://{given.address}:{ports.grpc}; Ctrl-C stops the server", flush=True)
        return _serve(launch)


def prepare(python: Path, repository: Path, folder: Path, ports: Ports, address: str = LOOPBACK) -> Launch:
    """Puts what the server needs into `folder`, which must stay while it runs.

    Raises InputError when the repository is none, BackendError when the environment has no server.
    """
    if not repository.is_dir() or not any(repository.glob("*/config.pbtxt")):
        raise InputError(f"{repository} is no model repository: write one with `videodeblur to-triton`")
    facts = _facts(python)
    server = Path(facts["package"]) / "tritonserver"
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    stub = server / "python_backend_stubs" / facts["minor"] / "triton_python_backend_stub"
    for path in (*(server / "backends" / "python").glob("*.*"), stub, server / "bin" / "tritonserver"):
        target = (folder if path.name == "tritonserver" else backend) / path.name
        shutil.copyfile(path, target)
        target.chmod(0o755)  # wheels lose this bit
    options = {
        "model-repository": repository.resolve(),
        "backend-directory": backend.parent,
        "exit-timeout-secs": EXIT_SECONDS,
        **{f"{name}-address": address for name in vars(ports)},
        **{f"{name}-port": port for name, port in vars(ports).items()},
    }
    libraries = server.parents[1] / "nvidia_pytriton.libs"
    return Launch(
        (str(folder / "tritonserver"), NO_GUESSING, *(f"--{name}={value}" for name, value in options.items())),
        {
            "LD_LIBRARY_PATH": os.pathsep.join([facts["library"], str(libraries)]),  # of this very Python, not the system's
            "PYTHONPATH": os.pathsep.join(facts["paths"]),
        },
        folder,
    )


def _serve(launch: Launch) -> int:
    """Runs the server until it ends: Ctrl-C and SIGTERM ask it to, and kill it the second time. Returns its exit status."""
    server: subprocess.Popen[bytes] | None = None
    asked = 0

    def stop(*_: object) -> None:
        nonlocal asked
        asked += 1
        if server is None or server.poll() is not None:
            return
        if asked == 1:
            server.terminate()
        else:
            os.killpg(server.pid, signal.SIGKILL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    server = subprocess.Popen(launch.command, env={**os.environ, **launch.environment}, cwd=launch.folder, start_new_session=True)
    if asked:  # before there was a server to tell
        server.terminate()
    status = server.wait()
    return 0 if asked else status


def _facts(python: Path) -> dict[str, Any]:
    try:
        told = subprocess.run([str(python), "-c", ASK], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BackendError(
            f"{python} is no Python that runs ({error}): name another with --python; to make one: {INSTALL}"
        ) from error
    facts: dict[str, Any] = json.loads(told)
    if facts["package"] is None:
        raise BackendError(f"{python} has no nvidia-pytriton: name another with --python; to make one: {INSTALL}")
    if facts["library"] is None:
        raise BackendError(
            f"{python} was built without --enable-shared, which Triton's python backend needs: make one with another"
        )
    return facts


if __name__ == "__main__":
    raise SystemExit(main(None))
