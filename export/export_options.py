"""What can be asked of `export/to_onnx.py`: a plain record without a heavy import."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from export.shipped_clips import DEFAULT_CLIP
from runtime.errors import InputError
from runtime.pixels import padding, sample_codes

OPSETS = (20, 17)  # 17 for TensorRT 8.6
CODE_BITS = {"u8": 8, "u16": 10}  # bits of a sample where none are named: of 16-bit containers, nearly all video is 10
IO_KINDS = ("f32", *CODE_BITS)
PROGRAMS = ("nvencc",)  # other people's, that take a graph of another form
MATRICES = {  # weights of gamma-coded R, G and B in the luma
    "bt709": (0.2126, 0.7152, 0.0722),  # ITU-R BT.709, HD and above
    "bt601": (0.299, 0.587, 0.114),  # ITU-R BT.601, SD
}
DEFAULT_MATRIX = "bt709"
DEFAULT_RANGE = "limited"  # what video is unless it says otherwise
REWRITES = (
    "merge-duplicates",
    "fold",
    "whole-window",
    "join-cells",
    "merge-gates",
    "split-heads",
    "split-joins",
)  # in the order in which they are applied
DEFAULT_REWRITES = ("merge-duplicates", "fold", "whole-window", "join-cells", "split-joins")  # measured: export/network/rewrites.py


@dataclass(frozen=True)
class ExportOptions:
    """Which network to export, in which form, and what to verify it on. Raises InputError where these disagree."""

    checkpoint: Path | None = None  # None = the shipped one
    variant: str | None = None  # one of model.VARIANTS; None = what the checkpoint says
    random_weights: bool = False  # instead of a checkpoint, for studies of structure and speed; the file says so
    output: Path | None = None  # None = the checkpoint's name in the current folder
    opset: int = OPSETS[0]
    batch: int | None = None  # windows; None = any
    height: int | None = None  # pixels; None = any
    width: int | None = None
    io: str = "f32"  # luma in [0, 1], or sample codes "u8", "u16": see export/graph/sample_code_graph.py
    bits: int | None = None  # of a code; None = 8 for u8, 10 for u16
    color_range: str | None = None  # of the codes, "limited" or "full"; None = limited
    rewrites: tuple[str, ...] = DEFAULT_REWRITES  # names of REWRITES, explained in export/network/rewrites.py
    clip: Path = DEFAULT_CLIP  # a video of at least as many frames as the network takes
    program: str | None = None  # one of PROGRAMS, see export/network/nvencc.py; None = a model for Engine
    matrix: str | None = None  # one of MATRICES, for NVEncC; None = bt709

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise InputError(f"opset is {self.opset}, expected 20, or 17 for TensorRT 8.6")
        if self.io not in IO_KINDS:
            raise InputError(f"io is {self.io!r}, expected one of {', '.join(IO_KINDS)}")
        if self.random_weights and self.checkpoint:
            raise InputError(f"random weights and {self.checkpoint} were both asked for, expected one of them")
        unknown = sorted(set(self.rewrites) - set(REWRITES))
        if unknown:
            raise InputError(f"no rewrite is called {unknown[0]!r}, expected some of {', '.join(REWRITES)}")
        _check_codes(self.io, self.bits, self.color_range)
        _check_program(self.program, self.matrix, self.io, self.batch)
        for name in ("batch", "height", "width"):
            _check_size(name, getattr(self, name), padded=self.program is not None or self.io != "f32")
        if (self.height is None) != (self.width is None):
            raise InputError(f"got height {self.height} and width {self.width}, expected both or neither")

    @property
    def code_bits(self) -> int | None:
        """Bits of a code; None for f32."""
        return self.bits or CODE_BITS.get(self.io)

    @property
    def code_range(self) -> str | None:
        """Range of the codes; None for f32."""
        return None if self.io == "f32" else self.color_range or DEFAULT_RANGE


def _check_codes(io: str, bits: int | None, color_range: str | None) -> None:
    if io == "f32":
        if bits or color_range:
            raise InputError("bits and range are properties of sample codes: add --io u8 or --io u16, or drop them")
        return
    bits = bits or CODE_BITS[io]
    sample_codes.scale(bits, color_range or DEFAULT_RANGE)
    if (io == "u8") != (bits == 8):
        raise InputError(f"io is {io!r} with {bits} bits, expected u8 with 8, or u16 with 9 to 16")


def _check_program(program: str | None, matrix: str | None, io: str, batch: int | None) -> None:
    if program not in (None, *PROGRAMS):
        raise InputError(f"the program is {program!r}, expected {', '.join(PROGRAMS)}")
    if matrix not in (None, *MATRICES):
        raise InputError(f"the matrix is {matrix!r}, expected {' or '.join(MATRICES)}")
    if matrix and not program:
        raise InputError("a matrix belongs to RGB, which only NVEncC's graph takes: add --for nvencc, or leave it out")
    if program and (io != "f32" or batch not in (None, 1)):
        raise InputError("NVEncC gives one window at a time, in float RGB: leave out --io and --batch")


def _check_size(name: str, size: int | None, padded: bool) -> None:
    if size is None:
        return
    if size < 1:
        raise InputError(f"{name} is {size}, expected at least 1")
    if name == "batch":
        return
    if not padded and size % padding.MULTIPLE:
        nearest = padding.padded_size(size, size, padding.MULTIPLE)[0]
        raise InputError(
            f"{name} is {size}, expected a multiple of {padding.MULTIPLE}: {nearest}, or --io u8 or u16, which pad inside the graph"
        )
    if size < padding.SMALLEST_CODES:
        raise InputError(f"{name} is {size}, expected at least {padding.SMALLEST_CODES}")
