"""`prepare_access`: who may talk to the cluster. It sets what Ray reads when it is imported, so it comes before that.

Ray's processes run whatever Python code they are sent, so whoever reaches them owns the machine. By itself Ray listens on all
interfaces. A cluster of one machine is therefore kept to 127.0.0.1 with a token of its own, and a cluster that is there already
is joined with the token in a file that nobody else can read.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runtime.errors import InputError

ADDRESS = re.compile(r"([A-Za-z0-9.-]+):([0-9]{1,5})")  # of IPv4
LOOPBACK = re.compile(r"localhost|127(\.[0-9]+){3}")
LOOPBACK_ONLY = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # Ray's word for it: the node's address is 127.0.0.1, the one it binds
QUIET = {"RAY_USAGE_STATS_ENABLED": "0"}
READABLE_BY_OTHERS = stat.S_IRWXG | stat.S_IRWXO
MIN_TOKEN = 32  # characters


@dataclass(frozen=True)
class Access:
    """Which cluster, and how to be let in."""

    address: str | None  # HOST:PORT of a Ray head; None = a cluster of this machine, for this run
    token_file: Path | None = None  # Ray's token, mode 0600
    unprotected: bool = False  # join without a token

    def __post_init__(self) -> None:
        """Raises InputError where a cluster would be joined without a token, or the file is no secret."""
        if self.address is None:
            if self.token_file or self.unprotected:
                raise InputError(
                    "a cluster of this machine makes its own token: name an --address, or leave out what is said of tokens"
                )
            return
        if not ADDRESS.fullmatch(self.address):
            raise InputError(f"the address is {self.address!r}, expected HOST:PORT of a Ray head, such as 10.0.0.5:6379")
        if self.unprotected == (self.token_file is not None):
            raise InputError(
                f"{self.address} is joined with a token or without one, say which: --token-file FILE, or --no-token where nobody"
                " else can reach the cluster"
            )
        if self.token_file:
            _check_secret(self.token_file)

    @property
    def host_and_port(self) -> tuple[str, int] | None:
        """The address in its parts; None for a cluster of this machine."""
        return (self.address.rpartition(":")[0], int(self.address.rpartition(":")[2])) if self.address else None

    @property
    def inside(self) -> bool:
        """Whether nothing leaves this machine."""
        return self.host_and_port is None or LOOPBACK.fullmatch(self.host_and_port[0]) is not None


@contextmanager
def prepare_access(access: Access) -> Iterator[None]:
    """Sets the environment of this process, and of those that Ray starts in it."""
    os.environ.update(QUIET)
    os.environ.pop("RAY_AUTH_TOKEN", None)  # it would count before the file
    if access.inside:
        os.environ.update(LOOPBACK_ONLY)
    if access.unprotected:
        os.environ["RAY_AUTH_MODE"] = "disabled"
        yield
        return
    with tempfile.TemporaryDirectory(prefix="videodeblur-") as folder:  # readable by its owner alone
        token = access.token_file or _new_token(Path(folder))
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN_PATH=str(token.absolute()))
        yield


def _new_token(folder: Path) -> Path:
    path = folder / "token"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secrets.token_hex(MIN_TOKEN))
    return path


def _check_secret(path: Path) -> None:
    make = f"make one with (umask 077; openssl rand -hex 32 > {path})"
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected a token: {make}")
    facts = path.stat()
    if facts.st_mode & READABLE_BY_OTHERS or facts.st_uid != os.getuid():
        raise InputError(
            f"{path} has mode {stat.S_IMODE(facts.st_mode):04o}, expected 0600 and yours: chmod 600 {path}, and a new token"
        )
    if len(path.read_text(encoding="ascii", errors="replace").strip()) < MIN_TOKEN:
        raise InputError(f"{path} has a token of less than {MIN_TOKEN} characters: {make}")
