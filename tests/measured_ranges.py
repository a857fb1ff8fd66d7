"""Ranges of a model, measured once a session on the shipped clip."""

import functools

from calibration.collect_ranges import CollectOptions, collect
from export.shipped_clips import DEFAULT_CLIP


@functools.cache
def measured_ranges(model):
    """The path of the ranges of a model file."""
    path = model.with_suffix(".ranges.json")
    collect(CollectOptions(data=DEFAULT_CLIP, onnx=model, windows=1, crop=(48, 64))).save(path)
    return path
