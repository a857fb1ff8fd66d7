"""The simulated cluster: the real dispatcher, so what it says of scale is about our scheduling."""

from dataclasses import replace

import pytest

from benchmarks.studies import cluster_model
from benchmarks.studies.cluster_model import Cluster, simulate, work

SMALL = Cluster(videos=12, frames=800, slow=0.0, lost_after=1e9)


def test_one_worker_takes_the_sum_of_all_tasks():
    assert simulate(SMALL, 1).hours == pytest.approx(work(SMALL), rel=0.03)  # each task's seconds vary a little


def test_more_workers_are_faster_never_more_than_ideal():
    hours = [simulate(SMALL, workers).hours for workers in (1, 4, 16)]
    assert hours[0] > hours[1] > hours[2]
    assert all(work(SMALL) / each <= workers * 1.03 for each, workers in zip(hours, (1, 4, 16)))


def test_lost_workers_cost_time_and_no_video():
    faulty = replace(SMALL, lost_after=0.2)
    result = simulate(faulty, 4)
    assert result.retries > 0
    assert (result.joined, result.given_up) == (faulty.videos, 0)
    assert result.hours > simulate(SMALL, 4).hours


def test_slow_workers_are_not_waited_for_longer_than_a_task():
    slow = replace(SMALL, slow=0.25)
    assert simulate(SMALL, 8).hours < simulate(slow, 8).hours < 2 * simulate(SMALL, 8).hours


def test_the_command_prints_a_row_for_each_number_and_draws(tmp_path, capsys):
    arguments = ["--videos", "5", "--frames", "500", "--workers", "1", "8", "--chart", str(tmp_path / "chart.svg")]
    assert cluster_model.main(arguments) == 0
    head, names, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("5 videos, ")
    assert names.split() == ["workers", "hours", "speed-up", "of", "ideal", "retries", "given", "up"]
    assert [row.split()[0] for row in rows] == ["1", "8"]
    assert "simulated" in (tmp_path / "chart.svg").read_text()
