"""A short run of fuzz.py: damaged files of every kind are read or refused. `python tests/fuzz.py` tries 10,000."""

import pytest
from fuzz import KINDS, Child, fuzz
from fuzz_seeds import make_seeds

INPUTS = 12  # of each kind


@pytest.fixture(scope="module")
def seeds(tiny_model, tiny_engine, tmp_path_factory):
    return make_seeds(tmp_path_factory.mktemp("seeds"), tiny_model, tiny_engine)


def test_damaged_files_are_read_or_refused(seeds):
    report = fuzz(seeds, INPUTS * len(KINDS), seed=18)
    assert not report.faults, str(report)
    assert {kind for kind, _ in report.ends} == set(KINDS)
    refused = sum(count for (_, how), count in report.ends.items() if how.endswith("Error"))
    assert refused > INPUTS * len(KINDS) // 2, str(report)


def test_what_crashes_hangs_or_is_no_answer_of_ours_is_told(tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text(
        "import os, sys, time\n"
        "for line in sys.stdin:\n"
        "    kind = line.split()[0]\n"
        "    os.abort() if kind == 'crash' else time.sleep(600) if kind == 'hang' else print('[\"read\", \"\"]', flush=True)\n"
    )
    monkeypatch.setattr("fuzz.CHILD", child)
    monkeypatch.setattr("fuzz.SECONDS", 1)
    monkeypatch.setattr("fuzz.FIRST", 20)
    with Child(tmp_path, tmp_path / "log") as asked:
        assert asked.ask("fine", tmp_path) == ["read", ""]
        assert asked.ask("hang", tmp_path) == ("hang", "nothing after 1 s")
        assert asked.ask("crash", tmp_path)[0] == "crash"
        assert asked.ask("fine", tmp_path) == ["read", ""]
