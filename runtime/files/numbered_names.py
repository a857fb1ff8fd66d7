"""Names of numbered pictures: %d, or %05d for five digits or more, as FFmpeg has it. Every other % in a name is a letter."""

from __future__ import annotations

import re
from pathlib import Path

NUMBER = re.compile(r"%(?:0(\d{1,2}))?d")


def is_numbered(path: Path) -> bool:
    """Whether a number has a place in the name, one place alone."""
    return len(NUMBER.findall(path.name)) == 1


def is_sequence(path: Path) -> bool:
    """Whether what is to be read are numbered pictures, and not a file that has this very name."""
    return is_numbered(path) and not path.exists()


def with_number(path: Path, number: int) -> Path:
    """The file of that number; `path` is numbered."""
    return path.with_name(NUMBER.sub(lambda place: f"{number:0{place[1] or 1}d}", path.name))


def number_in(path: Path, name: str) -> int | None:
    """The number for which `with_number` gives a file of this name; None when there is none."""
    before, _, after = NUMBER.split(path.name)
    found = re.fullmatch(f"{re.escape(before)}([0-9]+){re.escape(after)}", name)
    if found is None or with_number(path, int(found[1])).name != name:
        return None
    return int(found[1])
