"""`RayPool`: workers as actors of a Ray cluster, one per GPU or per few cores, each with one open engine."""

from __future__ import annotations

import logging
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from runtime.errors import BackendError, DeployError, MissingPackageError
from runtime.machine.requirements import requirement
from serving.library.access import Access
from serving.library.dispatcher import Event
from serving.library.worker import Outcome, Task, Worker

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else a cluster that we start reports to its makers
try:
    import ray
    from ray.exceptions import RayError
except ImportError as missing:
    raise MissingPackageError(requirement("ray"), "a cluster") from missing

REACHABLE_WITHIN = 10.0  # seconds
OPEN_TRIES = 5  # times in a row that a worker may be lost while it opens its engine
CONNECT_FAILURES = (OSError, RuntimeError, ValueError, RayError)


@dataclass(frozen=True)
class WorkerSize:
    """What an actor takes of a machine."""

    cores: int  # CPU cores, which are the threads of its network too
    gpus: float | None = None  # None = one where the cluster has any
    most: int | None = None  # workers; None = as many as there is room for


class RayPool:
    """A `Pool`; a context manager that leaves the cluster, and stops it where it was started for this run."""

    def __init__(self, output: Path, access: Access, size: WorkerSize) -> None:
        """Joins the cluster, or starts one of this machine, and starts the workers; call it within `prepare_access`.

        Raises BackendError when there is no cluster, it does not let us in, or has no room for a worker.
        """
        self._actors: list[Any] = []
        self._idle: set[int] = set()
        self._pending: dict[Any, tuple[int, Task | None]] = {}  # what an actor was asked; None = to open its engine
        self._opened: dict[int, int] = {}  # times in a row that a worker was asked to
        self._why = ""  # the last worker that cannot work
        _connect(access, size)
        try:
            gpus = size.gpus if size.gpus is not None else float(ray.cluster_resources().get("GPU", 0) > 0)
            kind = ray.remote(_Actor).options(
                num_cpus=size.cores, num_gpus=gpus, max_restarts=-1, max_task_retries=0, scheduling_strategy="SPREAD"
            )
            for worker in range(_room(size, gpus)):
                self._actors.append(kind.remote(str(output), None if gpus else size.cores))
                self._open(worker)
        except BaseException:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Workers, those included that are not ready."""
        return len(self._actors)

    def idle(self) -> list[int]:
        """See `Pool`."""
        return sorted(self._idle)

    def present(self) -> list[int]:
        """See `Pool`."""
        return sorted(self._idle | {worker for worker, task in self._pending.values() if task})

    def give(self, worker: int, task: Task) -> None:
        """See `Pool`."""
        self._idle.discard(worker)
        self._pending[self._actors[worker].do.remote(task)] = worker, task

    def wait(self, seconds: float) -> Event | None:
        """See `Pool`. Raises BackendError when every worker has told that it cannot work."""
        if not self._pending and not self._idle:
            raise BackendError(f"none of the {self.size} workers can work; the last one's reason: {self._why}")
        ready, _ = ray.wait(list(self._pending), timeout=seconds)
        if not ready:
            return None
        worker, task = self._pending.pop(ready[0])
        try:
            answer = ray.get(ready[0])
        except RayError as error:  # the process or the machine is gone, or was out of memory
            return self._lost(worker, task, _reason(error))
        if task is None:
            return self._opened_or_not(worker, answer)
        self._idle.add(worker)
        return Event(worker, task, answer)

    def close(self) -> None:
        """Ends the workers, what they are at included; calling it again does nothing."""
        ray.shutdown()

    def __enter__(self) -> RayPool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _open(self, worker: int) -> None:
        """Waits in the list of what is pending, as long as it takes until the actor has a place to run."""
        self._opened[worker] = self._opened.get(worker, 0) + 1
        self._pending[self._actors[worker].open.remote()] = worker, None

    def _opened_or_not(self, worker: int, error: str) -> Event | None:
        if error:
            self._why = error
            return Event(worker, retired=error)
        self._opened[worker] = 0
        self._idle.add(worker)
        return None

    def _lost(self, worker: int, task: Task | None, reason: str) -> Event:
        if self._opened[worker] >= OPEN_TRIES:
            self._why = f"it was lost {OPEN_TRIES} times while it opened its engine ({reason})"
            return Event(worker, task, retired=self._why)
        self._open(worker)
        return Event(worker, task, lost=reason)


class _Actor:
    """A `Worker` in a process of Ray's. Its engine is opened by a call of its own, so that a failure is told from a task's."""

    def __init__(self, output: str, threads: int | None) -> None:
        self._output, self._threads = Path(output), threads
        self._worker: Worker | None = None

    def open(self) -> str:
        """Why the engine cannot be opened here; empty when it is open."""
        try:
            self._worker = self._worker or Worker(self._output, self._threads)
        except DeployError as error:
            return str(error)
        return ""

    def do(self, task: Task) -> Outcome:
        """See `Worker.do`."""
        assert self._worker is not None  # the pool opens before it gives
        return self._worker.do(task)


def _connect(access: Access, size: WorkerSize) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if access.host_and_port:
            socket.create_connection(access.host_and_port, REACHABLE_WITHIN).close()  # Ray tries for ever, deaf to Ctrl-C
            ray.init(access.address, **quiet)
            return
        ray.init("local", num_cpus=size.cores * (size.most or 1), include_dashboard=False, **quiet)
    except CONNECT_FAILURES as error:
        where = access.address or "this machine"
        raise BackendError(
            f"there is no way into the Ray cluster at {where} ({_reason(error)}): compare the address, the token, and the versions"
            " of Ray and Python"
        ) from error
    hosts = {node["NodeManagerAddress"] for node in ray.nodes()}
    if not all(host.startswith("127.") for host in hosts):
        ray.shutdown()
        raise BackendError(f"Ray listens on {', '.join(sorted(hosts))}, expected 127.0.0.1 alone: install {requirement('ray')}")


def _room(size: WorkerSize, gpus: float) -> int:
    """Workers that the machines of the cluster have room for."""
    room = 0
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        by_gpu = has.get("GPU", 0) / gpus if gpus else float("inf")
        room += int(min(has.get("CPU", 0) / size.cores, by_gpu))
    count = min(room, size.most or room)
    if not count:
        raise BackendError(f"no machine of the cluster has {size.cores} cores and {gpus:g} GPUs: take smaller workers")
    return count


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
