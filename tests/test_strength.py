"""A part of what the network changes: `blend`, streams, masks, and every command that takes a strength."""

import json

import numpy as np
import pytest
from test_streaming import Recorder
from video_clips import Clip, read, same

from benchmarks.studies import strength as study
from runtime import Engine, StreamDeblurrer
from runtime.deblur_video import main
from runtime.errors import InputError
from runtime.files.records import read_record
from runtime.pixels.strength import blend
from runtime.video import write_gray
from serving.library.plan import Settings
from serving.triton_server.requests import WindowRequest, answer, read_parameters

BOTH = np.random.default_rng(0).integers(0, 1 << 16, (2, 40, 50)).astype(np.uint16)
LOSSLESS = ("-e", "qp=0", "-e", "preset=ultrafast", "--scene-thresh", "0", "--no-progress", "--threads", "1")


def kinds():
    return [(BOTH >> 8).astype(np.uint8), BOTH, BOTH.astype(np.float32) / 65535]


@pytest.mark.parametrize("frames", kinds(), ids=lambda frames: frames.dtype.name)
def test_nothing_and_all_are_exact(frames):
    blurry, sharp = frames
    assert np.array_equal(blend(blurry, sharp, 0), blurry)
    assert np.array_equal(blend(blurry, sharp, 1.0), sharp)
    assert blend(blurry, sharp, 0.3).dtype == frames.dtype


@pytest.mark.parametrize("frames", kinds()[:2], ids=lambda frames: frames.dtype.name)
@pytest.mark.parametrize("strength", [0.25, 0.5, 0.7])
def test_codes_are_rounded_once_half_to_even(frames, strength):
    blurry, sharp = frames.astype(np.float64)
    assert np.array_equal(blend(*frames, strength), np.rint(blurry + strength * (sharp - blurry)))
    assert blend(np.array([0, 1, 2], np.uint8), np.array([1, 2, 3], np.uint8), 0.5).tolist() == [0, 2, 2]


def test_a_slow_ramp_has_no_bands():
    blurry = np.arange(0, 4096, dtype=np.uint16)[None]
    steps = np.diff(blend(blurry, np.full_like(blurry, 2000), 0.3)[0].astype(int))
    assert set(steps.tolist()) == {0, 1}
    assert np.abs(np.diff(np.flatnonzero(steps == 0))).min() >= 3  # the formula rises by 0.7 of a code at every sample


@pytest.mark.parametrize("frames", kinds(), ids=lambda frames: frames.dtype.name)
def test_a_mask_is_a_strength_of_each_sample(frames):
    mask = np.zeros(frames.shape[1:], np.float32)
    mask[:, 20:], mask[:, 40:] = 0.5, 1
    mixed = blend(*frames, mask)
    assert np.array_equal(mixed[:, :20], frames[0][:, :20])
    assert np.array_equal(mixed[:, 20:40], blend(*frames, 0.5)[:, 20:40])
    assert np.array_equal(mixed[:, 40:], frames[1][:, 40:])


@pytest.mark.parametrize(
    "strength",
    [1.5, -0.1, float("nan"), True, "0.5", None, np.full((40, 50), 2.0), np.full((4, 5), 0.5), np.ones((40, 50), np.uint8)],
)
def test_other_strengths_are_refused(strength):
    with pytest.raises(InputError, match="expected"):
        blend(*BOTH, strength)


def test_frames_of_two_kinds_are_refused():
    with pytest.raises(InputError, match="one shape and dtype"):
        blend(BOTH[0], BOTH[1].astype(np.float32), 0.5)


