"""Names as general as `model` can meet another package's: which file Python takes in place of ours.

It imports nothing of ours, so that `videodeblur` can run it from its path where `runtime` itself is another's.
"""

from __future__ import annotations

import importlib.util
from importlib import metadata
from pathlib import Path

OURS = ("model", "training", "calibration", "export", "runtime", "serving", "benchmarks", "videodeblur")
HOME = Path(__file__).resolve().parents[2]  # where videodeblur/ lies, and each of OURS beside it
REMEDY = "give videodeblur an environment of its own (python -m venv), and start it without PYTHONPATH"


def shadow(name: str) -> str | None:
    """The file or folder that Python imports under `name`, one of OURS, in place of ours; None when it is ours, or no such name."""
    spec = importlib.util.find_spec(name) if name in OURS else None
    if spec is None:
        return None
    places = [spec.origin] if spec.origin else [*(spec.submodule_search_locations or ())]
    ours = HOME / name
    return next((place for place in places if ours not in (Path(place).resolve(), *Path(place).resolve().parents)), None)


def overwriters(name: str) -> list[str]:
    """The installed packages that put files of their own over ours of `name`."""
    file = f"{name}/__init__.py"
    found = []
    for package in metadata.distributions():
        recorded = f"\n{package.read_text('RECORD') or ''}"
        if f"\n{file}," in recorded and Path(str(package.locate_file(file))).resolve() == HOME / file:
            found.append(package.metadata["Name"])
    return sorted({other for other in found if other != "videodeblur"})


def told(name: str) -> str | None:
    """What to tell a user whose Python takes another's file for ours; None when it does not."""
    place = shadow(name)
    return place and f"Python takes {place} for the package {name!r} of videodeblur"
