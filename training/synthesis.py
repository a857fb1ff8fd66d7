"""Blur synthesis: frames blurred by camera and object motion, and their sharp centres, rendered from sharp pictures.

A picture moves along a smooth random path while the shutter is open; the instants of one exposure are averaged, as the data
set of Su et al. 2017 averages high-speed frames; the instant in the middle is the ground truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from training.jpeg import jpeg_luma
from training.textures import Textures

KNOTS = 2  # velocity knots a frame interval: directions change inside an exposure
WANDER = 0.55  # of the speed: standard deviation of the direction kept over a sample, and of the part that changes at each knot
PACE = (0.4, 1.4)  # of the speed, over the frames that are not nearly sharp
STILL = 0.05  # speed of a nearly sharp frame, as a share of its sample's
BLOB_CELLS, BLOB_LEVEL, BLOB_EDGE = 6, 0.35, (0.01, 0.04)  # foreground shapes: smooth noise above a level, with soft edges
REACH = 64  # pixels of picture kept around a sample for the motion; reflected beyond
OVERSAMPLING = 2  # pictures are enlarged, then sampled bilinearly: as sharp as bicubic sampling, in half the time
INSTANTS = ((4.0, 7), (12.0, 15), (math.inf, 29))  # pixels of path in an exposure, instants rendered; odd: one is the centre
CHUNK = {"cpu": 1 << 22, "cuda": 1 << 26}  # pixels rendered at once: what the caches, or the memory, hold


@dataclass(frozen=True)
class BlurOptions:
    """The law of the synthetic clips; the defaults cover the blur of hand-held 30 fps video."""

    height: int = 128  # pixels
    width: int = 128  # pixels
    frames: int = 5  # consecutive frames in a sample
    speed: float = 12.0  # pixels a frame, the median over samples
    speed_spread: float = 0.8  # standard deviation of the logarithm of the speed: the heavy tail
    speed_limit: float = 28.0  # pixels a frame
    rotation: float = 0.4  # degrees a frame, standard deviation
    zoom: float = 0.004  # relative size a frame, standard deviation
    still: float = 0.25  # share of frames that are nearly sharp
    layers: tuple[float, ...] = (0.5, 0.3, 0.15, 0.05)  # probabilities of 0, 1, ... foreground layers with their own motion
    exposure: float = 7 / 8  # share of the frame interval that the shutter is open
    noise: float = 2.0  # 8-bit codes, the largest standard deviation
    jpeg: tuple[int, int] | None = (85, 95)  # qualities of the JPEG compression of half of the blurry samples; luma only

    def __post_init__(self) -> None:
        if self.height % 8 or self.width % 8 or min(self.height, self.width) < 16:
            raise ValueError(f"samples of {self.width}x{self.height} pixels, expected multiples of 8 from 16 up")
        if self.frames < 1 or not 0 < self.exposure <= 1:
            raise ValueError(f"frames is {self.frames} and exposure {self.exposure}, expected at least 1 and in (0, 1]")
        if min(self.speed, self.speed_spread, self.rotation, self.zoom, self.noise) < 0 or self.speed_limit <= 0:
            raise ValueError("speeds, spreads and noise must not be negative")
        if not math.isclose(sum(self.layers), 1) or not 0 <= self.still <= 1:
            raise ValueError(f"layers {self.layers} must sum to 1, and still {self.still} must be in [0, 1]")


@dataclass(frozen=True)
class Samples:
    """Synthetic pairs, float32 in [0, 1] on the pictures' device."""

    blurry: Tensor  # (N, frames, H, W), or (N, frames, C, H, W) from colour pictures
    sharp: Tensor  # of the same shape


def synthesize(textures: Textures, options: BlurOptions, count: int, seed: int) -> Samples:
    """Renders `count` samples; the same arguments give the same samples on the same kind of device."""
    generator = torch.Generator(textures.device).manual_seed(seed)
    size = (options.height + 2 * REACH, options.width + 2 * REACH)
    scenes = [_Scene(textures.draw(count, size, generator), camera_path(count, options, generator), None)]
    layers = torch.multinomial(_on(textures, options.layers), count, True, generator=generator)
    for layer in range(1, len(options.layers)):
        picture = textures.draw(count, size, generator)
        mask = _blobs(count, size, generator) * (layers >= layer).view(-1, 1, 1, 1)
        scenes.append(_Scene(picture, camera_path(count, options, generator), mask))
    blurry, sharp = _render(scenes, options)
    return Samples(_degrade(blurry, options, generator), (sharp.clamp(0, 1) * 255).round() / 255)


