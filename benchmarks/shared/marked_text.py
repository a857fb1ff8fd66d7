"""Blocks of a Markdown file that a command writes: between `<!-- PART CLASS -->` and `<!-- /PART CLASS -->`, one for each class."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from runtime.errors import InputError
from runtime.files.on_disk import partial_file


def fill(path: Path, part: str, kind: str, text: str) -> None:
    """Replaces the block of that class, or adds it behind the last block of the part; all else stays as it is.

    Raises InputError when the file has no block of the part.
    """
    before = path.read_text()
    blocks = _blocks(path, part, before)
    block = f"<!-- {part} {kind} -->\n{text.strip()}\n<!-- /{part} {kind} -->"
    start, end = blocks[kind].span() if kind in blocks else (list(blocks.values())[-1].end(),) * 2
    with partial_file(path) as partial:
        partial.write_text(before[:start] + ("" if kind in blocks else "\n\n") + block + before[end:])


def check(path: Path, parts: Iterable[str]) -> None:
    """Raises InputError when the file is not there, or has no block of one of the parts: before the work whose results go there."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(f"{path}: {reason}, expected a page with blocks for {', '.join(parts)}") from error
    for part in parts:
        _blocks(path, part, text)


def _blocks(path: Path, part: str, text: str) -> dict[str, re.Match[str]]:
    """Those of the part by their class."""
    blocks = {
        found[1]: found for found in re.finditer(rf"(?s)<!-- {re.escape(part)} (\w+) -->\n.*?<!-- /{re.escape(part)} \1 -->", text)
    }
    if not blocks:
        raise InputError(f"{path} has no <!-- {part} CLASS --> ... <!-- /{part} CLASS -->, expected one block of the part at least")
    return blocks
