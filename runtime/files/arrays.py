"""`read_array`: an array from a .npy file that may be anything."""

from __future__ import annotations

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.errors import ModelError
from runtime.files.on_disk import Read

KINDS = (np.dtype(np.uint8), np.dtype("<u2"), np.dtype("<f4"))  # what frames are kept as
READERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_array(path: Path, read: Read = Path.read_bytes) -> npt.NDArray[Any]:
    """An array of uint8, uint16 or float32. Its size is the file's, whatever its header says; raises ModelError."""
    try:
        data = read(path)
        file = BytesIO(data)
        shape, by_columns, dtype = READERS[np.lib.format.read_magic(file)](file)
        if dtype not in KINDS or by_columns or not all(length >= 0 for length in shape):
            raise ValueError(f"it is of {dtype}, expected frames in rows")
        size, left = math.prod(shape) * dtype.itemsize, len(data) - file.tell()
        if size != left:
            raise ValueError(f"it has {left} bytes, its header says {size}")
        return np.frombuffer(data, dtype, offset=file.tell()).reshape(shape)
    except ModelError:  # of the reader
        raise
    except Exception as error:  # the header is Python that numpy parses: its errors share no base but Exception
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ModelError(f"{path} is not a readable array ({reason}): make the bundle again") from error
