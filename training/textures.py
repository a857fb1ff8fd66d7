"""Sharp pictures to synthesise from: stills and frames of sharp videos, kept as 8-bit tensors on the training device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from runtime.errors import InputError
from training.media import IMAGE_SUFFIXES, VIDEO_SUFFIXES, luma, read_image, video_luma

VIDEO_STRIDE = 30  # frames between the pictures taken from a video, which barely differ closer together
SCALES = (1.0, 0.6)  # every picture is kept at these sizes: small ones are sharper, and show other things at a size


@dataclass(frozen=True)
class Textures:
    """Pictures as (C, h, w) uint8 tensors of any sizes on one device; C is 1 for luma, 3 for sRGB."""

    pictures: tuple[Tensor, ...]
    mirrored: bool = True  # mirror half of the draws and lay a quarter on the side

    def __post_init__(self) -> None:
        if not self.pictures:
            raise InputError("got no sharp pictures, expected at least one: name files or folders of pictures or videos")

    @property
    def device(self) -> torch.device:
        """Where the pictures are."""
        return self.pictures[0].device

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """(count, C, *size) float32 in [0, 1]: random places of random pictures, reflected beyond the edges."""
        draws = torch.rand(count, 5, generator=generator, device=self.device).tolist()
        patches = [self._patch(self.pictures[int(which * len(self.pictures))], size, rest) for which, *rest in draws]
        return torch.stack(patches).float() / 255

    def _patch(self, picture: Tensor, size: tuple[int, int], draws: Sequence[float]) -> Tensor:
        down, right, flip, turn = draws
        if self.mirrored and turn < 0.25:  # video is mostly upright
            picture = picture.transpose(1, 2)
        if self.mirrored and flip < 0.5:
            picture = picture.flip(2)
        (height, width), (rows, columns) = picture.shape[1:], size
        top, left = int(down * max(1, height - rows + 1)), int(right * max(1, width - columns + 1))
        return _reflected(picture[:, top : top + rows, left : left + columns], rows, columns)


def load_textures(
    sources: Sequence[Path], device: torch.device, colour: bool = False, scales: Sequence[float] = SCALES, mirrored: bool = True
) -> Textures:
    """Textures from pictures, videos (every 30th frame) and folders of both."""
    planes = (planes for path in _files(sources) for planes in _planes(path, colour))
    return Textures(tuple(_scaled(each, scale).to(device) for each in planes for scale in scales), mirrored)


def _files(sources: Sequence[Path]) -> Iterator[Path]:
    for source in sources:
        if not source.exists():
            raise InputError(f"{source}: no such picture, video or folder")
        found = sorted(source.rglob("*")) if source.is_dir() else [source]
        files = [path for path in found if path.suffix.lower() in IMAGE_SUFFIXES + VIDEO_SUFFIXES]
        if not files:
            raise InputError(f"{source} holds no picture ({' '.join(IMAGE_SUFFIXES)}) and no video ({' '.join(VIDEO_SUFFIXES)})")
        yield from files


def _planes(path: Path, colour: bool) -> Iterator[np.ndarray]:
    """(C, H, W), 0 to 255, once for a picture."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        rgb = read_image(path)
        yield rgb.transpose(2, 0, 1) if colour else luma(rgb)[None]
    elif colour:
        raise InputError(f"{path} is a video: name pictures where colour is needed")
    else:
        yield from (frame[None] for frame in video_luma(path, VIDEO_STRIDE))


def _scaled(planes: np.ndarray, scale: float) -> Tensor:
    image = torch.from_numpy(np.array(planes, dtype=np.float32)).unsqueeze(0)
    if scale != 1:
        image = functional.interpolate(image, scale_factor=scale, mode="bicubic", align_corners=False, antialias=True)
    return image[0].round().clamp(0, 255).byte()


def _reflected(patch: Tensor, rows: int, columns: int) -> Tensor:
    down = _mirror(rows, patch.shape[1], patch.device)
    right = _mirror(columns, patch.shape[2], patch.device)
    return patch if len(down) == patch.shape[1] and len(right) == patch.shape[2] else patch[:, down][:, :, right]


def _mirror(length: int, available: int, device: torch.device) -> Tensor:
    period = torch.arange(length, device=device) % (2 * available)
    return torch.where(period < available, period, 2 * available - 1 - period)
