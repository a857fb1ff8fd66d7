"""`videodeblur plan`: what deblurring a video will take, before it is done."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if not __package__:  # run as a file: import from the repository's root, not from this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from runtime.backends import CPU_BACKENDS
from runtime.command_line import command
from runtime.encoder_options import EncoderOptions
from runtime.engine import Engine
from runtime.errors import InputError
from runtime.progress import clock_text
from runtime.run import network_memory
from runtime.run.arguments import (
    PLAYLIST,
    add_container_argument,
    add_encoder_arguments,
    add_network_arguments,
    add_part_arguments,
    network_options,
    output_encoder,
    part_options,
)
from runtime.run.options import DeblurOptions, open_engine
from runtime.run.tiling import Grid, grid_for
from runtime.run.window_time import seconds_of_a_tile

if TYPE_CHECKING:
    from runtime.video import VideoReader

NOWHERE = Path(os.devnull)  # nothing is written


@dataclass(frozen=True)
class Forecast:
    """What a run will take."""

    frames: int | None  # of the video; None where its container does not tell
    windows: int | None  # of the network, without what cuts add: at most one for each cut
    width: int  # pixels
    height: int
    tiles: int  # of a frame
    tile_width: int  # pixels, halos included
    tile_height: int
    memory: float | None  # GB that the network takes at most; None on a GPU
    seconds_per_window: float  # measured
    seconds: float | None  # in all
    backend: str
    precision: str
    notes: tuple[str, ...] = ()  # what the output cannot hold, a line each; none where no output was named


@command
def main(argv: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="videodeblur plan",
        description="Predicts frames, tiles, memory and time of a run. For the time it runs a tile of the first window thrice."
        " With OUTPUT it also tries a few frames of all streams there, and leaves nothing.",
    )
    parser.add_argument("source", type=Path, metavar="INPUT", help="blurry video")
    parser.add_argument(
        "output", type=Path, nargs="?", default=NOWHERE, metavar="OUTPUT", help="sharp video that a run would write"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="end after N frames")
    parser.add_argument("--json", action="store_true", help="print the forecast as JSON")
    parser.add_argument("--playlist", action="store_true", help=PLAYLIST)
    add_part_arguments(parser)
    add_network_arguments(parser)
    add_container_argument(add_encoder_arguments(parser))
    arguments = parser.parse_args(argv)
    if arguments.output == NOWHERE and output_encoder(arguments) != EncoderOptions():
        raise InputError("options of the encoder are tried on an output: name OUTPUT too, or leave them out")
    options = DeblurOptions(
        arguments.source,
        arguments.output,
        frames=arguments.frames,
        playlist=arguments.playlist,
        overwrite=True,
        encoder=output_encoder(arguments),
        **part_options(arguments),
        **network_options(arguments),
    )
    forecast = plan_video(options)
    print(json.dumps(asdict(forecast)) if arguments.json else _text(forecast))
    return 0


def plan_video(options: DeblurOptions) -> Forecast:
    """Tries the output, opens the video and the engine, and times the network on one tile of the video's first window.

    The time is that of the network: decoding and encoding overlap with it. No output is tried where that is `NOWHERE`, or
    pictures. Raises what `deblur_video` raises before its first frame.
    """
    from runtime.video import VideoReader  # here, so that help needs no PyAV
    from runtime.video.look_ahead import look_ahead
    from runtime.video.part import Ranges
    from runtime.video.writer import try_output

    with VideoReader(options.source, options.frames, playlist=options.playlist, part=options.part) as reader:
        tried = options.output != NOWHERE and not options.to_pictures
        notes = try_output(options.output, reader, options.encoder) if tried else []
        look_ahead(reader)
        Ranges(options.ranges, reader.path, reader.info, reader.origin)  # refused as a run would refuse them
        return replace(_forecast(options, reader), notes=tuple(notes))


def _forecast(options: DeblurOptions, reader: VideoReader) -> Forecast:
    info = reader.info
    with open_engine(options, (info.height, info.width), None) as engine:
        size = engine.contract.frames
        first = [frame.luma for frame in islice(reader, size)]
        window = np.stack([first[min(number, len(first) - 1)] for number in range(size)])[None]
        grid = grid_for(options, info, engine)
        seconds = seconds_of_a_tile(engine, grid, window, info.bits, info.color_range) * grid.count
        known = [count for count in (info.expected_frames, options.frames) if count]
    frames = min(known) if info.expected_frames else None
    windows = _windows(options, reader, frames, size) if frames else None
    return Forecast(
        frames=frames,
        windows=windows,
        width=info.width,
        height=info.height,
        tiles=grid.count,
        tile_width=grid.tile[1],
        tile_height=grid.tile[0],
        memory=_memory(engine, grid),
        seconds_per_window=seconds,
        seconds=windows * seconds if windows else None,
        backend=engine.backend,
        precision=engine.precision,
    )


def _windows(options: DeblurOptions, reader: VideoReader, frames: int, size: int) -> int:
    """Of so many frames, or of those in the ranges that are deblurred."""
    stride, info = options.stride or size, reader.info
    if not options.ranges or not info.frame_rate:
        return -(-frames // stride)
    begin = info.first_pts * info.time_base - reader.origin
    end = begin + frames / info.frame_rate
    lengths = [(end if each.end is None else min(each.end, end)) - max(each.start, begin) for each in options.ranges]
    return sum(math.ceil(math.ceil(length * info.frame_rate) / stride) for length in lengths if length > 0)


def _memory(engine: Engine, grid: Grid) -> float | None:
    if engine.backend not in CPU_BACKENDS:
        return None
    return network_memory.bytes_for(grid.tile[0] * grid.tile[1], engine.contract, engine.precision) / 1e9


def _text(forecast: Forecast) -> str:
    tiles = "whole" if forecast.tiles == 1 else f"in {forecast.tiles} tiles of {forecast.tile_width}x{forecast.tile_height}"
    engine, seconds = f"{forecast.backend} {forecast.precision}", forecast.seconds_per_window
    lines = [
        f"frames   {forecast.frames or 'unknown'} of {forecast.width}x{forecast.height}, {tiles}",
        f"windows  {forecast.windows or 'unknown'}, {seconds:.2f} s each on {engine}",
    ]
    if forecast.memory is not None:
        lines.append(f"memory   {forecast.memory:.1f} GB for the network, and the video's own frames")
    lines += [f"note     {note}" for note in forecast.notes]
    lines.append(f"time     {clock_text(forecast.seconds) if forecast.seconds else 'unknown'}")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main(None))
