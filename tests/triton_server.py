"""A real Triton server for the tests: the one inside nvidia-pytriton's wheel, in an environment of its own (`make test-triton`)."""

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from serving.start_triton import LOOPBACK, Ports, prepare

ROOT = Path(__file__).resolve().parents[1]
PYTHON = Path(os.environ.get("VIDEODEBLUR_TRITON_PYTHON", ROOT / ".venv-triton" / "bin" / "python"))
START_SECONDS, STOP_SECONDS = 90, 30

needs_triton = pytest.mark.skipif(not PYTHON.is_file(), reason="needs tritonserver: make test-triton")


class TritonServer:
    """Serves a repository on free ports of the loopback; a context manager that waits until it is ready, or has ended."""

    def __init__(self, repository, folder, options=(), environment=None):
        self.ports = Ports(*free_ports(3))
        folder.mkdir()
        launch = prepare(PYTHON, repository, folder, self.ports)
        self._command, self._folder = (*launch.command, *options), launch.folder
        self._environment = {**os.environ, **launch.environment, **(environment or {})}
        self._log = folder / "log"
        self.http, self.grpc = f"http://{LOOPBACK}:{self.ports.http}", f"grpc://{LOOPBACK}:{self.ports.grpc}"

    def __enter__(self):
        with ExitStack() as undo:
            log = undo.enter_context(self._log.open("wb"))
            self.process = subprocess.Popen(
                self._command, env=self._environment, cwd=self._folder, stdout=log, stderr=log, start_new_session=True
            )
            undo.callback(self.stop)
            end = time.monotonic() + START_SECONDS
            while self.process.poll() is None and not self.ready():
                assert time.monotonic() < end, self.log()
                time.sleep(0.1)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_):
        self._undo.close()

    def ready(self):
        with suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{self.http}/v2/health/ready") as answer:
            return answer.status == 200
        return False

    def log(self):
        return self._log.read_text(errors="replace")

    def stop(self):
        """Returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_SECONDS)


def free_ports(count):
    with ExitStack() as held:
        sockets = [held.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