def camera_path(count: int, options: BlurOptions, generator: torch.Generator) -> CameraPath:
    """Smooth random motion: piecewise linear velocities of (x, y, angle, log zoom), slow during the frames that stay sharp."""
    device, frames = generator.device, options.frames
    knots = KNOTS * frames + 1
    speed = options.speed * torch.exp(options.speed_spread * torch.randn(count, 1, 1, generator=generator, device=device))
    speed = speed.clamp(max=options.speed_limit)
    drift = torch.randn(count, 1, 4, generator=generator, device=device)
    shake = torch.randn(count, knots, 4, generator=generator, device=device)
    law = torch.tensor([1, 1, math.radians(options.rotation), options.zoom], device=device)
    velocity = WANDER * (drift + shake) * law * _envelope(count, options, generator)
    velocity[..., :2] *= speed
    return CameraPath(velocity)


@dataclass(frozen=True)
class CameraPath:
    """Motion of a picture over a sample: (N, knots, 4) velocities a frame of x, y (pixels), angle (radians) and log zoom."""

    velocity: Tensor

    def at(self, times: Tensor) -> Tensor:
        """The (N, T, 4) positions at `times`, in frames from the middle of the sample, where the position is zero."""
        return self._integral(times) - self._integral(torch.zeros_like(times[:1]))

    def select(self, samples: Tensor) -> CameraPath:
        """The paths of some samples."""
        return CameraPath(self.velocity[samples])

    def _integral(self, times: Tensor) -> Tensor:
        v, last = self.velocity, self.velocity.shape[1] - 1
        ends = functional.pad(((v[:, 1:] + v[:, :-1]) / 2).cumsum(1), (0, 0, 1, 0))
        along = (times * KNOTS + last / 2).clamp(0, last)
        k = along.floor().long().clamp(max=last - 1)
        u = (along - k).view(1, -1, 1)
        return (ends[:, k] + v[:, k] * u + (v[:, k + 1] - v[:, k]) * u * u / 2) / KNOTS


@dataclass(frozen=True)
class _Scene:
    picture: Tensor  # (N, C, h, w), larger than a sample by REACH on every side
    path: CameraPath
    mask: Tensor | None  # (N, 1, h, w) opacity; None for the background, which is opaque


def _envelope(count: int, options: BlurOptions, generator: torch.Generator) -> Tensor:
    frames, device = options.frames, generator.device
    pace = PACE[0] + (PACE[1] - PACE[0]) * torch.rand(count, frames, generator=generator, device=device)
    pace[torch.rand(count, frames, generator=generator, device=device) < options.still] = STILL
    pace = pace.log()
    knots = torch.empty(count, KNOTS * frames + 1, device=device)
    knots[:, 1::KNOTS] = pace
    knots[:, 2:-1:KNOTS] = (pace[:, 1:] + pace[:, :-1]) / 2
    knots[:, 0], knots[:, -1] = pace[:, 0], pace[:, -1]
    return knots.exp().unsqueeze(-1)


