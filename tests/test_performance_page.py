"""The command that writes docs/performance.md."""

import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import performance
from benchmarks.roofline import ALL, GroupRow, Roofline
from benchmarks.shared import cpu_class
from benchmarks.shared.marked_text import fill
from benchmarks.shared.other_work import STAT, OtherWork
from benchmarks.shared.windows import BLURRY, SHARP
from benchmarks.table import first_window, goals
from benchmarks.table.report import BenchReport, Ratio, Row, Spread
from export import export_options
from runtime.errors import BackendError, InputError
from runtime.machine.hardware import EXTENSIONS

LOAD = (0.1, 2.0)


def row(name, kind, rounds, parity, end_to_end=None):
    spread = Spread.of(rounds)
    return Row(
        name, kind, "", "", "", 1, 720, 1280, spread, rounds_ms=rounds, times_as_fast_end_to_end=end_to_end, parity_db=parity
    )


REPORT = BenchReport(
    cpu="a CPU",
    gpu=None,
    libraries={},
    load=LOAD,
    threads=None,
    clip="",
    reference="",
    baseline="onnxruntime",
    rows=(
        row("m@openvino:bf16", "engine", (100.0, 101.0, 102.0), 75.0, Ratio(6.0, 5.8, 6.2, 3)),
        row("q@openvino:bf16", "engine", (50.0, 49.0, 51.0), 55.0, Ratio(6.0, 5.8, 6.2, 3)),
        row("onnxruntime", "peer", (90.0, 91.0, 92.0), 150.0),
    ),
    skipped=(),
)
WHOLE = GroupRow("m@openvino:bf16", ALL, 100.0, 2447.0, 1.0, 0.8, 0.9, "arithmetic", 0.1)
ROOFLINE = Roofline("a CPU", 2.0, 720, 1280, {"f32": 0.5, "bf16": 0.7}, 10.0, (WHOLE,), ())


def test_goals_are_judged_by_the_figures():
    found = {goal.text.partition(":")[0].partition(" at ")[0]: goal.met for goal in goals.goals(REPORT, ROOFLINE, "m", "q")}
    assert found == {
        "bf16, a video of 1280x720 end to end": True,  # 6.0, at least 5.5
        "bf16": True,
        "int8, a video of 1280x720 end to end": False,  # 6.0, at least 7
        "int8": True,
        "no peer ahead beyond the rounds' spread": True,  # the last of three
        "INT8": True,
        "the whole network in bf16": True,
    }
    ahead = [goal for goal in goals.goals(REPORT, ROOFLINE, "m", "q") if goal.text.startswith("no peer")]
    assert [goal.met for goal in ahead] == [False, True]  # a peer is faster than bf16, and none than INT8


def test_a_tie_is_one_within_the_rounds():
    """A peer that is ahead in every round stays ahead, however much its calls differ from round to round."""
    ours, _, peer = REPORT.rows

    def ahead(*rounds):
        report = replace(REPORT, rows=(ours, replace(peer, rounds_ms=rounds)))
        return next(goal for goal in goals.goals(report, ROOFLINE, "m", "q") if goal.text.startswith("no peer"))

    assert not ahead(90.0, 40.0, 99.0).met
    assert ahead(90.0, 110.0, 99.0).met
    assert ahead(90.0, 110.0, 99.0).found == "m@openvino:bf16 0.97 (0.91 to 1.07) times as fast as onnxruntime"


def test_goals_without_rows_are_left_out():
    assert goals.goals(replace(REPORT, rows=()), replace(ROOFLINE, rows=()), "m", "q") == []


def test_the_block_of_a_class_is_added_and_replaced_and_no_other_is_touched(tmp_path):
    page = tmp_path / "page.md"
    first, after = "before\n<!-- a avx512 -->\nold\n<!-- /a avx512 -->\n", "\nafter\n<!-- b avx2 -->\nof b\n<!-- /b avx2 -->"
    page.write_text(first + after)
    for words in ("new \\1", "newer"):
        fill(page, "a", "avx2", f"{words}\n")
        assert page.read_text() == f"{first}\n<!-- a avx2 -->\n{words}\n<!-- /a avx2 -->\n{after}"
    fill(page, "a", "amx", "a third")
    assert page.read_text().endswith(f"newer\n<!-- /a avx2 -->\n\n<!-- a amx -->\na third\n<!-- /a amx -->\n{after}")
    fill(page, "a", "avx512", "again")
    assert page.read_text().startswith("before\n<!-- a avx512 -->\nagain\n<!-- /a avx512 -->\n\n<!-- a avx2 -->\nnewer\n")
    with pytest.raises(InputError, match="has no <!-- c CLASS -->"):
        fill(page, "c", "amx", "text")


