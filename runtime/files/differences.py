"""`differences`: what a run that is to go on does not share with its beginning, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

FLAGS = {  # names in records: how users say it
    "codec": "-c",
    "compare": "--compare",
    "crf": "--crf",
    "encoder": "-e",
    "frames": "--frames",
    "options": "-e",
    "part": "the part (--ss, --to, -t)",
    "ranges": "what --segments names",
    "resume_every": "--resume-every",
    "scene_threshold": "--scene-thresh",
    "segment": "--segment",
    "strength": "--strength",
    "stride": "--stride",
    "tile": "--tile",
    "arithmetic": "the network's arithmetic",
    "engine": "the network's arithmetic",
    "size": "the size of the input's pictures",
    "source": "the input",
}
CHANGED_INPUT = "the input was changed since"
SENTENCES = {  # where the values say nothing
    "bytes": CHANGED_INPUT,
    "changed": CHANGED_INPUT,
    "mask": "the mask is another one",
    "model": "the model is another file",
    "model_sha256": "the model is another file",
}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A sentence for each value of `now` that was another, or missing, before."""
    told = [
        SENTENCES.get(name) or f"{FLAGS.get(name, name)} was {_word(before.get(name))}, is {_word(value)}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    return list(dict.fromkeys(told))


def _word(value: Any) -> str:
    if value is None or value == {}:
        return "not given"
    if isinstance(value, Mapping):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
