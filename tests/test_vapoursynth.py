"""The filter for VapourSynth on its own wheels, in an environment of their Python: `make test-vapoursynth`."""

import os
import random
import subprocess
import sys
from concurrent.futures import wait
from pathlib import Path

import numpy as np
import pytest
from test_scene_cuts import LOSSLESS, film
from video_clips import read, same

from runtime import Engine, InputError, StreamDeblurrer
from runtime.deblur_video import deblur_video
from runtime.run.options import DeblurOptions

vs = pytest.importorskip("vapoursynth", reason="needs VapourSynth: make test-vapoursynth")
deblur = pytest.importorskip("videodeblur.vapoursynth").deblur

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SCENES = [33, 27]
EXACT = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}
FORMATS = {"yuv420p": vs.YUV420P8, "yuv422p10le": vs.YUV422P10, "yuv444p16le": vs.YUV444P16}
SCRIPT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
import vapoursynth as vs
from test_vapoursynth import EXACT, clip_of
from videodeblur.vapoursynth import deblur
deblur(clip_of({path!r}), model={model!r}, **EXACT).set_output()
"""


def clip_of(path):
    """A file's frames as a clip, by PyAV."""
    found = read(Path(path))
    return clip_from(found.pictures, FORMATS[found.pixel_format])


def clip_from(pictures, kind, **properties):
    height, width = pictures[0][0].shape
    blank = vs.core.std.BlankClip(format=kind, width=width, height=height, length=len(pictures))

    def fill(n, f):
        frame = f.copy()
        for plane, samples in enumerate(pictures[n]):
            np.copyto(np.asarray(frame[plane]), samples)
        frame.props["number"] = n
        for name, value in properties.items():
            frame.props[name] = value[n] if isinstance(value, list) else value
        return frame

    return blank.std.ModifyFrame(clips=blank, selector=fill)


def planes_of(frame):
    return [np.asarray(frame[plane]).copy() for plane in range(frame.format.num_planes)]


def run(source, output, model, **options):
    deblur_video(DeblurOptions(source, output, model=model, encoder=LOSSLESS, **EXACT, **options))
    return read(output).pictures


@pytest.fixture(scope="module")
def engine(tiny_model):
    with Engine(tiny_model, **EXACT) as opened:
        yield opened


@pytest.fixture(scope="module")
def noise():
    """Luma of 10 bits, (12, 40, 56), too faint for cuts."""
    return np.random.default_rng(0).integers(400, 500, (12, 40, 56)).astype(np.uint16)


