"""Parts of a Markdown file that a command writes: what stands between `<!-- NAME -->` and `<!-- /NAME -->`."""

from __future__ import annotations

import re
from pathlib import Path

from runtime.errors import InputError
from runtime.files.on_disk import partial_file


def fill(path: Path, name: str, text: str) -> None:
    """Replaces the part of that name. Raises InputError when the file has no such marks."""
    before = path.read_text()
    marked = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- /{re.escape(name)} -->)", re.DOTALL)
    if not marked.search(before):
        raise InputError(f"{path} has no <!-- {name} --> ... <!-- /{name} -->, expected the marks between which it is written")
    with partial_file(path) as partial:
        partial.write_text(marked.sub(lambda found: f"{found[1]}{text.strip()}\n{found[2]}", before))
