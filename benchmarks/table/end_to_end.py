"""Video file in, video file out: the files' engines through `videodeblur run`, and the naive script, interleaved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from benchmarks.peers import guarded
from benchmarks.shared.made_clip import make_clip
from benchmarks.shared.timing import Timing, interleave
from benchmarks.table.options import NAIVE, BenchOptions
from benchmarks.table.subjects import open_engine
from runtime.deblur_video import deblur_video
from runtime.encoder_options import EncoderOptions
from runtime.errors import BackendError
from runtime.run.options import DeblurOptions

Reported = Callable[[str], AbstractContextManager[None]]  # a candidate's name -> where its failure is told


def measure(names: list[str], options: BenchOptions, height: int, width: int, reported: Reported) -> list[Timing]:
    """Milliseconds for `options.video_frames` frames, models opened before; names are files with their backends, or NAIVE.

    Each is opened and run once under `reported`, and left out when that fails. The source is made from the clip, scaled and
    repeated; ours is encoded with libx264, the script's with OpenCV's mp4v.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        source = Path(folder) / "source.mp4"
        make_clip(options.video, options.video_frames, width - width % 2, height - height % 2, source)
        calls: dict[str, Callable[[], object]] = {}
        for number, name in enumerate(names):
            output = Path(folder) / f"{number}.mp4"
            with reported(name):
                call = (
                    _script(options.model or Path(), source, output)
                    if name == NAIVE
                    else _run(name, source, output, options, opened)
                )
                call()
                calls[name] = call
        return interleave(calls, options.video_rounds, warmup=0)


def _run(name: str, source: Path, output: Path, options: BenchOptions, opened: ExitStack) -> Callable[[], object]:
    engine = opened.enter_context(open_engine(name, options.threads))
    settings = DeblurOptions(source, output, encoder=EncoderOptions("libx264"), tile=0, overwrite=True)
    return lambda: deblur_video(settings, engine=engine)


def _script(model: Path, source: Path, output: Path) -> Callable[[], object]:
    try:
        from benchmarks.peers.naive_video import open_script
    except ImportError as error:
        raise BackendError(f"{error.name or error} is not installed: pip install opencv-python-headless") from error
    deblur = guarded(open_script)(model)
    return guarded(lambda: deblur(source, output))
