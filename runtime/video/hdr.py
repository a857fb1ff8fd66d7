"""HDR10's static metadata: read from a frame's side data, passed on to the encoders that can write it.

FFmpeg's own wrappers take it from the encoder's context, which PyAV does not reach; the encoders' parameter strings are the way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

COORDINATE, LUMINANCE = 50000, 10000  # units in 1 of CIE 1931 xy, and in 1 cd/m2, of SMPTE ST 2086 as H.264 and HEVC code it


@dataclass(frozen=True)
class Hdr:
    """SMPTE ST 2086 mastering display and CTA-861.3 content light level; None where the video does not say."""

    primaries: tuple[Fraction, ...] | None = None  # x and y of red, green, blue and white
    luminance: tuple[Fraction, ...] | None = None  # least and most, cd/m2
    light: tuple[int, ...] | None = None  # of the brightest pixel, and of the brightest frame on average, cd/m2

    def __str__(self) -> str:
        """As encoders are told, for notes; empty where there is none."""
        mastering = _decimals(self.primaries, self.luminance) if self.primaries and self.luminance else ""
        return " ".join(filter(None, (mastering, "{},{}".format(*self.light) if self.light else "")))

    @classmethod
    def from_side_data(cls, mastering: bytes | None, light: bytes | None) -> Hdr:
        """From FFmpeg's AVMasteringDisplayMetadata and AVContentLightMetadata."""
        primaries = luminance = None
        if mastering:
            *rationals, has_primaries, has_luminance = np.frombuffer(mastering, np.int32).tolist()
            values = tuple(Fraction(over, under or 1) for over, under in zip(rationals[::2], rationals[1::2]))
            primaries, luminance = values[:8] if has_primaries else None, values[8:10] if has_luminance else None
        return cls(primaries, luminance, tuple(np.frombuffer(light, np.uint32).tolist()) if light else None)


def with_hdr(codec: str, options: Mapping[str, str], hdr: Hdr) -> dict[str, str]:
    """The encoder's options with the metadata added, unless the user's say it; unchanged for encoders that cannot write it."""
    added = dict(options)
    if codec in WRITERS:
        name, mastering, light, form = WRITERS[codec]
        said = options.get(name, "")
        new = [said] if said else []
        if hdr.primaries and hdr.luminance and mastering not in said:
            new.append(f"{mastering}={form(hdr.primaries, hdr.luminance)}")
        if hdr.light and light not in said:
            new.append(f"{light}={hdr.light[0]},{hdr.light[1]}")
        if new:
            added[name] = ":".join(new)
    return added


Values = tuple[Fraction, ...]


def _integers(primaries: Values, luminance: Values) -> str:
    xy = [round(value * COORDINATE) for value in primaries]
    least, most = (round(value * LUMINANCE) for value in luminance)
    return f"G({xy[2]},{xy[3]})B({xy[4]},{xy[5]})R({xy[0]},{xy[1]})WP({xy[6]},{xy[7]})L({most},{least})"


def _decimals(primaries: Values, luminance: Values) -> str:
    xy = [f"{float(value):.5f}" for value in primaries]
    least, most = (f"{float(value):.4f}" for value in luminance)
    return f"G({xy[2]},{xy[3]})B({xy[4]},{xy[5]})R({xy[0]},{xy[1]})WP({xy[6]},{xy[7]})L({most},{least})"


# The option of FFmpeg's wrapper; in it the names of the mastering display and of the light level; how the former is spelled.
WRITERS: dict[str, tuple[str, str, str, Callable[[Values, Values], str]]] = {
    "libx264": ("x264-params", "mastering-display", "cll", _integers),
    "libx265": ("x265-params", "master-display", "max-cll", _integers),
    "libsvtav1": ("svtav1-params", "mastering-display", "content-light", _decimals),
}
