# SPDX-License-Identifier: Apache-2.0
"""Pruning: passes that remove the splats whose removal costs least, each checked against what it really did."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from potr.encoder.config import Criterion, PruneConfig
from potr.encoder.refit import refit_rounds
from potr.encoder.resume import Entry
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import Rasterizer, RemovalCost

log = logging.getLogger(__name__)

GROWTH = 1.5  # of a pass's share limit after a pass that kept to its budget


@dataclass(frozen=True)
class PassReport:
    """One pass. MSE is over all training pixels and channels, against the photographs.

    Attributes:
        removed, unseen, left: splats removed (unseen among them), splats left.
        cap: largest rise of the MSE charged to a removed splat.
        mse: before the pass.
        predicted_mse_change: sum of the removed splats' own changes, as if they did not interact.
        budget: sum of what the removed splats were charged with.
        real_mse_change: measured; None where nobody has looked at the result.
        undone: the pass cost more than it may and was taken back.
        share_limit, share_used: of the splats, that the pass was allowed to remove, and that it removed.
    """

    phase: str
    removed: int
    unseen: int
    left: int
    cap: float
    mse: float
    predicted_mse_change: float
    budget: float
    share_limit: float
    share_used: float
    real_mse_change: float | None = None
    undone: bool = False


@dataclass(frozen=True, eq=False)
class PruneState:
    """Where pruning stands; an interrupted encode goes on from it.

    Attributes:
        model: what is left, after its refits.
        previous: what the last pass began with, while that pass may still be taken back; else None.
        passes: reports of the passes done.
        share_limit: for the next pass.
        cap: rise of the MSE that a removal may cost in the end; None before the first pass. With a target, the most
            that a removed splat was charged with so far, None while nothing was.
        finished: nothing is left to do.
    """

    model: SplatModel
    previous: SplatModel | None
    passes: tuple[PassReport, ...]
    share_limit: float
    cap: float | None = None
    finished: bool = False


@dataclass(frozen=True)
class Schedule:
    """The passes of one pruning.

    Attributes:
        name: for reports and progress.
        caps: of each pass, as a share of the final one.
        refits: rounds of refitting after each pass.
        cap: the final one, where it is known already.
    """

    name: str
    caps: tuple[float, ...]
    refits: tuple[int, ...]
    cap: float | None = None


def early_schedule(config: PruneConfig) -> Schedule:
    """Before compaction: the cap rises geometrically to the final one, and what is left is refitted."""
    n = config.early_passes
    caps = tuple(float(config.first_cap ** (1 - i / (n - 1))) if n > 1 else 1.0 for i in range(n))
    refits = tuple(config.refit_rounds + (config.final_refit_rounds if i + 1 == n else 0) for i in range(n))
    return Schedule("early", caps, refits)


def late_schedule(config: PruneConfig, cap: float) -> Schedule:
    """After compaction: at the final cap throughout."""
    return Schedule("late", (1.0,) * config.late_passes, (0,) * config.late_passes, cap)


def prune(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, config: PruneConfig, schedule: Schedule,
    *, state: Entry[PruneState] | None = None, costs: Entry[RemovalCost] | None = None, progress: Progress = SILENT,
) -> PruneState:  # fmt: skip
    """Remove splats in passes until the schedule is done or nothing costs little enough.

    A pass taken back is tried again with half its splats and does not count, up to twice the number of passes in all.

    Args:
        model: what pruning starts from.
        views: the training views.
        rasterizer: answers what removals cost.
        config: caps, shares, a target as a number of splats.
        schedule: the passes.
        state: where to go on from, and where every new state is kept.
        costs: of ``model``, where they are known, and where they are kept.
        progress: called after each view of each pass.

    Returns:
        The final state; its ``model`` is the pruned one.
    """
    passes, state, costs = len(schedule.caps), state or Entry(PruneState), costs or Entry(RemovalCost)
    found = state.load()
    if found is not None:
        log.info("%s", _stands(found, schedule, state.finished))
    now = found or PruneState(model, None, (), config.max_share, schedule.cap)
    known: RemovalCost | None = None  # costs of now.model
    earlier: RemovalCost | None = None  # costs of now.previous
    while True:
        number = sum(not report.undone for report in now.passes)  # a pass taken back is tried again, smaller
        done = now.finished or number >= passes or len(now.passes) >= 2 * passes
        if done and not _may_be_undone(now, config):
            return now if state.finished else state.save(_closed(now))
        name = f"{schedule.name} pruning " + ("check" if done else f"pass {number + 1}/{passes}")
        if known is None and not now.passes:
            known = costs.load()
        if known is None:
            known = rasterizer.removal_cost(now.model, views, progress=progress.stage(name))
            if not now.passes:
                costs.save(known)
        mse = known.sse / known.samples
        was_open = now.previous is not None and now.passes[-1].real_mse_change is None
        now = _checked(now, mse, config)
        if done or (was_open and now.passes[-1].undone):
            known, earlier = earlier if now.passes[-1].undone else None, None
            state.save(now, finished=False)
            continue
        known_cap = now.cap
        cap = config.final_cap(mse, now.model.num_splats) if known_cap is None else known_cap
        target = _pass_target(now.model.num_splats, config.target_splats, passes - number)
        removed, charged = select_removals(
            known, config, cap=cap * schedule.caps[number], share=now.share_limit, target=target
        )
        now = _after_removal(replace(now, cap=cap), schedule.name, known, removed, charged, mse)
        if config.target_splats is not None:
            dearest = max(known_cap or 0.0, now.passes[-1].cap)
            now = replace(now, cap=dearest or schedule.cap)
        if not removed.any() and (config.target_splats is not None or schedule.caps[number] == schedule.caps[-1]):
            now = replace(now, finished=True)
        earlier, known = known, None
        log.info("%s", describe(now.passes[-1], number + 1, passes))
        if schedule.refits[number] and removed.any():
            now = _refitted(now, views, rasterizer, config, schedule.refits[number], progress)
            known = earlier if now.passes[-1].undone else None
        state.save(now, finished=False)


def _refitted(
    state: PruneState, views: Sequence[View], rasterizer: Rasterizer, config: PruneConfig, rounds: int,
    progress: Progress,
) -> PruneState:  # fmt: skip
    """The last pass checked, for the first statistics tell its real cost, and what it left refitted if it stands."""
    checked = state

    def stands(mse: float) -> bool:
        nonlocal checked
        checked = _checked(state, mse, config)
        return not checked.passes[-1].undone

    label = progress.stage(f"refit after pass {len(state.passes)}")
    model = refit_rounds(state.model, views, rasterizer, rounds, on_mse=stands, progress=label)
    return checked if checked.passes[-1].undone else replace(checked, model=model)


def _pass_target(num_splats: int, target: int | None, passes_left: int) -> int | None:
    """How many to keep in this pass so that equal shares per pass end at the target."""
    if target is None:
        return None
    if target >= num_splats:
        return num_splats
    share: float = (target / num_splats) ** (1 / passes_left)
    return max(target, round(num_splats * share))


def charge(costs: RemovalCost, criterion: Criterion) -> Tensor:
    """[N] float64 rise of the squared error that each splat's removal is charged with."""
    if criterion is Criterion.PHOTO:
        return costs.delta_sse
    if criterion is Criterion.RENDER:
        return costs.render_sse
    return torch.maximum(costs.delta_sse, costs.render_sse)


