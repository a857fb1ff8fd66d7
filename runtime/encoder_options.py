"""How the picture of an output video is encoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from runtime.errors import InputError

DEFAULT_CODEC = "libx264"
# Constant quality at which the encoder does not take the sharpness back: 18 is where x264 is widely held to be visually lossless,
# the others are about the same quality on their own scales.
DEFAULT_CRF = {"libx264": 18, "libx265": 20, "libvpx-vp9": 24, "libsvtav1": 24}
# NVIDIA's encoders call it cq, and keep to 2 Mbit/s unless they are told that the bit rate is free.
DEFAULT_CQ = {"h264_nvenc": 19, "hevc_nvenc": 21, "av1_nvenc": 28}
FREE_BIT_RATE = {"rc": "vbr", "b": "0"}
# The scales of constant quality; beyond their ends some encoders take the end, without a word.
MOST_CRF = {"libx264": 51, "libx264rgb": 51, "libx265": 51, **dict.fromkeys(DEFAULT_CQ, 51)}
MOST_CRF_OF_OTHERS = 63
RATE_CONTROL = {"crf", "qp", "cq", "b", "global_quality", "x264-params", "x265-params"}  # options that replace that default


@dataclass(frozen=True)
class EncoderOptions:
    """The encoder, its options, and what happens to streams that the output cannot hold."""

    codec: str = DEFAULT_CODEC  # FFmpeg's name of an encoder
    crf: float | None = None  # constant rate factor, lower is better; None = that of the codec in DEFAULT_CRF or DEFAULT_CQ
    options: Mapping[str, str] = field(default_factory=dict)  # further options of the encoder, as FFmpeg spells them
    format: str | None = None  # FFmpeg's name of the container; None = by the suffix
    leave_out: tuple[str, ...] = ()  # kinds of streams that are not copied: "audio", "subtitle"
    drop_unsupported: bool = False  # leave out audio and subtitles that the container cannot hold, instead of refusing

    def __post_init__(self) -> None:
        """Raises InputError when the quality is asked for twice, or is not on the encoder's scale."""
        twice = RATE_CONTROL & self.options.keys()
        if self.crf is not None and twice:
            raise InputError(f"got --crf {self.crf:g} and -e {', -e '.join(sorted(twice))}, expected one of them: drop the other")
        most = MOST_CRF.get(self.codec, MOST_CRF_OF_OTHERS)
        if self.crf is not None and not 0 <= self.crf <= most:
            raise InputError(f"the quality is crf {self.crf:g}, expected 0 (best) to {most} for {self.codec}")

    def resolved(self) -> dict[str, str]:
        """What the encoder is given: `options` and the quality; x265 is told not to print its settings."""
        options = dict(self.options)
        if self.codec == "libx265" and "log-level" not in options.get("x265-params", ""):
            options["x265-params"] = ":".join(filter(None, ("log-level=error", options.get("x265-params"))))
        if self.codec in DEFAULT_CQ and not RATE_CONTROL & self.options.keys():
            return {**FREE_BIT_RATE, **options, "cq": f"{DEFAULT_CQ[self.codec] if self.crf is None else self.crf:g}"}
        if self.crf is not None:
            return {**options, "crf": f"{self.crf:g}"}
        if self.codec in DEFAULT_CRF and not RATE_CONTROL & self.options.keys():
            return {**options, "crf": str(DEFAULT_CRF[self.codec])}
        return options
