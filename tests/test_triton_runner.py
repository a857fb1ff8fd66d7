"""The client of a Triton server, as far as it goes without one; tests/test_triton_server.py has the rest."""

import sys
from pathlib import Path

import pytest
from triton_server import LOOPBACK, free_ports

from runtime import BackendError, Engine, InputError, MissingPackageError
from runtime.deblur_video import main
from runtime.run.options import DeblurOptions

pytest.importorskip("tritonclient")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_nobody_answers(protocol):
    (port,) = free_ports(1)
    with pytest.raises(BackendError, match=rf"x on {LOOPBACK}:{port}: .*; is the server running there, with this model\?"):
        Engine(f"{protocol}://{LOOPBACK}:{port}/x")


@pytest.mark.parametrize("url", ["grpc://localhost/x", "ftp://localhost:1/x", "grpc://localhost:1", "grpc://localhost:1/a/b"])
def test_addresses_that_are_none(url):
    with pytest.raises(InputError, match=r"expected grpc://HOST:PORT/MODEL or http://HOST:PORT/MODEL"):
        Engine(url)


def test_backend_is_the_servers_choice():
    for option in ({"backend": "openvino"}, {"precision": "fp32"}, {"threads": 1}, {"device": 1}):
        with pytest.raises(InputError, match="runs as its server was told: leave out backend, precision, threads and device"):
            Engine("grpc://localhost:1/x", **option)


def test_client_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "tritonclient.grpc", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'tritonclient\[grpc\]>=2\.73'"):
        Engine("grpc://localhost:1/x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"server": "localhost:8001"}, "the server is 'localhost:8001', expected grpc://HOST:PORT"),
        ({"server": "grpc://localhost:8001", "model": Path("x.onnx")}, "has its own model and backend: leave out --model"),
        ({"server": "grpc://localhost:8001", "threads": 1}, "has its own model and backend"),
    ],
)
def test_options_of_the_video_command(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        DeblurOptions(tmp_path / "in.mp4", tmp_path / "out.mp4", **change)


def test_video_command_without_a_server(tmp_path, capsys):
    (port,) = free_ports(1)
    clip = Path(__file__).resolve().parents[1] / "export" / "clips" / "bunny.mp4"
    assert main([str(clip), str(tmp_path / "out.mp4"), "--server", f"grpc://{LOOPBACK}:{port}", "--server-model", "m"]) == 1
    assert f"error: m on {LOOPBACK}:{port}: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
