"""`plays_of`: how often an animated GIF or PNG is to be played, which FFmpeg does not hand on (GIF's application extension
NETSCAPE2.0; PNG's acTL chunk)."""

from __future__ import annotations

from pathlib import Path

IN_FRONT = 1 << 16  # bytes in which either is looked for: both stand in front of the first picture
GIF, LOOPS = b"GIF8", b"\x21\xff\x0bNETSCAPE2.0\x03\x01"
PNG, ANIMATION = b"\x89PNG", b"acTL"
FOREVER = "without end"


def plays_of(path: Path) -> str | None:
    """In words; None where it is once, or not said."""
    with path.open("rb") as file:
        start = file.read(IN_FRONT)
    if start.startswith(GIF) and (at := start.find(LOOPS)) >= 0:
        again = int.from_bytes(start[at + len(LOOPS) :][:2], "little")  # after the first time
        return f"{again + 1} times" if again else FOREVER
    if start.startswith(PNG) and (at := start.find(ANIMATION)) >= 0:
        plays = int.from_bytes(start[at + len(ANIMATION) + 4 :][:4], "big")
        return FOREVER if not plays else f"{plays} times" if plays > 1 else None
    return None
