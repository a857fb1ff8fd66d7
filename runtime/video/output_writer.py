"""`OutputWriter`: what every writer of an output does at the end of its `with` block."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import TypeVar

Writer = TypeVar("Writer", bound="OutputWriter")


class OutputWriter(ABC):
    """A context manager: leaving the `with` block finishes the output, leaving it by an exception does not; both close it."""

    @abstractmethod
    def finish(self) -> None:
        """Completes the output and gives it its name; calling it again does nothing."""

    @abstractmethod
    def close(self) -> None:
        """Frees what is held, and deletes what is not finished; calling it again does nothing."""

    def __enter__(self: Writer) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None:
                self.finish()
        finally:
            self.close()
