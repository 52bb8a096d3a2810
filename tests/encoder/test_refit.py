# SPDX-License-Identifier: Apache-2.0
"""The colour refit: its step against a dense solve, and its promise not to raise the error on the training views."""

from dataclasses import replace

import pytest
import torch

from potr.encoder.refit import refit
from potr.encoder.sh_solver import newton_step, unpack_hessian
from potr.model.cameras import BLACK, RGB, WHITE
from potr.render.select import select
from tests.helpers.scenes import random_model, random_views


def test_newton_step_equals_a_dense_solve() -> None:
    model, views = random_model(3, num_splats=25), random_views(3, 6)
    statistics = select("cpu", threads=1).color_statistics(model, views)
    damping = torch.linspace(1, 5, 25)
    step = newton_step(statistics.hessian, statistics.gradient, damping, 0.01, 1e-3)
    full = unpack_hessian(statistics.hessian, 16).double() * damping[:, None, None]
    prior = 0.01 * full.diagonal(dim1=1, dim2=2).mean(-1) + 1e-3
    full += prior[:, None, None] * torch.eye(16)
    torch.testing.assert_close(
        step, -torch.linalg.solve(full, statistics.gradient.double()).float(), atol=1e-4, rtol=1e-3
    )


@pytest.mark.parametrize("background", [BLACK, WHITE])
@pytest.mark.parametrize("opacity_logit", [-2.0, 3.0])
def test_every_step_lowers_the_error_although_splats_overlap(background: RGB, opacity_logit: float) -> None:
    # Colours well away from the clamp at 0, where the image is linear in the coefficients.
    model = random_model(1, num_splats=300, opacity_logit=opacity_logit, sh_ac=0.02)
    model = replace(model, sh_dc=0.3 * model.sh_dc + 2.0)
    views = random_views(1, 5, background=background)
    rasterizer = select("cpu", threads=1)
    errors = []
    for _ in range(4):
        statistics = rasterizer.color_statistics(model, views)
        errors.append(statistics.sse)
        model = refit(model, statistics)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.9 * errors[0]
