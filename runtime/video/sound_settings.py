"""`SoundSettings`: whether sound changes its rate or channels on the way, where a container says them once, in its header.

AAC of transport streams says them in each packet (ADTS, ISO/IEC 13818-7, 6.2); elsewhere FFmpeg hands on new settings beside the
packet (ISO/IEC 14496-3, 1.6.2). `changed_settings` looks for the first at a few places of a file, before the work.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Any

import av
from av.stream import Stream

from runtime.video.format import MP4_LIKE, codec_name, is_format, packets_from_here
from runtime.video.reader import ANEW, VideoReader
from runtime.video.sources import open_source

RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)  # Hz, by number
CHANNELS = {7: 8, 11: 7, 12: 8, 14: 8}  # by number, where it is not the same
ADTS, ADTS_HEADER, ADTS_READ = 0xFFF, 7, 4  # twelve bits it begins with; bytes, and those that are looked at
HERTZ = "Hz"
ESCAPE = 31  # an object type of more bits
AAC = {"aac", "aac_fixed"}
SAID_IN_PACKETS = {"mpegts", "nut"}  # containers of ADTS; others have its settings once
SAID_ANEW = MP4_LIKE | {"flv"}  # containers of settings that change
PLACES, PACKETS, READ = 9, 3, 1000  # evenly over the file; of a stream at each, the last of which counts; of all streams


class SoundSettings:
    """Of one stream, whose packets come in order."""

    def __init__(self, stream: Stream) -> None:
        context = getattr(stream, "codec_context", None)
        self._aac = codec_name(stream) in AAC
        self._first = _in_header(bytes(context.extradata or b""), self._aac) if context else ""
        self.changed: tuple[str, str] | None = None  # from and to, in words
        self.in_packets = False  # whether each packet says them

    def take(self, packet: av.Packet[Any]) -> bool:
        """Whether this packet is the first that has other ones."""
        if self.changed:
            return False
        now = _in_adts(packet) if self._aac else ""
        self.in_packets |= bool(now)
        if packet.has_sidedata(ANEW):
            now = _in_header(bytes(packet.get_sidedata(ANEW)), self._aac)
        if now and self._first and now != self._first:
            self.changed = self._first, now
        self._first = self._first or now
        return bool(self.changed)

    @property
    def told(self) -> str:
        """The change, in words."""
        before, after = self.changed or ("", "")
        return f"changes from {before} to {after}" if HERTZ in before and HERTZ in after else "changes its codec's settings"

    @property
    def remedy(self) -> str:
        """What keeps all of them."""
        other = ".ts" if self.in_packets else ".mov" if self._aac else ""
        return f"write a {other}, or cut it there into two files" if other else "cut it there into two files"

    def kept_by(self, container: str) -> bool:
        """Whether one of FFmpeg's containers has all of them."""
        return container in (SAID_IN_PACKETS if self.in_packets else SAID_ANEW if self._aac else ())


def changed_settings(reader: VideoReader, indices: Iterable[int]) -> dict[int, SoundSettings]:
    """Streams of sound, of these of a transport stream, that say otherwise in some places; a part is not looked through."""
    streams = [reader.container.streams[index] for index in indices]
    found = {stream.index: SoundSettings(stream) for stream in streams if codec_name(stream) in AAC}
    if not found or not is_format(reader.container, {"mpegts"}) or not reader.path.is_file() or reader.part or reader.limit:
        return {}
    size = reader.path.stat().st_size
    with suppress(av.FFmpegError), open_source(reader.path).container as container:
        for place in range(PLACES):
            container.seek(size * place // PLACES, unsupported_byte_offset=True)
            left = dict.fromkeys(found, PACKETS)
            for packet in islice(packets_from_here(container), READ):
                if packet.stream_index in left:
                    left[packet.stream_index] -= 1
                    if not left[packet.stream_index]:
                        found[packet.stream_index].take(packet)
                if max(left.values()) <= 0:
                    break
    return {index: settings for index, settings in found.items() if settings.changed}


def _in_adts(packet: av.Packet[Any]) -> str:
    """Rate and channels; nothing where there is no such header, or it leaves the channels to the sound itself."""
    if packet.size < ADTS_HEADER:
        return ""
    head = int.from_bytes(memoryview(packet)[:ADTS_READ], "big")
    if head >> 20 != ADTS:
        return ""
    return _in_words(head >> 10 & 0xF, head >> 6 & 0x7)


def _in_header(settings: bytes, aac: bool) -> str:
    """The same of AAC's settings, which are no text otherwise."""
    if not settings:
        return ""
    bits = int.from_bytes(settings[:2], "big")
    told = _in_words(bits >> 7 & 0xF, bits >> 3 & 0xF) if aac and len(settings) > 1 and bits >> 11 < ESCAPE else ""
    return told or settings.hex()


def _in_words(rate: int, channels: int) -> str:
    count = CHANNELS.get(channels, channels)
    return f"{RATES[rate]} {HERTZ}, {count} channel{'s' * (count > 1)}" if rate < len(RATES) and channels else ""
