"""`Captions`: subtitles without an end of their own, as the bitmaps of Blu-ray (PGS) and DVB, each of which stands until the next.

Of a part of a video the one that stands when it begins is shown from there on, and the last one is cleared where it ends.
PGS: US 2009/0185789 A1, figures 36 to 39. DVB: ETSI EN 300 743, 7.2.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.stream import Stream

from runtime.video.format import codec_name

PGS_HEAD, PGS_COMPOSITION, PGS_WINDOWS, PGS_END = ">BH", 0x16, 0x17, 0x80  # a segment's kind and length; kinds
PGS_PICTURE = ">5sHBHB"  # size and rate, number, state, palette, count of objects
PGS_ALONE = 0xC0  # bits of the state of what needs nothing before it
DVB_HEAD, DVB_SYNC, DVB_COMPOSITION, DVB_END = ">BBHH", 0x0F, 0x10, 0x80  # sync byte, kind, page, length; kinds
DVB_ALONE, DVB_ANEW, DVB_STEP = 0x0C, 0x0B, 0x10  # bits of the state; a page that begins anew; one of the version
DVB_PREFIX, DVB_SUFFIX = b"\x20\x00", b"\xff"  # of some demuxers
EMPTY = 2  # bytes of a page without regions: how long it stands, and its state


@dataclass(frozen=True)
class _State:
    """Of a composition."""

    clears: bool
    alone: bool  # whether it needs nothing before it


class Captions:
    """Those of one stream of a part, whose packets come in order; times in seconds on the file's clock."""

    @staticmethod
    def are_in(stream: Stream) -> bool:
        """Whether a stream has such ones."""
        return codec_name(stream) in KINDS

    def __init__(self, stream: Stream) -> None:
        self._state, self._cleared = KINDS[codec_name(stream)]
        self._held: list[av.Packet[Any]] = []  # what stands before the part
        self._met = False  # whether there was a composition
        self._standing: av.Packet[Any] | None = None  # the last composition that was handed out, unless it clears
        self.incomplete = False  # whether what stands when the part begins is not all there

    def hold(self, packet: av.Packet[Any]) -> None:
        """Takes one from before the part, or when it begins."""
        state = self._state(bytes(packet))
        if state is None:
            self._held += [packet] if self._held else []
        elif state.clears:
            self._held, self.incomplete = [], False
        elif state.alone:
            self._held, self.incomplete = [packet], False
        else:
            self._held.append(packet)
            self.incomplete |= not self._met
        self._met |= state is not None

    def begin(self, time: Fraction) -> Iterator[av.Packet[Any]]:
        """What stands then, once."""
        held, self._held = self._held, []
        for packet in held:
            packet.pts = packet.dts = round(time / packet.time_base)
            self.hand_out(packet)
            yield packet

    def hand_out(self, packet: av.Packet[Any]) -> None:
        """Takes one that is in the output."""
        if state := self._state(bytes(packet)):
            self.incomplete |= not self._met and (state.clears or not state.alone)
            self._met = True
            self._standing = None if state.clears else packet

    def end(self, time: Fraction) -> Iterator[av.Packet[Any]]:
        """What clears the last one then, if it stands."""
        if self._standing is not None:
            packet: av.Packet[Any] = av.Packet(self._cleared(bytes(self._standing)))
            packet.stream, packet.time_base = self._standing.stream, self._standing.time_base
            packet.pts = packet.dts = round(time / packet.time_base)
            packet.is_keyframe = True
            self._standing = None
            yield packet


def _pgs_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, content)"""
    at, head = 0, struct.calcsize(PGS_HEAD)
    while at + head <= len(data):
        kind, length = struct.unpack_from(PGS_HEAD, data, at)
        yield kind, data[at + head : at + head + length]
        at += head + length


def _state_of_pgs(data: bytes) -> _State | None:
    composition = dict(_pgs_segments(data)).get(PGS_COMPOSITION, b"")
    if len(composition) < struct.calcsize(PGS_PICTURE):
        return None
    *_, state, _, objects = struct.unpack_from(PGS_PICTURE, composition)
    return _State(not objects, bool(state & PGS_ALONE))


def _cleared_pgs(data: bytes) -> bytes:
    segments = dict(_pgs_segments(data))
    size, number, _, palette, _ = struct.unpack_from(PGS_PICTURE, segments[PGS_COMPOSITION])
    made = {PGS_COMPOSITION: struct.pack(PGS_PICTURE, size, (number + 1) & 0xFFFF, 0, palette & 0xFF, 0)}
    made.update({kind: content for kind, content in segments.items() if kind == PGS_WINDOWS})
    return b"".join(struct.pack(PGS_HEAD, kind, len(content)) + content for kind, content in [*made.items(), (PGS_END, b"")])


def _dvb_page(data: bytes) -> tuple[int, bytes] | None:
    """Number and content of the page's composition."""
    at, head = len(DVB_PREFIX) if data.startswith(DVB_PREFIX) else 0, struct.calcsize(DVB_HEAD)
    while at + head <= len(data) and data[at] == DVB_SYNC:
        _, kind, page, length = struct.unpack_from(DVB_HEAD, data, at)
        content = data[at + head : at + head + length]
        if kind == DVB_COMPOSITION and len(content) >= EMPTY:
            return page, content
        at += head + length
    return None


def _state_of_dvb(data: bytes) -> _State | None:
    if (found := _dvb_page(data)) is None:
        return None
    return _State(len(found[1]) == EMPTY, bool(found[1][1] & DVB_ALONE))


def _cleared_dvb(data: bytes) -> bytes:
    page, (stands, state, *_) = _dvb_page(data) or (0, b"\0\0")
    version = (state + DVB_STEP) & 0xF0
    made = struct.pack(DVB_HEAD, DVB_SYNC, DVB_COMPOSITION, page, EMPTY) + bytes([stands, version | DVB_ANEW])
    made += struct.pack(DVB_HEAD, DVB_SYNC, DVB_END, page, 0)
    return DVB_PREFIX + made + DVB_SUFFIX if data.startswith(DVB_PREFIX) else made


KINDS: dict[str, tuple[Callable[[bytes], _State | None], Callable[[bytes], bytes]]] = {  # by the decoder's name
    "pgssub": (_state_of_pgs, _cleared_pgs),
    "dvbsub": (_state_of_dvb, _cleared_dvb),
}