@pytest.mark.parametrize("stride", [5, 2])
@pytest.mark.parametrize("ahead", [0, 1])
def test_streams_blend_each_frame_with_its_own(stride, ahead):
    frames = [np.full((2, 3), 10 * number, np.uint8) for number in range(13)]

    def streamed(strength):
        stream = StreamDeblurrer(Recorder(offset=4), stride, ahead=ahead, strength=strength)
        return [sharp for frame in frames for sharp in stream.push(frame)] + stream.flush()

    whole = streamed(1)
    assert same(streamed(0), frames)
    assert not same(whole, frames)
    assert same(streamed(0.5), [blend(*pair, 0.5) for pair in zip(frames, whole)])
    with pytest.raises(InputError, match="mask of the frames' size"):
        streamed(np.ones((3, 3), np.float32))
    with pytest.raises(InputError, match="strength is"):
        streamed(1.5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Clip("ffv1", "yuv420p10le", times=[number * 1001 for number in range(7)]).write(
        tmp_path_factory.mktemp("clip") / "in.mkv"
    )


@pytest.fixture
def run(clip, tiny_model, tmp_path, capsys):
    def call(*arguments):
        line = [clip, tmp_path / "out.mkv", "-y", "-c", "ffv1", "--model", tiny_model, *LOSSLESS[4:], *arguments]
        status = main([*map(str, line)])
        return (read(tmp_path / "out.mkv").luma if status == 0 else None), capsys.readouterr().err

    return call


def test_runs_at_five_strengths(clip, run):
    before, whole = read(clip).luma, run()[0]
    assert not same(whole, before)
    assert same(run("--strength", 0)[0], before)
    assert same(run("--strength", 1)[0], whole)
    for strength in (0.25, 0.5, 0.75):
        assert same(run("--strength", strength)[0], [blend(*pair, strength) for pair in zip(before, whole)])


@pytest.mark.parametrize("strength", ["1.5", "nan", "-0.25", "inf"])
def test_a_run_refuses_other_strengths(strength, run):
    assert "expected 0 (the input as it is) to 1" in run(f"--strength={strength}")[1]


def test_a_mask_protects_what_is_black(clip, run, tmp_path):
    mask = np.zeros((48, 64), np.float32)
    mask[:, 32:] = 1
    write_gray(tmp_path / "mask.png", mask)
    before, whole, masked = read(clip).luma, run()[0], run("--mask", tmp_path / "mask.png")[0]
    assert same([luma[:, :32] for luma in masked], [luma[:, :32] for luma in before])
    assert same([luma[:, 32:] for luma in masked], [luma[:, 32:] for luma in whole])
    half = run("--mask", tmp_path / "mask.png", "--strength", 0.5)[0]
    assert same([luma[:, 32:] for luma in half], [blend(a, b, 0.5)[:, 32:] for a, b in zip(before, whole)])


def test_a_mask_of_another_size_is_refused(run, tmp_path):
    write_gray(tmp_path / "mask.png", np.ones((50, 64), np.float32))
    assert "is 64x50 pixels, the video 64x48: expected a mask of that size" in run("--mask", tmp_path / "mask.png")[1]
    assert "not a picture" in run("--mask", tmp_path / "none.png")[1]


def test_a_video_is_no_mask(run, clip):
    assert "has more than one picture, expected a single one" in run("--mask", clip)[1]


def test_a_server_blends_each_request_for_itself(tiny_model):
    class Host:
        def __init__(self, engine):
            self.run = engine.run

    window = np.random.default_rng(0).integers(0, 256, (1, 5, 24, 32)).astype(np.uint8)
    with Engine(tiny_model, precision="fp32", threads=1) as engine:
        asked = [read_parameters(json.dumps({"color_range": "full", "strength": part})) for part in (0, 0.5, 1)]
        answers = answer(Host(engine), [WindowRequest(window, each) for each in asked])
    assert np.array_equal(answers[0], window)
    assert np.array_equal(answers[1], blend(window, answers[2], 0.5))
    with pytest.raises(InputError, match="expected 0"):
        read_parameters('{"strength": 1.5}')


def test_a_library_of_full_strength_is_what_it_was_before_there_was_one():
    told = {"model_sha256": "x", "arithmetic": "a", "backend": "b", "precision": "p", "stride": None, "tile": None}
    told |= {"scene_threshold": 0.3, "segment": 250, "codec": "c", "crf": None, "encoder": {}, "leave_out": []}
    settings = read_record(Settings, {**told, "drop_unsupported": False})
    assert settings.fingerprint == "b0b91668cb11c4fda71d976bff70cb1feaa6ff61b75adafaaacc865f752fd32d"
    assert settings.fingerprint != read_record(Settings, {**told, "drop_unsupported": False, "strength": 0.5}).fingerprint


def test_the_study_judges_strengths_limits_and_places():
    truth = [np.random.default_rng(number).integers(16, 236, (40, 50)).astype(np.uint8) for number in range(2)]
    blurry = [(luma // 2 + 60).astype(np.uint8) for luma in truth]
    found = study.judge("made", blurry, truth, truth)
    assert found.strengths[-1] == study.EQUAL
    assert list(found.strengths) == sorted(found.strengths)
    assert max(found.limits) < study.EQUAL
    assert (found.worse, found.frames) == (0, 2)
    assert min(*found.fine_detail, *found.sharpness) > 0
    worse = study.judge("made", truth, blurry, truth)
    assert worse.worse == 2
    assert max(*worse.fine_detail, *worse.sharpness) < 0
    assert np.allclose(study._box(np.full((9, 11), 3.0), 5), 3)
    assert "made, 2 frames; 2 are worse than before" in study.table([worse])
