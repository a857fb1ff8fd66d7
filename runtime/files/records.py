"""JSON objects into frozen dataclasses, every value checked against its annotation: what comes from a file is not trusted."""

from __future__ import annotations

import ast
import json
import math
import stat
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, TypeVar

from runtime.files.on_disk import Read

Record = TypeVar("Record")

SCALARS = {"str": str, "int": int, "bool": bool}
MOST_DIGITS = 20  # of a whole number: as many as 64 bits have
MOST_BYTES = 64 << 20  # of a file of JSON


def read_object(path: Path, read: Read = Path.read_bytes) -> dict[str, Any]:
    """The JSON object in a file. Raises OSError, and ValueError when there is none."""
    return parse_object(read_text(path, read))


def read_text(path: Path, read: Read = Path.read_bytes) -> str:
    """The text of a file of JSON, every byte of it. Raises OSError, and ValueError when it is no such file."""
    facts = path.stat()
    if not stat.S_ISREG(facts.st_mode):  # opening a pipe waits for who writes to it
        raise ValueError("it is no regular file")
    if facts.st_size > MOST_BYTES:
        raise ValueError(f"it has {facts.st_size} bytes, expected {MOST_BYTES} at most")
    return read(path).decode()


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError when the text is none, or has numbers or letters that nothing else can hold."""
    try:
        values = json.loads(text, parse_int=_whole_number)
        json.dumps(values, ensure_ascii=False).encode()  # halves of surrogate pairs are no Unicode
    except RecursionError as error:
        raise ValueError("it nests too deeply") from error
    if not isinstance(values, dict):
        raise ValueError(f"it is a JSON {type(values).__name__}, expected an object")
    return values


def read_record(kind: type[Record], values: Mapping[str, Any]) -> Record:
    """A dataclass from a JSON object; keys that it has no field for are ignored.

    Annotations may be str, int, float, bool, Any, X | None, tuple[X, ...], tuple[X, Y], dict[str, X] and dataclasses of its
    module. Raises ValueError, naming the field, where one is missing or of another type.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"got {shortened(values)} for {kind.__name__}, expected an object")
    known = vars(sys.modules[kind.__module__])
    found = {}
    for field in fields(kind):  # type: ignore[arg-type] # mypy cannot say "a dataclass"
        if field.name in values:
            try:
                found[field.name] = _read(ast.parse(str(field.type), mode="eval").body, values[field.name], known)
            except ValueError as error:
                raise ValueError(f"{field.name}: {error}") from error
        elif _required(field):
            raise ValueError(f"{field.name} is missing")
    return kind(**found)


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _read(annotation: ast.expr, value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(annotation, ast.BinOp):  # X | None
        return None if value is None else _read(annotation.left, value, known)
    if isinstance(annotation, ast.Subscript):
        return _read_container(annotation, value, known)
    name = annotation.id  # type: ignore[attr-defined] # nothing else is left, see read_record
    if name == "Any":
        return value
    if name == "float":
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
            raise ValueError(f"got {shortened(value)}, expected a number")
        return float(value)
    if name in SCALARS:
        if type(value) is not SCALARS[name]:
            raise ValueError(f"got {shortened(value)}, expected {name}")
        return value
    return read_record(known[name], value)


def _read_container(annotation: ast.Subscript, value: Any, known: Mapping[str, Any]) -> Any:
    inside: Any = annotation.slice
    if annotation.value.id == "dict":  # type: ignore[attr-defined]
        if not isinstance(value, dict):
            raise ValueError(f"got {shortened(value)}, expected an object")
        return {key: _read(inside.elts[1], item, known) for key, item in value.items()}
    if not isinstance(value, list):
        raise ValueError(f"got {shortened(value)}, expected a list")
    kinds = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if isinstance(kinds[-1], ast.Constant):  # tuple[X, ...]
        return tuple(_read(kinds[0], item, known) for item in value)
    if len(kinds) != len(value):
        raise ValueError(f"got {len(value)} values, expected {len(kinds)}")
    return tuple(_read(kind, item, known) for kind, item in zip(kinds, value))


def _whole_number(text: str) -> int:
    if len(text.lstrip("-")) > MOST_DIGITS:
        raise ValueError(f"a number has {len(text)} digits, expected {MOST_DIGITS} at most")
    return int(text)


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond float64
        return False


def shortened(value: Any, most: int = 40) -> str:
    """A value of a file as a message has it."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a number that is too long"
    return text if len(text) <= most else f"{text[: most - 3]}..."
