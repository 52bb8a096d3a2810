# SPDX-License-Identifier: Apache-2.0
"""The early pruning of one model at many qualities: passes that one quality has done are where the next one goes on.

A pruning's cap rises from pass to pass, and quality only says where it ends. So what a finer quality kept is on the way
of a coarser one, and what a coarser one kept after its first passes is where a finer one ends.
"""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from potr.encoder.config import PruneConfig
from potr.encoder.prune import PassReport, PruneState, final_cap, prune, start
from potr.model.cameras import RGB, View
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer, RemovalCost

# A path is gone on with if its first pass's cap was at most so many times the one that the new end would begin with:
# one that rises in fewer, larger steps keeps worse splats (docs/targets.md).
LATEST_START = 4.0
_REMEMBERED = 8  # removal costs at hand, 36 bytes a splat each


@dataclass(frozen=True, eq=False)
class Rung:
    """What a pass left, checked against what it really cost.

    Attributes:
        start, cap: rise of the MSE that a removal might cost in the path's first pass, and in the last one up to here.
        mask: packed bits, which of the model's splats are left.
        share_limit: of the next pass.
        passes: the path's reports.
        refitted: what is left, after its refits; None where there were none.
    """

    start: float
    cap: float
    mask: np.ndarray
    share_limit: float
    passes: tuple[PassReport, ...]
    refitted: SplatModel | None = None


class Trajectory:
    """Early prunings of one model. Same questions in the same order, same answers; interrupted or not.

    Args:
        model, views, rasterizer: as for ``prune``.
        rungs: of an interrupted trajectory.
        on_rung: told of every new one (to store it).
    """

    def __init__(
        self, model: SplatModel, views: Sequence[View], rasterizer: Rasterizer,
        rungs: Sequence[Rung] = (), on_rung: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.model, self.views = model, views
        self.rasterizer = cast(Rasterizer, RememberingCosts(rasterizer))
        self.rungs, self.on_rung = list(rungs), on_rung

    def prune(self, config: PruneConfig, progress: Progress = silent) -> PruneState | None:
        """The finished early pruning at ``config``; None where it has no cap to go by, or no passes."""
        if config.early_passes == 0 or config.target_splats is not None or config.target_share is not None:
            return None
        costs = self.rasterizer.removal_cost(self.model, self.views, progress=_renamed(progress, "removal costs"))
        cap = final_cap(config, costs.sse / costs.samples, self.model.num_splats)
        first = cap * config.first_cap if config.early_passes > 1 else cap
        at = self._nearest(first, cap)
        if at is not None and math.isclose(at.cap, cap, rel_tol=1e-9):
            return replace(self._state(at, cap), passes=at.passes, finished=True)
        rising = _from(at, config, cap) if at else replace(config, cap=cap)
        begin = self._state(at, cap) if at else start(self.model, config, cap)
        before = at.passes if at else ()
        path_start = at.start if at else first

        def cap_of(number: int) -> float:
            """Of a pass, counted from 0."""
            return float(cap * rising.first_cap ** (1 - number / max(1, rising.early_passes - 1)))

        def on_pass(state: PruneState) -> None:
            done = sum(not report.undone for report in state.passes) - 1
            if state.refitted is not None and not state.passes[-1].undone:  # a refit checks its pass at once
                self._record(path_start, cap_of(done), state, state.kept, (*before, *state.passes))
                return
            if state.passes[-1].real_mse_change is not None:  # a check, not a removal
                return
            if done:  # what was there before this pass is what the one before it left, and is checked
                self._record(path_start, cap_of(done - 1), state, state.before, (*before, *state.passes[:-1]))

        state = prune(
            self.model, self.views, self.rasterizer, rising, "early", state=begin, on_pass=on_pass, progress=progress
        )
        state = replace(state, passes=(*before, *state.passes), finished=True)
        self._record(path_start, cap, state, state.kept, state.passes)
        return state

    def _nearest(self, first: float, cap: float) -> Rung | None:
        """The rung nearest below ``cap`` whose path began early enough."""
        within = 1 + 1e-9  # the same cap, computed another way
        usable = [r for r in self.rungs if r.start <= LATEST_START * first * within and r.cap <= cap * within]
        return max(usable, key=lambda rung: rung.cap, default=None)

    def _state(self, rung: Rung, cap: float) -> PruneState:
        mask = np.unpackbits(rung.mask, count=self.model.num_splats)
        kept = torch.from_numpy(np.flatnonzero(mask)).to(self.model.device)
        return PruneState(kept, kept, (), rung.share_limit, cap, refitted=rung.refitted)

    def _record(
        self, path_start: float, cap: float, state: PruneState, kept: Tensor, passes: tuple[PassReport, ...]
    ) -> None:
        if any(rung.start == path_start and math.isclose(rung.cap, cap, rel_tol=1e-9) for rung in self.rungs):
            return
        mask = np.zeros(self.model.num_splats, bool)
        mask[kept.cpu().numpy()] = True
        refitted = state.refitted.to("cpu") if state.refitted is not None else None
        self.rungs.append(Rung(path_start, cap, np.packbits(mask), state.share_limit, passes, refitted))
        self.on_rung()


def _from(rung: Rung, config: PruneConfig, cap: float) -> PruneConfig:
    """The configuration that goes on from a rung to ``cap`` in steps no larger than the configuration's own."""
    step = -math.log(config.first_cap) / max(1, config.early_passes - 1)
    rise = math.log(max(cap / rung.cap, 1.0))
    passes = max(1, math.ceil(rise / step - 1e-6)) if step > 0 else 1
    first = math.exp(-rise * (1 - 1 / passes))
    return replace(config, cap=cap, early_passes=passes, first_cap=min(1.0, max(1e-6, first)))


class RememberingCosts:
    """A rasteriser that remembers the removal costs of the last models it was asked about; else the backend."""

    def __init__(self, inner: Rasterizer) -> None:
        self._inner = inner
        self._costs: OrderedDict[bytes, RemovalCost] = OrderedDict()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> RemovalCost:
        """As the backend's; the views are taken to be the same every time."""
        digest = hashlib.blake2b(digest_size=16)
        for f in fields(model):
            digest.update(getattr(model, f.name).cpu().numpy().data)
        key = digest.digest()
        if key not in self._costs:
            self._costs[key] = self._inner.removal_cost(model, views, background, progress=progress)
        self._costs.move_to_end(key)
        while len(self._costs) > _REMEMBERED:
            self._costs.popitem(last=False)
        return self._costs[key]


def _renamed(progress: Progress, name: str) -> Progress:
    def renamed(_: str, done: int, total: int, /) -> None:
        progress(name, done, total)

    return renamed