@pytest.mark.parametrize(
    ("extensions", "name"),
    [
        ("AVX2 AVX512 VNNI BF16 AMX", "amx"),
        ("AVX2 AVX512 VNNI BF16", "avx512"),
        ("AVX2 AVX512 VNNI", "avx2"),
        ("AVX2 VNNI", "avx2"),
        ("", "other"),
    ],
)
def test_a_class_is_what_the_cpu_has(extensions, name, monkeypatch):
    here = {each: each in extensions.split() for each in EXTENSIONS}
    monkeypatch.setattr(cpu_class, "cpu_extensions", lambda: here if extensions else None)
    assert cpu_class.cpu_class() == name


def test_the_page_has_a_place_for_every_part():
    text = performance.PAGE.read_text()
    for part in (*performance.PARTS, "goals", "up_and_convolve"):
        assert re.search(rf"(?s)<!-- {part} (\w+) -->\n#### .*?<!-- /{part} \1 -->", text)


@pytest.mark.parametrize("content", [None, "<!-- default amx -->\n<!-- /default amx -->\n", b"\xff"])
def test_a_page_without_a_place_is_told_before_anything_is_measured(content, tmp_path, monkeypatch, capsys):
    if content is not None:
        (tmp_path / "page.md").write_bytes(content if isinstance(content, bytes) else content.encode())
    for name in ("make_models", "make_paper", "write_default"):
        monkeypatch.setattr(performance, name, lambda *_: pytest.fail("begun"))
    assert performance.main(["--only", "default", "bench", "--page", str(tmp_path / "page.md"), "--work", str(tmp_path)]) == 1
    assert "page.md" in capsys.readouterr().err


def test_goals_are_of_one_run_or_not_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(performance, "cpu_class", lambda: "amx")
    page = tmp_path / "page.md"
    page.write_text("<!-- goals amx -->\nof an earlier run\n<!-- /goals amx -->\n")
    for report, roofline in ((REPORT, None), (None, ROOFLINE)):
        performance.write_goals(page, report, roofline)
        heading, words, _ = page.read_text().removeprefix("<!-- goals amx -->\n").split("\n", 2)
        assert heading.startswith("#### A CPU with AMX: `videodeblur_light`, sha256 ")
        assert words == performance.NOT_JUDGED
    performance.write_goals(page, REPORT, ROOFLINE)
    assert "| goal | measured |" in page.read_text()


def test_a_chart_has_the_class_in_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(performance, "cpu_class", lambda: "avx2")
    page = tmp_path / "page.md"
    page.write_text("<!-- a avx2 --><!-- /a avx2 -->".replace("><", ">\n<"))
    performance._fill(page, "a", "words", "what it shows")
    assert "\nwords\n\n![what it shows](performance_a_avx2.svg)\n" in page.read_text()


@pytest.mark.slow
def test_the_default_is_held_against_the_script(tiny_model, tmp_path, monkeypatch):
    tiny = replace(performance.QUICK, small=(48, 64))
    monkeypatch.setattr(performance, "QUICK", tiny)
    monkeypatch.setattr(performance, "make_models", lambda *_: pytest.fail("no other part asked for models"))
    monkeypatch.setattr(performance, "make_paper", lambda *_: tiny_model)
    monkeypatch.setattr(performance, "cpu_class", lambda: "avx2")
    page = tmp_path / "page.md"
    page.write_text("<!-- default avx512 -->\nof another\n<!-- /default avx512 -->\n")
    flags = ["--quick", "--only", "default", "--work", tmp_path, "--page", page]
    assert performance.main([str(flag) for flag in flags]) == 0
    before, _, written = page.read_text().partition("\n\n<!-- default avx2 -->\n")
    assert before == "<!-- default avx512 -->\nof another\n<!-- /default avx512 -->"
    assert "10 frames of 64x48, file to file, 3 rounds" in written
    assert re.search(r"\| `videodeblur run` \| videodeblur_light\S*\.onnx on \w+ in \w+ \| [\d.]+ \| .* \| [\d.]+ \|", written)
    assert re.search(r"\| naive script \| the paper's size, sha256 \w{8}\.\.\. \| [\d.]+ \| 1 \| [\d.]+ \|", written)
    assert re.search(r"\| 64x48 \| [\d.]+ \| [\d.]+ \| 1 \|", written)
    assert "a video of 64x48 end to end: 8 times as fast as the naive script with the paper's network" in written


