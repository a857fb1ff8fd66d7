"""No window mixes two scenes: where cuts are found, and what a run makes of them."""

import av
import numpy as np
import pytest
from av.filter import Graph
from video_clips import Clip, read, same

from runtime import Engine, InputError, StreamDeblurrer
from runtime.deblur_video import deblur_video, main
from runtime.encoder_options import EncoderOptions
from runtime.pixels import scene_score
from runtime.run.options import DeblurOptions
from runtime.video import VideoReader
from runtime.video.scene_cuts import mark_scenes

LOSSLESS = EncoderOptions("ffv1")


def film(path, scenes, pixel_format="yuv420p", size=(64, 48)):
    """Scenes of so many frames, each a pattern of its own that glides; every other one is dark."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        for scene, length in enumerate(scenes):
            for number in range(length):
                container.mux(stream.encode(picture(scene, number, pixel_format, size)))
        container.mux(stream.encode(None))
    return path


def picture(scene, number, pixel_format, size):
    frame = av.VideoFrame(*size, pixel_format)
    bits = frame.format.components[0].bits
    rows, columns = np.indices((size[1], size[0]))
    luma = (30 if scene % 2 else 190) + 20 * np.sin((columns + number) / (4 + scene)) + 10 * np.cos(rows / 7)
    for plane, content in zip(frame.planes, (luma, None, None)):
        view = np.frombuffer(plane, np.uint8 if bits == 8 else np.uint16).reshape(plane.height, -1)
        view[:, : plane.width] = (128 if content is None else content) * 2 ** (bits - 8)
    return frame


def starts(path, threshold=0.4):
    with VideoReader(path) as reader:
        return [frame.number for frame in mark_scenes(reader, reader.info, threshold) if frame.starts_scene]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "yuv444p12le", "gray", "gray16le", "yuva420p", "yuv440p"])
def test_cuts_are_found_in_every_format(pixel_format, tmp_path):
    assert starts(film(tmp_path / "in.mkv", [3, 3, 7, 2, 1], pixel_format)) == [3, 6, 13, 15]


def test_frames_themselves_are_as_they_were(tmp_path):
    path = film(tmp_path / "in.mkv", [3, 2])
    with VideoReader(path) as reader, VideoReader(path) as plain:
        for marked, frame in zip(mark_scenes(reader, reader.info, 0.4), plain):
            assert (marked.number, marked.pts, marked.duration) == (frame.number, frame.pts, frame.duration)
            assert same([marked.luma, *marked.chroma], [frame.luma, *frame.chroma])


def test_one_scene_has_no_cut(tmp_path):
    assert starts(Clip("ffv1", moving=True).write(tmp_path / "in.mkv")) == []


def test_the_threshold_is_ffmpegs(tmp_path):
    path = film(tmp_path / "in.mkv", [3, 3])
    assert starts(path, 0) == []  # off
    assert starts(path, 1) == []
    assert starts(path, 0.9) == starts(path, 0.2) == [3]


@pytest.mark.parametrize("threshold", [-0.1, 1.5])
def test_a_threshold_outside_is_refused(threshold, tmp_path):
    path = film(tmp_path / "in.mkv", [3])
    with pytest.raises(InputError, match=rf"scene cuts is {threshold}, expected 0 \(off\) to 1"):
        starts(path, threshold)


@pytest.mark.parametrize("stride", [None, 2])
@pytest.mark.parametrize("scenes", [[3, 3, 3, 3], [7, 2, 6], [5, 5]])
def test_every_scene_is_deblurred_as_if_it_were_alone(scenes, stride, tiny_model, tmp_path):
    source, output = film(tmp_path / "in.mkv", scenes), tmp_path / "out.mkv"
    before, expected = read(source).luma, []
    with Engine(tiny_model, precision="fp32", threads=1) as engine:
        options = DeblurOptions(source, output, stride=stride, encoder=LOSSLESS)
        summary = deblur_video(options, engine=engine)
        stream, at = StreamDeblurrer(engine, stride, 8, "limited"), iter(before)
        for length in scenes:
            expected += [sharp for _ in range(length) for sharp in stream.push(next(at))] + stream.flush()
        assert same(read(output).luma, expected)
        assert (summary.frames, summary.scenes) == (sum(scenes), len(scenes))


def test_the_switch_turns_it_off(tiny_model, tmp_path):
    source = film(tmp_path / "in.mkv", [3, 4])
    arguments = ["-c", "ffv1", "--model", str(tiny_model), "--precision", "fp32", "--threads", "1", "--no-progress"]
    assert main([str(source), str(tmp_path / "on.mkv"), *arguments]) == 0
    assert main([str(source), str(tmp_path / "off.mkv"), *arguments, "--scene-thresh", "0"]) == 0
    with Engine(tiny_model, precision="fp32", threads=1) as engine:
        stream = StreamDeblurrer(engine, None, 8, "limited")
        whole = [sharp for luma in read(source).luma for sharp in stream.push(luma)] + stream.flush()
    assert same(read(tmp_path / "off.mkv").luma, whole)
    assert not same(read(tmp_path / "on.mkv").luma, whole)


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le", "gray"])
def test_the_score_is_ffmpegs(pixel_format, tmp_path):
    """Of frames that glide, cut and flicker, in a width that no row of memory has."""
    path, changes, found, expected = film(tmp_path / "in.mkv", [3, 3, 1, 7, 2, 1], pixel_format, size=(70, 50)), [0.0], [], []
    with VideoReader(path) as reader:
        ffmpeg, frames = scores_of_ffmpeg(reader.info), list(reader)
    for number, frame in enumerate(frames):
        changes += [scene_score.change(frame.luma, frames[number - 1].luma, reader.info.bits)] if number else []
        found.append(scene_score.score(changes[number], changes[number - 1] if number else 0.0))
        expected.append(ffmpeg(frame.decoded))
    assert found == expected
    assert len({*found} - {0.0, 1.0}) > 9


def scores_of_ffmpeg(info):
    graph = Graph()
    source = graph.add_buffer(
        width=info.width, height=info.height, format=av.VideoFormat(info.pixel_format), time_base=info.time_base
    )
    graph.link_nodes(source, graph.add("select", "gte(scene,0)"), graph.add("buffersink")).configure()

    def score(frame):
        graph.vpush(frame)
        return float(graph.vpull().metadata["lavfi.scene_score"])

    return score


def test_the_score_of_floats_is_that_of_codes():
    now, before = np.random.default_rng(0).integers(0, 256, (2, 40, 50)).astype(np.uint8)
    assert scene_score.change(now / np.float32(256), before / np.float32(256), 0) == pytest.approx(
        scene_score.change(now, before, 8)
    )
