"""How the server's process is started and ended, with another program in its place; test_triton_server.py has the real one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SERVE = """
import sys
from pathlib import Path
from serving.start_triton import Launch, _serve
sys.exit(_serve(Launch(("bash", "-c", sys.argv[1]), {}, Path())))
"""


def serve(script):
    command = [sys.executable, "-c", SERVE, script]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    return process, int(process.stdout.readline())


def test_ctrl_c_lets_the_server_end():
    process, _ = serve("trap 'echo ended; exit 3' TERM; echo $$; for i in $(seq 300); do sleep 0.05; done")
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=20)[0], process.returncode) == ("ended\n", 0)


def test_a_second_ctrl_c_kills_it():
    process, server = serve("trap 'echo asked' TERM; echo $$; for i in $(seq 300); do sleep 0.05; done")
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert (process.communicate(timeout=20)[1], process.returncode) == ("", 0)
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)
