# SPDX-License-Identifier: Apache-2.0
"""Colours to integers, group by group, those still free refitted to what the others became (method.md section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.encoder.config import CodecConfig
from potr.encoder.refit import COLOR_RELAXATION, refit, refit_colors
from potr.encoder.sh_solver import quantize_group
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import Rasterizer


@dataclass(eq=False)
class _Colors:
    """Colours on their way to integers.

    Attributes:
        sh: [N, K, 3] coefficients; of a group that is quantised, those that its levels stand for.
        levels: [N, K, 3] int32.
        steps: [K, 3].
        groups: splat i is of group i mod that.
    """

    sh: Tensor
    levels: Tensor
    steps: Tensor
    groups: int


def quantize_colors(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, config: CodecConfig, cap: float,
    sh_steps: NDArray[np.float32], progress: Progress = SILENT,
) -> tuple[NDArray[np.int32], float]:  # fmt: skip
    """The levels of the colours.

    They are chosen in ``config.quantize.color_groups`` groups. In the first round the colours still free are refitted
    after each group and make up for what it lost. In further ones each group in turn is refitted to all others, which
    are quantised, and its levels are chosen again.

    Args:
        model: N splats, their geometry as the decoder will have it.
        views: the training views.
        rasterizer: a backend.
        config: groups, rounds, prices; how often the colours are refitted before all.
        cap: rise of the MSE that a splat is worth (the pruning cap), which bit_cost refers to.
        sh_steps: [K, 3] float32.
        progress: called after each view of each pass.

    Returns:
        [N, K, 3] int32, and the MSE before all.
    """
    settings, sh = config.quantize, model.sh
    steps, groups = torch.from_numpy(sh_steps).to(sh.device), min(settings.color_groups, max(1, len(sh)))
    colors = _Colors(sh, torch.zeros_like(sh, dtype=torch.int32), steps, groups)
    rounds = 1 if groups == 1 else settings.color_rounds  # one group alone has nothing to be refitted to
    errors = [
        _take_turn(turn, colors, model, views, rasterizer, config, cap, progress) for turn in range(groups * rounds)
    ]
    return colors.levels.cpu().numpy(), errors[0]


def _take_turn(
    turn: int, colors: _Colors, model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, config: CodecConfig,
    cap: float, progress: Progress,
) -> float:  # fmt: skip
    """The colours that are free refitted to those that are not, then one group of them quantised; the MSE before.

    Statistics are 7 GB for 10 M splats: they are gone when this returns, before the next are made.
    """
    settings, groups = config.quantize, colors.groups
    group_of = torch.arange(len(colors.sh), device=colors.sh.device) % groups
    group = group_of == turn % groups
    if turn == 0:
        label = progress.stage("quantisation statistics")
        model, statistics, mse = refit_colors(model, views, rasterizer, config.compact.refit_steps, label)
        colors.sh = model.sh
    else:
        model = replace(model, sh_dc=colors.sh[:, 0], sh_ac=colors.sh[:, 1:])
        label = progress.stage("refit between groups of colours")
        statistics = rasterizer.color_statistics(model, views, progress=label)
        mse = statistics.sse / statistics.samples
        moved = refit(model, statistics, COLOR_RELAXATION, max(1, groups - turn) / groups).sh
        free = group_of >= turn if turn < groups else group
        colors.sh = torch.where(free[:, None, None], moved, colors.sh)
    metric = statistics.hessian[group] if settings.joint_rounding else None
    price = settings.bit_cost * cap * statistics.samples
    chosen = colors.levels[group_of < turn] if turn else None
    found = quantize_group(metric, colors.sh[group], colors.steps, price, chosen, settings.measured_rates)
    colors.levels[group], colors.sh[group] = found
    return mse
