# SPDX-License-Identifier: Apache-2.0
"""A tiny scene folder as 3DGS leaves it: model, cameras.json, photographs that are not quite the model's renders."""

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from potr.evaluate.metrics import to_8bit
from potr.io.cameras_json import write_cameras_json
from potr.io.ply import save_ply
from potr.io.posed_images import Shot
from potr.model.cameras import BLACK, Camera
from potr.model.splats import SplatModel
from potr.render.select import select

WIDTH, HEIGHT = 48, 36


def make_scene_folder(folder: Path, *, train: int = 8, test: int = 2, num_splats: int = 300, seed: int = 0) -> Path:
    """Write the scene; every fifth splat is a faint copy of its neighbour, as training leaves them."""
    model = ball_of_splats(num_splats, seed)
    rasterizer = select("cpu", threads=1)
    noise = np.random.default_rng(seed)
    shots = []
    (folder / "images").mkdir(parents=True)
    for index in range(train + test):
        camera = camera_around(2 * math.pi * index / (train + test))
        shot = Shot(f"view_{index:02d}.png", camera, "train" if index < train else "test")
        pixels = to_8bit(rasterizer.render(model, camera, BLACK)).numpy().astype(np.int64)
        pixels = np.clip(pixels + noise.integers(-6, 7, pixels.shape), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "images" / shot.name)
        shots.append(shot)
    write_cameras_json(folder / "cameras.json", shots)
    save_ply(model, folder / "point_cloud.ply")
    return folder


def ball_of_splats(count: int, seed: int) -> SplatModel:
    g = torch.Generator().manual_seed(seed)
    means = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    copies = torch.arange(0, count - 1, 5)
    means[copies] = means[copies + 1] + 0.01
    opacity_logits = 2 + torch.randn(count, generator=g)
    opacity_logits[copies] = -3.0
    return SplatModel(
        means=means,
        log_scales=-2 + 0.3 * torch.randn(count, 3, generator=g),
        quats=torch.randn(count, 4, generator=g),
        opacity_logits=opacity_logits,
        sh_dc=means.clone(),
        sh_ac=0.1 * torch.randn(count, 15, 3, generator=g),
    )


def camera_around(azimuth: float) -> Camera:
    """On a circle of radius 4 around the origin, looking at it."""
    forward = torch.tensor([-math.sin(azimuth), 0.0, -math.cos(azimuth)])
    down = torch.tensor([0.0, 1.0, 0.0])
    rotation = torch.stack([torch.linalg.cross(down, forward), down, forward])
    viewmat = torch.eye(4)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ (-4 * forward)
    return Camera(WIDTH, HEIGHT, 50.0, 50.0, WIDTH / 2, HEIGHT / 2, viewmat)
