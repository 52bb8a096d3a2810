# SPDX-License-Identifier: Apache-2.0
"""Colour refit: with the blend weights fixed the image is linear in the SH coefficients, so a step towards the
photographs has a closed form.
"""

from __future__ import annotations

from potr.codec.sh_solver import newton_step
from potr.rasterizer.base import ColorStatistics
from potr.splats import SplatModel

# Trust in the old coefficients: a share of each splat's mean curvature, and the curvature of a splat barely seen.
RELATIVE_PRIOR = 0.1
ABSOLUTE_PRIOR = 1e-3


def refit(model: SplatModel, statistics: ColorStatistics) -> SplatModel:
    """Move every splat's coefficients towards the photographs, all at once.

    The step minimises a quadratic bound of the squared error: with a_xk the blend weight of splat k at pixel x and
    sum_k a_xk <= 1, the cross terms between splats obey 2 a_xk a_xl u v <= a_xk a_xl (u^2 + v^2), so the curvature
    sum_x a_xk, in place of sum_x a_xk^2, bounds the whole (De Pierro's separable surrogate, 1995). The step therefore
    lowers the error on the training views, but for colours clamped at 0, and in so far as the ratio of the two sums,
    taken over all views together, holds in each.

    Args:
        model: N splats.
        statistics: of this model over the training views.
    """
    if model.num_splats == 0:
        return model
    damping = (statistics.contribution / statistics.weight.clamp_min(1e-30)).clamp(1, 1e6)
    step = newton_step(statistics.hessian, statistics.gradient, damping, RELATIVE_PRIOR, ABSOLUTE_PRIOR)
    return model.with_sh(model.sh + step)
