"""FILE[@BACKEND[:PRECISION]], as commands that compare files take it."""

from __future__ import annotations

import re
from typing import NamedTuple

SPEC = re.compile(r"(.+)@([a-z-]+)(?::([a-z0-9]+))?")  # another "@" belongs to the file or its folder


class Way(NamedTuple):
    """What a spec says; empty where it says nothing."""

    file: str
    backend: str
    precision: str


def parse(text: str) -> Way:
    """The parts of a spec."""
    found = SPEC.fullmatch(text)
    return Way(found[1], found[2], found[3] or "") if found else Way(text, "", "")
