# SPDX-License-Identifier: Apache-2.0
"""Pruning: passes that remove the splats whose removal costs least, each checked against what it really did."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from potr.encoder.config import Criterion, PruneConfig
from potr.encoder.refit import refit_rounds
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer, RemovalCost

log = logging.getLogger(__name__)

GROWTH = 1.5  # of a pass's share limit after a pass that kept to its budget
NOISE_MSE = (1 / 255) ** 2 / 12  # of 8-bit photographs: no model can be meant to be closer to them


@dataclass(frozen=True)
class PassReport:
    """One pass. MSE is over all training pixels and channels, against the photographs.

    Attributes:
        removed, unseen, left: splats removed (unseen among them), splats left.
        cap: largest rise of the MSE charged to a removed splat.
        mse: before the pass.
        predicted_mse_change: sum of the removed splats' own changes, as if they did not interact.
        budget: sum of what the removed splats were charged with.
        real_mse_change: measured; None until the next pass, or the check after the last one, has seen the result.
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

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True)
class PruneState:
    """Where a pruning phase stands: what a checkpoint holds.

    Attributes:
        kept: [M] int64 indices, ascending, of the phase's input model's splats still there, on the model's device.
        before: [L] int64 what was there before the last pass, for taking it back.
        passes: reports of the passes done.
        share_limit: for the next pass.
        cap: rise of the MSE that a removal may cost in the end; None before the first pass. With a target, the most
            that a removed splat was charged with so far, None while nothing was.
        finished: nothing is left to do.
        refitted: what is there, after its refits; None where there were none.
    """

    kept: Tensor
    before: Tensor
    passes: tuple[PassReport, ...]
    share_limit: float
    cap: float | None = None
    finished: bool = False
    refitted: SplatModel | None = None

    def survivors(self, model: SplatModel) -> SplatModel:
        """What is there of the phase's input model."""
        if self.refitted is not None:
            return self.refitted
        return model if len(self.kept) == model.num_splats else model.select(self.kept)


def start(model: SplatModel, config: PruneConfig, cap: float | None = None) -> PruneState:
    """The state before the first pass; ``cap`` where it is already known."""
    everything = torch.arange(model.num_splats, device=model.device)
    return PruneState(everything, everything, (), config.max_share, cap)


def final_cap(config: PruneConfig, mse: float, num_splats: int) -> float:
    """The cap on the rise of the MSE per removal: as given, or relative to the input model's MSE and splats."""
    if config.cap is not None:
        return config.cap
    return config.relative_cap * max(mse, NOISE_MSE) / max(num_splats, 1)


def prune(
    model: SplatModel,
    views: Sequence[View],
    rasterizer: Rasterizer,
    config: PruneConfig,
    phase: str,
    *,
    state: PruneState | None = None,
    on_pass: Callable[[PruneState], None] = lambda state: None,
    progress: Progress = silent,
) -> PruneState:
    """Remove splats in passes until the phase's passes are done or nothing costs little enough.

    A pass taken back is tried again with half its splats and does not count, up to twice the number of passes in all.

    Args:
        model: what the phase starts from.
        views: the training views.
        rasterizer: answers what removals cost.
        config: caps, shares, targets.
        phase: "early" (the cap rises) or "late" (it is the final one throughout).
        state: where to go on from; the phase's start by default.
        on_pass: told the state after every pass and check (to store it).
        progress: told of every view of every pass.

    Returns:
        The final state; ``state.survivors(model)`` is the pruned model.
    """
    passes = _passes(config, phase)
    state = state or start(model, config)
    state = _on_device(state, model.device)
    config = absolute_target(config, model.num_splats)
    costs: RemovalCost | None = None  # of the splats at hand, where known
    last_costs: RemovalCost | None = None  # of those before the last pass
    while True:
        number = sum(not report.undone for report in state.passes)  # a pass taken back is tried again, smaller
        done = state.finished or number >= passes or len(state.passes) >= 2 * passes
        if done and not _last_pass_unchecked(state, config):
            return state
        label = f"{phase} pruning check" if done else f"{phase} pruning pass {number + 1}/{passes}"

        def report(_: str, view: int, total: int, /, label: str = label) -> None:
            progress(label, view, total)

        costs = costs or rasterizer.removal_cost(state.survivors(model), views, progress=report)
        mse = costs.sse / costs.samples
        unchecked = bool(state.passes) and state.passes[-1].real_mse_change is None
        state = _check_last_pass(state, mse, config)
        if done or (unchecked and state.passes[-1].undone):
            costs, last_costs = last_costs if state.passes[-1].undone else None, None
            on_pass(state)
            continue
        known_cap = state.cap
        cap = final_cap(config, mse, len(state.kept)) if known_cap is None else known_cap
        removed, charged = select_removals(
            costs, config, cap=cap * _rise(config, phase, number, passes), share=state.share_limit,
            target=_pass_target(len(state.kept), config.target_splats, passes - number),
        )  # fmt: skip
        state = _after_removal(replace(state, cap=cap), phase, costs, removed, charged, mse)
        if config.target_splats is not None:
            state = replace(state, cap=max(known_cap or 0.0, state.passes[-1].cap) or None)
        if not removed.any() and (config.target_splats is not None or number + 1 == passes or phase == "late"):
            state = replace(state, finished=True)
        last_costs, costs = costs, None
        log.info("%s", describe(state.passes[-1], number + 1, passes))
        rounds = _refits(config, phase, number, passes)
        if rounds and removed.any():
            state = _refitted(model, views, rasterizer, config, state, removed, rounds, progress)
            costs = last_costs if state.passes[-1].undone else None
        on_pass(state)


