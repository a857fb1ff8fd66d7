"""`coded_settings`: what coded pictures say of themselves in their headers and PyAV does not tell, from FFmpeg's trace of them.

`with_coded_settings` has encoders say it too, where they can.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import av
from av.bitstream import BitStreamFilterContext

from runtime.video.format import INFO, ffmpeg_says

PLACE, OVERSCAN, SYSTEM = "the place of chroma samples", "the overscan", "the video format"
OF_AV1, AV1_PLACES = "chroma_sample_position", {1: 0, 2: 2}  # in H.264's numbers: left, and top left
TRACED = {  # by its name in the standards: what users call it, and the value that says nothing
    "chroma_sample_loc_type_top_field": (PLACE, 0),  # ITU-T H.264 and H.265, annex E
    OF_AV1: (PLACE, 0),  # AV1 specification, 6.4.2
    "overscan_appropriate_flag": (OVERSCAN, None),
    "video_format": (SYSTEM, 5),
    **{f"frame_centre_{axis}_offset[0]": (f"the {axis} pan-scan offset", 0) for axis in ("horizontal", "vertical")},  # MPEG-2's
    **{
        f"def_disp_win_{side}_offset": (f"the {side} of the default display window", 0)
        for side in ("left", "right", "top", "bottom")
    },
}
LINE = re.compile(r"\d+\s+(\S+)\s+\S+ = (-?\d+)")
SYSTEMS = dict(enumerate(("component", "pal", "ntsc", "secam", "mac")))
OVERSCANS = {0: "show", 1: "crop"}
PLACES = {number: str(number) for number in range(1, 6)}
WRITERS = {  # the option of FFmpeg's wrapper, and in it the names and values for each; places for 4:2:0
    "libx264": ("x264-params", {PLACE: ("chromaloc", PLACES), OVERSCAN: ("overscan", OVERSCANS), SYSTEM: ("videoformat", SYSTEMS)}),
    "libx265": ("x265-params", {PLACE: ("chromaloc", PLACES), OVERSCAN: ("overscan", OVERSCANS), SYSTEM: ("videoformat", SYSTEMS)}),
    "libsvtav1": ("svtav1-params", {PLACE: ("chroma-sample-position", {2: "topleft"})}),
}
WITH_PLACES = "420"  # in the names of the formats for which they are defined


def coded_settings(stream: av.VideoStream, first: bytes) -> dict[str, int]:
    """By what users call it, of a stream whose first packet is given; what says nothing is left out."""
    return {name: value for name, value, nothing in _traced(stream, first) if value != nothing}


def with_coded_settings(codec: str, options: Mapping[str, str], settings: Mapping[str, int], pixel_format: str) -> dict[str, str]:
    """The encoder's options with these added, unless the user's say them; unchanged for encoders that cannot write them."""
    option, known = WRITERS.get(codec, ("", {}))
    said = options.get(option, "")
    new = []
    for what, (name, values) in known.items():
        fits = what != PLACE or WITH_PLACES in pixel_format
        if fits and settings.get(what) in values and name not in said:
            new.append(f"{name}={values[settings[what]]}")
    return {**options, option: ":".join(filter(None, (said, *new)))} if new else dict(options)


def _traced(stream: av.VideoStream, first: bytes) -> Iterator[tuple[str, int, int | None]]:
    """(name, value, the value that says nothing)"""
    lines: list[str] = []
    try:
        with ffmpeg_says(lines, INFO):
            trace = BitStreamFilterContext("trace_headers", stream)
            for _ in trace.filter(av.Packet(first)):
                pass
    except (av.FFmpegError, ValueError):  # a codec that it does not know; headers up to a broken one are told
        pass
    for found in filter(None, map(LINE.match, lines)):
        name, value = found[1], int(found[2])
        if name in TRACED:
            called, nothing = TRACED[name]
            if name == OF_AV1:
                value = AV1_PLACES.get(value, 0)
            yield called, value, nothing
