# SPDX-License-Identifier: Apache-2.0
"""Refit: closed-form steps of every splat towards the photographs, colours and geometry by turns.

Each step minimises, splat by splat, a quadratic bound of the squared error of the whole image, so all splats can take
it at once. No gradient descent, no learning rate: a handful of steps make up for much of what pruning took away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from potr.encoder.chunks import CHUNK, map_chunks
from potr.encoder.sh_solver import newton_step
from potr.model.cameras import View
from potr.model.rotation import matrices_to_quats, quats_to_matrices
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import GEOMETRY_PARAMETERS, ColorStatistics, GeometryStatistics, Rasterizer

# Trust in the old coefficients: a share of each splat's mean curvature, and the curvature of a splat barely seen.
RELATIVE_PRIOR = 0.1
ABSOLUTE_PRIOR = 1e-3
# The same for the geometry; the share is of the curvature along log opacity.
RELATIVE_GEOMETRY_PRIOR = 0.02
ABSOLUTE_GEOMETRY_PRIOR = 1e-3
# Steps in units of the bound's minimum. Below 2 the bound still falls, and the bound is cautious.
COLOR_RELAXATION = 1.5
GEOMETRY_RELAXATION = 1.8
# The most that one step changes: log opacity; any shift (deviations) or strain. The statistics are of first order.
MOST_LOG_OPACITY = 0.5
MOST_CHANGE = 0.3
LOWEST_OPACITY, HIGHEST_OPACITY = 1e-4, 0.9995
_CHUNK = CHUNK  # splats solved at once: 25 MB


def refit(model: SplatModel, statistics: ColorStatistics, relaxation: float = 1.0, share: float = 1.0) -> SplatModel:
    """Move every splat's coefficients towards the photographs, all at once.

    The step minimises a quadratic bound of the squared error: with a_xk the blend weight of splat k at pixel x and
    sum_k a_xk <= 1, the cross terms between splats obey 2 a_xk a_xl u v <= a_xk a_xl (u^2 + v^2), so the curvature
    sum_x a_xk, in place of sum_x a_xk^2, bounds the whole (De Pierro's separable surrogate, 1995). The step therefore
    lowers the error on the training views, but for colours clamped at 0, and in so far as the ratio of the two sums,
    taken over all views together, holds in each.

    Args:
        model: N splats.
        statistics: of this model over the training views.
        relaxation: length of the step, 1 being to the minimum of the bound; below 2.
        share: of the splats, spread over the model, whose steps are taken. Their cross terms are as much fewer, and so
            is what the bound has beyond a splat's own curvature. That holds on average; a strict bound it is no more.
    """
    if model.num_splats == 0:
        return model
    damping = (statistics.contribution / statistics.weight.clamp_min(1e-30)).clamp(1, 1e6)
    damping = 1 + share * (damping - 1)
    step = newton_step(statistics.hessian, statistics.gradient, damping, RELATIVE_PRIOR, ABSOLUTE_PRIOR)
    sh = model.sh + relaxation * step
    return replace(model, sh_dc=sh[:, 0], sh_ac=sh[:, 1:])


def refit_geometry(
    model: SplatModel, statistics: GeometryStatistics, relaxation: float = GEOMETRY_RELAXATION
) -> SplatModel:
    """Move every splat's opacity, centre and shape towards the photographs, all at once; colours stay.

    Args:
        model: N splats.
        statistics: of this model over the training views; they hold the bound.
        relaxation: length of the step, 1 being to the minimum of the bound; below 2.
    """
    chunks = map_chunks(
        lambda part: _geometry_step(model, statistics, part, relaxation),
        model.num_splats,
        statistics.hessian.device,
        size=_CHUNK,
    )
    if not chunks:
        return model
    opacity_logits, means, log_scales, quats = (torch.cat(parts) for parts in zip(*chunks, strict=True))
    return replace(model, opacity_logits=opacity_logits, means=means, log_scales=log_scales, quats=quats)


def _geometry_step(
    model: SplatModel, statistics: GeometryStatistics, part: slice, relaxation: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Opacity logits, means, log-scales and quaternions of some splats after the step."""
    k = GEOMETRY_PARAMETERS
    packed = statistics.hessian[part].double()
    row, column = torch.tril_indices(k, k, device=packed.device)
    hessian = packed.new_zeros(len(packed), k, k)
    hessian[:, row, column] = packed
    hessian[:, column, row] = packed
    prior = RELATIVE_GEOMETRY_PRIOR * hessian[:, 0, 0] + ABSOLUTE_GEOMETRY_PRIOR
    hessian += torch.diag_embed(prior[:, None].expand(-1, k))
    change = -relaxation * torch.linalg.solve(hessian, statistics.gradient[part].double()[..., None])[..., 0]
    excess = torch.maximum(
        change[:, :1].abs() / MOST_LOG_OPACITY, change[:, 1:].abs().amax(1, keepdim=True) / MOST_CHANGE
    )
    change = (change / excess.clamp_min(1)).nan_to_num(0.0, 0.0, 0.0)

    opacities = model.opacity_logits[part].double().sigmoid() * change[:, 0].exp()
    # A splat that is fainter or more opaque than the limits stays as it is.
    limited = opacities.clamp(LOWEST_OPACITY, HIGHEST_OPACITY)
    opacity_logits = torch.where(limited == opacities, torch.logit(limited), model.opacity_logits[part].double())
    axes = quats_to_matrices(model.quats[part].double()) * model.log_scales[part].double().exp()[:, None, :]
    means = model.means[part].double() + (axes @ change[:, 1:4, None])[..., 0]
    xx, yy, zz, xy, xz, yz = change[:, 4:].unbind(1)
    strain = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], -1).reshape(-1, 3, 3)
    rotation, scales, _ = torch.linalg.svd(axes + axes @ strain)
    rotation = rotation * torch.linalg.det(rotation)[:, None, None].sign()
    smallest = torch.finfo(torch.float32).tiny
    return (
        opacity_logits.float(),
        means.float(),
        scales.clamp_min(smallest).log().float(),
        matrices_to_quats(rotation).float(),
    )


