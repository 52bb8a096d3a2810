# SPDX-License-Identifier: Apache-2.0
"""SH energy compaction: other coefficients that look the same from where the splat is seen, and cost little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from potr.encoder.config import CodecConfig
from potr.encoder.refit import refit_colors
from potr.encoder.resume import Entry
from potr.encoder.sh_solver import CompactParameters
from potr.encoder.sh_solver import compact as solve
from potr.model.cameras import View
from potr.model.opponent import opponent_to_rgb, rgb_to_opponent
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import Rasterizer


@dataclass(frozen=True, eq=False)
class Compacted:
    """What compaction made of a model.

    Attributes:
        sh_dc, sh_ac: the coefficients; all else of the model is as it was.
        cap: rise of the MSE that a splat is worth, known from here on.
        mse_before: of the model that came in, against the photographs.
        ac_zero_share_before, ac_zero_share: the share of AC coefficients, in the opponent space, that plain rounding
            at luma's step makes 0, after the refit.
        ac_l2_before, ac_l2_after, dc_l2_before, dc_l2_after: L2 norms of all AC and of all DC coefficients, apart: DC
            is far larger, and one norm over both says nothing of AC.
    """

    sh_dc: Tensor
    sh_ac: Tensor
    cap: float
    mse_before: float
    ac_zero_share_before: float
    ac_zero_share: float
    ac_l2_before: float
    ac_l2_after: float
    dc_l2_before: float
    dc_l2_after: float


def compact(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, config: CodecConfig,
    *, cap: float | None, state: Entry[Compacted] | None = None, progress: Progress = SILENT,
) -> Compacted:  # fmt: skip
    """Refit every splat's colour, then recompute its SH coefficients so that few are left (method.md section 3).

    Args:
        model: its geometry is kept.
        views: the training views.
        rasterizer: a backend.
        config: strengths, and what says how much a splat is worth where ``cap`` is not known yet.
        cap: rise of the MSE that a splat is worth (the pruning cap), which the costs refer to.
        state: keeps the result, and may have it.
        progress: called after each view of each pass.
    """
    state = state or Entry(Compacted)
    if (found := state.load()) is not None:
        return found
    steps = config.compact.refit_steps
    label = progress.stage("compaction statistics")
    model, statistics, mse = refit_colors(model, views, rasterizer, steps, label)
    cap = config.prune.final_cap(mse, model.num_splats) if cap is None else cap
    settings, step = config.compact, 1.0 / config.quantize.ac_multiplier
    drop, chroma = settings.drop_cost * cap * statistics.samples, settings.chroma_multiplier
    ridge = settings.strength * drop / step**2
    parameters = CompactParameters(
        ridge=(ridge, chroma * ridge, chroma * ridge),
        drop_cost=(drop, chroma * drop, chroma * drop),
        redundancy_cosine=settings.redundancy_cosine,
        redundancy_cost=settings.redundancy_cost,
    )
    with progress.step("compaction"):
        old = rgb_to_opponent(model.sh)
        new = solve(statistics.hessian, old, parameters) if settings.enabled and model.num_splats else old
    shares = [_zero_share(sh[:, 1:], step) for sh in (old, new)]
    norms = [float(sh.double().norm()) for sh in (old[:, 1:], new[:, 1:], old[:, :1], new[:, :1])]
    rgb = opponent_to_rgb(new)
    return state.save(Compacted(rgb[:, 0], rgb[:, 1:], cap, mse, *shares, *norms))


def _zero_share(coefficients: Tensor, step: float) -> float:
    """Share of the coefficients that plain rounding to ``step`` makes 0; 1 where there are none."""
    if coefficients.numel() == 0:
        return 1.0
    return int(torch.count_nonzero(coefficients.abs() < 0.5 * step)) / coefficients.numel()