def select_removals(
    costs: RemovalCost, config: PruneConfig, *, cap: float, share: float, target: int | None
) -> tuple[Tensor, Tensor]:
    """Which splats a pass removes.

    Args:
        costs: of the model at hand.
        config: criterion and limits.
        cap: rise of the MSE that one removal may cost; not used with a target.
        share: of the splats that may go, unseen ones not counted.
        target: keep this many, instead of the cap and the share; fewer if more than the others are unseen.

    Returns:
        [N] bool mask and [N] float64 charged rise of the squared error.
    """
    charged = charge(costs, config.criterion)
    n = len(charged)
    unseen = costs.pixels == 0
    # A group of splats that each seem to hurt the photographs corrects each other: see method.md section 2.
    order = torch.argsort(charged, stable=True)
    order = order[~unseen[order]]
    negative = int((charged[order] < 0).sum())
    allowed_negative = min(negative, int(config.max_negative_share * n))
    order = torch.cat([order[:allowed_negative], order[negative:]])
    limit = int(share * n)
    if target is None:
        limit = min(limit, int((charged[order] <= cap * costs.samples).sum()))
    else:
        limit = max(0, n - target - (int(unseen.sum()) if config.remove_unseen else 0))
    removed = torch.zeros(n, dtype=torch.bool, device=charged.device)
    removed[order[:limit]] = True
    if config.remove_unseen:
        removed |= unseen
    return removed, charged


