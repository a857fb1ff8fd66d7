"""The command line of `videodeblur run`, and the part of it that other commands share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from runtime.backends import CPU_BACKENDS, GPU_BACKENDS
from runtime.encoder_options import DEFAULT_CODEC, DEFAULT_CRF, EncoderOptions
from runtime.errors import InputError
from runtime.fastest import ANY, EXACT
from runtime.files.time_ranges import parse_time, read_ranges, time_range
from runtime.run import metrics_file
from runtime.run.comparison import KINDS
from runtime.run.options import DEFAULT_RATE, DEFAULT_SCENE_THRESHOLD, DEFAULT_SEGMENT, DEFAULT_SERVER_MODEL, DeblurOptions

LOG_LEVELS = ("debug", "info", "warning", "error")
PLAYLIST = "read the files that INPUT lists, if it is a list (HLS, DASH, concat), instead of refusing it"
PIPES = {"y4m": "yuv4mpegpipe", "mkv": "matroska"}  # usual names of FFmpeg's formats
RAW_SUFFIXES = {".y4m": PIPES["y4m"]}  # of files that hold nothing but raw pictures
RAW_CODECS = {"yuv4mpegpipe": "wrapped_avframe", "nut": "ffv1"}  # of formats made for pipes

SLIPS = {  # -crf20 reads as -c rf20: what follows a flag of one letter, and what is meant
    "-c": {"rf": "--crf", ":a": "-c:v (sound is always copied)", ":s": "-c:v (subtitles are always copied)"},
    "-f": {"rame": "--frames or --rate", "ps": "--rate"},
}

BACKENDS = f"backend: auto (default: .onnx files on the CPU, engines on the GPU), {', '.join((*CPU_BACKENDS, *GPU_BACKENDS))}"
ARITHMETIC = (
    "arithmetic of what the model has in fp32: auto (default: the fastest with measured parity), fp32, bf16 (openvino) or tf32"
    " (onnxruntime-cuda)"
)

EPILOG = f"""
Quality without --crf: {", ".join(f"crf {crf} for {codec}" for codec, crf in DEFAULT_CRF.items())}.
Lossless: `-e qp=0` with libx264; `-c ffv1` and an .mkv output, which also takes odd sizes and every pixel format.
Pipes: `ffmpeg -i in.mp4 -f nut - | videodeblur run - - | x264 --demuxer y4m -o out.264 -`; `-f nut` keeps times and sound.
All but luma is copied: chroma, times, sound, subtitles, chapters, metadata, covers, rotation, colour tags; notes name what is not.
"""


def read_arguments(argv: Sequence[str] | None) -> tuple[DeblurOptions, argparse.Namespace]:
    """What to do, and how to tell about it: `no_progress`, `json` and `log_level`."""
    arguments = _parser().parse_args(argv)
    if arguments.resume_every is not None and not arguments.resume:
        raise InputError("--resume-every is for runs that can be resumed: add --resume, or leave it out")
    options = DeblurOptions(
        source=arguments.source,
        output=arguments.output,
        frames=arguments.frames,
        **network_options(arguments),
        compare=arguments.compare,
        encoder=output_encoder(arguments),
        rate=arguments.rate,
        salvage=arguments.salvage,
        playlist=arguments.playlist,
        resume=arguments.resume,
        resume_every=DEFAULT_SEGMENT if arguments.resume_every is None else arguments.resume_every,
        overwrite=arguments.overwrite,
        mask=arguments.mask,
        latency=None if arguments.latency is None else float(parse_time(arguments.latency)),
        **part_options(arguments),
        metrics=arguments.metrics,
    )
    return options, arguments


def add_network_arguments(parser: argparse.ArgumentParser, server: bool = True) -> None:
    """The options that choose and feed the network, which may be one on a `server`."""
    model = parser.add_argument_group("the network")
    model.add_argument(
        "--model",
        type=Path,
        metavar="FILE",
        help=".onnx file, engine, bundle, or a shipped size by name (default: light)",
    )
    wish = model.add_mutually_exclusive_group()
    wish.add_argument(
        "--quality",
        dest="budget",
        action="store_const",
        const=EXACT,
        help="take a bundle's fp32 file (default: the fastest that loses at most 0.05 dB, timed here once)",
    )
    wish.add_argument(
        "--fast", dest="budget", action="store_const", const=ANY, help="take a bundle's fastest file, whatever it loses"
    )
    model.add_argument("--backend", default="auto", help=BACKENDS)
    model.add_argument("--precision", default="auto", help=ARITHMETIC)
    model.add_argument("--threads", type=int, metavar="N", help="CPU cores for the network (default: all)")
    if server:
        model.add_argument("--device", type=int, default=0, metavar="N", help="number of the GPU (default: %(default)s)")
        _add_server_arguments(model)
    model.add_argument(
        "--stride",
        type=int,
        metavar="N",
        help="frames between windows, 1 to 5 (default: 5); below 5 windows overlap, are averaged, and cost more",
    )
    model.add_argument(
        "--tile", type=int, metavar="PIXELS", help="side of what is kept of a tile; 0 = one piece (default: what memory allows)"
    )
    model.add_argument(
        "--memory", type=float, metavar="GB", help="memory of the network on a CPU (default: half of what is at hand)"
    )
    model.add_argument(
        "--scene-thresh",
        dest="scene_threshold",
        type=float,
        default=DEFAULT_SCENE_THRESHOLD,
        metavar="SCORE",
        help="FFmpeg's scene score above which a scene starts, which no window crosses; 0 = off (default: %(default)s)",
    )
    model.add_argument(
        "--strength",
        type=float,
        default=1.0,
        metavar="S",
        help="share of what the network changes, 0 (the input as it is) to 1 (default: %(default)g)",
    )


def _add_server_arguments(model: argparse._ArgumentGroup) -> None:
    model.add_argument(
        "--server", metavar="URL", help="Triton server that runs the network, grpc:// or http://HOST:PORT; docs/serving.md"
    )
    model.add_argument("--server-model", metavar="NAME", help=f"network's name on the server (default: {DEFAULT_SERVER_MODEL})")


def network_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of DeblurOptions that `add_network_arguments` reads."""
    chosen = ("model", "budget", "backend", "precision", "threads", "device", "server", "server_model")
    names = (*chosen, "stride", "tile", "memory", "scene_threshold", "strength")
    if getattr(arguments, "server", None) is None and getattr(arguments, "server_model", None) is not None:
        raise InputError("--server-model is the network's name on a server: name its --server")
    return {name: getattr(arguments, name) for name in names if getattr(arguments, name, None) is not None}