def refit_rounds(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, rounds: int,
    *, on_mse: Callable[[float], bool] = lambda mse: True, progress: Progress = SILENT,
) -> SplatModel:  # fmt: skip
    """Geometry and colour steps by turns.

    Args:
        model: N splats.
        views: the training views.
        rasterizer: answers how the image responds.
        rounds: of two steps each, with a pass over the views for each step.
        on_mse: called with the model's MSE before the first step; where it answers False nothing is done.
        progress: called after each view of each pass.
    """
    for number in range(rounds):
        geometry = rasterizer.geometry_statistics(model, views, progress=progress.part("geometry statistics"))
        if number == 0 and not on_mse(geometry.sse / max(1, geometry.samples)):
            return model
        model = refit_geometry(model, geometry)
        del geometry
        colors = rasterizer.color_statistics(model, views, progress=progress.part("color statistics"))
        model = refit(model, colors, COLOR_RELAXATION)
        del colors
    return model


def refit_colors(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, steps: int, progress: Progress
) -> tuple[SplatModel, ColorStatistics, float]:
    """Colour steps, each after a pass over the views; without any step there is one pass all the same.

    Returns:
        The model, the statistics that its last step was taken from, and the MSE before all steps.
    """
    mse: float | None = None
    statistics: ColorStatistics | None = None
    for number in range(max(1, steps)):
        statistics = None  # 7 GB for 10 M splats: gone before the next are made
        label = progress.part(f"step {number + 1}/{steps}") if steps > 1 else progress
        statistics = rasterizer.color_statistics(model, views, progress=label)
        mse = statistics.sse / statistics.samples if mse is None else mse
        model = refit(model, statistics) if steps else model
    assert statistics is not None
    assert mse is not None
    return model, statistics, mse
