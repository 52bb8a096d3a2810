# SPDX-License-Identifier: Apache-2.0
"""The cuda backend against the reference in float64: its kernels emulated on the CPU, and on a GPU if there is one."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from potr.encoder.config import PruneConfig
from potr.encoder.prune import select_removals
from potr.errors import ConfigError, DeviceMemoryError
from potr.model.cameras import BLACK, WHITE, Camera, View
from potr.model.splats import SplatModel
from potr.render import tile_lists
from potr.render.base import ColorStatistics, GeometryStatistics, RemovalCost
from potr.render.cuda import CudaRasterizer, _next_capacity
from potr.render.photos import as_bytes
from potr.render.reference import ReferenceRasterizer
from potr.render.tile_lists import bands
from tests.helpers.scenes import SCENES, look_at_camera, random_model, random_views
from tests.helpers.simt import ORDERS, SimtLauncher, needs_gxx

VIEWS = random_views(2, background=(0.2, 0.9, 0.5))
MACHINES = [pytest.param("simt", marks=needs_gxx), pytest.param("gpu", marks=pytest.mark.gpu)]

Make = Callable[..., CudaRasterizer]


@pytest.fixture(params=MACHINES)
def make(request: pytest.FixtureRequest) -> Make:
    """Makes the backend, on either machine; models and results stay on the CPU."""
    if request.param == "gpu":
        return CudaRasterizer
    return lambda **options: CudaRasterizer(launcher=SimtLauncher(), **options)


@cache
def reference(scene: str) -> tuple[Tensor, RemovalCost, ColorStatistics, GeometryStatistics]:
    model, raster = SCENES[scene](1), ReferenceRasterizer(dtype=torch.float64)
    return (
        raster.render(model, VIEWS[0].camera, VIEWS[0].background),
        raster.removal_cost(model, VIEWS),
        raster.color_statistics(model, VIEWS),
        raster.geometry_statistics(model, VIEWS),
    )


def assert_close(actual: Any, expected: Any, **tolerances: tuple[float, float]) -> None:
    """Fields within (relative, absolute) tolerances."""
    for name, (rtol, atol) in tolerances.items():
        torch.testing.assert_close(
            getattr(actual, name),
            getattr(expected, name),
            rtol=rtol,
            atol=atol,
            msg=lambda m, name=name: f"{name}: {m}",
        )


def assert_removal_cost(costs: RemovalCost, expected: RemovalCost, flips: int = 1) -> None:
    tight = (1e-4, 1e-5)
    assert_close(costs, expected, delta_sse=tight, render_sse=tight, contribution=tight, peak=tight)
    assert int((costs.pixels - expected.pixels).abs().max()) <= flips  # at alpha 1/255
    assert costs.sse == pytest.approx(expected.sse, rel=1e-6)
    assert costs.samples == expected.samples


def assert_color_statistics(statistics: ColorStatistics, expected: ColorStatistics) -> None:
    assert_close(statistics, expected, weight=(1e-5, 1e-7), contribution=(1e-5, 1e-7))
    assert_close(statistics, expected, hessian=(1e-4, 1e-5), gradient=(1e-4, 1e-4))
    assert torch.equal(statistics.seen_views, expected.seen_views)
    assert statistics.sse == pytest.approx(expected.sse, rel=1e-6)


def assert_geometry_statistics(statistics: GeometryStatistics, expected: GeometryStatistics) -> None:
    # Sums with cancellation of responses that reach 200 at a needle's end: against the largest of each splat.
    for name in ("hessian", "gradient"):
        actual, wanted = getattr(statistics, name), getattr(expected, name)
        assert actual.dtype == torch.float32
        assert actual.shape == wanted.shape
        error = (actual - wanted).abs().amax(1) / (wanted.abs().amax(1) + 1e-4)
        assert float(error.max()) < 5e-4, f"{name}: {float(error.max()):.1e}"
    assert statistics.sse == pytest.approx(expected.sse, rel=1e-6)
    assert statistics.samples == expected.samples


def assert_image(image: Tensor, expected: Tensor) -> None:
    """Within 1e-5 but at a few pixels, where rounding put alpha or T on the other side of a threshold."""
    difference = (image.double() - expected.double()).abs()
    assert int((difference > 1e-5).sum()) <= max(3, difference.numel() // 2000)
    assert float(difference.max()) <= 0.02


def everything(raster: CudaRasterizer, model: SplatModel, views: list[View]) -> dict[str, Any]:
    image = raster.render(model, views[0].camera, views[0].background)
    passes = (raster.removal_cost, raster.color_statistics, raster.geometry_statistics)
    results = [statistics(model, views) for statistics in passes]
    values = {f"{type(r).__name__}.{f.name}": getattr(r, f.name) for r in results for f in fields(r)}
    return {"image": image, **values}


def assert_same_bits(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        assert torch.equal(torch.as_tensor(actual[name]), torch.as_tensor(value)), name


@pytest.mark.parametrize("scene", SCENES)
def test_twins(make: Make, scene: str) -> None:
    raster, model = make(), SCENES[scene](1)
    image, costs, statistics, geometry = reference(scene)
    assert_image(raster.render(model, VIEWS[0].camera, VIEWS[0].background), image)
    assert_removal_cost(raster.removal_cost(model, VIEWS), costs)
    assert_color_statistics(raster.color_statistics(model, VIEWS), statistics)
    assert_geometry_statistics(raster.geometry_statistics(model, VIEWS), geometry)


@pytest.mark.parametrize("sh_degree", range(4))
def test_sh_degrees(make: Make, sh_degree: int) -> None:
    model, raster = random_model(13, sh_degree=sh_degree), ReferenceRasterizer(dtype=torch.float64)
    assert_image(make().render(model, VIEWS[1].camera, BLACK), raster.render(model, VIEWS[1].camera, BLACK))
    assert_color_statistics(make().color_statistics(model, VIEWS), raster.color_statistics(model, VIEWS))


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (32, 16), (17, 15), (3, 40), (15, 33)])
def test_image_sizes(make: Make, size: tuple[int, int]) -> None:
    model, views = SCENES["mixed"](32), random_views(33, width=size[0], height=size[1])
    reference, raster = ReferenceRasterizer(dtype=torch.float64), make()
    image = raster.render(model, views[0].camera, WHITE)
    assert image.shape == (size[1], size[0], 3)
    assert_image(image, reference.render(model, views[0].camera, WHITE))
    assert_removal_cost(raster.removal_cost(model, views), reference.removal_cost(model, views))
    assert_color_statistics(raster.color_statistics(model, views), reference.color_statistics(model, views))
    assert_geometry_statistics(raster.geometry_statistics(model, views), reference.geometry_statistics(model, views))


@pytest.mark.parametrize("count", [1, 2, 31, 33, 255, 257])
def test_numbers_of_splats(make: Make, count: int) -> None:
    model, views = random_model(45, num_splats=count), random_views(46, 1, width=33, height=17)
    reference, raster = ReferenceRasterizer(dtype=torch.float64), make()
    assert_removal_cost(raster.removal_cost(model, views), reference.removal_cost(model, views), flips=2)
    assert_color_statistics(raster.color_statistics(model, views), reference.color_statistics(model, views))
    assert_geometry_statistics(raster.geometry_statistics(model, views), reference.geometry_statistics(model, views))


@pytest.mark.parametrize("opacity_logit", [-5.0, 5.0])
def test_many_batches_in_a_tile(make: Make, opacity_logit: float) -> None:
    # Over 128 entries a tile, many with alpha below 1/255, then so opaque that all pixels stop in the first batches.
    model = random_model(47, num_splats=700, log_scale=-1.0, opacity_logit=opacity_logit)
    views = random_views(48, 1, width=40, height=24)
    reference, raster = ReferenceRasterizer(dtype=torch.float64), make()
    costs, expected = raster.removal_cost(model, views), reference.removal_cost(model, views)
    assert int((expected.pixels > 0).sum()) > 300
    assert_close(costs, expected, delta_sse=(1e-3, 1e-5), render_sse=(1e-3, 1e-6), contribution=(1e-4, 1e-5))
    if opacity_logit > 0:  # a pixel ends at a transmittance of 1e-30: nobody sees what lies behind
        unseen = (costs.pixels == 0) & (expected.pixels > 0)
        assert 50 < int(unseen.sum()) < 500
        assert float(expected.contribution[unseen].max()) < 1e-25
    else:
        assert int((costs.pixels - expected.pixels).abs().max()) <= 4
    statistics, wanted = raster.color_statistics(model, views), reference.color_statistics(model, views)
    assert_close(statistics, wanted, hessian=(1e-4, 1e-5), gradient=(1e-3, 1e-4), contribution=(1e-4, 1e-5))
    assert_geometry_statistics(raster.geometry_statistics(model, views), reference.geometry_statistics(model, views))


def test_a_splat_of_many_tiles(make: Make) -> None:
    # Over 64 tiles a whole warp counts, writes and adds up a splat's entries; some beside splats of one tile.
    model, views = random_model(49, num_splats=40), random_views(50, 2, width=200, height=130)
    model.log_scales[::7] = 1.5
    reference, raster = ReferenceRasterizer(), make()
    assert_removal_cost(raster.removal_cost(model, views), reference.removal_cost(model, views), flips=4)
    assert_color_statistics(raster.color_statistics(model, views), reference.color_statistics(model, views))
    assert_geometry_statistics(raster.geometry_statistics(model, views), reference.geometry_statistics(model, views))


def test_splats_whose_edges_lie_on_tile_borders(make: Make) -> None:
    # Pixel-sized splats on a grid of quarter pixels about every tile corner.
    camera = Camera(48, 32, 40.0, 40.0, 24.0, 16.0, torch.eye(4))
    steps = torch.arange(-8, 9) / 4.0
    corner = torch.cartesian_prod(torch.tensor([16.0, 32.0]), torch.tensor([16.0]))
    pixels = (corner[:, None, None, :] + torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)).reshape(-1, 2)
    n = len(pixels)
    means = torch.cat([(pixels - torch.tensor([24.0, 16.0])) * 2 / 40, torch.full((n, 1), 2.0)], 1)
    model = replace(random_model(51, num_splats=n), means=means, log_scales=torch.full((n, 3), -3.0))
    model = replace(model, opacity_logits=torch.linspace(-5.5, 0, n))
    views = [View("v", camera, torch.rand(32, 48, 3, generator=torch.Generator().manual_seed(52)))]
    expected, costs = (
        ReferenceRasterizer(dtype=torch.float64).removal_cost(model, views),
        make().removal_cost(model, views),
    )
    assert_removal_cost(costs, expected, flips=2)


def test_nothing_to_see(make: Make) -> None:
    raster, none = make(), random_model(29, num_splats=0)
    assert torch.equal(raster.render(none, VIEWS[0].camera, WHITE), torch.ones(37, 53, 3))
    costs, statistics = raster.removal_cost(none, VIEWS), raster.color_statistics(none, VIEWS)
    assert costs.delta_sse.shape == (0,)
    assert statistics.hessian.shape == (0, 136)
    assert costs.sse == pytest.approx(ReferenceRasterizer().removal_cost(none, VIEWS).sse, rel=1e-6)
    behind = replace(random_model(34), means=random_model(34).means - torch.tensor([0.0, 0.0, 10.0]))
    ahead = View("v", Camera(32, 32, 30.0, 30.0, 16.0, 16.0, torch.eye(4)), torch.rand(32, 32, 3))
    costs, statistics = raster.removal_cost(behind, [ahead]), raster.color_statistics(behind, [ahead])
    assert int(costs.pixels.sum()) == 0
    assert float(statistics.hessian.abs().max()) == 0
    geometry = raster.geometry_statistics(behind, [ahead])
    assert float(geometry.hessian.abs().max()) == float(geometry.gradient.abs().max()) == 0
    assert raster.geometry_statistics(none, VIEWS).hessian.shape == (0, 55)
    no_views = raster.color_statistics(behind, [])
    assert (no_views.sse, no_views.samples, float(no_views.weight.abs().max())) == (0.0, 0, 0.0)


def test_more_views_than_a_block(make: Make) -> None:
    model, views = random_model(43, num_splats=30), random_views(44, 19, width=33, height=20)
    reference, raster = ReferenceRasterizer(dtype=torch.float64), make()
    assert_removal_cost(raster.removal_cost(model, views), reference.removal_cost(model, views), flips=2)
    assert_color_statistics(raster.color_statistics(model, views), reference.color_statistics(model, views))
    assert_geometry_statistics(raster.geometry_statistics(model, views), reference.geometry_statistics(model, views))


def test_the_oracle(make: Make) -> None:
    raster, model, views = make(), SCENES["mixed"](1), random_views(2, width=37, height=21)
    costs = raster.removal_cost(model, views)
    for k in range(0, model.num_splats, 5):
        rest = model.select(torch.arange(model.num_splats) != k)
        real = raster.removal_cost(rest, views).sse - costs.sse
        assert float(costs.delta_sse[k]) == pytest.approx(real, rel=1e-4, abs=2e-5), f"splat {k}"


def test_a_second_run_has_the_same_bits(make: Make) -> None:
    model, views = random_model(53, num_splats=300), random_views(54, 3)
    assert_same_bits(everything(make(), model, views), everything(make(), model, views))


@pytest.mark.parametrize("order", ORDERS[1:])
@needs_gxx
def test_the_order_of_threads_makes_no_difference(order: str) -> None:
    model, views = random_model(55, num_splats=300, log_scale=-1.0), random_views(56, 2)
    expected = everything(CudaRasterizer(launcher=SimtLauncher()), model, views)
    assert_same_bits(everything(CudaRasterizer(launcher=SimtLauncher(order=order)), model, views), expected)


def test_lists_that_do_not_fit_are_made_again(make: Make) -> None:
    model, views = random_model(57, num_splats=200), random_views(58, 2)
    expected, raster = everything(make(), model, views), make()
    for _ in range(2):
        raster._capacity = 1
        assert_same_bits(everything(raster, model, views), expected)
    assert raster._capacity > 200


def test_views_in_bands_of_tile_rows(make: Make) -> None:
    model, views = random_model(59, num_splats=100), random_views(60, 3, height=70)
    whole, banded = make(), make(max_entries=200)
    assert torch.equal(banded.render(model, views[0].camera, WHITE), whole.render(model, views[0].camera, WHITE))
    assert_removal_cost(banded.removal_cost(model, views), whole.removal_cost(model, views), flips=0)
    assert_color_statistics(banded.color_statistics(model, views), whole.color_statistics(model, views))
    assert_geometry_statistics(banded.geometry_statistics(model, views), whole.geometry_statistics(model, views))


def test_keys_of_more_tiles_than_16_bits_hold(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model, views = SCENES["mixed"](61), random_views(62, 2)
    expected = everything(make(), model, views)
    monkeypatch.setattr(tile_lists, "SHORT_MAX", 3)
    assert_same_bits(everything(make(), model, views), expected)


def test_photographs_as_bytes_give_the_same_bits(make: Make) -> None:
    model, generator = SCENES["mixed"](63), torch.Generator().manual_seed(64)
    levels = torch.randint(0, 256, (37, 53, 3), generator=generator) / 255.0
    assert as_bytes(levels).dtype == torch.uint8
    assert as_bytes(levels + 1e-7).dtype == torch.float32
    as_levels = make().removal_cost(model, [View("v", look_at_camera(0.2), levels)])
    nearly = levels.clone()
    nearly[0, 0, 0] += 1e-6  # so that it goes as floats
    as_floats = make().removal_cost(model, [View("v", look_at_camera(0.2), nearly)])
    torch.testing.assert_close(as_levels.delta_sse, as_floats.delta_sse, rtol=1e-5, atol=1e-5)
    assert as_levels.sse == pytest.approx(as_floats.sse, abs=1e-5)


def test_photographs_are_read_once_and_again_where_they_changed(make: Make) -> None:
    reads = []

    def read() -> Tensor:
        reads.append(1)
        return torch.full((37, 53, 3), 0.25)

    model, raster = SCENES["mixed"](65), make()
    lazy, tensor = View("a", look_at_camera(0.1), read), View("b", look_at_camera(0.1), torch.full((37, 53, 3), 0.25))
    first = raster.removal_cost(model, [lazy, tensor])
    raster.removal_cost(model, [lazy, tensor])
    assert len(reads) == 1
    tensor.image.add_(0.5)  # type: ignore[union-attr]
    changed = raster.removal_cost(model, [lazy, tensor])
    assert changed.sse != first.sse
    none_kept = make(photo_bytes=0)
    for _ in range(2):
        assert none_kept.removal_cost(model, [lazy, tensor]).sse == changed.sse
    assert len(reads) == 3


def test_a_model_changed_in_place_is_seen(make: Make) -> None:
    raster, model = make(), SCENES["mixed"](28)
    before = raster.render(model, VIEWS[0].camera, BLACK)
    model.sh_dc.zero_()
    after = raster.render(model, VIEWS[0].camera, BLACK)
    assert not torch.equal(before, after)
    assert torch.equal(after, make().render(model, VIEWS[0].camera, BLACK))


def test_the_same_splats_are_pruned_as_on_the_cpu(make: Make) -> None:
    from potr.render.cpu import CpuRasterizer

    model, views = random_model(66, num_splats=600, log_scale=-2.5), random_views(67, 3, width=96, height=64)
    ours, theirs = make().removal_cost(model, views), CpuRasterizer(threads=1).removal_cost(model, views)
    for cap in (1e-7, 1e-5, 1e-4):
        for target in (None, 300):
            removed, charged = select_removals(ours, PruneConfig(), cap=cap, share=0.5, target=target)
            expected, limit = select_removals(theirs, PruneConfig(), cap=cap, share=0.5, target=target)
            bound = float(limit[expected].max()) if expected.any() else 0.0
            for splat in (removed != expected).nonzero()[:, 0]:  # only where they tie at the limit
                assert float(charged[splat]) == pytest.approx(bound, rel=1e-3, abs=1e-6)
            assert int((removed != expected).sum()) <= 2


def test_bands() -> None:
    assert bands([3, 4, 2, 9, 1], 7) == [(0, 2, 7), (2, 3, 2), (3, 4, 9), (4, 5, 1)]
    assert bands([0, 0, 0], 1) == [(0, 3, 0)]


def test_capacity_grows_at_once_and_shrinks_slowly() -> None:
    assert 1200 <= _next_capacity(10, 1000) <= 1300
    assert 900_000 <= _next_capacity(1_000_000, 0) <= 960_000
    assert _next_capacity(10, 0) == 1 << 10


def test_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_entries"):
        CudaRasterizer(launcher=SimtLauncher(), max_entries=0)
    with pytest.raises(ConfigError, match="statistics_transmittance_min"):
        CudaRasterizer(launcher=SimtLauncher(), statistics_transmittance_min=1.0)


def test_out_of_memory_says_what_to_lower(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("tried to allocate 20.00 GiB")

    raster = CudaRasterizer(launcher=SimtLauncher())
    monkeypatch.setattr(raster.launcher, "launch", full)
    with pytest.raises(DeviceMemoryError, match=r"of 40 splats at 53 x 37 pixels.*max_entries.*20\.00 GiB"):
        raster.removal_cost(SCENES["mixed"](1), VIEWS)
