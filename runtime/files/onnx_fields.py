"""The fields of an ONNX file, read without any ONNX library: what is not asked for is skipped, sizes are checked first."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from io import BytesIO
from typing import BinaryIO

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
DEEPEST = 100  # messages in each other, as protobuf has it

# Field numbers of onnx.proto: the messages that a message holds, down to the tensors
HOLDS = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
METADATA_PROPS = 14  # of ModelProto
EXTERNAL_DATA, DATA_LOCATION, EXTERNAL = 13, 14, 1  # TensorProto: where its bytes are; whether they are there


def fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, wire type, value of a VARINT or length of the others) of the message up to byte `end`.

    The file stands at the payload when it is yielded, wherever it is moved then. Raises ValueError on what is no protobuf.
    """
    while (start := file.tell()) < end:
        tag = varint(file)
        number, wire = tag >> 3, tag & 7
        if wire == VARINT:
            yield number, wire, varint(file)
            continue
        if wire not in (BYTES, FIXED64, FIXED32) or number == 0:
            raise ValueError(f"byte {start} is not protobuf")
        length = varint(file) if wire == BYTES else {FIXED64: 8, FIXED32: 4}[wire]
        start = file.tell()
        if start + length > end:
            raise ValueError(f"it ends {start + length - end} bytes early")
        yield number, wire, length
        file.seek(start + length)


def size_of(file: BinaryIO) -> int:
    """Bytes of an open file. Raises ValueError when there are none."""
    at, size = file.tell(), file.seek(0, os.SEEK_END)
    file.seek(at)
    if not size:
        raise ValueError("it is empty")
    return size


def has_external_data(file: BinaryIO) -> bool:
    """Whether a tensor's bytes are outside of the file: in others, or wherever a library takes the location for."""
    file.seek(0)
    return _has_external_data(file, size_of(file), "model", 0)


def _has_external_data(file: BinaryIO, end: int, kind: str, depth: int) -> bool:
    if depth > DEEPEST:
        raise ValueError("it nests too deeply")
    for number, wire, value in fields(file, end):
        if kind == "tensor" and (number == EXTERNAL_DATA or (number, value) == (DATA_LOCATION, EXTERNAL)):
            return True
        inside = HOLDS[kind].get(number) if wire == BYTES else None
        if inside and _has_external_data(file, file.tell() + value, inside, depth + 1):
            return True
    return False


def sha256_of_graph(data: bytes) -> str:
    """SHA-256 of all that a model file holds but its metadata: graph, weights, opsets, documentation. Raises ValueError."""
    digest, file = hashlib.sha256(), BytesIO(data)
    for number, wire, value in fields(file, len(data)):
        if number == METADATA_PROPS:
            continue
        digest.update(f"{number} {wire} {value};".encode())
        if wire != VARINT:
            digest.update(memoryview(data)[file.tell() : file.tell() + value])  # a copy would take longer than the hash
    return digest.hexdigest()


def varint(file: BinaryIO) -> int:
    """The number that begins where the file stands. Raises ValueError when it does not end."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends inside a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number is too long")
