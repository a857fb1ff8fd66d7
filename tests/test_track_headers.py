"""Tracks of an MP4 that are off, soft or alternatives stay so in another, and a note says so of other containers."""

import pytest
from test_field_streams import LOSSLESS, copied
from video_clips import Clip

from runtime.video.track_headers import TrackHeader, set_track_headers, track_headers_of

SOFT = TrackHeader(False, 0, 5, 0x80)
TOLD = "being off by default and volume 0.5 of audio stream 1 (said of the streams): not in the output as it was"


def with_header(path, header, sounds=1):
    """An MP4 whose first sound has this one."""
    Clip(times=[0, 3000, 6000], audio=["aac"] * sounds).write(path)
    set_track_headers(path, {1: header})
    return path


@pytest.mark.parametrize("target", ["mp4", "mov"])
def test_a_track_that_is_off_is_off_in_another(target, tmp_path):
    source = with_header(tmp_path / "in.mp4", SOFT)
    assert not [note for note in copied(source, tmp_path / f"out.{target}", LOSSLESS) if "off by default" in note]
    assert list(track_headers_of(tmp_path / f"out.{target}").values())[1] == track_headers_of(source)[2] == SOFT


def test_two_tracks_that_are_on_are_on_in_another(tmp_path):
    source = with_header(tmp_path / "in.mp4", TrackHeader(True, 0, 0, 0x100), sounds=2)
    set_track_headers(source, {2: TrackHeader(True, 0, 0, 0x100)})
    copied(source, tmp_path / "out.mp4", LOSSLESS)
    assert [header.enabled for header in track_headers_of(tmp_path / "out.mp4").values()] == [True] * 3


@pytest.mark.parametrize("target", ["mkv", "ts"])
def test_a_track_that_is_off_is_told_where_it_is_on(target, tmp_path):
    assert TOLD in copied(with_header(tmp_path / "in.mp4", SOFT), tmp_path / f"out.{target}", LOSSLESS)


def test_the_second_of_two_is_off_in_matroska_too(tmp_path):
    source = with_header(tmp_path / "in.mp4", TrackHeader(True, 0, 1, 0x100), sounds=2)
    set_track_headers(source, {2: TrackHeader(False, 0, 1, 0x100)})
    copied(source, tmp_path / "out.mkv", LOSSLESS)
    notes = copied(tmp_path / "out.mkv", tmp_path / "out.mp4", LOSSLESS)
    assert not [note for note in notes if "of the streams" in note]
    assert [header.enabled for header in track_headers_of(tmp_path / "out.mp4").values()] == [True, True, False]


def test_no_file_of_boxes_has_no_headers(tmp_path):
    for data in (b"", b"\0\0\0\x10moov\0\0\0\x08trak", b"\0\0\0\x18moov\0\0\0\x10trak\0\0\0\x08tkhd"):
        (tmp_path / "in.mp4").write_bytes(data)
        assert track_headers_of(tmp_path / "in.mp4") == {}
