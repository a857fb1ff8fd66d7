"""Reads ONNX files that may be damaged."""

from __future__ import annotations

from pathlib import Path

import onnx

from runtime.errors import ModelError
from runtime.files.contract import refuse_external_data


def load_onnx(path: Path) -> onnx.ModelProto:
    """The graph in a file, checked by ONNX's own rules. Raises ModelError when it is missing, damaged, not valid or not whole."""
    refuse_external_data(path)
    try:
        model = onnx.load(path, load_external_data=False)
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # protobuf's and the checker's errors share no base but Exception
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{path} is not a valid ONNX file ({reason}): export or copy it again") from error
    return model
