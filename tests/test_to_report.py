"""The report: what is in it, that strangers' text stays text, and that it works in a real browser without any request."""

import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from time import sleep

import av
import numpy as np
import pytest
from chromium import BROWSER, chromium, decode_png

from export.report.chart import bar_chart, line_chart
from export.report.clip_scores import Clips, FrameScore, frame_scores, most_changed, show, typical_frame
from export.report.page import page
from export.report.records import read_gates, read_searches
from export.to_bundle import BundleRequest, write_bundle
from export.to_report import ReportOptions, default_output, main, write_report
from runtime import InputError, ModelError, VideoError
from runtime.files.manifest import MANIFEST, load_manifest, manifest_text
from runtime.files.on_disk import file_sha256

FRAMES = 7
SCRIPT = "<script>alert(1)</script>"
SEARCH = {
    "kind": "videodeblur.precision",
    "asked": {"budget": 0.05, "min_psnr": 50.0, "precision": "int8", "rest": "fp16"},
    "sensitivities": [
        {"layer": f"conv{SCRIPT}", "parity": 61.5, "excluded": "", "chosen": True},
        {"layer": "equal", "parity": None, "excluded": "saves no time", "chosen": False},
    ],
}
GATES = [{"model": f"{SCRIPT}.onnx", "precision": "fp16", "parity": None, "least": 65.0, "passed": True}]


def write_clip(path, frames):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25, options={"level": "3"})
        stream.height, stream.width, stream.pix_fmt = (*frames[0].shape, "yuv444p")
        for luma in frames:
            frame = av.VideoFrame.from_ndarray(np.stack([luma, np.full_like(luma, 96), np.full_like(luma, 160)]), "yuv444p")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A clip of moving bars and noise, and what it looks like blurred; its name is a trap."""
    folder = tmp_path_factory.mktemp("clips")
    random = np.random.default_rng(0)
    texture = random.integers(40, 200, (144, 400), np.uint8)
    texture[:, ::16] = 220
    sharp = [np.ascontiguousarray(texture[:, 4 * number : 4 * number + 336]) for number in range(FRAMES)]
    wide = [np.pad(frame, ((0, 0), (2, 2)), mode="edge").astype(np.float32) for frame in sharp]
    blurry = [np.mean([frame[:, shift : shift + 336] for shift in range(5)], axis=0).astype(np.uint8) for frame in wide]
    return write_clip(folder / "<b>blurry.mkv", blurry), write_clip(folder / "sharp.mkv", sharp)


@pytest.fixture(scope="module")
def bundle(tiny_model, tiny_engine, tmp_path_factory):
    """An engine that does not run here, and a model, with attachments."""
    folder = tmp_path_factory.mktemp("report")
    attached = {"ship.json": GATES, "precision-int8.json": SEARCH, "notes.json": ["of somebody else"]}
    for name, content in attached.items():
        (folder / name).write_text(json.dumps(content))
    attachments = tuple(folder / name for name in attached)
    write_bundle(BundleRequest(tiny_model, (tiny_engine,), folder / "x & y.bundle", attachments))
    return folder / "x & y.bundle"


@pytest.fixture(scope="module")
def made(bundle, pair, tmp_path_factory):
    """The facts, and the page."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    return write_report(ReportOptions(bundle, path, *pair), lambda text: None), path


class Reader(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.images, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "action")]
        if tag == "img":
            self.images.append(dict(attributes))

    def handle_data(self, data):
        self.text += data


def test_page_tells_what_was_measured(made):
    facts, path = made
    text = Reader(path.read_text()).text
    engine, model = facts.members
    assert engine.trial is None
    assert "not here: no NVIDIA driver" in text
    assert (facts.used, model.trial.frames) == ("tiny.onnx", FRAMES)
    assert f"{model.trial.fps:.1f} fps" in text
    assert f"{model.trial.peak_memory / 1e9:.2f} GB" in text
    assert 5e7 < model.trial.peak_memory < 5e9
    assert len(facts.scores) == FRAMES
    assert f"{np.mean([score.psnr_before for score in facts.scores]):.2f} to" in text
    assert f"{model.psnr:.2f} dB" in text
    assert facts.environment["CPU"] in text
    assert facts.manifest.checkpoint_sha256 in text
    assert "61.50 dB" in text
    assert "saves no time" in text


