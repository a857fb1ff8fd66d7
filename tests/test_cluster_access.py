"""Nobody joins a cluster, or lets others in, without having said so."""

import os
import stat
from pathlib import Path

import pytest

from runtime.errors import InputError
from serving.library.access import Access, prepare_access

TOKEN = "0123456789abcdef" * 4


@pytest.fixture
def token(tmp_path):
    path = tmp_path / "token"
    path.touch(0o600)
    path.write_text(TOKEN)
    return path


@pytest.fixture
def environment(monkeypatch):
    """What of Ray's environment the block under test leaves is undone."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")


@pytest.mark.parametrize("address", ["ray://10.0.0.5:10001", "10.0.0.5", "auto", "10.0.0.5:6379/x", "a b:1"])
def test_an_address_is_a_host_and_a_port(address, token):
    with pytest.raises(InputError, match="expected HOST:PORT of a Ray head"):
        Access(address, token)


def test_a_cluster_is_joined_with_a_token_or_expressly_without(token):
    for wrong in ({}, {"token_file": token, "unprotected": True}):
        with pytest.raises(InputError, match="is joined with a token or without one, say which"):
            Access("10.0.0.5:6379", **wrong)
    with pytest.raises(InputError, match="makes its own token"):
        Access(None, token)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_a_token_that_others_may_read_is_none(mode, token):
    token.chmod(mode)
    with pytest.raises(InputError, match=f"has mode {mode:04o}, expected 0600 and yours: chmod 600"):
        Access("10.0.0.5:6379", token)


def test_a_token_is_long_and_there(token, tmp_path):
    token.write_text("secret")
    with pytest.raises(InputError, match="a token of less than 32 characters: make one with"):
        Access("10.0.0.5:6379", token)
    with pytest.raises(InputError, match="no such file, expected a token: make one with"):
        Access("10.0.0.5:6379", tmp_path / "none")


@pytest.mark.parametrize(("address", "inside"), [(None, True), ("127.0.0.1:1", True), ("localhost:1", True), ("10.0.0.5:1", False)])
def test_what_is_of_this_machine_stays_in_it(address, inside, token, environment):
    with prepare_access(Access(address, address and token)):
        assert os.environ["RAY_AUTH_MODE"] == "token"
        assert ("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" in os.environ) == inside


def test_a_cluster_of_this_machine_has_a_token_of_its_own(environment, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of another cluster")
    with prepare_access(Access(None)):
        path = Path(os.environ["RAY_AUTH_TOKEN_PATH"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(path.read_text()) == 64
        assert "RAY_AUTH_TOKEN" not in os.environ
    assert not path.exists()


def test_without_a_token_it_is_said(environment):
    with prepare_access(Access("10.0.0.5:6379", unprotected=True)):
        assert os.environ["RAY_AUTH_MODE"] == "disabled"
