"""All that a production machine needs to deblur video; numpy alone is imported until a backend is chosen."""

from runtime.engine import Engine
from runtime.errors import BackendError, BusyError, DeployError, InputError, MissingPackageError, ModelError, VideoError
from runtime.files.contract import Contract, read_contract
from runtime.machine import no_telemetry as _no_telemetry  # noqa: F401 - before any backend is imported
from runtime.streaming import StreamDeblurrer
from runtime.telemetry import Telemetry

__all__ = [
    "BackendError",
    "BusyError",
    "Contract",
    "DeployError",
    "Engine",
    "InputError",
    "MissingPackageError",
    "ModelError",
    "StreamDeblurrer",
    "Telemetry",
    "VideoError",
    "read_contract",
]
