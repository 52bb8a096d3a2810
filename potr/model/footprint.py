# SPDX-License-Identifier: Apache-2.0
"""How large a pixel is at a splat: the finest detail that the training views can show of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from potr.model.cameras import Camera
from potr.model.constants import MARGIN, NEAR
from potr.model.splats import SplatModel


def any_in_sight(model: SplatModel, cameras: Sequence[Camera]) -> bool:
    """Whether one of the cameras has one of the splats in view; the first that has ends the search."""
    return any(bool(pixel_sizes(model, [camera]).isfinite().any()) for camera in cameras)


def pixel_sizes(model: SplatModel, cameras: Sequence[Camera]) -> Tensor:
    """[N] float32 world size of a pixel at each splat in the nearest camera that has it in view; inf if none has."""
    smallest = torch.full((model.num_splats,), torch.inf, device=model.device)
    for camera in cameras:
        viewmat = camera.viewmat.to(model.device)
        x, y, z = (model.means @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(-1)
        u, v = camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy
        inside = (u > -MARGIN * camera.width) & (u < (1 + MARGIN) * camera.width)
        inside &= (v > -MARGIN * camera.height) & (v < (1 + MARGIN) * camera.height) & (z > NEAR)
        size = z / max(camera.fx, camera.fy)
        smallest = torch.where(inside, torch.minimum(smallest, size), smallest)
    return smallest
