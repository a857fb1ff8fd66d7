"""The errors that a caller can act on.

DeployError                 anything below; message: what was got, what was expected, what to do
+-- InputError (ValueError)     an array, an option or a file that the user handed over does not fit
|   +-- VideoError              a video that cannot be read or written
+-- ModelError                  a model file that is broken, foreign, or does not fit this version
+-- BackendError                no backend, or one that failed
    +-- BusyError                 as many windows are unfinished as may be
    +-- MissingPackageError (ImportError)   names the `pip install` line that brings it
"""

from __future__ import annotations


class DeployError(Exception):
    """The base of every error that this package raises on purpose."""


class InputError(DeployError, ValueError):
    """An array, an option or a file that the user handed over does not fit."""


class VideoError(InputError):
    """A video that cannot be read or written."""


class ModelError(DeployError):
    """A model file that is broken, foreign, or does not fit this version."""


class BackendError(DeployError):
    """No backend can run the model here, or the one that was asked for failed."""


class BusyError(BackendError):
    """As many windows are unfinished as may be; later there is room again."""


class MissingPackageError(BackendError, ImportError):
    """A package that this part needs is not installed."""

    def __init__(self, requirement: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs a package that is not installed: pip install '{requirement}'")
        self._given = requirement, purpose

    def __reduce__(self) -> tuple[type[MissingPackageError], tuple[str, str]]:
        """So that other processes can send it."""
        return type(self), self._given