def stands(state: PruneState, config: PruneConfig, phase: str) -> str:
    """Where a phase that was interrupted goes on, in words."""
    number, passes = sum(not report.undone for report in state.passes), _passes(config, phase)
    ended = state.finished or number >= passes or len(state.passes) >= 2 * passes
    return f"after {phase} pruning" if ended else f"after pass {number} of {passes} of {phase} pruning"


def _passes(config: PruneConfig, phase: str) -> int:
    return config.early_passes if phase == "early" else config.late_passes


def _refits(config: PruneConfig, phase: str, number: int, passes: int) -> int:
    """Rounds of refitting after a pass."""
    if phase == "late":
        return 0
    return config.refit_rounds + (config.final_refit_rounds if number + 1 == passes else 0)


def _refitted(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, config: PruneConfig, state: PruneState,
    removed: Tensor, rounds: int, progress: Progress,
) -> PruneState:  # fmt: skip
    """The pass checked, for the first statistics tell its real cost, and what it left refitted if it stands."""
    checked = state

    def accept(mse: float) -> bool:
        nonlocal checked
        checked = _check_last_pass(state, mse, config)
        return not checked.passes[-1].undone

    def report(stage: str, done: int, total: int, /) -> None:
        progress(f"refit after pass {len(state.passes)}, {stage}", done, total)

    left = state.refitted.select(~removed) if state.refitted is not None else state.survivors(model)
    left = refit_rounds(left, views, rasterizer, rounds, on_mse=accept, progress=report)
    return checked if checked.passes[-1].undone else replace(checked, refitted=left)


def _on_device(state: PruneState, device: torch.device) -> PruneState:
    refitted = state.refitted.to(device) if state.refitted is not None else None
    return replace(state, kept=state.kept.to(device), before=state.before.to(device), refitted=refitted)


def absolute_target(config: PruneConfig, num_splats: int) -> PruneConfig:
    """The configuration with a target share turned into a number of splats."""
    if config.target_share is None:
        return config
    return replace(config, target_splats=max(1, round(config.target_share * num_splats)), target_share=None)


def _pass_target(num_splats: int, target: int | None, passes_left: int) -> int | None:
    """How many to keep in this pass so that equal shares per pass end at the target."""
    if target is None:
        return None
    if target >= num_splats:
        return num_splats
    share: float = (target / num_splats) ** (1 / passes_left)
    return max(target, round(num_splats * share))


def _rise(config: PruneConfig, phase: str, number: int, passes: int) -> float:
    """The pass's cap as a share of the final one: rises geometrically over the early passes."""
    if phase == "late" or passes < 2:
        return 1.0
    return float(config.first_cap ** (1 - number / (passes - 1)))


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
    return replace(state, kept=state.kept[~removed], before=state.kept, passes=(*state.passes, report))


def _check_last_pass(state: PruneState, mse: float, config: PruneConfig) -> PruneState:
    """Enters the last pass's real change of the MSE, and sizes the next step by it.

    Over ``tolerance`` times its budget the next step is halved. Where in addition its removals cost more than the cap
    on average, they interacted so much that the pass is taken back: splats that are each free to remove are not always
    free together. With a target there is no cap to keep to.
    """
    if not state.passes or state.passes[-1].real_mse_change is not None:
        return state
    last = state.passes[-1]
    real = mse - last.mse
    over = real > config.tolerance * last.budget
    undone = (
        over
        and config.target_splats is None
        and state.cap is not None
        and real > state.cap * (last.removed - last.unseen)
    )
    if undone:
        log.info(
            "that pass went a step too far and is undone, which is how pruning finds its end: together its splats are "
            "worth %.2e of MSE, one by one %.2e; a next pass would take half as many",
            real, last.budget,
        )  # fmt: skip
    share = last.share_used / 2 if over else min(config.max_share, state.share_limit * GROWTH)
    last = replace(last, real_mse_change=real, undone=undone, left=len(state.before) if undone else last.left)
    kept = state.before if undone else state.kept
    return replace(state, kept=kept, passes=(*state.passes[:-1], last), share_limit=share)


def _last_pass_unchecked(state: PruneState, config: PruneConfig) -> bool:
    """Whether the last pass could still be taken back: it removed splats that are seen, and nobody knows its cost."""
    if config.target_splats is not None or not state.passes:
        return False
    last = state.passes[-1]
    return last.real_mse_change is None and last.removed > last.unseen


def describe(report: PassReport, number: int, of: int) -> str:
    """One line for the log; ``number`` counts the passes that were not taken back."""
    return (
        f"{report.phase} pass {number} of {of}: "
        f"removed {report.removed:,} ({report.unseen:,} unseen), {report.left:,} left, MSE {report.mse:.4e}, "
        f"predicted change {report.predicted_mse_change:+.2e}, charged {report.budget:.2e}"
    )
