"""What an AVI says in chunks that FFmpeg does not copy is told where it is lost."""

import struct
from fractions import Fraction

import pytest
from test_field_streams import LOSSLESS, copied
from video_clips import Clip

from runtime.video.unread_chunks import unread_chunks_of

NOTE = "the chunks {} (which FFmpeg does not copy): not in the output as it was"


def chunk(name, content):
    return name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def with_chunks(path, top=b"", header=b"", stream=b""):
    """An AVI with more at the ends of these, in front of the pictures, whose places in the index are relative."""
    Clip("mpeg4", times=[0, 1, 2], time_base=Fraction(1, 25), options={}).write(path)
    data = bytearray(path.read_bytes())
    for where, more in ((b"strl", stream), (b"hdrl", header)):
        at = data.index(where) - 8
        end = at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        data[end:end] = more
        for name in {where, b"hdrl"}:
            place = data.index(name) - 4
            struct.pack_into("<I", data, place, int.from_bytes(data[place : place + 4], "little") + len(more))
    data += top
    struct.pack_into("<I", data, 4, len(data) - 8)
    path.write_bytes(data)
    return path


CASES = [
    ({"top": chunk(b"_PMX", b"<x:xmpmeta/>")}, "_PMX"),
    ({"top": chunk(b"LIST", b"exif" + chunk(b"ecor", b"NIKON"))}, "exif"),
    ({"header": chunk(b"ISMP", b"01:02:03:04\0")}, "ISMP"),
    ({"stream": chunk(b"strd", b"maker data")}, "strd"),
    ({"stream": chunk(b"strd", b"maker data"), "top": chunk(b"bext", bytes(602))}, "bext, strd"),
]


@pytest.mark.parametrize(("more", "told"), CASES, ids=[told for _, told in CASES])
@pytest.mark.parametrize("target", ["avi", "mkv", "mp4"])
def test_chunks_that_are_lost_are_told(more, told, target, tmp_path):
    assert NOTE.format(told) in copied(with_chunks(tmp_path / "in.avi", **more), tmp_path / f"out.{target}", LOSSLESS)


@pytest.mark.parametrize("target", ["avi", "mkv"])
def test_what_is_plain_has_no_note(target, tmp_path):
    source = with_chunks(tmp_path / "in.avi", top=chunk(b"JUNK", bytes(40)))
    assert not [note for note in copied(source, tmp_path / f"out.{target}", LOSSLESS) if "chunks" in note]


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\xff\xff\xff\xffAVI ", b"RIFF\0\0\0\0AVI LIST", b"RIFF\x20\0\0\0WAVEdata"])
def test_what_is_no_avi_has_none(content, tmp_path):
    (tmp_path / "in.avi").write_bytes(content)
    assert unread_chunks_of(tmp_path / "in.avi") == {}


def test_pictures_of_a_live_writer_are_no_chunks_of_a_maker(tmp_path):
    source = with_chunks(tmp_path / "in.avi")
    data = bytearray(source.read_bytes())
    struct.pack_into("<I", data, data.index(b"movi") - 4, 0)
    source.write_bytes(data)
    assert unread_chunks_of(source) == {}
