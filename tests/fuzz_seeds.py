"""Whole files of the tiny network, for fuzz.py to damage."""

import json

import onnx
import tiny
from fuzz import Seeds
from measured_ranges import measured_ranges
from signed import unsigned
from video_clips import Clip

from export.graph.layer_precision import default_precisions
from export.to_bundle import BundleRequest, write_bundle

CLIPS = {
    "a.mp4": Clip(audio=["aac"], metadata={"title": "a"}, rotation=90),
    "b.mkv": Clip("libx265", "yuv420p10le", audio=["flac"], subtitles=("one", "two"), attachment=b"font" * 10),
    "c.ts": Clip(audio=["mp2"], times=[1200 * number for number in range(12)]),
    "d.mov": Clip("mjpeg", "yuvj422p", moving=True),
    "e.webm": Clip("libvpx-vp9", audio=["libopus"]),
    "f.avi": Clip("mpeg4", times=[1200 * number for number in range(12)]),
}


def make_seeds(folder, model=None, engine=None):
    """Makes those that are not given."""
    model = model or tiny.write_model(tiny.write_checkpoint(folder / "tiny.safetensors"))
    engine = engine or tiny.write_engine(model, folder / "tiny.engine")
    write_bundle(BundleRequest(model, (), folder / "tiny.bundle"))
    layers = default_precisions(onnx.load(model), "int8", "fp32")
    asked = {"budget": 0.05, "min_psnr": None, "precision": "int8", "rest": "fp32"}
    precision = {"kind": "videodeblur.precision", "schema": 1, "layers": layers, "asked": asked, "sensitivities": [], "pareto": []}
    for name, clip in CLIPS.items():
        clip.write(folder / name)
    return Seeds(
        bundle=folder / "tiny.bundle",
        engine=engine,
        model=model,
        unsigned=unsigned(model),
        ranges=measured_ranges(model).read_bytes(),
        precision=json.dumps(precision).encode(),
        videos=tuple(folder / name for name in CLIPS),
    )