def test_the_scripts_network_keeps_all_channels(tiny_checkpoint, monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(performance, "_make", lambda path, name, *arguments: made.append((path.name, name, *arguments)))
    paths = {performance.make_paper(tmp_path, checkpoint) for checkpoint in (None, tiny_checkpoint)}
    assert {path.name for path in paths} == {name for name, *_ in made}
    assert made[0][1:] == ("export", "--random-weights")
    assert made[1][1:] == ("export", str(tiny_checkpoint), "--rewrites", "fold,whole-window")


def test_the_default_has_goals_by_class():
    found = {name: goals.default_run(name, 1280, 720, Ratio(9.0, 8.9, 9.1, 5)) for name in cpu_class.CLASSES}
    assert {name: [goal.met for goal in some] for name, some in found.items() if some} == {"avx2": [True], "avx512": [False]}


def test_a_first_window_that_does_not_come_is_told(tmp_path):
    with pytest.raises(BackendError, match=r"videodeblur run failed: error: .*nothing.onnx"):
        first_window.measure(BLURRY, tmp_path / "nothing.onnx", 48, 64, 1)


def test_an_empty_cache_is_empty_for_as_long_as_it_is(monkeypatch):
    for before in ("/somewhere", None):
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        if before:
            monkeypatch.setenv("XDG_CACHE_HOME", before)
        with first_window.empty_cache():
            assert list(Path(os.environ["XDG_CACHE_HOME"]).iterdir()) == []
        assert os.environ.get("XDG_CACHE_HOME") == before


def test_models_of_another_exporter_are_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(performance, "ROOT", tmp_path)
    for folder in performance.MAKERS:
        (tmp_path / folder).mkdir()
    source = tmp_path / "export" / "to_onnx.py"
    source.write_text("a")
    before = performance.sources_sha256()
    assert performance.sources_sha256() == before
    source.write_text("b")
    assert performance.sources_sha256() != before


def test_every_figure_has_calls_enough_for_a_spread(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(performance.scaling, "measure", lambda options, say: asked.append(options.effort))
    for plan in (performance.FULL, performance.QUICK):
        assert min(plan.iterations, plan.runs) >= performance.LEAST
        with pytest.raises(AttributeError):  # there is no result to draw
            performance.write_scaling(tmp_path, tmp_path / "page.md", plan, OtherWork())
    assert min(effort.iterations for effort in asked) >= performance.LEAST


def test_int8_is_not_judged_on_the_clip_of_its_calibration(monkeypatch, tmp_path):
    commands = []
    monkeypatch.setattr(performance, "_make", lambda path, name, *arguments: commands.append((name, *arguments)))
    performance.make_models(tmp_path, performance.QUICK)
    calibrated = {arguments[1] for arguments in commands if arguments[0] == "calibrate"}
    assert calibrated
    assert not calibrated & {str(BLURRY), str(SHARP)}


def test_a_run_on_a_busy_machine_is_marked():
    assert "OTHER WORK kept 1.5 cores busy" in performance._remark(performance.FULL, 1.5)
    assert performance._remark(performance.FULL, 0.1) == performance._remark(performance.FULL, None) == ""
    assert "A quick run" in performance._remark(performance.QUICK, 0.1)


def test_work_of_others_is_not_ours():
    if not STAT.exists():
        pytest.skip("the system does not say")
    others, begun = OtherWork(), time.process_time()
    other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    while time.process_time() - begun < 0.5:  # work of our own
        pass
    seen = others.cores()
    other.kill()
    other.wait()
    assert 0 < seen <= os.cpu_count()
    assert others.cores() < seen  # a child that has ended is ours


def test_what_is_measured_is_what_is_exported_by_default():
    assert performance.FORMS[performance.MODEL] == ",".join(export_options.DEFAULT_REWRITES)
