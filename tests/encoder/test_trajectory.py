# SPDX-License-Identifier: Apache-2.0
"""Early prunings at many qualities that share their passes: as alone at first, nearly so after, and cheaper."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch

from potr.encoder.config import PruneConfig
from potr.encoder.encode import encode
from potr.encoder.prune import prune, start
from potr.encoder.quality import config_for
from potr.encoder.trajectory import Trajectory
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import RemovalCost
from potr.render.cpu import CpuRasterizer
from tests.helpers.scenes import random_model, random_views


class Counting(CpuRasterizer):
    """The cpu backend with its passes counted."""

    passes = 0

    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: object = None, *, progress: Progress = silent
    ) -> RemovalCost:
        self.passes += 1
        return super().removal_cost(model, views, progress=progress)


@pytest.fixture(scope="module")
def scene() -> tuple[SplatModel, list[View]]:
    model = random_model(5, num_splats=400, log_scale=-2.5, opacity_logit=1.0, sh_ac=0.1)
    raster = CpuRasterizer(threads=1)
    views = random_views(5, 6, width=48, height=36)
    noise = torch.Generator().manual_seed(1)
    rendered = []
    for view in views:
        image = raster.render(model, view.camera, view.background)
        noisy = (image + 0.03 * torch.randn(image.shape, generator=noise)).clamp(0, 1)
        rendered.append(dataclasses.replace(view, image=noisy))
    return model, rendered


def at(quality: float) -> PruneConfig:
    return config_for(quality).prune


def test_the_first_pruning_is_the_encoder_s_own(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    raster = CpuRasterizer(threads=1)
    alone = prune(model, views, raster, at(0.5), "early", state=start(model, at(0.5)))
    trajectory = Trajectory(model, views, raster)
    shared = trajectory.prune(at(0.5))
    assert shared is not None
    assert shared.kept.equal(alone.kept)
    assert shared.passes == alone.passes
    assert shared.cap == alone.cap
    data = encode(model, views, quality=0.5, rasterizer=raster).data
    assert encode(model, views, quality=0.5, rasterizer=raster, early=shared).data == data
    again = trajectory.prune(at(0.5))
    assert again is not None
    assert again.kept.equal(shared.kept)


def test_later_prunings_are_near_what_they_were_alone_and_cost_few_passes(
    scene: tuple[SplatModel, list[View]],
) -> None:
    model, views = scene
    raster = Counting(threads=1)
    trajectory = Trajectory(model, views, raster)
    trajectory.prune(at(0.5))
    for quality in (0.4, 0.55, 0.7):
        raster.passes = 0
        shared = trajectory.prune(at(quality))
        passes = raster.passes
        alone = prune(model, views, raster, at(quality), "early")
        assert shared is not None
        assert len(shared.kept) == pytest.approx(len(alone.kept), abs=0.03 * model.num_splats)
        assert passes <= 2
        assert sum(report.removed for report in shared.passes if not report.undone) == 400 - len(shared.kept)
        assert shared.cap == alone.cap


def test_a_much_finer_pruning_begins_anew(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    raster = CpuRasterizer(threads=1)
    trajectory = Trajectory(model, views, raster)
    trajectory.prune(at(0.2))
    shared, alone = trajectory.prune(at(1.0)), prune(model, views, raster, at(1.0), "early")
    assert shared is not None
    assert shared.kept.equal(alone.kept)


def test_an_interrupted_trajectory_goes_on_to_the_same_end(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    raster = CpuRasterizer(threads=1)
    whole = Trajectory(model, views, raster)
    ends = [whole.prune(at(quality)) for quality in (0.5, 0.3)]

    def interrupt(stage: str, done: int, total: int, /) -> None:
        if stage.startswith("early pruning pass 4/"):
            raise KeyboardInterrupt

    broken = Trajectory(model, views, raster)
    with pytest.raises(KeyboardInterrupt):
        broken.prune(at(0.5), interrupt)
    assert broken.rungs
    resumed = Trajectory(model, views, raster, broken.rungs)
    for quality, end in zip((0.5, 0.3), ends, strict=True):
        state = resumed.prune(at(quality))
        assert state is not None
        assert end is not None
        assert state.kept.equal(end.kept)
        assert [p.removed for p in state.passes] == [p.removed for p in end.passes]


def test_what_has_no_cap_is_left_to_the_encoder(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    trajectory = Trajectory(model, views, CpuRasterizer(threads=1))
    for changes in ({"early_passes": 0}, {"target_splats": 10}, {"target_share": 0.5}):
        assert trajectory.prune(dataclasses.replace(at(0.5), **changes)) is None  # type: ignore[arg-type]
