"""An AVI of another AVI counts its sound as that did, in packets or in bytes, whatever FFmpeg makes of a template."""

import struct
from fractions import Fraction

import pytest
from test_field_streams import LOSSLESS, copied
from video_clips import Clip

from runtime.video.avi_sound import _count_in, count_packets
from runtime.video.riff import Chunk
from runtime.video.sound_holes import Holes

SOUNDS = ["mp3", "aac", "ac3", "mp2", "pcm_s16le"]
OF_ONE_SIZE = {"mp2"}  # packets, here, so that either is right


def headers(path):
    """(ticks per sample, ticks per second, samples, bytes of a sample) of each stream of sound."""
    data, found = path.read_bytes(), []
    at = data.find(b"strh")
    while at >= 0:
        if data[at + 8 : at + 12] == b"auds":
            scale, rate, _, length, _, _, size = struct.unpack_from("<IIIIIiI", data, at + 28)
            found.append((scale, rate, length, size))
        at = data.find(b"strh", at + 4)
    return found


def clip(path, *sounds):
    return Clip(times=list(range(50)), time_base=Fraction(1, 25), audio=list(sounds)).write(path)


@pytest.mark.parametrize("sounds", [*([name] for name in SOUNDS), ["mp3", "pcm_s16le", "aac"]], ids="+".join)
def test_sound_is_counted_as_in_the_source(sounds, tmp_path):
    source = clip(tmp_path / "in.avi", *sounds)
    assert {size for name, (*_, size) in zip(sounds, headers(source)) if name != "pcm_s16le"} <= {0}
    copied(source, tmp_path / "out.avi", LOSSLESS)
    before, after = headers(source), headers(tmp_path / "out.avi")
    assert len(after) == len(sounds)
    for name, (*pace, length, size), (*pace_after, length_after, size_after) in zip(sounds, before, after):
        lasts, lasts_after = Fraction(length * pace[0], pace[1]), Fraction(length_after * pace_after[0], pace_after[1])
        assert abs(lasts - lasts_after) < Fraction(1, 10)  # FFmpeg counts empty packets of its own, which no reader sees
        assert (size_after > 0) == (size > 0) or name in OF_ONE_SIZE


@pytest.mark.parametrize("source", ["mkv", "mp4"])
def test_so_is_sound_of_other_containers(source, tmp_path):
    copied(clip(tmp_path / f"in.{source}", "aac", "mp3"), tmp_path / "out.avi", LOSSLESS)
    for scale, rate, length, size in headers(tmp_path / "out.avi"):
        assert float(Fraction(length * scale, rate)) == pytest.approx(2, abs=0.1)
        assert size == 0


def test_the_super_index_counts_packets_too(tmp_path):
    """One AVI has it from a gigabyte on; this is two of its entries, and the heads of the indexes that they lead to."""
    indexes = [b"ix01" + struct.pack("<IHBBI", 100, 2, 0, 1, packets) for packets in (7, 5)]
    entries = b"".join(struct.pack("<QII", place, 16, 9999) for place in (0, 16))
    index = struct.pack("<HBBI4s12x", 4, 0, 1, 2, b"01wb") + entries
    path = tmp_path / "index"
    path.write_bytes(b"".join(indexes) + index)
    with path.open("r+b") as file:
        _count_in(file, Chunk(b"indx", b"", 32, 32 + len(index)))
    assert [struct.unpack_from("<QII", path.read_bytes(), 32 + at)[2] for at in (24, 40)] == [7, 5]


@pytest.mark.parametrize("content", [b"", b"RIFF", b"RIFF\xff\xff\xff\xffAVI LIST\xff\xff\xff\xffhdrl"])
def test_what_is_no_avi_stays_as_it_is(content, tmp_path):
    (tmp_path / "out.avi").write_bytes(content)
    count_packets(tmp_path / "out.avi", {1: Holes()})
    assert (tmp_path / "out.avi").read_bytes() == content
