"""Streams as cameras and editors make them, from end to end: not a frame is lost, and all but luma is as it was."""

from fractions import Fraction

import av
import pytest
from video_clips import VARIABLE, Clip, read, same

from runtime import Engine, StreamDeblurrer
from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.run.options import DeblurOptions

LONG = [cycle * 17020 + time for cycle in range(3) for time in VARIABLE]
MILLISECONDS = Fraction(1, 1000)

QUIET = {"preset": "ultrafast", "x265-params": "log-level=none"}

CLIPS = {
    "variable rate, sound and subtitles": (
        Clip(times=[0, 33, 83, 116, 150, 233, 250], time_base=MILLISECONDS, audio=["aac"], subtitles=("Hei", "på deg")),
        ".mkv",
    ),
    "B-frames": (Clip(times=LONG, moving=True, options={"bf": "3", "b_strategy": "0", "crf": "20"}), ".mp4"),
    "open GOP": (
        Clip(
            "libx265",
            times=LONG,
            moving=True,
            options={"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=8:min-keyint=8:bframes=3:b-adapt=0"},
        ),
        ".mp4",
    ),
    "10 bits 4:2:0": (Clip(pixel_format="yuv420p10le"), ".mp4"),
    "10 bits 4:2:2": (Clip(pixel_format="yuv422p10le"), ".mp4"),
    "12 bits 4:2:0 HEVC": (Clip("libx265", "yuv420p12le", options=QUIET), ".mkv"),
    "12 bits 4:4:4 HEVC": (Clip("libx265", "yuv444p12le", options=QUIET), ".mp4"),
    "ProRes 4444 with alpha": (Clip("prores_ks", "yuva444p10le", times=VARIABLE[:6]), ".mov"),  # is decoded to 12 bits
    "16 bits gray": (Clip("ffv1", "gray16le"), ".mkv"),
    "odd size": (Clip("ffv1", "yuv420p", (65, 49)), ".mkv"),
    "rotation": (Clip(rotation=90), ".mp4"),
    "VP9": (Clip("libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}, moving=True), ".webm"),
    "AV1": (Clip("libsvtav1", options={"preset": "12", "svtav1-params": "lp=1"}, moving=True), ".mp4"),
    "1 frame": (Clip(times=VARIABLE[:1]), ".mp4"),
    "4 frames": (Clip(times=VARIABLE[:4]), ".mp4"),
    "6 frames": (Clip(times=VARIABLE[:6]), ".mp4"),
}


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("name", CLIPS)
def test_nothing_but_luma_changes(name, resume, tiny_model, tmp_path):
    clip, suffix = CLIPS[name]
    source, output = clip.write(tmp_path / f"in{suffix}"), tmp_path / "out.mkv"
    options = DeblurOptions(source, output, scene_threshold=0, encoder=EncoderOptions("ffv1"), resume=resume, resume_every=10)
    before = read(source)
    with Engine(tiny_model, "onnxruntime", threads=1) as engine:
        summary = deblur_video(options, engine=engine)
        bits, full = av.VideoFormat(before.pixel_format).components[0].bits, before.pixel_format == "gray16le"
        stream = StreamDeblurrer(engine, None, bits, "full" if full else "limited")
        sharp = [luma for blurry in before.luma for luma in stream.push(blurry)] + stream.flush()
    after = read(output)
    assert summary.frames == len(clip.times) == len(after.luma)
    assert same(after.luma, sharp)
    assert same(after.chroma, before.chroma)
    shifts = [late - early for early, late in zip(before.times, after.times)]
    assert max(shifts) - min(shifts) <= MILLISECONDS  # Matroska's clock
    for kind, packets in before.packets.items():
        assert [payload for payload, _ in after.packets[kind]] == [payload for payload, _ in packets]
    assert after.matrix == before.matrix


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_picture_or_two(codec, frames, tiny_model, tmp_path):
    """libx265 makes up the decoding times of so few."""
    times, output = VARIABLE[:frames], tmp_path / "out.mp4"
    source = Clip(times=times).write(tmp_path / "in.mp4")
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with Engine(tiny_model, "onnxruntime", threads=1) as engine:
        deblur_video(DeblurOptions(source, output, encoder=EncoderOptions(codec, options=quiet)), engine=engine)
    assert read(output).times == read(source).times
