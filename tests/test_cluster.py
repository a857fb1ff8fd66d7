"""A library on two Ray nodes that lose a worker, a machine and the driver; `make test-cluster` runs it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest
from test_deblur_library import CLIPS, LOSSLESS, packets, single_run

ROOT = Path(__file__).resolve().parents[1]
FRAMES, SIZE = 108, (256, 192)
NAMESPACES = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("ray") is None, reason="needs Ray: pip install '.[cluster]'"),
    pytest.mark.skipif(
        shutil.which("unshare") is None or subprocess.run([*NAMESPACES, "true"], capture_output=True).returncode != 0,
        reason="needs the right to make network namespaces (root)",
    ),
]


@pytest.fixture(scope="module")
def seen(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cluster")
    source, output, token = folder / "in", folder / "out", folder / "token"
    for name, clip in CLIPS(FRAMES, SIZE).items():
        clip.write(folder_of(source / name))
    token.touch(0o600)
    token.write_text(os.urandom(32).hex())
    with tempfile.TemporaryDirectory(prefix="vd", dir="/tmp") as short:  # a Unix socket's path has 107 characters at most
        command = [*NAMESPACES, sys.executable, ROOT / "tests" / "two_nodes.py", source, output, tiny_model, token, short]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    facts["summary"] = json.loads(facts["out"])
    return folder, facts


def folder_of(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def test_what_comes_out_is_what_one_machine_makes(seen, tiny_model):
    folder, facts = seen
    assert facts["status"] == 0, facts["second"]
    assert facts["summary"]["joined"] == facts["summary"]["videos"] == 6
    assert not facts["summary"]["failures"]
    for name in CLIPS(FRAMES, SIZE):
        alone = single_run(folder / "in" / name, folder / f"alone{Path(name).suffix}", tiny_model, LOSSLESS)
        assert packets(folder / "out" / name) == packets(alone), name


def test_the_kills_were_noticed_and_cost_a_retry_each(seen):
    _, facts = seen
    assert facts["first"].count("is tried again: its worker was lost") == 2


def test_what_was_finished_is_not_done_again(seen):
    _, facts = seen
    done = facts["finished when the driver was killed"]
    assert 8 <= done < facts["summary"]["segments"]
    frames = sum(len(clip.times) for clip in CLIPS(FRAMES, SIZE).values())
    assert facts["summary"]["frames"] <= frames - 7 * done  # the shortest segment has 7


def test_nothing_listens_beyond_this_machine(seen):
    assert {each.strip("[]").removeprefix("::ffff:") for each in seen[1]["listeners"]} == {"127.0.0.1"}


def test_another_token_is_not_let_in(seen):
    assert seen[1]["stranger's status"] == 1
    assert "there is no way into the Ray cluster at 127.0.0.1:6399" in seen[1]["stranger"]
