# SPDX-License-Identifier: Apache-2.0
"""Views for a model that came alone: cameras placed around it, and its own renders in the place of photographs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from potr.encoder.config import CodecConfig
from potr.encoder.placing import INVISIBLE, REACHES, Layout, around, inside, layout
from potr.errors import SceneError
from potr.model.cameras import BLACK, Camera, View
from potr.model.sh import C0
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
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
    return model.select(model.opacities >= INVISIBLE)


def model_alone(model: SplatModel, rasterizer: Rasterizer, *, progress: Progress = silent) -> ModelAlone:
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
    progress: Progress = silent,
) -> PlacedViews:
    """Place cameras around a model and render what they see, on black.

    Args:
        model: without cameras or photographs.
        rasterizer: a backend.
        training: views for the encoder.
        held_out: views for judging the result, among the others.
        progress: told of every view.

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
    for index, camera in enumerate(cameras):
        progress("render the model's own views", index, len(cameras))
        image = rasterizer.render(model, camera, BLACK).clamp(0, 1)
        pixels = (image * 255 + 0.5).floor().to(torch.uint8).cpu()
        views.append(View(f"placed_{index:03d}", camera, _Stored(pixels)))
        covered += float(_probe(model, rasterizer, camera, found)[0]) / len(cameras)
    progress("render the model's own views", len(cameras), len(cameras))
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
    for index, camera in enumerate(candidates):
        progress("look for clear views", index, len(candidates))
        covered, near = _probe(model, rasterizer, camera, found)
        if covered >= _LEAST_COVERED:
            seen.append((near, index))
    progress("look for clear views", len(candidates), len(candidates))
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
