# SPDX-License-Identifier: Apache-2.0
"""The oracle: a splat's removal costs what is said, a changed coefficient changes the error by what is said.

Each figure is compared with the error after really making the change minus the error before. What the error does when
the geometry changes is in encoder/test_geometry_refit.py.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from potr.model.cameras import BLACK, RGB, WHITE, View
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer
from potr.render.cpu import CpuRasterizer
from potr.render.reference import ReferenceRasterizer
from tests.helpers.scenes import SCENES, random_model, random_views

# Relative, and absolute for a photograph error of some 1e3: the real difference is taken between two such sums, in
# float32 images on the cpu.
TOLERANCES = {"reference": (1e-8, 1e-10), "cpu": (1e-4, 2e-5)}


def make(name: str) -> Rasterizer:
    return CpuRasterizer(threads=1) if name == "cpu" else ReferenceRasterizer(dtype=torch.float64)


def error(raster: Rasterizer, model: SplatModel, views: list[View]) -> float:
    return raster.removal_cost(model, views).sse


def without(model: SplatModel, k: int) -> SplatModel:
    return model.select(torch.arange(model.num_splats) != k)


@pytest.mark.parametrize("background", [BLACK, WHITE], ids=["black", "white"])
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("backend", TOLERANCES)
def test_removal_cost_is_the_error_after_deletion_minus_the_error_before(
    backend: str, scene: str, background: RGB
) -> None:
    raster, model, views = make(backend), SCENES[scene](1), random_views(2, background=background, width=37, height=21)
    relative, absolute = TOLERANCES[backend]
    costs = raster.removal_cost(model, views)
    for k in range(model.num_splats):
        real = error(raster, without(model, k), views) - costs.sse
        assert float(costs.delta_sse[k]) == pytest.approx(real, rel=relative, abs=absolute), f"splat {k}"


@pytest.mark.parametrize("backend", TOLERANCES)
def test_render_cost_is_the_change_of_the_own_render(backend: str) -> None:
    # Faint splats: no pixel reaches the transmittance at which rendering stops.
    raster, model = make(backend), SCENES["faint"](3)
    views = random_views(4, background=WHITE, width=37, height=21)
    costs = raster.removal_cost(model, views)
    own = [replace(v, image=raster.render(model, v.camera, v.background).float()) for v in views]
    for k in range(model.num_splats):
        assert float(costs.render_sse[k]) == pytest.approx(error(raster, without(model, k), own), rel=1e-4, abs=1e-8)
    assert float(costs.render_sse.max()) > 0.1


def _symmetric(packed: Tensor, k: int) -> Tensor:
    matrix = torch.zeros(k, k, dtype=torch.float64)
    row, column = torch.tril_indices(k, k)
    matrix[row, column] = packed.double()
    return matrix + matrix.tril(-1).T


@pytest.mark.parametrize("sh_degree", range(4))
@pytest.mark.parametrize("backend", TOLERANCES)
def test_color_statistics_predict_the_error_of_other_coefficients(backend: str, sh_degree: int) -> None:
    raster = make(backend)
    # Colours far from 0, so that no view clamps and the image is linear in the coefficients.
    model = random_model(5, sh_degree=sh_degree, sh_ac=0.05)
    model = replace(model, sh_dc=model.sh_dc.abs() * 0.5 + 1.0)
    views = random_views(6, 3)
    statistics = raster.color_statistics(model, views)
    k = (sh_degree + 1) ** 2
    g = torch.Generator().manual_seed(7)
    assert statistics.sse == pytest.approx(error(raster, model, views), rel=1e-12)
    for i in range(0, model.num_splats, 3):
        change = (torch.randn(k, 3, generator=g) * 0.1).double()
        sh = model.sh
        sh[i] += change.float()
        real = error(raster, model.with_sh(sh), views) - statistics.sse
        quadratic = (change * (_symmetric(statistics.hessian[i], k) @ change)).sum()
        linear = 2 * (change * statistics.gradient[i].double()).sum()
        assert float(quadratic + linear) == pytest.approx(real, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("scene", ["mixed", "clamped"])
def test_gradient_is_half_the_autograd_derivative(scene: str) -> None:
    # Autograd through the reference's render knows of clamping, and of everything else, by itself.
    model, views = SCENES[scene](8), random_views(9)
    sh = model.sh.requires_grad_()
    # render() stops at T < 1e-4, so the statistics must here, too.
    reference = ReferenceRasterizer(dtype=torch.float64)
    stopping = ReferenceRasterizer(dtype=torch.float64, statistics_transmittance_min=1e-4)
    loss = torch.zeros((), dtype=torch.float64)
    for view in views:
        loss = loss + (reference.render(model.with_sh(sh), view.camera, view.background) - view.read()).square().sum()
    (derivative,) = torch.autograd.grad(loss, sh)
    statistics = stopping.color_statistics(model, views)
    torch.testing.assert_close(statistics.gradient, derivative / 2, rtol=1e-5, atol=1e-4)
    assert statistics.sse == pytest.approx(float(loss.detach()), rel=1e-12)


def test_splats_clamped_in_all_channels_do_not_count() -> None:
    model, views = SCENES["clamped"](10), random_views(11, 1)
    raster = CpuRasterizer(threads=1)
    costs, statistics = raster.removal_cost(model, views), raster.color_statistics(model, views)
    seen = costs.pixels > 0
    black = seen & (statistics.weight == 0)
    assert int(black.sum()) >= 3
    assert int((seen & ~black).sum()) >= 3
    assert float(statistics.hessian[black].abs().max()) == 0
    assert float(statistics.gradient[black].abs().max()) == 0
    assert int(statistics.seen_views[black].max()) == 0
    assert int(statistics.seen_views[seen & ~black].min()) == 1
