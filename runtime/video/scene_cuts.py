"""Where scenes start, by FFmpeg's own scene score, so that no window of frames mixes two."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import av
from av.filter import Graph

from runtime.errors import InputError
from runtime.video.format import Frame, VideoInfo

SCORE = "lavfi.scene_score"  # left in a frame's metadata by the filter


def mark_scenes(frames: Iterable[Frame], info: VideoInfo, threshold: float) -> Iterator[Frame]:
    """The same frames, with `starts_scene` set where FFmpeg's `select` filter gives a score above `threshold` (0 to 1).

    The score is how much more the luma changes than one frame before, so a single frame between two cuts is not told from the
    scene after it. A threshold of 0 marks nothing. Raises InputError outside
    0 to 1.
    """
    if not 0 <= threshold <= 1:
        raise InputError(f"the threshold of scene cuts is {threshold}, expected 0 (off) to 1")
    return _marked(frames, _score_graph(info), threshold) if threshold else iter(frames)


def _marked(frames: Iterable[Frame], graph: Graph, threshold: float) -> Iterator[Frame]:
    for frame in frames:
        graph.vpush(frame.decoded)
        score = float(graph.vpull().metadata[SCORE])
        yield replace(frame, starts_scene=True) if score > threshold else frame


def _score_graph(info: VideoInfo) -> Graph:
    """Lets every frame through, with its score."""
    graph = Graph()
    source = graph.add_buffer(
        width=info.width, height=info.height, format=av.VideoFormat(info.pixel_format), time_base=info.time_base
    )
    graph.link_nodes(source, graph.add("select", "gte(scene,0)"), graph.add("buffersink")).configure()
    return graph