def add_part_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that name a part of the video."""
    part = parser.add_argument_group("a part of the video, in FFmpeg's times: 83.5, 1:23.5, 83500ms")
    part.add_argument("-ss", "--ss", metavar="TIME", help="begin with the first frame that is shown at TIME or later")
    part.add_argument("-to", "--to", metavar="TIME", help="end before the first frame that is shown at TIME or later")
    part.add_argument("-t", dest="length", metavar="TIME", help="length of the part, in place of --to")
    part.add_argument(
        "--segments",
        type=Path,
        metavar="FILE",
        help="deblur only the ranges in FILE, a line each: START END NAME, as Audacity's labels; all else is left as it is",
    )


def part_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of DeblurOptions that `add_part_arguments` reads."""
    ranges = read_ranges(arguments.segments) if arguments.segments else ()
    return {"part": time_range(arguments.ss, arguments.to, arguments.length), "ranges": ranges}


def add_encoder_arguments(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """The options that choose the encoder, and which streams are copied; more may be added to the group."""
    encoder = parser.add_argument_group("the encoder")
    encoder.add_argument(
        "-c", "-c:v", "--codec", type=_codec, help=f"FFmpeg's name of a video encoder, as after its -c:v (default: {DEFAULT_CODEC})"
    )
    usual = f"by encoder, {DEFAULT_CRF[DEFAULT_CODEC]} for {DEFAULT_CODEC}"
    encoder.add_argument(
        "--crf", type=float, help=f"constant quality (cq with NVENC): lower is better and larger (default: {usual})"
    )
    encoder.add_argument(  # else -crf is -c rf
        "-crf", type=_as_in_ffmpeg, dest="ffmpeg_crf", default=argparse.SUPPRESS, help=argparse.SUPPRESS
    )
    encoder.add_argument(
        "-e",
        "--encoder",
        type=_pair,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="option of the encoder, such as preset=slow; repeat",
    )
    for kind in ("audio", "subtitle"):
        flag = f"--no-copy-{kind}-streams"
        encoder.add_argument(flag, dest=f"copy_{kind}", action="store_false", help=f"leave out the {kind} streams")
    encoder.add_argument(
        "--drop-unsupported", action="store_true", help="leave out sound and subtitles that OUTPUT's container cannot hold"
    )
    return encoder


def add_container_argument(encoder: argparse._ArgumentGroup) -> None:
    """The option that names the container where the suffix of an output does not."""
    encoder.add_argument(
        "-f",
        "--format",
        type=_container,
        help="FFmpeg's name of the container (default: by the suffix; y4m to standard output, where nut goes too)",
    )


def encoder_options(arguments: argparse.Namespace, codec: str = DEFAULT_CODEC, kind: str | None = None) -> EncoderOptions:
    """What `add_encoder_arguments` reads; `codec` where none is named."""
    leave_out = tuple(name for name in ("audio", "subtitle") if not getattr(arguments, f"copy_{name}"))
    chosen = arguments.codec or codec
    return EncoderOptions(chosen, arguments.crf, dict(arguments.encoder), kind, leave_out, arguments.drop_unsupported)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="videodeblur run",
        description="Deblurs a video file.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="INPUT", help="blurry video; - for standard input, %%05d.png or a folder for pictures")
    add(
        "output",
        type=Path,
        metavar="OUTPUT",
        help="sharp video, by its suffix (.mp4, .mkv, .mov, ...); - for standard output, %%05d.png or a folder for pictures",
    )
    add("-y", "--overwrite", action="store_true", help="replace OUTPUT if it exists")
    add("--compare", choices=KINDS, help="write a before/after video instead: side by side, a moving divider, or the difference")
    add("--frames", type=int, metavar="N", help="stop after N frames, for a preview")
    add(
        "--rate",
        type=float,
        metavar="FPS",
        help=f"frames per second when INPUT is pictures, as FFmpeg's -framerate (default: {DEFAULT_RATE:g})",
    )
    add("--salvage", action="store_true", help="deliver what is before the damage of a broken INPUT, instead of refusing it")
    add("--playlist", action="store_true", help=PLAYLIST)
    add("--resume", action="store_true", help="keep finished segments in OUTPUT.resume until all is done, and go on from there")
    add("--resume-every", type=int, metavar="N", help=f"frames of a segment, about (default: {DEFAULT_SEGMENT})")
    add(
        "--latency",
        metavar="TIME",
        help="time within which a frame is out again, for live pipes (200ms); chooses how often windows are run",
    )
    add(
        "--mask",
        type=Path,
        metavar="FILE",
        help="picture of the video's size that is white where to deblur, black where to leave all as it is, gray in between",
    )
    add_part_arguments(parser)
    add_network_arguments(parser)
    add_container_argument(add_encoder_arguments(parser))
    output = parser.add_argument_group("what is printed")
    output.add_argument(
        "--log-level", choices=LOG_LEVELS, default="warning", help="level of Python's log on stderr (default: %(default)s)"
    )
    output.add_argument("--no-progress", action="store_true", help="show no progress bar")
    output.add_argument("--json", action="store_true", help="print the summary as JSON on stdout")
    output.add_argument(metrics_file.FLAG, type=Path, metavar="FILE", help=metrics_file.HELP)
    return parser


def output_encoder(arguments: argparse.Namespace) -> EncoderOptions:
    """What `add_encoder_arguments` and `add_container_argument` read, for `arguments.output`."""
    kind = PIPES.get(arguments.format, arguments.format)
    if kind is None and str(arguments.output) == "-":
        kind = PIPES["y4m"]
    meant = kind or RAW_SUFFIXES.get(arguments.output.suffix.lower(), "")
    return encoder_options(arguments, RAW_CODECS.get(meant, DEFAULT_CODEC), kind)


def _codec(text: str) -> str:
    return _no_slip("-c", text)


def _container(text: str) -> str:
    return _no_slip("-f", text)


def _no_slip(flag: str, text: str) -> str:
    """What follows a flag of one letter, unless it is another flag that begins with that letter, as FFmpeg spells it."""
    for start, meant in SLIPS[flag].items():
        if text.startswith(start):
            value = text[len(start) :] if flag == "-c" and start == "rf" else ""
            raise argparse.ArgumentTypeError(f"{flag}{text}: did you mean {' '.join(filter(None, (meant, value)))}?")
    return text


def _as_in_ffmpeg(text: str) -> NoReturn:
    raise argparse.ArgumentTypeError(f"did you mean --crf {text}?")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected KEY=VALUE")
    return key, value
