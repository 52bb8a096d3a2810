# SPDX-License-Identifier: Apache-2.0
"""SH energy compaction: other coefficients that look the same from where the splat is seen, and cost little."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from potr.encoder.config import CompactConfig
from potr.encoder.sh_solver import CompactParameters
from potr.encoder.sh_solver import compact as solve
from potr.model.opponent import opponent_to_rgb, rgb_to_opponent
from potr.model.splats import SplatModel
from potr.render.base import ColorStatistics


@dataclass(frozen=True)
class CompactReport:
    """Before and after this stage (refit done before): the share of AC coefficients, in the opponent space, that plain
    rounding at luma's step makes 0, and the L2 norms of all AC and of all DC coefficients, apart: DC is far larger, and
    one norm over both says nothing of AC.
    """

    ac_zero_share_before: float
    ac_zero_share: float
    ac_l2_before: float
    ac_l2_after: float
    dc_l2_before: float
    dc_l2_after: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def compact(
    model: SplatModel, statistics: ColorStatistics, cap: float, step: float, config: CompactConfig
) -> tuple[SplatModel, CompactReport]:
    """Recompute every splat's SH coefficients (method.md section 3).

    Args:
        model: its geometry is kept.
        statistics: of this model, over the training views.
        cap: rise of the MSE that a splat is worth (the pruning cap), which the costs refer to.
        step: quantisation step of the AC coefficients, the unit of the energy penalty.
        config: strengths.

    Returns:
        The model with new coefficients, and what changed.
    """
    old = rgb_to_opponent(model.sh)
    drop = config.drop_cost * cap * statistics.samples
    chroma = config.chroma_multiplier
    ridge = config.strength * drop / step**2
    parameters = CompactParameters(
        ridge=(ridge, chroma * ridge, chroma * ridge),
        drop_cost=(drop, chroma * drop, chroma * drop),
        redundancy_cosine=config.redundancy_cosine,
        redundancy_cost=config.redundancy_cost,
    )
    new = solve(statistics.hessian, old, parameters) if config.enabled and model.num_splats else old
    report = CompactReport(
        ac_zero_share_before=zero_share(old[:, 1:], step),
        ac_zero_share=zero_share(new[:, 1:], step),
        ac_l2_before=float(old[:, 1:].double().norm()),
        ac_l2_after=float(new[:, 1:].double().norm()),
        dc_l2_before=float(old[:, :1].double().norm()),
        dc_l2_after=float(new[:, :1].double().norm()),
    )
    return model.with_sh(opponent_to_rgb(new)), report


def zero_share(coefficients: Tensor, step: float) -> float:
    """Share of the coefficients that plain rounding to ``step`` makes 0; 1 where there are none."""
    if coefficients.numel() == 0:
        return 1.0
    return int(torch.count_nonzero(coefficients.abs() < 0.5 * step)) / coefficients.numel()