def test_page_holds_everything_and_no_strange_tags(made):
    _, path = made
    read = Reader(path.read_text())
    assert all(link.startswith("data:") for link in read.links)
    assert read.tags.count("script") == 1
    assert "b" not in read.tags
    assert f"conv{SCRIPT}" in read.text
    assert all("<b>blurry.mkv, " in image["alt"] for image in read.images)
    assert {image["alt"].split(", ")[1] for image in read.images} == {"blurry", "deblurred", "truth"}
    assert not re.search(r"https?://", path.read_text())
    assert path.stat().st_size < 3e6


def test_scores_are_those_of_the_metrics(pair, made):
    from skimage.metrics import peak_signal_noise_ratio

    before, truth = (frame_lumas(path) for path in pair)
    scores = frame_scores(Clips(pair[0], pair[0], pair[1], FRAMES))
    span = 219  # codes of a limited-range luma
    assert [score.psnr_before for score in scores] == [score.psnr_after for score in scores]
    expected = [peak_signal_noise_ratio(b, a, data_range=span) for a, b in zip(before, truth)]
    assert np.allclose([score.psnr_before for score in scores], expected, atol=1e-3)
    assert np.allclose([s.psnr_before for s in made[0].scores], expected, atol=1e-3)


def frame_lumas(path):
    with av.open(str(path)) as container:
        return [frame.to_ndarray()[0] for frame in container.decode(video=0)]


def test_shown_cuts_are_the_pixels_of_the_frame(pair):
    shown = show(Clips(pair[0], pair[0], pair[1], FRAMES), 3)
    with av.open(str(pair[0])) as container:
        frame = list(container.decode(video=0))[3].to_ndarray(format="rgb24")
    assert np.array_equal(decode_png(shown.slider.pictures[0]), frame)
    for crop in shown.crops:
        rows, columns = slice(crop.top, crop.top + crop.height), slice(crop.left, crop.left + crop.width)
        assert np.array_equal(decode_png(crop.pictures[0]), frame[rows, columns])


def test_places_that_were_changed_most():
    change = np.zeros((20, 30), np.float32)
    change[2:6, 3:7], change[14:18, 22:26] = 1, 2
    assert most_changed(change, (4, 4), 2) == [(14, 22), (2, 3)]
    assert len(most_changed(change, (20, 30), 3)) == 1


def test_frame_that_is_typical():
    scores = [
        FrameScore(n, before, before + gain, 0, 0)
        for n, before, gain in ((0, 40, 9), (1, 20, 1), (2, 21, 3), (3, 22, 2), (4, 50, 0))
    ]
    assert typical_frame(scores, 5) == 3
    assert typical_frame([], 5) == 2


def test_charts_of_equal_frames():
    assert "nan" not in line_chart("PSNR", " dB", [30.0, 31.0], [float("inf"), 32.0])
    assert "equal to the truth" in line_chart("PSNR", " dB", [float("inf")], [float("inf")])
    assert "nothing to compare" in bar_chart("Gain", " dB", [float("nan")])
    assert bar_chart("Gain", "", [0.0]).count("<rect") == 1


def test_frame_equal_to_the_truth_is_left_out_of_the_mean(made):
    facts, equal = made[0], FrameScore(0, math.inf, 30.0, 1.0, 0.9)
    others = [FrameScore(number, 20.0, 22.0, 0.8, 0.9) for number in (1, 2)]
    text = Reader(page(replace(facts, scores=(equal, *others)))).text
    assert "20.00 to 22.00 dB, luma, without 1 frame equal to the truth" in text
    assert not re.search(r"(nan|inf) dB", page(replace(facts, scores=(equal,))))


def test_clip_without_truth(bundle, pair, tmp_path):
    facts = write_report(ReportOptions(bundle, tmp_path / "r.html", pair[0], None, 5), lambda text: None)
    assert (facts.scores, facts.shown.number) == ((), 2)
    assert "is not known" in (tmp_path / "r.html").read_text()