def _after_removal(
    state: PruneState, phase: str, costs: RemovalCost, removed: Tensor, charged: Tensor, mse: float
) -> PruneState:
    seen = removed & (costs.pixels > 0)
    report = PassReport(
        phase=phase,
        removed=int(removed.sum()),
        unseen=int(removed.sum() - seen.sum()),
        left=int((~removed).sum()),
        cap=float(charged[seen].max() / costs.samples) if seen.any() else 0.0,
        mse=mse,
        predicted_mse_change=float(costs.delta_sse[removed].sum() / costs.samples),
        budget=float(charged[removed].clamp_min(0).sum() / costs.samples),
        share_limit=state.share_limit,
        share_used=float(seen.sum()) / max(1, len(removed)),
    )
    left = state.model.select(~removed) if removed.any() else state.model
    return replace(state, model=left, previous=state.model, passes=(*state.passes, report))


def _checked(state: PruneState, mse: float, config: PruneConfig) -> PruneState:
    """Enters the last pass's real change of the MSE, and sizes the next step by it.

    Over ``tolerance`` times its budget the next step is halved. Where in addition its removals cost more than the cap
    on average, they interacted so much that the pass is taken back: splats that are each free to remove are not always
    free together. With a target there is no cap to keep to.
    """
    if state.previous is None or state.passes[-1].real_mse_change is not None:
        return state
    last = state.passes[-1]
    real = mse - last.mse
    over = real > config.tolerance * last.budget
    seen = last.removed - last.unseen
    undone = over and config.target_splats is None and state.cap is not None and real > state.cap * seen
    if undone:
        log.info(
            "that pass went a step too far and is undone, which is how pruning finds its end: together its splats are "
            "worth %.2e of MSE, one by one %.2e; a next pass would take half as many",
            real, last.budget,
        )  # fmt: skip
    model = state.previous if undone else state.model
    share = last.share_used / 2 if over else min(config.max_share, state.share_limit * GROWTH)
    last = replace(last, real_mse_change=real, undone=undone, left=model.num_splats)
    return replace(state, model=model, previous=None, passes=(*state.passes[:-1], last), share_limit=share)


def _closed(state: PruneState) -> PruneState:
    """The final state: its last pass stands."""
    passes = state.passes
    if passes and passes[-1].removed == 0 and passes[-1].real_mse_change is None:
        passes = (*passes[:-1], replace(passes[-1], real_mse_change=0.0))
    return replace(state, previous=None, passes=passes)


def _may_be_undone(state: PruneState, config: PruneConfig) -> bool:
    """Whether the last pass could still be taken back: it removed splats that are seen, and nobody knows its cost."""
    if config.target_splats is not None or state.previous is None:
        return False
    return state.passes[-1].removed > state.passes[-1].unseen


def describe(report: PassReport, number: int, of: int) -> str:
    """One line for the log; ``number`` counts the passes that were not taken back."""
    return (
        f"{report.phase} pass {number} of {of}: "
        f"removed {report.removed:,} ({report.unseen:,} unseen), {report.left:,} left, MSE {report.mse:.4e}, "
        f"predicted change {report.predicted_mse_change:+.2e}, charged {report.budget:.2e}"
    )


def _stands(state: PruneState, schedule: Schedule, finished: bool) -> str:
    """What was found, in words for the log."""
    number = sum(not report.undone for report in state.passes)
    if finished:
        return f"{schedule.name} pruning: done before, with {state.model.num_splats:,} splats left"
    done = f"pass {number} of {len(schedule.caps)} of {schedule.name} pruning"
    return f"an interrupted encode is here: goes on after {done}"
