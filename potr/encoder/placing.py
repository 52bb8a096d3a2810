# SPDX-License-Identifier: Apache-2.0
"""Cameras placed around a model that came without any: where its middle is, how far it reaches, where to look from.

An object is looked at from all sides. What has no outside (a room, a landscape) is looked at from where it was most
likely seen: training leaves splats whose size grows with their distance from the cameras, so that place shows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from potr.errors import SceneError
from potr.model.cameras import Camera
from potr.model.splats import SplatModel

INVISIBLE = 1 / 255  # opacity below which no pixel is touched (Kerbl et al. 2023)
UNBOUNDED = (
    1.5  # far surface to near splats, see Layout; 0.9 for an object, 2.3 and 3.4 for a room and a wall of plants
)
_SAMPLE = 20_000  # splats that decide about the layout
_OBJECT_FIELD, _SCENE_FIELD = math.radians(40), math.radians(60)  # horizontal field of view
_SPLAT_PIXELS = 1.0  # standard deviation, in pixels, that all but the smallest tenth of the splats have
_WIDTHS = (400, 800)  # pixels
REACHES = (0.4, 0.8, 1.5)  # of the median depth: how far from the vantage cameras stand at most, a third each


@dataclass(frozen=True)
class Layout:
    """How a model lies in space; floaters and far backgrounds hardly move any of it.

    Attributes:
        center: [3] float64 median place of the densest half of the splats.
        radius: distance from the centre within which half of the splats lie, by opacity.
        extent: the same for 99 % of them, or 1.5 times that for 90 % where the last few are stray.
        unbounded: whether surface lies mostly far out: the median distance by area is over UNBOUNDED times that by
            number; splats beyond three times the distance of 90 % do not count.
        vantage: [3] float64 the place that explains the splats' sizes best; the centre for an object.
        depth: median distance of the splats from the vantage.
        detail: standard deviation along the longest axis that a tenth of the splats fall short of.
    """

    center: Tensor
    radius: float
    extent: float
    unbounded: bool
    vantage: Tensor
    depth: float
    detail: float


def layout(model: SplatModel) -> Layout:
    """Where the middle of a model is and how far it reaches; SceneError if no splat can be seen."""
    visible = torch.nonzero(model.opacities > INVISIBLE).flatten()
    if len(visible) == 0:
        raise SceneError(f"views around the model: none of its {model.num_splats} splats is opaque enough to be seen")
    model = model.select(visible[:: -(-len(visible) // _SAMPLE)]).to("cpu")
    points, weights = model.means.double(), model.opacities.double()
    center = torch.stack([_quantile(axis, weights, 0.5) for axis in points.T])
    for _ in range(10):  # the densest half, not the middle of everything
        distance = (points - center).norm(dim=1)
        inner = distance <= _quantile(distance, weights, 0.5)
        center = torch.stack([_quantile(axis, weights[inner], 0.5) for axis in points[inner].T])
    distance = (points - center).norm(dim=1)
    scales = model.scales.double().sort(dim=1).values
    radius, most = float(_quantile(distance, weights, 0.5)), float(_quantile(distance, weights, 0.9))
    area = weights * scales[:, 1] * scales[:, 2] * (distance <= 3 * most)
    extent = min(float(_quantile(distance, weights, 0.99)), 1.5 * most)
    smallest = float(scales[:, 2].median()) or 1.0
    radius, extent = max(radius, smallest), max(extent, 2 * smallest)  # a single splat has a size too
    unbounded = float(_quantile(distance, area, 0.5)) > UNBOUNDED * radius
    vantage = _vantage(points, scales[:, 1:].log().mean(dim=1), weights, center, radius) if unbounded else center
    depth = float(_quantile((points - vantage).norm(dim=1), weights, 0.5))
    return Layout(center, radius, extent, unbounded, vantage, depth, float(_quantile(scales[:, 2], weights, 0.1)))


def _vantage(points: Tensor, log_size: Tensor, weights: Tensor, center: Tensor, radius: float) -> Tensor:
    """[3] the place from which all splats look most alike in size: least spread of log(size / distance)."""

    def spread(place: Tensor) -> float:
        seen = log_size - (points - place).norm(dim=1).clamp_min(1e-3 * radius).log()
        return float(((seen - _quantile(seen, weights, 0.5)).abs() * weights).sum())

    generator = torch.Generator().manual_seed(0)
    best, reach = center, 3 * radius
    for _ in range(4):
        tries = best + reach * (2 * torch.rand(100, 3, generator=generator, dtype=torch.float64) - 1)
        best = min([best, *tries], key=spread)
        reach /= 3
    return best


def _quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """The value below which ``share`` of the weight lies."""
    order = values.argsort()
    total = weights[order].cumsum(0)
    index = int(torch.searchsorted(total, share * total[-1]))
    return values[order[min(index, len(order) - 1)]]


def around(layout: Layout, count: int) -> list[Camera]:
    """Cameras on a sphere about the centre (Fibonacci's spiral), all of the model in each."""
    distance = 1.05 * layout.extent / math.sin(_OBJECT_FIELD / 2)
    size = _width(distance, layout.detail, _OBJECT_FIELD)
    return [
        look(layout.center + distance * direction, layout.center, size, size, _OBJECT_FIELD)
        for direction in spiral(count)
    ]


def inside(layout: Layout, count: int, reach: float, seed: int = 0) -> list[Camera]:
    """Candidates within ``reach`` median depths of the vantage; seeded.

    In turn they look anywhere, towards the centre (what is detailed) and the vantage (what cameras stood about).
    """
    generator = torch.Generator().manual_seed(seed)
    width = _width(layout.depth, layout.detail, _SCENE_FIELD)
    cameras = []
    for index in range(count):
        offset = torch.randn(3, generator=generator, dtype=torch.float64)
        offset *= torch.rand(1, generator=generator, dtype=torch.float64) ** (1 / 3) / offset.norm()
        place = layout.vantage + reach * layout.depth * offset
        aim = torch.randn(3, generator=generator, dtype=torch.float64)
        if index % 3:
            middle = layout.center if index % 3 == 1 else layout.vantage
            aim = middle + 0.3 * layout.radius * aim / aim.norm() - place
        cameras.append(look(place, place + aim, width, 3 * width // 4, _SCENE_FIELD))
    return cameras


def spiral(count: int) -> Tensor:
    """[count, 3] float64 unit vectors, evenly spread (Fibonacci's spiral), each at its place in the golden angle."""
    index = torch.arange(count, dtype=torch.float64)
    y = 1 - (2 * index + 1) / count
    ring, angle = (1 - y * y).sqrt(), index * math.pi * (3 - math.sqrt(5))
    return torch.stack([ring * angle.cos(), y, ring * angle.sin()], dim=1)


def look(place: Tensor, target: Tensor, width: int, height: int, field: float) -> Camera:
    """A camera at ``place`` that has ``target`` in its middle, the world's y axis pointing down where it can."""
    forward = (target - place) / (target - place).norm()
    down = torch.tensor([0.0, 1.0, 0.0] if abs(float(forward[1])) < 0.99 else [0.0, 0.0, 1.0], dtype=torch.float64)
    right = torch.linalg.cross(down, forward)
    right = right / right.norm()
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
    viewmat = torch.eye(4, dtype=torch.float64)
    viewmat[:3, :3], viewmat[:3, 3] = rotation, -rotation @ place
    focal = width / (2 * math.tan(field / 2))
    return Camera(width, height, focal, focal, width / 2, height / 2, viewmat.float())


def _width(distance: float, detail: float, field: float) -> int:
    """Pixels across the image at which the model's detail shows, within limits; whole tiles."""
    focal = _SPLAT_PIXELS * distance / max(detail, 1e-12)
    wanted = 2 * math.tan(field / 2) * focal
    return 16 * round(min(max(wanted, _WIDTHS[0]), _WIDTHS[1]) / 16)
