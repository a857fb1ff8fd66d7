"""JSON objects into frozen dataclasses, every value checked against its annotation: what comes from a file is not trusted."""

from __future__ import annotations

import ast
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import Any, TypeVar

Record = TypeVar("Record")

SCALARS = {"str": str, "int": int, "bool": bool}


def parse_object(text: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError when the text is none."""
    try:
        values = json.loads(text)
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
        raise ValueError(f"got {_short(values)} for {kind.__name__}, expected an object")
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
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ValueError(f"got {_short(value)}, expected a number")
        return float(value)
    if name in SCALARS:
        if type(value) is not SCALARS[name]:
            raise ValueError(f"got {_short(value)}, expected {name}")
        return value
    return read_record(known[name], value)


def _read_container(annotation: ast.Subscript, value: Any, known: Mapping[str, Any]) -> Any:
    inside: Any = annotation.slice
    if annotation.value.id == "dict":  # type: ignore[attr-defined]
        if not isinstance(value, dict):
            raise ValueError(f"got {_short(value)}, expected an object")
        return {key: _read(inside.elts[1], item, known) for key, item in value.items()}
    if not isinstance(value, list):
        raise ValueError(f"got {_short(value)}, expected a list")
    kinds = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if isinstance(kinds[-1], ast.Constant):  # tuple[X, ...]
        return tuple(_read(kinds[0], item, known) for item in value)
    if len(kinds) != len(value):
        raise ValueError(f"got {len(value)} values, expected {len(kinds)}")
    return tuple(_read(kind, item, known) for kind, item in zip(kinds, value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
