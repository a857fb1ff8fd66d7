"""What a model file promises: `Contract`, read from its metadata without any ONNX library."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from runtime.errors import ModelError
from runtime.files.on_disk import Read
from runtime.files.onnx_fields import BYTES, METADATA_PROPS, VARINT, fields, has_external_data, sha256_of_graph, size_of
from runtime.files.records import parse_object, read_record, shortened

INPUT, OUTPUT = "blurry", "sharp"  # names of the graph's only input and output
METADATA_KEY = "videodeblur.contract"  # in the ONNX metadata_props, a JSON object
DEPTHS = {"f32": (None,), "u8": (8,), "u16": tuple(range(9, 17))}  # bits of a sample, by io
IO_KINDS = tuple(DEPTHS)
MOST_BYTES = (1 << 31) - 1  # of a model file: more than that, no protobuf library reads
MOST_FRAMES, MOST_MULTIPLE = 1000, 1024  # of a window, and pixels: what is padded must be memory that there is
OURS = "hand over what videodeblur export, fp16, bf16 or quantize wrote"
SCHEMA = 1  # raised when a field changes its meaning

# dB against the PyTorch network in fp32, the least at which a model of this precision counts as the same network
MIN_PARITY = {"fp32": 100.0, "tf32": 60.0, "fp16": 65.0, "bf16": 60.0, "fp8": 50.0, "int8": 50.0, "mixed": 50.0}

# Field numbers of onnx.proto (ModelProto, StringStringEntryProto, OperatorSetIdProto)
_IR_VERSION, _OPSET_IMPORT, _KEY, _VALUE = 1, 8, 1, 2
_DOMAIN, _OPSET = 1, 2


@dataclass(frozen=True)
class Contract:
    """The shape, value and colour contract of a model file, and what was measured when it was made."""

    frames: int  # consecutive frames in, and as many out
    multiple: int  # pixels; height and width must be divisible by it (io "f32"), or are padded to it inside the graph
    receptive_field: int  # pixels; an output sample depends on input samples at most this far away
    io: str  # "f32": luma in [0, 1]; "u8": uint8 codes; "u16": uint16 codes, as byte pairs (N, F, H, W, 2) little-endian
    bits: int | None  # bit depth of the codes; None for "f32"
    color_range: str | None  # "limited" or "full", the meaning of the codes; None for "f32"
    batch: int | None  # fixed N, or None when any
    height: int | None  # fixed H in pixels, or None when any
    width: int | None  # fixed W in pixels, or None when any
    precision: str  # types in the graph: "fp32", "fp16", "bf16", "int8", "fp8" or "mixed"
    checkpoint_sha256: str  # of the checkpoint file
    configuration: dict[str, Any] = field(default_factory=dict)  # model.NetworkConfig's fields
    parity: dict[str, float] = field(default_factory=dict)  # dB by "backend:precision", measured when the file was made
    graph_sha256: str | None = None  # of all in the file but its metadata, by runtime/files/onnx_fields.py; None in older files
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Raises ModelError on what no model can promise."""
        sizes = (self.frames, self.multiple, self.batch or 1, self.height or 1, self.width or 1)
        true = min(sizes) >= 1 and self.frames <= MOST_FRAMES and self.multiple <= MOST_MULTIPLE and self.receptive_field >= 0
        if not true or self.precision not in MIN_PARITY or self.bits not in DEPTHS.get(self.io, ()):
            raise ModelError(f"the model's contract cannot be true ({shortened(self, 400)}): export it again")

    def to_json(self) -> str:
        """The text that travels in the file's metadata."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Contract:
        """The contract that `to_json` wrote. Raises ModelError on another schema or a field missing."""
        try:
            values = parse_object(text)
            if values.get("schema") != SCHEMA:
                found = values.get("schema")
                raise ModelError(
                    f"the model's contract has schema {found}, this version reads {SCHEMA}: update, or export it again"
                )
            return read_record(cls, values)
        except ValueError as error:
            raise ModelError(f"the model's contract is not readable ({error}): export it again") from error


def read_contract(path: Path) -> Contract:
    """The contract in an ONNX file.

    Raises ModelError when the file is missing, cut off, not ONNX, not of this project, or keeps data outside of itself.
    """
    with _onnx_file(path) as file:
        return _contract_in(file, path)


def read_model(path: Path, read: Read = Path.read_bytes) -> tuple[Contract, bytes]:
    """(contract, the file's bytes), whose graph is the one that the contract was written for; an older contract does not tell.

    Raises ModelError where it is another, and as `read_contract` does.
    """
    with _onnx_file(path) as file:  # what is none is told before it is read whole
        if size_of(file) > MOST_BYTES:
            raise ValueError(f"it has {size_of(file)} bytes, expected {MOST_BYTES} at most")
        _contract_of(file, path)
    with _telling(path):
        data = read(path)
        contract, found = _contract_in(BytesIO(data), path), sha256_of_graph(data)
    if contract.graph_sha256 not in (None, found):
        raise ModelError(
            f"{path} was changed after it was made: the sha256 of its graph is {found[:12]}, its contract says "
            f"{str(contract.graph_sha256)[:12]}; {OURS}, or make it one of them with videodeblur adopt"
        )
    return contract, data


def refuse_external_data(path: Path) -> None:
    """Raises ModelError when the file is not all that a library would read for it, and as `read_contract` does.

    Other files would be covered by no hash, and some libraries take certain locations for addresses in this process.
    """
    with _onnx_file(path) as file:
        _refuse_external_data(file, path)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata_props of an ONNX file; the weights are skipped, not read. Raises ModelError as `read_contract` does."""
    with _onnx_file(path) as file:
        return _metadata_in(file)


def read_versions(path: Path) -> tuple[int, int]:
    """(IR version, opset of the standard operators) of an ONNX file. Raises ModelError as `read_contract` does."""
    with _onnx_file(path) as file:
        ir_version = max(_fields(file, _IR_VERSION, VARINT), default=0)
        file.seek(0)
        return ir_version, max((_opset(payload) for payload in _fields(file, _OPSET_IMPORT, BYTES)), default=0)


def _contract_in(file: BinaryIO, path: Path) -> Contract:
    _refuse_external_data(file, path)
    return _contract_of(file, path)


def _contract_of(file: BinaryIO, path: Path) -> Contract:
    found = _metadata_in(file).get(METADATA_KEY)
    if found is None:
        raise ModelError(
            f"{path} is an ONNX file without this project's contract: export the network with export/to_onnx.py, or, if another "
            f"tool rewrote such a file, videodeblur adopt {path} --like the file as it was"
        )
    return Contract.from_json(found)


def _refuse_external_data(file: BinaryIO, path: Path) -> None:
    if has_external_data(file):
        raise ModelError(f"{path} keeps data outside of itself, expected one whole file: save it without external data")


def _metadata_in(file: BinaryIO) -> dict[str, str]:
    file.seek(0)
    return dict(_string_entry(payload) for payload in _fields(file, METADATA_PROPS, BYTES))


@contextmanager
def _onnx_file(path: Path) -> Iterator[BinaryIO]:
    with _telling(path):
        if path.exists() and not path.is_file():  # opening a pipe waits for who writes to it
            raise ValueError("it is no regular file")
        with path.open("rb") as file:
            yield file


@contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(f"{path} is not a whole ONNX file ({error}): export or copy it again") from error


def _fields(file: BinaryIO, wanted: int, wanted_wire: int) -> Iterator[Any]:
    """The values of a field of the model: numbers for VARINT, else bytes."""
    for number, wire, value in fields(file, size_of(file)):
        if (number, wire) == (wanted, wanted_wire):
            yield value if wire == VARINT else file.read(value)


def _string_entry(payload: bytes) -> tuple[str, str]:
    """(key, value) of a StringStringEntryProto."""
    texts, at = {_KEY: "", _VALUE: ""}, 0
    while at < len(payload):
        tag, at = _varint_in(payload, at)
        length, at = _varint_in(payload, at)
        if tag & 7 != BYTES or at + length > len(payload):
            raise ValueError("its metadata is damaged")
        texts[tag >> 3] = payload[at : at + length].decode()
        at += length
    return texts[_KEY], texts[_VALUE]


def _opset(payload: bytes) -> int:
    """The version in an OperatorSetIdProto; 0 when it is of another domain."""
    at, domain, version = 0, b"", 0
    while at < len(payload):
        tag, at = _varint_in(payload, at)
        value, at = _varint_in(payload, at)
        if tag >> 3 == _DOMAIN:
            domain, at = payload[at : at + value], at + value
        elif tag >> 3 == _OPSET:
            version = value
    return version if domain in (b"", b"ai.onnx") else 0


def _varint_in(payload: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(payload) or shift > 63:
            raise ValueError("its metadata is damaged")
        byte = payload[at]
        value, shift, at = value | (byte & 0x7F) << shift, shift + 7, at + 1
        if byte < 0x80:
            return value, at
