# SPDX-License-Identifier: Apache-2.0
"""A synthetic model of any size whose load on a rasteriser is like a trained scene's: no photographs, no downloads.

Objects on a ground, background all around, some floaters; cameras on two rings about the middle look at it. Opacities
and the ratios of a splat's axes follow a trained bonsai (quantiles of its model), and sizes go with the square root of
1 / N, so that about as many splats lie over a pixel at any N.

    python experiments/scene_like.py [--sizes N ...] [--image W H] [--scenes FOLDER ...]

prints what loads a rasteriser, of these models and of scene folders, as the cpu backend counts it.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

import potr
from potr.model.cameras import BLACK, Camera, View
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer

# Shares of the splats, and where they lie: on spheres of one object each, on a disk, on shells around everything.
OBJECTS, GROUND, BACKGROUND = 0.45, 0.25, 0.25  # the rest floats
RING, GROUND_RADIUS, FAR = 4.0, 9.0, 30.0  # world units; the cameras' ring lies inside the scene
SIZE_OF_300K = 0.0135  # median of a splat's largest standard deviation, world units, in a model of 300,000


def scene_like(num_splats: int, seed: int = 0) -> SplatModel:
    """The model, SH degree 3, on the CPU; the same bits for the same arguments."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    n = num_splats
    means = _means(n, g)
    # What is far from the cameras is coarser, as training leaves it.
    size = SIZE_OF_300K * math.sqrt(300_000 / max(n, 1)) * (means.norm(dim=1) / RING).clamp_min(1)
    largest = size.log() + 0.85 * normal(n)
    middle = largest - (math.log(1.8) * (0.85 * normal(n)).exp())
    smallest = middle - (math.log(1.7) * (0.85 * normal(n)).exp())
    return SplatModel(
        means=means,
        log_scales=torch.stack([largest, middle, smallest], dim=1),
        quats=normal(n, 4),
        opacity_logits=-0.5 + 2.5 * normal(n),
        sh_dc=0.6 * normal(n, 3),
        sh_ac=0.02 * normal(n, 15, 3),
    )


def ring_cameras(count: int, width: int, height: int) -> list[Camera]:
    """Evenly spaced on two rings at different heights, looking at the middle; y is down in the world."""
    cameras = []
    for i in range(count):
        azimuth, elevation = 2 * math.pi * i / count, (0.25, 0.5)[i % 2]
        flat = math.cos(elevation)
        center = RING * torch.tensor([flat * math.sin(azimuth), -math.sin(elevation), -flat * math.cos(azimuth)])
        forward = -center / center.norm()
        right = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0]), forward)
        right = right / right.norm()
        rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
        viewmat = torch.eye(4)
        viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ center
        focal = 0.85 * width
        cameras.append(Camera(width, height, focal, focal, width / 2, height / 2, viewmat))
    return cameras


def photographed(
    model: SplatModel, cameras: Sequence[Camera], rasterizer: Rasterizer, *, noise: float = 0.02, seed: int = 1
) -> list[View]:
    """Views whose photographs are the model's renders plus Gaussian noise, to 8 bits; on black.

    The photographs are kept as bytes on the CPU and turned to float32 there whenever they are read, which stands for
    the reading of files (and costs less).
    """
    views = []
    for i, camera in enumerate(cameras):
        image = rasterizer.render(model, camera, BLACK)
        g = torch.Generator(image.device).manual_seed(seed + i)
        image = image + noise * torch.randn(image.shape, generator=g, device=image.device)
        levels = (255 * image.clamp(0, 1)).round().to(torch.uint8).cpu()
        views.append(View(f"view_{i:04d}", camera, _Levels(levels), BLACK))
    return views


class _Levels:
    """A photograph in 8 bits; a class, so that it can be pickled."""

    def __init__(self, levels: Tensor) -> None:
        self.levels = levels

    def __call__(self) -> Tensor:
        return self.levels.float() / 255


def _means(n: int, g: torch.Generator) -> Tensor:
    """[N, 3] centres, the kinds of place mixed."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g)

    kind = rand(n)
    direction = torch.nn.functional.normalize(torch.randn(n, 3, generator=g), dim=1)
    # Twelve spheres about the middle, resting on the ground (y = 1).
    which = torch.randint(12, (n,), generator=g)
    radius = 0.25 + 0.05 * (which % 6)
    angle = 2.4 * which  # the golden angle spreads them
    away = 0.45 * which.float().sqrt()
    center = torch.stack([away * angle.cos(), 1 - radius, away * angle.sin()], dim=1)
    on_objects = center + radius[:, None] * direction
    distance, around = GROUND_RADIUS * rand(n).sqrt(), 2 * math.pi * rand(n)
    on_ground = torch.stack([distance * around.cos(), 1 + 0.02 * direction[:, 1], distance * around.sin()], dim=1)
    shell = GROUND_RADIUS * (FAR / GROUND_RADIUS) ** rand(n, 1)
    behind = direction * shell
    behind[:, 1] = torch.where(behind[:, 1] > 1, 1 - behind[:, 1], behind[:, 1])  # nothing under the ground
    floating = 6 * (rand(n, 3) - 0.5)
    means = torch.where((kind < OBJECTS)[:, None], on_objects, on_ground)
    means = torch.where((kind >= OBJECTS + GROUND)[:, None], behind, means)
    return torch.where((kind >= OBJECTS + GROUND + BACKGROUND)[:, None], floating, means)


def load(name: str, model: SplatModel, camera: Camera) -> str:
    """A row: share of the splats that are seen, entries and splats per pixel, without and with the stop at 1e-4."""
    from potr.render.cpu import TRANSMITTANCE_MIN, CpuRasterizer

    pixels = camera.width * camera.height
    view = View(name, camera, torch.zeros(camera.height, camera.width, 3))
    exact, stopping = CpuRasterizer(), CpuRasterizer(statistics_transmittance_min=TRANSMITTANCE_MIN)
    weights = exact.removal_cost(model, [view]).pixels
    stopped = stopping.removal_cost(model, [view]).pixels
    figures = (exact._native.num_entries, int(weights.sum()), int(stopped.sum()))
    per_pixel = " | ".join(f"{figure / pixels:.2f}" for figure in figures)
    seen = 100 * float((weights > 0).float().mean())
    return f"| {name} | {model.num_splats:,} | {camera.width}x{camera.height} | {seen:.0f}% | {per_pixel} |"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[200_000, 3_000_000])
    parser.add_argument("--image", type=int, nargs=2, default=[1600, 1000])
    parser.add_argument("--scenes", type=Path, nargs="*", default=[])
    chosen = parser.parse_args()
    print("| model | splats | image | seen | entries/px | splats/px | splats/px to 1e-4 |")
    print("| --- " + "| ---: " * 6 + "|")
    for folder in chosen.scenes:
        scene = potr.load_scene(folder)
        print(load(scene.name, scene.model, scene.test_views[0].camera), flush=True)
    for size in chosen.sizes:
        print(load("scene_like", scene_like(size), ring_cameras(8, *chosen.image)[0]), flush=True)


if __name__ == "__main__":
    main()
