import os
import threading
from pathlib import Path

import pytest
from video_clips import VARIABLE, Clip

from runtime.encoder_options import EncoderOptions
from runtime.machine.scheduling import own_scheduling
from runtime.video import VideoReader, VideoWriter

TASKS = Path("/proc/self/task")
pytestmark = pytest.mark.skipif(not TASKS.is_dir(), reason="needs Linux")


def policies():
    return {os.sched_getscheduler(int(task.name)) for task in TASKS.iterdir()}


def test_what_a_library_does_to_the_threads_is_undone():
    before, stop = os.sched_getscheduler(0), threading.Event()
    waiting = threading.Thread(target=stop.wait)
    with own_scheduling():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        waiting.start()  # inherits it
    assert os.sched_getscheduler(0) == before
    assert os.sched_getscheduler(waiting.native_id) == before
    stop.set()
    waiting.join()


def test_an_encoder_that_wants_the_whole_machine_does_not_get_it(tmp_path):
    source = Clip(times=VARIABLE[:3]).write(tmp_path / "in.mp4")
    before = policies()
    options = EncoderOptions("libsvtav1", options={"preset": "12"})
    with VideoReader(source) as reader, VideoWriter(tmp_path / "out.mp4", reader, options) as writer:
        for frame in reader:
            writer.write(frame, frame.luma)
            assert policies() == before
