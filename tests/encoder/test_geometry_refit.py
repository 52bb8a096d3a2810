# SPDX-License-Identifier: Apache-2.0
"""The geometry refit: each of its ten changes against the real error, its bound, and its promise to lower the error."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from potr.encoder.refit import refit_geometry, refit_rounds
from potr.model.cameras import View
from potr.model.rotation import matrices_to_quats, quats_to_matrices
from potr.model.splats import SplatModel
from potr.render.base import GEOMETRY_PARAMETERS, GeometryStatistics, Rasterizer
from potr.render.cpu import CpuRasterizer
from potr.render.cuda import CudaRasterizer
from potr.render.reference import ReferenceRasterizer
from tests.helpers.scenes import SCENES, random_model, random_views
from tests.helpers.simt import SimtLauncher, needs_gxx

K = GEOMETRY_PARAMETERS
CHANGES = ("opacity", "shift 1", "shift 2", "shift 3", "xx", "yy", "zz", "xy", "xz", "yz")
STRAINS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
REFERENCE = ReferenceRasterizer(dtype=torch.float64)
BACKENDS: dict[str, Callable[[], Rasterizer]] = {
    "reference": lambda: REFERENCE,
    "cpu": lambda: CpuRasterizer(threads=1),
    "cuda": lambda: CudaRasterizer(launcher=SimtLauncher()),
}
ON_EVERY_BACKEND = pytest.mark.parametrize(
    "backend", ["reference", "cpu", pytest.param("cuda", marks=needs_gxx), pytest.param("gpu", marks=pytest.mark.gpu)]
)


def changed(model: SplatModel, x: Tensor) -> SplatModel:
    """The model after changes [N, 10], as ``GeometryStatistics`` defines them, by way of the covariance."""
    axes = quats_to_matrices(model.quats.double()) * model.log_scales.double().exp()[:, None, :]
    strain = x.new_zeros(len(x), 3, 3)
    for column, (i, j) in enumerate(STRAINS, start=4):
        strain[:, i, j] = strain[:, j, i] = x[:, column]
    strained = axes + axes @ strain
    variances, directions = torch.linalg.eigh(strained @ strained.mT)
    directions = directions * torch.linalg.det(directions).sign()[:, None, None]
    return replace(
        model,
        opacity_logits=torch.logit(model.opacities.double() * x[:, 0].exp()).float(),
        means=(model.means.double() + (axes @ x[:, 1:4, None])[..., 0]).float(),
        log_scales=(variances.log() / 2).float(),
        quats=matrices_to_quats(directions).float(),
    )


def error(model: SplatModel, views: list[View]) -> float:
    return REFERENCE.removal_cost(model, views).sse


@cache
def scene() -> tuple[SplatModel, list[View]]:
    """Photographs of a model with other geometry, from afar: what the statistics leave out (how perspective shears a
    splat, how colours depend on the direction) is small there.
    """
    model = random_model(68, num_splats=6, sh_degree=0, log_scale=-2.0, opacity_logit=2)
    other = changed(model, 0.3 * torch.randn(6, K, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    views = []
    for view in random_views(69, width=32, height=24, distance=40):
        camera = replace(view.camera, fx=10 * view.camera.fx, fy=10 * view.camera.fy)
        image = REFERENCE.render(other, camera, view.background).float()
        views.append(replace(view, camera=camera, image=image))
    return model, views


@cache
def real_slopes() -> Tensor:
    """[6, 10] of the error, by going a little forward and a little back."""
    model, views = scene()
    slopes = torch.zeros(model.num_splats, K, dtype=torch.float64)
    for k in range(model.num_splats):
        for change in range(K):
            step = 0.01 if change == 0 else 0.03
            x = torch.zeros_like(slopes)
            x[k, change] = step
            slopes[k, change] = (error(changed(model, x), views) - error(changed(model, -x), views)) / (2 * step)
    return slopes


def statistics(backend: str) -> GeometryStatistics:
    return BACKENDS.get(backend, CudaRasterizer)().geometry_statistics(*scene())


def symmetric(packed: Tensor) -> Tensor:
    row, column = torch.tril_indices(K, K)
    matrix = torch.zeros(len(packed), K, K, dtype=torch.float64)
    matrix[:, row, column] = packed.double()
    matrix[:, column, row] = packed.double()
    return matrix


def bound(found: GeometryStatistics, x: Tensor) -> float:
    """x^T A x + 2 x^T b, over all splats."""
    curved = (symmetric(found.hessian) @ x[..., None])[..., 0]
    return float((x * (curved + 2 * found.gradient.double())).sum())


@ON_EVERY_BACKEND
def test_every_change_has_the_slope_of_the_real_error(backend: str) -> None:
    gradient, real = 2 * statistics(backend).gradient.double(), real_slopes()
    for change, name in enumerate(CHANGES):
        off, size = (gradient - real)[:, change].abs().sum(), real[:, change].abs().sum()
        assert float(size) > 1, name
        assert float(off) < 0.02 * float(size), name


@ON_EVERY_BACKEND
def test_the_real_error_stays_below_the_bound_whatever_changes_together(backend: str) -> None:
    (model, views), found = scene(), statistics(backend)
    before, generator = error(model, views), torch.Generator().manual_seed(1)
    assert found.sse == pytest.approx(before, rel=1e-5)
    for size in (0.01, 0.03, 0.1):
        for _ in range(4):
            x = size * torch.randn(model.num_splats, K, generator=generator, dtype=torch.float64)
            x[:, 0] = -x[:, 0].abs()  # opacities stay below 1
            assert error(changed(model, x), views) - before <= bound(found, x)


@ON_EVERY_BACKEND
def test_a_step_lowers_the_real_error_by_most_of_what_the_bound_promises(backend: str) -> None:
    (model, views), found = scene(), statistics(backend)
    before = error(model, views)
    for relaxation in (0.1, 0.3):  # what is of second order is small
        b, hessian = found.gradient.double(), symmetric(found.hessian)
        x = -relaxation * torch.linalg.solve(hessian + 1e-9 * torch.eye(K, dtype=torch.float64), b[..., None])[..., 0]
        after = error(refit_geometry(model, found, relaxation), views)
        assert after - before < 0.8 * bound(found, x) < 0


@pytest.mark.parametrize("name", SCENES)
def test_the_error_falls_from_round_to_round(name: str) -> None:
    # Photographs of noise are as far from the model as can be: every round has something to do.
    model, views, raster = SCENES[name](1), random_views(2, width=37, height=21), CpuRasterizer(threads=1)
    errors = [raster.removal_cost(model, views).sse]
    for _ in range(5):
        model = refit_rounds(model, views, raster, 1)
        errors.append(raster.removal_cost(model, views).sse)
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.95 * errors[0]


def test_what_nobody_sees_stays_as_it_is() -> None:
    model, raster = random_model(4, num_splats=20, sh_degree=1), CpuRasterizer(threads=1)
    model.means[:10, 1] += 100  # far outside of every view
    moved = refit_rounds(model, random_views(5), raster, 1)
    assert torch.equal(moved.means[:10], model.means[:10])
    assert torch.equal(moved.opacity_logits[:10], model.opacity_logits[:10])
    before, after = (quats_to_matrices(m.quats) * m.log_scales.exp()[:, None] for m in (model, moved))
    torch.testing.assert_close(after[:10] @ after[:10].mT, before[:10] @ before[:10].mT)
    assert not torch.equal(moved.means[10:], model.means[10:])


def test_a_model_of_nothing() -> None:
    nothing = random_model(4).select(torch.arange(0))
    assert refit_rounds(nothing, random_views(5, 1), CpuRasterizer(threads=1), 1).num_splats == 0
