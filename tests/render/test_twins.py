# SPDX-License-Identifier: Apache-2.0
"""The cpu backend at every instruction set against the reference in float64, and the reference against bare loops."""

from functools import cache

import pytest
import torch
from torch import Tensor

from potr import _render
from potr.model.cameras import BLACK, WHITE, Camera
from potr.render.base import ColorStatistics, GeometryStatistics, RemovalCost
from potr.render.cpu import CpuRasterizer
from potr.render.reference import ReferenceRasterizer
from tests.helpers.pixel_loop import render_by_loops
from tests.helpers.scenes import SCENES, look_at_camera, random_model, random_views

INSTRUCTION_SETS = _render.supported_instruction_sets()
VIEWS = random_views(2, background=(0.2, 0.9, 0.5))


def assert_close_but_for_flips(actual: Tensor, expected: Tensor, tolerance: float, flip: float) -> None:
    """Within tolerance but at a few pixels, where rounding put alpha or T on the other side of a threshold."""
    difference = (actual.double() - expected.double()).abs()
    flipped = difference > tolerance
    assert int(flipped.sum()) <= max(3, difference.numel() // 2000), f"{int(flipped.sum())} pixels off"
    assert float(difference.max()) <= flip


@cache
def reference(scene: str) -> tuple[Tensor, RemovalCost, ColorStatistics]:
    model, raster = SCENES[scene](1), ReferenceRasterizer(dtype=torch.float64)
    return (
        raster.render(model, VIEWS[0].camera, VIEWS[0].background),
        raster.removal_cost(model, VIEWS),
        raster.color_statistics(model, VIEWS),
    )


@pytest.mark.parametrize("scene", SCENES)
def test_reference_renders_what_loops_over_pixels_render(scene: str) -> None:
    model, camera = SCENES[scene](12), look_at_camera(1.0, width=37, height=21)
    expected = torch.from_numpy(render_by_loops(model, camera, WHITE))
    image = ReferenceRasterizer(dtype=torch.float64).render(model, camera, WHITE)
    assert_close_but_for_flips(image, expected, 1e-9, 1e-9)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_image(instruction_set: str, scene: str) -> None:
    image = CpuRasterizer(threads=1, instruction_set=instruction_set).render(
        SCENES[scene](1), VIEWS[0].camera, (0.2, 0.9, 0.5)
    )
    # A splat at alpha 1/255 that flips changes a pixel by a colour of up to a few units over 255.
    assert_close_but_for_flips(image, reference(scene)[0], 1e-5, 0.02)


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_removal_cost(instruction_set: str, scene: str) -> None:
    expected = reference(scene)[1]
    costs = CpuRasterizer(threads=1, instruction_set=instruction_set).removal_cost(SCENES[scene](1), VIEWS)
    for name in ("delta_sse", "render_sse", "contribution", "peak"):
        actual, wanted = getattr(costs, name), getattr(expected, name)
        torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f"{name}: {m}")
    assert int((costs.pixels - expected.pixels).abs().max()) <= 1  # flips at alpha 1/255
    assert costs.sse == pytest.approx(expected.sse, rel=1e-6)
    assert costs.samples == expected.samples == 2 * 53 * 37 * 3


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_color_statistics(instruction_set: str, scene: str) -> None:
    expected = reference(scene)[2]
    statistics = CpuRasterizer(threads=1, instruction_set=instruction_set).color_statistics(SCENES[scene](1), VIEWS)
    # Coefficients and gradients are sums with cancellation: absolute tolerances are a few 1e-7 of the largest terms.
    torch.testing.assert_close(statistics.weight, expected.weight, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(statistics.contribution, expected.contribution, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(statistics.hessian, expected.hessian, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(statistics.gradient, expected.gradient, rtol=1e-4, atol=1e-4)
    assert torch.equal(statistics.seen_views, expected.seen_views)
    assert statistics.sse == pytest.approx(expected.sse, rel=1e-6)


@pytest.mark.parametrize("sh_degree", range(4))
def test_sh_degrees(sh_degree: int) -> None:
    model = random_model(13, sh_degree=sh_degree)
    expected = ReferenceRasterizer(dtype=torch.float64).render(model, VIEWS[1].camera, BLACK)
    assert_close_but_for_flips(CpuRasterizer(threads=1).render(model, VIEWS[1].camera, BLACK), expected, 1e-5, 0.02)


def test_principal_point_off_the_centre() -> None:
    # A crop of a wider image is the same camera with another principal point.
    whole = look_at_camera(0.7, width=64, height=48)
    crop = Camera(32, 48, whole.fx, whole.fy, whole.cx - 16, whole.cy, whole.viewmat)
    model = SCENES["mixed"](14)
    expected = CpuRasterizer(threads=1).render(model, whole, BLACK)[:, 16:48]
    image = CpuRasterizer(threads=1).render(model, crop, BLACK)
    assert_close_but_for_flips(image, expected, 1e-5, 0.02)
    assert_close_but_for_flips(ReferenceRasterizer().render(model, crop, BLACK), image, 1e-5, 0.02)


def test_transmittance_stop_in_statistics() -> None:
    # A single pixel's worth of opaque layers: with the stop, the layers behind it cost nothing.
    model, views = SCENES["opaque"](15), random_views(16)
    exact = CpuRasterizer(threads=1).removal_cost(model, views)
    stopped = CpuRasterizer(threads=1, statistics_transmittance_min=1e-4).removal_cost(model, views)
    expected = ReferenceRasterizer(dtype=torch.float64, statistics_transmittance_min=1e-4).removal_cost(model, views)
    assert int((exact.pixels - stopped.pixels).sum()) > 1000
    torch.testing.assert_close(stopped.delta_sse, expected.delta_sse, rtol=1e-4, atol=1e-4)
    assert int((stopped.pixels - expected.pixels).abs().max()) <= 2


@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_geometry_statistics(instruction_set: str, scene: str) -> None:
    expected = geometry_reference(scene)
    statistics = CpuRasterizer(threads=1, instruction_set=instruction_set).geometry_statistics(SCENES[scene](1), VIEWS)
    # Sums with cancellation of responses that reach 200 at a needle's end.
    for name in ("hessian", "gradient"):
        actual, wanted = getattr(statistics, name), getattr(expected, name)
        error = (actual - wanted).abs().amax(1) / (wanted.abs().amax(1) + 1e-4)
        assert float(error.max()) < 2e-3, f"{name}: {float(error.max()):.1e}"
    assert statistics.sse == pytest.approx(expected.sse, rel=1e-6)
    assert statistics.samples == expected.samples


@cache
def geometry_reference(scene: str) -> GeometryStatistics:
    return ReferenceRasterizer(dtype=torch.float64).geometry_statistics(SCENES[scene](1), VIEWS)
