"""What libraries send to their makers is off before they are imported: no connection, no process and no file of theirs.

ONNX Runtime, in newer releases on Linux too, reports uses and keeps a data base under ~/.cache/Microsoft; OpenVINO posts every
import, through a process that it forks, and keeps files in ~/intel. Who sets ORT_DISABLE_TELEMETRY to something else has it so.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

OFF = {"ORT_DISABLE_TELEMETRY": "1"}  # read when the library is loaded, in processes started from here too
OF_OPENVINO = "openvino_telemetry"

for _name, _value in OFF.items():
    os.environ.setdefault(_name, _value)


@contextmanager
def without_openvino_telemetry() -> Iterator[None]:
    """What is imported in the block finds no `openvino_telemetry`, unless the program had it before; libraries do without."""
    modules = cast("dict[str, Any]", sys.modules)
    if OF_OPENVINO in modules:
        yield
        return
    modules[OF_OPENVINO] = None
    try:
        yield
    finally:
        del modules[OF_OPENVINO]