def test_bundle_of_which_nothing_runs(made, bundle):
    facts = made[0]
    silent = replace(facts, members=facts.members[:1], used=None, scores=(), shown=None)
    assert "No member runs here" in page(silent)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere.bundle"], r"nowhere\.bundle/manifest\.json: No such file"),
        (["{bundle}", "--sharp", "x.mp4"], "--sharp is the truth of a clip, which was not named"),
        (["{bundle}", "--clip", "x.mp4"], r"x\.mp4"),
        (["{bundle}", "--clip", "{clip}", "--output", "{clip}"], "is an input too"),
        (["{bundle}", "--clip", "-"], "standard input cannot be read for every member"),
        (["{bundle}", "--frames", "0"], "0 frames, expected 1 or more"),
        (["{bundle}", "--output", "."], "is a folder, expected a file"),
        (["{bundle}", "--clip", "{clip}", "--sharp", "{short}"], "has 2 frames, expected 7"),
        (["{bundle}", "--clip", "{clip}", "--sharp", "{small}"], "is 64x48"),
    ],
)
def test_wrong_input_is_one_line(bundle, pair, tmp_path, arguments, message, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    short = write_clip(tmp_path / "short.mkv", frame_lumas(pair[1])[:2])
    small = write_clip(tmp_path / "small.mkv", [np.zeros((48, 64), np.uint8)] * FRAMES)
    given = [word.format(bundle=bundle, clip=pair[0], short=short, small=small) for word in arguments]
    assert main(given) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(rf"error: .*{message}", last), last
    assert not list(tmp_path.glob("*.html"))


def test_empty_name_of_a_bundle(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main([""])
    assert "got an empty name, expected a bundle's" in capsys.readouterr().err
    assert default_output(Path()) == tmp_path.with_name(f"{tmp_path.name}.html")
    assert default_output(Path("x.bundle")) == Path("x.bundle.html")


def test_damaged_attachments(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "copy.bundle")
    (copy / "ship.json").write_text('[{"model": 1}]')
    (copy / "precision-int8.json").write_text(json.dumps({**SEARCH, "sensitivities": "all"}))
    changed = {name: file_sha256(copy / name) for name in ("ship.json", "precision-int8.json")}
    values = json.loads((copy / MANIFEST).read_text())
    (copy / MANIFEST).write_text(manifest_text({**values, "files": {**values["files"], **changed}}))
    manifest = load_manifest(copy)
    with pytest.raises(ModelError, match=r"ship\.json is not readable \(model: got 1, expected str\)"):
        read_gates(copy, manifest)
    with pytest.raises(ModelError, match=r"precision-int8\.json is not a readable search"):
        read_searches(copy, manifest)


def test_options_name_what_is_wrong(tmp_path):
    with pytest.raises(InputError, match="expected 1 or more"):
        ReportOptions(tmp_path, tmp_path / "r.html", frames=0)
    with pytest.raises(VideoError):
        frame_scores(Clips(tmp_path / "none.mkv", tmp_path / "none.mkv", None, 1))


@pytest.mark.skipif(BROWSER is None, reason="there is no Chromium on this machine")
def test_in_a_browser(made):
    url = made[1].as_uri()
    value = "Number(document.querySelector('.compare input').value)"
    with chromium() as tab:
        for width, scheme in ((1280, "light"), (400, "dark")):
            tab.open(url, width=width, scheme=scheme)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            images = "[...document.images].every(image => image.complete && image.naturalWidth)"
            assert tab.evaluate(images)
        tab.open(url)
        x, y, width, height = tab.box(".compare")
        middle = y + height / 2
        blurry, after = (decode_png(cut) for cut in made[0].shown.slider.pictures)
        assert not np.array_equal(blurry, after)
        assert (width, height) == (blurry.shape[1], blurry.shape[0])  # 1:1

        tab.press("Tab")  # the first thing that takes the focus
        assert tab.evaluate("document.activeElement.ariaLabel").startswith("Divider")
        for _ in range(3):
            tab.press("ArrowRight")
        assert tab.evaluate("document.activeElement.ariaValueText") == "53 % blurry, 47 % deblurred"

        tab.drag((x + width / 2, middle), (x + 0.9 * width, middle))
        assert tab.evaluate(value) == pytest.approx(90, abs=1)
        assert column(tab, x, y, height, 0.7 * width) == same(blurry, 0.7)
        tab.drag((x + 0.9 * width, middle), (x + 0.1 * width, middle))
        assert tab.evaluate(value) == pytest.approx(10, abs=1)
        assert column(tab, x, y, height, 0.7 * width) == same(after, 0.7)

        sleep(0.2)  # for what it might still ask for
        asked = [event["request"]["url"] for event in tab.told("Network.requestWillBeSent")]
        assert [address for address in asked if not address.startswith("data:")] == [url] * 3
        assert tab.told("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled") == []


def column(tab, x, y, height, at):
    """The lower quarter of a column of the slider, which no label covers."""
    return tab.picture((x, y, round(at) + 1, height))[int(0.75 * height) :, round(at)].tolist()


def same(picture, share):
    return picture[int(0.75 * picture.shape[0]) :, round(share * picture.shape[1])].tolist()