def of_stream(engine, lumas, bits=10, color_range="limited"):
    """Windows one after the other: a whole number of them."""
    windows = lumas.reshape(-1, 1, 5, *lumas.shape[1:])
    return np.concatenate([engine.run(window, bits, color_range)[0] for window in windows])


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_a_script_in_vspipe_is_the_run(pixel_format, tiny_model, tmp_path):
    path = film(tmp_path / "in.mkv", SCENES, pixel_format)
    (tmp_path / "s.vpy").write_text(SCRIPT.format(root=str(ROOT), tests=str(ROOT / "tests"), path=str(path), model=str(tiny_model)))
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(
        [BIN / "vspipe", "--requests", "4", tmp_path / "s.vpy", tmp_path / "out.raw"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "still" not in done.stderr  # nothing holds frames or filters when the core ends
    expected = run(path, tmp_path / "out.mkv", tiny_model)
    assert (tmp_path / "out.raw").read_bytes() == b"".join(plane.tobytes() for planes in expected for plane in planes)


def test_seeking_back_and_forth_is_the_run(tiny_model, engine, tmp_path):
    path, order = film(tmp_path / "in.mkv", SCENES, size=(66, 50)), [*range(60), *range(60)]
    random.Random(0).shuffle(order)
    sharp = deblur(clip_of(path), engine, stride=2, tile=8)
    expected = run(path, tmp_path / "out.mkv", tiny_model, stride=2, tile=8)
    for number in order:
        frame = sharp.get_frame(number)
        assert same(planes_of(frame), expected[number])
        assert frame.props["number"] == number
    futures = [sharp.get_frame_async(number) for number in order]
    wait(futures)
    assert all(same(planes_of(future.result()), expected[number]) for number, future in zip(order, futures))


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_short_clips_and_tails_are_those_of_a_stream(count, engine, noise):
    stream, expected = StreamDeblurrer(engine, None, 10, "limited"), []
    for luma in noise[:count]:
        expected += stream.push(luma)
    expected += stream.flush()
    sharp = deblur(clip_from([[luma] for luma in noise[:count]], vs.GRAY10), engine)
    assert same([planes_of(frame)[0] for frame in sharp.frames()], expected)


@pytest.mark.parametrize(
    ("properties", "color_range"),
    [({}, "limited"), ({"_Range": 1}, "full"), ({"_Range": 0}, "limited"), ({"_Range": 1, "_Matrix": 1}, "full")],
)
def test_the_range_is_that_of_the_frames(properties, color_range, engine, noise):
    sharp = deblur(clip_from([[luma] for luma in noise[:5]], vs.GRAY10, **properties), engine).get_frame(2)
    assert same(planes_of(sharp)[0], of_stream(engine, noise[:5], color_range=color_range)[2])
    assert {name: int(sharp.props[name]) for name in properties} == properties


def test_the_older_range_property_is_read_too(engine, noise):
    clip = clip_from([[luma] for luma in noise[:5]], vs.GRAY10)
    with pytest.warns(DeprecationWarning, match="_ColorRange"):
        full = clip.std.SetFrameProps(_ColorRange=0)
    assert same(planes_of(deblur(full, engine).get_frame(2))[0], of_stream(engine, noise[:5], color_range="full")[2])


def test_scenes_are_those_of_the_frames_unless_a_threshold_is_given(engine, noise):
    marked = clip_from([[luma] for luma in noise[:10]], vs.GRAY10, _SceneChangePrev=[int(number == 7) for number in range(10)])
    assert same(planes_of(deblur(marked, engine).get_frame(7))[0], of_stream(engine, noise[[7, 8, 9, 8, 7]])[0])
    assert same(planes_of(deblur(marked, engine, scene_change=0).get_frame(7))[0], of_stream(engine, noise[:10])[7])
    assert same(planes_of(deblur(marked, engine, scene_change=0.9).get_frame(7))[0], of_stream(engine, noise[:10])[7])


def test_floats_are_unit_luma_and_colour_is_not_touched(engine, noise):
    lumas = (noise[:5] / 1023).astype(np.float32)
    pictures = [[luma, luma - 0.5, 0.5 - luma] for luma in lumas]
    sharp = deblur(clip_from(pictures, vs.YUV444PS), engine, strength=0.5).get_frame(2)
    expected = engine.run(lumas[None])[0, 2]
    assert np.allclose(planes_of(sharp)[0], (expected + lumas[2]) / 2, atol=1e-6)
    assert same(planes_of(sharp)[1:], pictures[2][1:])


def test_no_frame_is_asked_for_before_the_first_is_due(engine):
    """A player that feeds frames as it goes would wait for itself."""
    clip = vs.core.std.BlankClip(format=vs.GRAY8, width=16, height=16, length=10)
    deblur(clip.std.FrameEval(lambda n: 1 / 0), engine)


def test_a_player_is_asked_for_frames_that_it_still_has(engine, noise):
    """mpv's clip has no end, keeps few frames, and fails beyond the last: what whole windows hold is there before."""
    asked = []

    def feed(n, f):
        asked.append(n)
        if n >= len(noise):
            raise EOFError
        frame = f.copy()
        np.copyto(np.asarray(frame[0]), noise[n])
        return frame

    blank = vs.core.std.BlankClip(format=vs.GRAY10, width=56, height=40, length=(2**31 - 1) // 16)
    sharp = deblur(blank.std.ModifyFrame(clips=blank, selector=feed), engine)
    found = [planes_of(sharp.get_frame(number))[0] for number in range(10)]
    assert same(np.stack(found), of_stream(engine, noise[:10]))
    assert max(asked) == 9
    assert all(number > max(asked[: place + 1]) - 5 for place, number in enumerate(asked))
    with pytest.raises(vs.Error, match="EOFError"):
        sharp.get_frame(10)


@pytest.mark.parametrize(
    ("make", "options", "told"),
    [
        (lambda: vs.core.std.BlankClip(format=vs.RGB24), {}, r"got RGB24, expected YUV or GRAY: clip = core.resize"),
        (lambda: vs.core.std.BlankClip(format=vs.GRAYH), {}, "got GrayH, expected 8 to 16 bits or 32-bit float"),
        (lambda: vs.core.std.BlankClip(format=vs.GRAY32), {}, "got Gray32, expected 8 to 16"),
        (lambda: varying(width=32), {}, "format or size varies"),
        (lambda: varying(format=vs.GRAY16), {}, "format or size varies"),
        (lambda: 5, {}, "got int, expected a clip"),
        (lambda: vs.core.std.BlankClip(format=vs.GRAY8), {"scene_change": 2}, "scene_change is 2, expected 0"),
        (lambda: vs.core.std.BlankClip(format=vs.GRAY8), {"strength": 1.5}, "strength is 1.5"),
        (lambda: vs.core.std.BlankClip(format=vs.GRAY8), {"stride": 7}, "stride is 7"),
        (lambda: vs.core.std.BlankClip(format=vs.GRAY8), {"tile": 3}, "the tile is 3 pixels"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(make, options, told, engine):
    with pytest.raises(InputError, match=told):
        deblur(make(), engine, **options)


def varying(**changed):
    base = {"format": vs.GRAY8, "width": 64, "height": 48, "length": 2}
    return vs.core.std.Splice([vs.core.std.BlankClip(**base), vs.core.std.BlankClip(**{**base, **changed})], mismatch=True)


@pytest.mark.parametrize(
    ("properties", "told"),
    [
        ({"_FieldBased": 2}, "frame 0 is interlaced, expected progressive"),
        ({"_Range": [0] * 8 + [1] * 4}, "frame 8 is in full range, the first was in limited"),
    ],
)
def test_frames_that_do_not_fit_fail_when_they_are_due(properties, told, engine, noise):
    with pytest.raises(vs.Error, match=told):
        list(deblur(clip_from([[luma] for luma in noise], vs.GRAY10, **properties), engine).frames())


def test_floats_out_of_range_are_refused(engine, noise):
    clip = clip_from([[luma.astype(np.float32)] for luma in noise], vs.GRAYS)
    with pytest.raises(vs.Error, match=r"got float samples from 400 to 499, expected luma in \[0, 1\]"):
        deblur(clip, engine).get_frame(3)


@pytest.mark.skipif(not hasattr(vs.core, "ort"), reason="needs pip install vapoursynth-mlrt-ort")
def test_the_bare_plugin_gives_the_same_without_tails_and_scenes(tiny_model, engine, noise):
    """The lines of docs/vapoursynth.md."""
    clip = clip_from([[luma] for luma in noise[:10]], vs.GRAY10)
    luma = clip.std.ShufflePlanes(0, vs.GRAY).resize.Point(format=vs.GRAYS)
    made = vs.core.ort.Model([luma[k::5] for k in range(5)], network_path=str(tiny_model), flexible_output_prop="sharp")
    sharp = vs.core.std.Interleave([made["clip"].std.PropToClip(prop=f"sharp{k}") for k in range(5)])
    found = [planes_of(frame)[0] for frame in sharp.resize.Point(format=vs.GRAY10).frames()]
    assert np.abs(np.subtract(found, of_stream(engine, noise[:10]), dtype=np.int64)).max() <= 1
