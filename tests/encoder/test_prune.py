# SPDX-License-Identifier: Apache-2.0
"""Pruning's selection and bookkeeping, on costs made up for the purpose."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

import pytest
import torch
from torch import Tensor

from potr.encoder.config import Criterion, PruneConfig
from potr.encoder.prune import PruneState, charge, early_schedule, late_schedule, prune, select_removals
from potr.encoder.resume import Entry
from potr.model.cameras import RGB, Camera, View
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import ColorStatistics, RemovalCost
from potr.render.cpu import CpuRasterizer
from tests.helpers.scenes import random_model, random_views

SAMPLES = 1000


def costs_of(photo: Sequence[float], render: Sequence[float], pixels: Sequence[int] | None = None) -> RemovalCost:
    n = len(photo)
    return RemovalCost(
        delta_sse=torch.tensor(photo, dtype=torch.float64),
        render_sse=torch.tensor(render, dtype=torch.float64),
        contribution=torch.ones(n, dtype=torch.float64),
        peak=torch.ones(n),
        pixels=torch.tensor(pixels or [1] * n),
        sse=1.0,
        samples=SAMPLES,
    )


def removed_of(
    costs: RemovalCost, cap: float = 1.0, share: float = 1.0, target: int | None = None, **config: object
) -> list[int]:
    mask, _ = select_removals(costs, PruneConfig(**config), cap=cap, share=share, target=target)  # type: ignore[arg-type]
    return mask.nonzero()[:, 0].tolist()


def test_criteria() -> None:
    costs = costs_of([-2.0, 3.0], [1.0, 0.5])
    assert charge(costs, Criterion.PHOTO).tolist() == [-2.0, 3.0]
    assert charge(costs, Criterion.RENDER).tolist() == [1.0, 0.5]
    assert charge(costs, Criterion.BOTH).tolist() == [1.0, 3.0]


def test_the_cap_is_on_the_mse() -> None:
    costs = costs_of([0.5, 1.0, 1.5, 3.0], [0, 0, 0, 0])
    assert removed_of(costs, cap=1.0 / SAMPLES) == [0, 1]


def test_the_share_takes_the_cheapest() -> None:
    assert removed_of(costs_of([4, 3, 2, 1], [0] * 4), share=0.5) == [2, 3]


def test_unseen_splats_go_first_and_do_not_use_up_the_share() -> None:
    costs = costs_of([0, 0, 1, 2, 3], [0] * 5, pixels=[0, 0, 5, 5, 5])
    assert removed_of(costs, share=0.2) == [0, 1, 2]
    assert removed_of(costs, share=0.2, remove_unseen=False) == [2]


def test_negative_photo_costs_are_limited() -> None:
    costs = costs_of([-5, -4, -3, -2, 1, 2, 3, 4, 5, 6], [0] * 10)
    limited = removed_of(costs, cap=2.0 / SAMPLES, criterion=Criterion.PHOTO, max_negative_share=0.1)
    assert limited == [0, 4, 5]


def test_a_target_replaces_the_cap() -> None:
    costs = costs_of([100, 200, 300, 400], [0] * 4)
    assert removed_of(costs, cap=1e-12, target=3) == [0]
    assert removed_of(costs_of([1, 2, 3, 4], [0] * 4, pixels=[0, 1, 1, 1]), target=2) == [0, 1]


@dataclass
class AdditiveRasterizer:
    """Splats that do not interact, unless ``interaction`` makes every removal dearer than predicted."""

    values: Tensor  # cost of each splat, found again by its x coordinate
    interaction: float = 1.0
    passes: list[int] = field(default_factory=list)
    name: str = "additive"

    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        raise NotImplementedError

    def color_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = SILENT
    ) -> ColorStatistics:
        raise NotImplementedError

    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = SILENT
    ) -> RemovalCost:
        present = model.means[:, 0].long()
        self.passes.append(len(present))
        progress(1, 1)
        costs = self.values[present]
        missing = float(self.values.sum() - costs.sum())
        one = torch.ones(len(present))
        return RemovalCost(costs, costs, one.double(), one, one.long(), 10 + self.interaction * missing, SAMPLES)


def model_of(n: int) -> SplatModel:
    means = torch.zeros(n, 3)
    means[:, 0] = torch.arange(n)
    return SplatModel(
        means, torch.zeros(n, 3), torch.ones(n, 4), torch.zeros(n), torch.zeros(n, 3), torch.zeros(n, 0, 3)
    )


def run(rasterizer: AdditiveRasterizer, config: PruneConfig, n: int = 100, **options: object) -> PruneState:
    return prune(model_of(n), (), rasterizer, config, early_schedule(config), **options)  # type: ignore[arg-type]


def kept(state: PruneState) -> list[int]:
    return state.model.means[:, 0].long().tolist()


class Remembering(Entry[PruneState]):
    """Keeps every state that is saved, and goes on from one of them."""

    def __init__(self, begin: PruneState | None = None) -> None:
        super().__init__(PruneState)
        self.begin, self.states = begin, list[PruneState]()

    def load(self) -> PruneState | None:
        return self.begin

    def save(self, value: PruneState, *, finished: bool = True) -> PruneState:
        self.states.append(value)
        return value


VALUES = torch.arange(100).double() / 100


def test_passes_remove_all_under_the_cap_and_report_what_they_did() -> None:
    config = PruneConfig(early_passes=6, cap=0.5 / SAMPLES, max_share=0.3)
    state = run(AdditiveRasterizer(VALUES), config)
    assert kept(state) == list(range(51, 100))
    assert [p.left for p in state.passes] == sorted((p.left for p in state.passes), reverse=True)
    assert sum(p.removed for p in state.passes) == 51
    for report in state.passes:
        assert report.real_mse_change == pytest.approx(report.predicted_mse_change)
    assert all(a.cap <= b.cap for a, b in zip(state.passes, state.passes[1:], strict=False) if b.removed)


def test_a_pass_over_budget_halves_the_next_step() -> None:
    config = PruneConfig(early_passes=4, cap=1.0, first_cap=1.0, max_share=0.2, tolerance=2.0)
    calm = run(AdditiveRasterizer(VALUES), config)
    wild = run(AdditiveRasterizer(VALUES, interaction=5.0), config)
    assert [p.share_limit for p in calm.passes] == [0.2] * 4
    for last, following in zip(wild.passes, wild.passes[1:], strict=False):
        assert following.share_limit == pytest.approx(last.share_used / 2)
    assert not any(p.undone for p in wild.passes)  # removals still cost less than the cap
    assert wild.model.num_splats > calm.model.num_splats


def test_a_target_is_met_exactly() -> None:
    state = run(AdditiveRasterizer(VALUES), PruneConfig(early_passes=5, max_share=0.5, target_splats=37))
    assert state.model.num_splats == 37
    assert len({p.removed for p in state.passes}) > 1


def test_with_a_target_the_cap_is_the_dearest_removal_of_both_phases() -> None:
    config = PruneConfig(early_passes=3, late_passes=2, target_splats=37)
    early = run(AdditiveRasterizer(VALUES), config)
    assert early.cap == pytest.approx(0.62 / SAMPLES)
    assert early.cap is not None
    late = prune(early.model, (), AdditiveRasterizer(VALUES), config, late_schedule(config, early.cap))
    assert late.model.num_splats == 37
    assert late.cap == early.cap  # though no late pass removed anything
    nothing = run(AdditiveRasterizer(VALUES), PruneConfig(early_passes=3, target_splats=100))
    assert nothing.model.num_splats == 100
    assert nothing.cap is None


def test_an_interrupted_phase_goes_on_from_its_last_pass() -> None:
    config = PruneConfig(early_passes=6, cap=0.5 / SAMPLES, max_share=0.2)
    whole = run(AdditiveRasterizer(VALUES), config)
    entry = Remembering()
    run(AdditiveRasterizer(VALUES), config, state=entry)
    rasterizer = AdditiveRasterizer(VALUES)
    resumed = run(rasterizer, config, state=Remembering(entry.states[2]))
    assert rasterizer.passes[0] == entry.states[2].passes[-1].left
    assert kept(resumed) == kept(whole)
    assert resumed.passes == whole.passes


def test_the_last_pass_is_checked_too() -> None:
    config = PruneConfig(early_passes=1, cap=0.3 / SAMPLES, max_share=0.4)
    calm = run(AdditiveRasterizer(VALUES), config)
    assert calm.passes[0].real_mse_change == pytest.approx(calm.passes[0].predicted_mse_change)
    assert calm.model.num_splats == 69
    entry = Remembering()
    wild = run(AdditiveRasterizer(VALUES, interaction=10.0), config, state=entry)
    assert wild.passes[0].undone
    assert kept(wild) == list(range(100))
    assert entry.states[-1] is wild
    assert wild.previous is None  # nobody needs it any more
    rasterizer = AdditiveRasterizer(VALUES, interaction=10.0)
    assert (
        run(rasterizer, config, state=Remembering(entry.states[0])).passes == wild.passes
    )  # interrupted before the check
    assert run(rasterizer, config, state=Remembering(wild)).passes == wild.passes
    # the check, everything once more for the second try at half, that one's check; nothing for the finished state
    assert rasterizer.passes == [69, 100, 85]


def test_a_pass_that_cost_more_than_the_cap_is_taken_back(caplog: pytest.LogCaptureFixture) -> None:
    config = PruneConfig(early_passes=5, cap=0.3 / SAMPLES, first_cap=1.0, max_share=0.4, tolerance=2.0)
    with caplog.at_level(logging.INFO):
        state = run(AdditiveRasterizer(VALUES, interaction=10.0), config)
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("early pass 1 of 5: removed ")
    assert "is undone, which is how pruning finds its end" in said[1]
    assert said[2].startswith("early pass 1 of 5: removed ")  # the same, with fewer
    first = state.passes[0]
    assert first.undone
    assert first.left == 100
    assert first.real_mse_change == pytest.approx(10 * first.predicted_mse_change)
    assert state.passes[1].mse == first.mse
    assert state.passes[1].removed < first.removed
    removed = sum(p.removed for p in state.passes if not p.undone)
    assert state.model.num_splats == 100 - removed
    assert removed > 0


def test_a_pass_taken_back_is_tried_again_smaller_and_does_not_count() -> None:
    config = PruneConfig(early_passes=3, cap=0.3 / SAMPLES, first_cap=1.0, max_share=0.4, tolerance=2.0)
    state = run(AdditiveRasterizer(VALUES, interaction=3.0), config)
    assert [p.undone for p in state.passes[:2]] == [True, False]
    assert len(state.passes) == 2 * 3  # that many at most
    assert state.model.num_splats == 100 - sum(p.removed for p in state.passes if not p.undone) < 100
    for last, following in zip(state.passes, state.passes[1:], strict=False):
        if last.undone:
            assert following.removed <= last.removed / 2 + 1


def test_where_the_cap_rises_no_more_a_pass_without_removals_is_the_last() -> None:
    for cap, passes in ((1.0, 1), (0.5, 6)):
        config = PruneConfig(early_passes=6, cap=1e-12, first_cap=cap, max_share=0.3, remove_unseen=False)
        state = run(AdditiveRasterizer(VALUES + 0.01), config)
        assert len(state.passes) == passes
        assert state.passes[-1].real_mse_change == 0.0


@pytest.fixture(scope="module")
def doubled() -> tuple[SplatModel, list[View]]:
    """Splats that stand twice: each by itself is free to go, and both together are not."""
    raster, once = (
        CpuRasterizer(threads=1),
        random_model(6, num_splats=120, log_scale=-2.3, opacity_logit=1.0, sh_ac=0.1),
    )
    views = [
        replace(view, image=raster.render(once, view.camera, view.background).clamp(0, 1))
        for view in random_views(6, 4, width=48, height=36)
    ]
    faint = replace(once, opacity_logits=once.opacity_logits - 0.7)
    return SplatModel(*(torch.cat([getattr(faint, f.name)] * 2) for f in fields(faint))), views


def test_a_pass_is_taken_back_with_refits_on_and_resumed_anywhere(doubled: tuple[SplatModel, list[View]]) -> None:
    model, views = doubled
    config = PruneConfig(
        early_passes=3, relative_cap=2.0, first_cap=0.99, max_share=0.9, tolerance=1.0, refit_rounds=1,
        final_refit_rounds=1,
    )  # fmt: skip
    raster, schedule, entry = CpuRasterizer(threads=1), early_schedule(config), Remembering()
    whole = prune(model, views, raster, config, schedule, state=entry)
    undone = [report.undone for report in whole.passes]
    assert undone[0]
    assert not all(undone)
    first = entry.states[0]
    assert first.model is model  # itself, neither pruned nor refitted
    assert first.passes[0].left == model.num_splats
    assert whole.model.num_splats == model.num_splats - sum(r.removed for r in whole.passes if not r.undone)
    sse = raster.removal_cost(whole.model, views).sse
    kept = whole.model.means[:, None].eq(model.means[None]).all(-1).any(1)
    assert not kept.any()  # all that is left has been refitted
    assert sse < raster.removal_cost(model, views).sse
    for state in entry.states:
        resumed = prune(model, views, raster, config, schedule, state=Remembering(state))
        assert resumed.passes == whole.passes
        for f in fields(model):
            assert torch.equal(getattr(resumed.model, f.name), getattr(whole.model, f.name)), f.name


def test_refits_after_the_last_pass_alone(doubled: tuple[SplatModel, list[View]]) -> None:
    # A model that a refit has moved is what the next pass removes from, whatever follows it.
    model, views = doubled
    config = PruneConfig(early_passes=2, relative_cap=1.0, refit_rounds=0, final_refit_rounds=2)
    raster, entry = CpuRasterizer(threads=1), Remembering()
    state = prune(model, views, raster, config, early_schedule(config), state=entry)
    late = prune(state.model, views, raster, config, late_schedule(replace(config, late_passes=2), 1e-3))
    assert all(saved.passes[-1].left == saved.model.num_splats for saved in entry.states)
    assert late.model.num_splats == state.model.num_splats - sum(r.removed for r in late.passes if not r.undone)
