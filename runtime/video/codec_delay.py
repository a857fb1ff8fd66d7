"""`delayed`: a stream of sound that says how much of its beginning nobody is to hear, to be copied to Matroska.

MP4 hides it by an edit list, of which PyAV hands on the packets alone. Matroska has a field of its own, CodecDelay (RFC 9559,
5.1.4.1.25), which FFmpeg writes for what it read from a Matroska file; so the header of one is made that has it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction

import av
from av.stream import Stream

from runtime.video.format import codec_name
from runtime.video.pipe_end import CLUSTER, EBML, SEGMENT, elements_in

INFO, TRACKS, TRACK, CODEC_DELAY, TIME = 0x1549A966, 0x1654AE6B, 0xAE, 0x56AA, 0xE7
NANOSECOND = Fraction(1, 10**9)
SIZE = 8  # bytes, the first of which says how many they are
FIRST_CLUSTER = b"\0"  # without which a header has no end


@contextmanager
def delayed(source: Stream, seconds: Fraction) -> Iterator[Stream | None]:
    """`source` as Matroska would have it whose first `seconds` are hidden; a template for as long as the block lasts.

    None where FFmpeg takes what it reads there for another codec, or for none.
    """
    with ExitStack() as stack:
        made: Stream | None = None
        with suppress(av.FFmpegError, KeyError):
            header = io.BytesIO(_header(source, seconds))
            made = stack.enter_context(av.open(header, "r", format="matroska")).streams[0]
        yield made if made is not None and codec_name(made) == codec_name(source) else None


def _header(source: Stream, seconds: Fraction) -> bytes:
    plain = io.BytesIO()
    with av.open(plain, "w", format="matroska") as container:
        container.add_stream_from_template(source)
        container.start_encoding()
    file = dict(elements_in(plain.getvalue()))
    segment = dict(elements_in(file[SEGMENT]))
    delay = _element(CODEC_DELAY, round(seconds / NANOSECOND).to_bytes(SIZE, "big"))
    track = _element(TRACK, dict(elements_in(segment[TRACKS]))[TRACK] + delay)
    told = _element(INFO, segment[INFO]) + _element(TRACKS, track) + _element(CLUSTER, _element(TIME, FIRST_CLUSTER))
    return _element(EBML, file[EBML]) + _element(SEGMENT, told)


def _element(number: int, content: bytes) -> bytes:
    size = len(content) | 1 << 7 * SIZE
    return number.to_bytes((number.bit_length() + 7) // 8, "big") + size.to_bytes(SIZE, "big") + content
