# SPDX-License-Identifier: Apache-2.0
"""Seeded scenes for tests."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from potr.model.cameras import BLACK, RGB, Camera, View
from potr.model.splats import SH_COEFFICIENTS, SplatModel


def look_at_camera(azimuth: float, *, width: int = 53, height: int = 37, distance: float = 4.0) -> Camera:
    """On a circle about the origin, slightly above it, looking at it; pixels not square, the image not whole tiles."""
    center = torch.tensor([distance * math.sin(azimuth), -0.5, -distance * math.cos(azimuth)], dtype=torch.float64)
    forward = -center / center.norm()
    right = torch.linalg.cross(torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64), forward)
    right = right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ center
    return Camera(width, height, 1.0 * width, 1.05 * width, width / 2, height / 2, viewmat.float())


def random_model(
    seed: int,
    *,
    num_splats: int = 40,
    sh_degree: int = 3,
    spread: float = 1.0,
    log_scale: float = -1.5,
    opacity_logit: float = 0.0,
    sh_ac: float = 0.2,
) -> SplatModel:
    """Splats in a cube of half-width `spread` about the origin: all shapes, opaque and faint, some colours clamped."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    n, k = num_splats, SH_COEFFICIENTS[sh_degree]
    return SplatModel(
        means=(torch.rand(n, 3, generator=g) * 2 - 1) * spread,
        log_scales=log_scale + 0.6 * normal(n, 3),
        quats=normal(n, 4),
        opacity_logits=opacity_logit + 2 * normal(n),
        sh_dc=normal(n, 3),
        sh_ac=sh_ac * normal(n, k - 1, 3),
    )


def random_views(seed: int, count: int = 2, *, background: RGB = BLACK, **camera: int) -> list[View]:
    """Cameras around the origin with photographs of noise: nothing a render could accidentally agree with."""
    g = torch.Generator().manual_seed(seed)
    views = []
    for i in range(count):
        c = look_at_camera(2 * math.pi * i / count + 0.3, **camera)
        views.append(View(f"view_{i}", c, torch.rand(c.height, c.width, 3, generator=g), background))
    return views


# Small scenes, each for what is hard in it.
SCENES: dict[str, Callable[[int], SplatModel]] = {
    "mixed": random_model,
    "opaque": lambda seed: random_model(seed, opacity_logit=7, log_scale=-1.0),  # alpha at its cap, T far below 1e-4
    "faint": lambda seed: random_model(seed, opacity_logit=-3, num_splats=60),  # around alpha 1/255
    "needles": lambda seed: _needles(random_model(seed)),
    "off_screen": lambda seed: random_model(seed, spread=5, num_splats=80),  # beside, behind and inside the cameras
    "clamped": lambda seed: _darkened(random_model(seed)),
    "tiny": lambda seed: random_model(seed, log_scale=-5),  # below a pixel
    "huge": lambda seed: random_model(seed, log_scale=2, opacity_logit=-2),  # every splat over the whole image
}


def _needles(model: SplatModel) -> SplatModel:
    stretch = torch.tensor([2.0, -2.0, -4.0])
    return replace(model, log_scales=model.log_scales + stretch)


def _darkened(model: SplatModel) -> SplatModel:
    """Most colours below 0, some only in some directions."""
    return replace(model, sh_dc=model.sh_dc - 2.0, sh_ac=model.sh_ac * 2)
