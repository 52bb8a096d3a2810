# SPDX-License-Identifier: Apache-2.0
"""Sensitivities against autograd through the reference rasteriser."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from potr.errors import SceneError
from potr.experiment.peers.sensitivity import contribution, sensitivity, shape_gradient, unit_covariances
from potr.model.cameras import View
from potr.model.rotation import quats_to_matrices
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer
from potr.render.reference import ReferenceRasterizer
from potr.render.select import select
from tests.helpers.scenes import SCENES, random_model, random_views

BACKENDS = ("cpu", "reference")


def rasterizer(name: str) -> Rasterizer:
    return ReferenceRasterizer(dtype=torch.float64) if name == "reference" else select(name, threads=1)


def color_gradients(model: SplatModel, views: list[View]) -> Tensor:
    """[N] the definition: per image the gradient of the sum of all pixels, its absolute value, over the pixels."""
    truth = ReferenceRasterizer(dtype=torch.float64)
    total, pixels = torch.zeros(model.num_splats, model.sh.shape[1], 3), 0
    for view in views:
        sh = model.sh.clone().requires_grad_()
        truth.render(model.with_sh(sh), view.camera, view.background).sum().backward()
        total += sh.grad.abs()
        pixels += view.camera.width * view.camera.height
    return total.flatten(1).amax(1) / pixels


@pytest.mark.parametrize("scene", ["mixed", "clamped"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_color_sensitivity_is_the_gradient(scene: str, backend: str) -> None:
    model, views = SCENES[scene](0), random_views(1, 3, background=(0.2, 0.5, 0.9))
    measured = sensitivity(model, views, rasterizer(backend))
    torch.testing.assert_close(measured.color, color_gradients(model, views), rtol=2e-3, atol=1e-7)


def test_shape_sensitivity_is_the_gradient_of_a_splat_by_itself() -> None:
    """Nothing in front, an even background, alpha below its cap: then only the cut at alpha 1/255 is left out."""
    views = random_views(1, 2, background=(0.1, 0.1, 0.1), width=101, height=83)
    for seed in range(4):
        model = random_model(seed, num_splats=1, sh_degree=1, log_scale=-1.6, spread=0.3)
        model = replace(model, opacity_logits=torch.tensor([1.5]), sh_dc=torch.tensor([[1.0, 2.0, 0.5]]))
        expected = shape_gradient_by_differences(model, views)
        found = sensitivity(model, views, rasterizer("cpu")).shape
        torch.testing.assert_close(found, expected, rtol=0.06, atol=0)


def shape_gradient_by_differences(model: SplatModel, views: list[View]) -> Tensor:
    """[1] max over the six entries of the covariance over its trace, by central differences of real renders."""
    size, covariance = unit_covariances(model)
    truth = ReferenceRasterizer(dtype=torch.float64)
    total, pixels, h = torch.zeros(6), 0, 1e-3
    for view in views:
        for entry, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))):
            energies = []
            for sign in (1, -1):
                moved = covariance.double().clone()
                moved[0, i, j] += sign * h
                if i != j:
                    moved[0, j, i] += sign * h
                energies.append(
                    float(truth.render(with_covariance(model, size, moved), view.camera, view.background).sum())
                )
            total[entry] += abs(energies[0] - energies[1]) / (2 * h)
        pixels += view.camera.width * view.camera.height
    return total.max()[None] / pixels


def with_covariance(model: SplatModel, size: Tensor, covariance: Tensor) -> SplatModel:
    from potr.experiment.peers.shapes import ellipsoids

    quats, axes = ellipsoids(covariance)
    return replace(model, quats=quats.float(), log_scales=(axes * size[:, None]).log().float())


def test_unit_covariances_have_trace_one_and_give_the_covariance() -> None:
    model = random_model(3)
    size, covariance = unit_covariances(model)
    torch.testing.assert_close(covariance.diagonal(dim1=1, dim2=2).sum(1), torch.ones(model.num_splats))
    axes = quats_to_matrices(model.quats) * model.scales[:, None, :]
    torch.testing.assert_close(covariance * size.square()[:, None, None], axes @ axes.mT, rtol=1e-3, atol=1e-5)


def test_shape_gradient_is_that_of_half_the_log_determinant() -> None:
    rows = torch.randn(5, 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    _, covariance = unit_covariances(random_model(1, num_splats=5))
    upper = covariance.double().requires_grad_()
    symmetric = upper.triu() + upper.triu(1).mT
    projected = rows @ symmetric @ rows.mT + 0.3 * torch.eye(2, dtype=torch.float64)
    (projected.logdet().sum() / 2).backward()
    expected = torch.stack([upper.grad[:, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))], 1)
    torch.testing.assert_close(shape_gradient(rows, covariance.double()), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_contribution_is_that_of_the_removal_pass(backend: str) -> None:
    model, views = SCENES["clamped"](2), random_views(2, 3)
    expected = rasterizer(backend).removal_cost(model, views).contribution
    torch.testing.assert_close(contribution(model, views, rasterizer(backend)), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sensitivity(model, views, rasterizer(backend)).contribution, expected)


def test_photographs_are_not_read() -> None:
    def unreadable() -> Tensor:
        raise AssertionError("read")

    model, views = random_model(0), [replace(view, image=unreadable) for view in random_views(0)]
    sensitivity(model, views, rasterizer("cpu"))
    contribution(model, views, rasterizer("cpu"))


def test_no_views_is_one_clear_error() -> None:
    for measure in (sensitivity, contribution):
        with pytest.raises(SceneError, match="expected training views, found none"):
            measure(random_model(0), [], rasterizer("cpu"))