def _blobs(count: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    coarse = torch.randn(count, 1, BLOB_CELLS, BLOB_CELLS, generator=generator, device=generator.device)
    smooth = functional.interpolate(coarse, size, mode="bicubic", align_corners=False)
    draw = torch.rand(count, 1, 1, 1, generator=generator, device=generator.device)
    return torch.sigmoid((smooth - BLOB_LEVEL) / (BLOB_EDGE[0] + (BLOB_EDGE[1] - BLOB_EDGE[0]) * draw))


def _render(scenes: list[_Scene], options: BlurOptions) -> tuple[Tensor, Tensor]:
    background = scenes[0].picture
    count, channels = background.shape[:2]
    blurry = background.new_empty(count, options.frames, channels, options.height, options.width)
    sharp = torch.empty_like(blurry)
    reach = _exposure_paths(scenes, options)
    lower = 0.0
    for upper, instants in INSTANTS:
        chosen = ((reach >= lower) & (reach < upper)).nonzero().flatten()
        size = max(1, CHUNK[background.device.type] // (options.frames * instants * options.height * options.width))
        for some in chosen.split(size):
            blurry[some], sharp[some] = _expose(scenes, some, instants, options)
        lower = upper
    shape = (count, options.frames, *((channels,) if channels > 1 else ()), options.height, options.width)
    return blurry.view(shape), sharp.view(shape)


def _exposure_paths(scenes: list[_Scene], options: BlurOptions) -> Tensor:
    times = _times(options, 5, scenes[0].picture.device)
    lengths = []
    for scene in scenes:
        steps = scene.path.at(times)[..., :2].unflatten(1, (options.frames, 5)).diff(dim=2).norm(dim=-1)
        lengths.append(steps.sum(2).amax(1))
    return torch.stack(lengths).amax(0)


def _times(options: BlurOptions, instants: int, device: torch.device) -> Tensor:
    frame = torch.arange(options.frames, device=device) - (options.frames - 1) / 2
    shutter = torch.linspace(-0.5, 0.5, instants, device=device) * options.exposure
    return (frame[:, None] + shutter[None, :]).flatten()


def _expose(scenes: list[_Scene], some: Tensor, instants: int, options: BlurOptions) -> tuple[Tensor, Tensor]:
    times = _times(options, instants, some.device)
    image = _view(scenes[0].picture[some], scenes[0].path.select(some).at(times), options)
    for scene in scenes[1:]:
        mask = scene.mask[some]
        present = mask.amax((1, 2, 3)).nonzero().flatten()
        if len(present):
            chosen = some[present]
            layer = torch.cat([scene.picture[chosen] * mask[present], mask[present]], 1)
            layer = _view(layer, scene.path.select(chosen).at(times), options)
            image[present] = image[present] * (1 - layer[:, -1:]) + layer[:, :-1]
    image = image.unflatten(2, (options.frames, instants))
    return image.mean(3).transpose(1, 2), image[:, :, :, instants // 2].transpose(1, 2)


def _view(picture: Tensor, motion: Tensor, options: BlurOptions) -> Tensor:
    """(n, C, h, w) pictures seen from (n, T, 4) positions -> (n, C, T, H, W)."""
    count, steps = motion.shape[:2]
    height, width = picture.shape[-2:]
    x, y, angle, zoom = motion.unbind(-1)
    cos, sin = torch.cos(angle) * torch.exp(zoom), torch.sin(angle) * torch.exp(zoom)
    rows = torch.arange(options.height, device=motion.device) - (options.height - 1) / 2
    columns = torch.arange(options.width, device=motion.device) - (options.width - 1) / 2
    grid = motion.new_empty(count, steps, options.height, options.width, 2)
    for axis, (along_x, along_y, shift, size) in enumerate(((cos, -sin, x, width), (sin, cos, y, height))):
        horizontal = (along_x[..., None] * columns + shift[..., None]) * (2 / size)
        vertical = along_y[..., None] * rows * (2 / size)
        torch.add(horizontal[:, :, None, :], vertical[:, :, :, None], out=grid[..., axis])
    large = functional.interpolate(picture, scale_factor=OVERSAMPLING, mode="bicubic", align_corners=False)
    seen = functional.grid_sample(large, grid.flatten(1, 2), "bilinear", "reflection", align_corners=False)
    return seen.unflatten(2, (steps, options.height))


def _degrade(blurry: Tensor, options: BlurOptions, generator: torch.Generator) -> Tensor:
    count, device = len(blurry), blurry.device
    shape = (count, *(1,) * (blurry.ndim - 1))
    sigma = torch.rand(shape, generator=generator, device=device) * (options.noise / 255)
    noisy = blurry + sigma * torch.randn(blurry.shape, generator=generator, device=device)
    noisy = (noisy.clamp(0, 1) * 255).round() / 255
    if options.jpeg is None or blurry.ndim != 4:
        return noisy
    low, high = options.jpeg
    quality = torch.randint(low, high + 1, (count,), generator=generator, device=device)
    compressed = torch.rand(count, generator=generator, device=device) < 0.5
    row, column = torch.randint(0, 8, (2,), generator=generator, device=device).tolist()
    noisy[compressed] = jpeg_luma(noisy[compressed], quality[compressed], (row, column))
    return noisy


def _on(textures: Textures, values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, device=textures.device)
