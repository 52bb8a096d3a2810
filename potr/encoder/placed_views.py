# SPDX-License-Identifier: Apache-2.0
"""Training views for a model without any: cameras placed around it, its own renders as the photographs.

An object is looked at from all sides. What has no outside (a room, a landscape) is looked at from where it was most
likely seen: training leaves splats whose size grows with their distance from the cameras, so that place shows.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from potr.encoder.config import CodecConfig
from potr.errors import SceneError
from potr.model.cameras import BLACK, Camera, View
from potr.model.constants import ALPHA_MIN
from potr.model.sh import C0
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import Rasterizer

log = logging.getLogger(__name__)

TRAINING, HELD_OUT = 80, 16
# MSE against photographs that a trained model is taken to have where it covers the image (30 dB): the own renders agree
# with it exactly, and a relative pruning cap needs something to be relative to.
USUAL_MSE = 1e-3
_CANDIDATES = 300
_PROBE_WIDTH = 48  # pixels
_NEAR = 0.5  # of the median depth; what lies nearer is in the way
_LEAST_COVERED = 0.6  # share of a candidate's image
_CLEAREST = 0.4  # share of the candidates that are chosen from
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


@dataclass(frozen=True, eq=False)
class PlacedViews:
    """Views around a model.

    Attributes:
        train: for the encoder.
        held_out: for judging the result; the encoder has not seen them.
        layout: what they were placed by.
        coverage: mean opacity of the training views' pixels.
    """

    train: tuple[View, ...]
    held_out: tuple[View, ...]
    layout: Layout
    coverage: float

    def __repr__(self) -> str:
        where = "inside" if self.layout.unbounded else "around"
        return f"PlacedViews({len(self.train)} + {len(self.held_out)} held out, {where} the model)"


@dataclass(frozen=True, eq=False)
class ModelAlone:
    """What the encoder takes where there is a model and nothing else.

    Attributes:
        model: without its invisible splats.
        views: its own renders.
    """

    model: SplatModel
    views: PlacedViews

    def adapted(self, config: CodecConfig) -> CodecConfig:
        """The configuration for this model, judged by these views."""
        return config_for_renders(config, self.views, self.model.num_splats)


@dataclass(frozen=True, eq=False)
class _Stored:
    """A render as 8-bit pixels, as a photograph would be."""

    pixels: Tensor

    def __call__(self) -> Tensor:
        return self.pixels.float() / 255


def without_invisible(model: SplatModel) -> SplatModel:
    """The model without the splats that are too faint to touch a pixel from anywhere."""
    return model.select(model.opacities >= ALPHA_MIN)


def model_alone(model: SplatModel, rasterizer: Rasterizer, *, progress: Progress = SILENT) -> ModelAlone:
    """A model without cameras or photographs, ready for the encoder: of the command line and of ``encode``.

    Raises:
        SceneError: no splat can be seen.
    """
    model = without_invisible(model)
    placed = views_around(model, rasterizer, progress=progress)
    log.info(
        "no scene: %d views placed %s, the model's own renders in the place of photographs",
        len(placed.train) + len(placed.held_out), "inside" if placed.layout.unbounded else "around",
    )  # fmt: skip
    return ModelAlone(model, placed)


def config_for_renders(config: CodecConfig, views: PlacedViews, num_splats: int) -> CodecConfig:
    """The configuration for a model judged by its own renders.

    Splats that no placed view sees stay: nobody knows whether they will be looked at. A relative cap is taken of the
    MSE that trained models usually have, for against its own renders a model has none.
    """
    prune = replace(config.prune, remove_unseen=False)
    if prune.cap is None:
        mse = USUAL_MSE * max(views.coverage, 0.01)
        prune = replace(prune, cap=min(1.0, prune.relative_cap * mse / max(num_splats, 1)))
    return replace(config, prune=prune)


def views_around(
    model: SplatModel,
    rasterizer: Rasterizer,
    *,
    training: int = TRAINING,
    held_out: int = HELD_OUT,
    progress: Progress = SILENT,
) -> PlacedViews:
    """Place cameras around a model and render what they see, on black.

    Args:
        model: without cameras or photographs.
        rasterizer: a backend.
        training: views for the encoder.
        held_out: views for judging the result, among the others.
        progress: called after each view.

    Raises:
        SceneError: no splat can be seen.
    """
    model = model.detach().to(rasterizer.device)
    found = layout(model)
    count = training + held_out
    cameras = around(found, count)
    if found.unbounded:
        clear: list[Camera] = []
        for left, reach in zip(range(len(REACHES), 0, -1), REACHES, strict=True):
            candidates = inside(found, _CANDIDATES // len(REACHES), reach)
            clear += _clear_views(model, rasterizer, found, candidates, (count - len(clear)) // left, progress)
        cameras = clear or cameras
    every = len(cameras) / max(held_out, 1)
    judges = {math.floor((index + 0.5) * every) for index in range(held_out)} if len(cameras) > held_out else set()
    views, covered = [], 0.0
    report = progress.stage("render the model's own views")
    for index, camera in enumerate(cameras):
        report(index, len(cameras))
        image = rasterizer.render(model, camera, BLACK).clamp(0, 1)
        pixels = (image * 255 + 0.5).floor().to(torch.uint8).cpu()
        views.append(View(f"placed_{index:03d}", camera, _Stored(pixels)))
        covered += float(_probe(model, rasterizer, camera, found)[0]) / len(cameras)
    report(len(cameras), len(cameras))
    if covered == 0:
        raise SceneError(f"views around the model: none of {len(cameras)} placed cameras sees any of its splats")
    train = tuple(view for index, view in enumerate(views) if index not in judges)
    return PlacedViews(train, tuple(view for index, view in enumerate(views) if index in judges), found, covered)


def _clear_views(
    model: SplatModel, rasterizer: Rasterizer, found: Layout, candidates: Sequence[Camera], count: int,
    progress: Progress,
) -> list[Camera]:  # fmt: skip
    """Of the candidates that see much, those with least right in front of them, as different as can be."""
    seen: list[tuple[float, int]] = []
    report = progress.stage("look for clear views")
    for index, camera in enumerate(candidates):
        report(index, len(candidates))
        covered, near = _probe(model, rasterizer, camera, found)
        if covered >= _LEAST_COVERED:
            seen.append((near, index))
    report(len(candidates), len(candidates))
    clearest = sorted(seen)[: max(count, round(_CLEAREST * len(seen)))]
    return _spread([candidates[index] for index in sorted(index for _, index in clearest)], count, found.depth)


def _probe(model: SplatModel, rasterizer: Rasterizer, camera: Camera, found: Layout) -> tuple[float, float]:
    """Shares of a small image of the view: covered by splats, and covered by those right in front of the camera."""
    shrink = camera.width / _PROBE_WIDTH
    height = max(1, round(camera.height / shrink))
    small = Camera(
        _PROBE_WIDTH, height, camera.fx / shrink, camera.fy / shrink, _PROBE_WIDTH / 2, height / 2, camera.viewmat
    )
    near = (model.means - camera.center.to(model.device)).norm(dim=1) < _NEAR * found.depth
    told = torch.stack([torch.ones_like(near), near, torch.zeros_like(near)], dim=1).float()
    image = rasterizer.render(model.with_sh((told[:, None, :] - 0.5) / C0), small, BLACK)
    covered, in_front, _ = image.mean(dim=(0, 1)).tolist()
    return covered, in_front


def _spread(cameras: Sequence[Camera], count: int, depth: float) -> list[Camera]:
    """``count`` of the cameras, each time the one farthest, in place and direction, from those chosen already."""
    if not cameras:
        return []
    places = torch.stack([camera.center for camera in cameras]).double() / depth
    forward = torch.stack([camera.viewmat[2, :3] for camera in cameras]).double()
    features = torch.cat([places, forward], dim=1)
    chosen = [0]
    nearest = (features - features[0]).norm(dim=1)
    while len(chosen) < min(count, len(cameras)):
        chosen.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (features - features[chosen[-1]]).norm(dim=1))
    return [cameras[index] for index in sorted(chosen)]


def layout(model: SplatModel) -> Layout:
    """Where the middle of a model is and how far it reaches; SceneError if no splat can be seen."""
    visible = torch.nonzero(model.opacities > ALPHA_MIN).flatten()
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
