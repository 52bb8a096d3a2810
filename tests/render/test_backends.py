# SPDX-License-Identifier: Apache-2.0
"""What holds for a backend whatever the scene: threads, edges, hostile values, views read lazily, choosing one."""

import logging
from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from potr import _render
from potr.errors import BackendUnavailable, ConfigError, SceneError
from potr.model.cameras import BLACK, WHITE, Camera, View
from potr.model.splats import SplatModel
from potr.progress import Progress
from potr.render.base import Rasterizer
from potr.render.cpu import CpuRasterizer
from potr.render.cuda import CudaRasterizer
from potr.render.reference import ReferenceRasterizer
from potr.render.select import select, signature
from tests.helpers.scenes import SCENES, look_at_camera, random_model, random_views
from tests.helpers.simt import SimtLauncher, needs_gxx

INSTRUCTION_SETS = _render.supported_instruction_sets()
CUDA = [pytest.param("simt", marks=needs_gxx), pytest.param("cuda", marks=pytest.mark.gpu)]  # emulated, on a GPU
BACKENDS = ["reference", *INSTRUCTION_SETS, *CUDA]


def make(name: str) -> Rasterizer:
    if name == "simt":
        return CudaRasterizer(launcher=SimtLauncher())
    if name == "cuda":
        return CudaRasterizer()
    return ReferenceRasterizer() if name == "reference" else CpuRasterizer(threads=1, instruction_set=name)


def tensors_of(result: Any) -> dict[str, Tensor]:
    return {f.name: getattr(result, f.name) for f in fields(result) if isinstance(getattr(result, f.name), Tensor)}


def all_results(raster: Rasterizer, model: SplatModel, views: list[View]) -> dict[str, Tensor]:
    return {
        "image": raster.render(model, views[0].camera, views[0].background),
        **tensors_of(raster.removal_cost(model, views)),
        **tensors_of(raster.color_statistics(model, views)),
    }


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_results_do_not_depend_on_threads(instruction_set: str) -> None:
    model, views = random_model(20, num_splats=3000, log_scale=-2.5), random_views(21, 3, width=130, height=90)
    one = CpuRasterizer(threads=1, instruction_set=instruction_set)
    expected = all_results(one, model, views)
    assert int((expected["pixels"] > 0).sum()) > 1500
    for threads in (2, 5):
        raster = CpuRasterizer(threads=threads, instruction_set=instruction_set)
        for name, actual in all_results(raster, model, views).items():
            assert torch.equal(actual, expected[name]), f"{name} on {threads} threads"
        assert raster.removal_cost(model, views).sse == one.removal_cost(model, views).sse


def test_results_do_not_depend_on_what_was_computed_before() -> None:
    raster = CpuRasterizer(threads=1)
    model, views = SCENES["mixed"](22), random_views(23)
    expected = all_results(CpuRasterizer(threads=1), model, views)
    all_results(raster, random_model(24, num_splats=500), random_views(25, width=200, height=100))
    all_results(raster, SCENES["huge"](26), random_views(27, width=20, height=10))
    for name, actual in all_results(raster, model, views).items():
        assert torch.equal(actual, expected[name]), name


def test_a_model_changed_in_place_is_seen() -> None:
    raster, model = CpuRasterizer(threads=1), SCENES["mixed"](28)
    camera = look_at_camera(0.3)
    raster.render(model, camera, BLACK)
    model.sh_dc.zero_()
    assert torch.equal(raster.render(model, camera, BLACK), CpuRasterizer(threads=1).render(model, camera, BLACK))


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_splats(backend: str) -> None:
    model, views = random_model(29, num_splats=0), random_views(30)
    results = all_results(make(backend), model, views)
    assert torch.equal(results["image"], torch.zeros(37, 53, 3))
    assert results["delta_sse"].shape == (0,)
    assert results["hessian"].shape == (0, 136)
    white = make(backend).render(model, views[0].camera, WHITE)
    assert torch.equal(white, torch.ones(37, 53, 3))
    expected = sum(float(v.read().double().square().sum()) for v in views)
    assert make(backend).removal_cost(model, views).sse == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_views(backend: str) -> None:
    costs = make(backend).removal_cost(random_model(31, num_splats=3), [])
    assert (costs.sse, costs.samples) == (0.0, 0)
    assert costs.delta_sse.tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 15), (3, 40)])
@pytest.mark.parametrize("backend", [*INSTRUCTION_SETS, *CUDA])
def test_image_sizes(backend: str, size: tuple[int, int]) -> None:
    model, views = SCENES["mixed"](32), random_views(33, width=size[0], height=size[1])
    image = make(backend).render(model, views[0].camera, WHITE)
    assert image.shape == (size[1], size[0], 3)
    torch.testing.assert_close(image, make("reference").render(model, views[0].camera, WHITE), rtol=0, atol=1e-4)
    costs, expected = make(backend).removal_cost(model, views), make("reference").removal_cost(model, views)
    torch.testing.assert_close(costs.delta_sse, expected.delta_sse, rtol=1e-3, atol=1e-3)
    assert torch.equal(costs.pixels, expected.pixels)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_splat_by_hand(backend: str) -> None:
    # On the axis, one pixel wide: at the centre alpha is the opacity, a pixel off it falls by the dilated Gaussian.
    model = SplatModel(
        means=torch.tensor([[0.0, 0.0, 2.0]]),
        log_scales=torch.full((1, 3), -100.0),
        quats=torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        opacity_logits=torch.zeros(1),
        sh_dc=torch.full((1, 3), 0.5 / 0.28209479177387814),
        sh_ac=torch.zeros(1, 0, 3),
    )
    camera = Camera(5, 5, 5.0, 5.0, 2.5, 2.5, torch.eye(4))
    image = make(backend).render(model, camera, BLACK)
    assert float(image[2, 2, 0]) == pytest.approx(0.5, abs=1e-6)
    assert float(image[2, 3, 1]) == pytest.approx(0.5 * 2.718281828 ** (-0.5 / 0.3), abs=1e-6)
    costs = make(backend).removal_cost(model, [View("v", camera, image)])
    assert float(costs.delta_sse[0]) == pytest.approx(float(image.double().square().sum()), rel=1e-5)
    assert float(costs.peak[0]) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_splats_behind_the_camera_are_not_seen(backend: str) -> None:
    model = replace(random_model(34), means=random_model(34).means - torch.tensor([0.0, 0.0, 10.0]))
    view = View("v", Camera(32, 32, 30.0, 30.0, 16.0, 16.0, torch.eye(4)), torch.rand(32, 32, 3))
    costs = make(backend).removal_cost(model, [view])
    assert int(costs.pixels.sum()) == 0
    assert float(costs.delta_sse.abs().max()) == 0


POISON = [0.0, -0.0, 1e-45, 1e-38, 100.0, -100.0, 1e10, -1e10, 1e38, -1e38, float("inf"), float("-inf"), float("nan")]


@pytest.mark.parametrize("field", [f.name for f in fields(SplatModel)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_poison_values_stay_with_their_splat(backend: str, field: str) -> None:
    # What the loader would refuse (NaN, infinity) and what it lets through: nothing but the poisoned splats may suffer.
    model, views = random_model(35, num_splats=len(POISON) * 4), random_views(36)
    poisoned = getattr(model, field).clone()
    poisoned.reshape(model.num_splats, -1)[: len(POISON), 0] = torch.tensor(POISON)
    if field.startswith("sh_"):  # a colour is not a shape: NaN and infinite colours would rightly be seen
        poisoned = poisoned.nan_to_num(0.0, 0.0, 0.0).clamp(-1e10, 1e10)
    results = all_results(make(backend), replace(model, **{field: poisoned}), views)
    for name, tensor in results.items():
        assert bool(torch.isfinite(tensor.double()).all()), name
    assert int((results["pixels"] > 0).sum()) > len(POISON)


@pytest.mark.parametrize("backend", ["reference", INSTRUCTION_SETS[0], *CUDA])
def test_each_view_has_its_own_background_unless_one_is_given(backend: str) -> None:
    raster = make(backend)
    model, photo, camera = SCENES["mixed"](37), torch.rand(37, 53, 3), look_at_camera(0.2)
    black, white = View("b", camera, photo, BLACK), View("w", camera, photo, WHITE)
    both = raster.removal_cost(model, [black, white]).sse
    expected = raster.removal_cost(model, [black]).sse + raster.removal_cost(model, [white]).sse
    assert both == pytest.approx(expected, rel=1e-12)
    assert raster.removal_cost(model, [black], WHITE).sse == raster.removal_cost(model, [white]).sse


@pytest.mark.parametrize("backend", ["reference", INSTRUCTION_SETS[0], *CUDA])
def test_views_are_read_lazily_and_reported(backend: str) -> None:
    reads: list[str] = []

    def reader(name: str) -> Tensor:
        reads.append(name)
        return torch.zeros(37, 53, 3)

    views = [View(n, look_at_camera(i), lambda n=n: reader(n)) for i, n in enumerate("abcd")]
    reported: list[tuple[str, int, int, int]] = []

    progress = Progress(lambda *step: reported.append((*step, len(reads))), "a stage")
    make(backend).removal_cost(SCENES["mixed"](38), views, progress=progress)
    assert reads == ["a", "b", "c", "d"]
    assert [r[:3] for r in reported] == [("a stage", i, 4) for i in (1, 2, 3, 4)]
    assert all(done <= n <= done + 1 for _, done, _, n in reported), "more than one view ahead"


@pytest.mark.parametrize("backend", ["reference", INSTRUCTION_SETS[0], *CUDA])
def test_stops_between_views(backend: str) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    raster, model = make(backend), SCENES["mixed"](39)
    with pytest.raises(KeyboardInterrupt):
        raster.color_statistics(model, random_views(40, 4), progress=Progress(interrupt))
    assert raster.removal_cost(model, random_views(40, 4)).sse > 0


def test_a_photograph_of_the_wrong_size_is_named() -> None:
    view = View("garden_7", look_at_camera(0.0), torch.zeros(36, 53, 3))
    with pytest.raises(SceneError, match="garden_7"):
        CpuRasterizer(threads=1).removal_cost(SCENES["mixed"](41), [view])


def test_native_module_refuses_other_types() -> None:
    model = SCENES["mixed"](42)
    with pytest.raises(TypeError):
        _render.Model(
            model.means.double(), model.log_scales, model.quats, model.opacity_logits, model.sh_dc, model.sh_ac, 1
        )
    with pytest.raises(ValueError, match="different length"):
        _render.Model(model.means[:3], model.log_scales, model.quats, model.opacity_logits, model.sh_dc, model.sh_ac, 1)


def test_more_views_than_are_added_up_at_once() -> None:
    # The cpu backend adds up colour samples eight views at a time.
    model, views = random_model(43, num_splats=30), random_views(44, 19)
    statistics = CpuRasterizer(threads=1).color_statistics(model, views)
    parts = [CpuRasterizer(threads=1).color_statistics(model, [v]) for v in views]
    torch.testing.assert_close(statistics.hessian, torch.stack([p.hessian for p in parts]).sum(0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        statistics.gradient, torch.stack([p.gradient for p in parts]).sum(0), rtol=1e-4, atol=1e-3
    )
    assert torch.equal(statistics.seen_views, torch.stack([p.seen_views for p in parts]).sum(0, dtype=torch.int32))
    assert int(statistics.seen_views.max()) > 8
    with pytest.raises(RuntimeError, match="begin_color"):
        _render.Rasterizer(INSTRUCTION_SETS[0], 1, 1 << 20).finish_color(
            CpuRasterizer(threads=1)._layout(model),
            _render.ColorSums(
                statistics.hessian,
                statistics.gradient,
                statistics.weight,
                statistics.contribution,
                statistics.seen_views,
            ),
        )


def test_select() -> None:
    assert select().name == "cpu"
    assert select("cpu", threads=3).name == "cpu"
    assert select("reference").name == "reference"
    with pytest.raises(ConfigError, match=r"expected one of auto, cuda, cpu, reference, got 'vulkan'"):
        select("vulkan")


def test_options_go_to_the_cuda_backend_only(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[dict[str, Any]] = []

    class Cuda(ReferenceRasterizer):
        def __init__(self, **arguments: Any) -> None:
            given.append(arguments)
            if "fail" in arguments:
                raise BackendUnavailable("cuda: no")

    monkeypatch.setattr("potr.render.cuda.CudaRasterizer", Cuda)
    assert isinstance(select("cuda", threads=2, options={"max_entries": 7}), Cuda)
    assert select("auto", options={"fail": 1}).name == "cpu"
    assert select("cpu", threads=1, options={"max_entries": 7}).name == "cpu"
    assert given == [{"threads": 2, "max_entries": 7}, {"threads": None, "fail": 1}]


@pytest.mark.parametrize("there", [False, True])
def test_auto_says_what_it_took_and_why(
    there: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Cuda(ReferenceRasterizer):
        def __init__(self, **arguments: Any) -> None:
            raise BackendUnavailable("cuda: no driver")

    monkeypatch.setattr("potr.render.cuda.CudaRasterizer", Cuda)
    monkeypatch.setattr("potr.render.select.gpu_is_there", lambda: there)
    with caplog.at_level(logging.INFO, "potr"):
        chosen = select("auto", threads=1)
    (record,) = caplog.records
    assert record.getMessage() == f"backend: {signature(chosen)}; not cuda: no driver"
    assert record.levelno == (logging.WARNING if there else logging.INFO)


def test_the_reference_leaves_torchs_threads_alone() -> None:
    before = torch.get_num_threads()
    ReferenceRasterizer(threads=before + 1).render(SCENES["mixed"](45), look_at_camera(0.0), BLACK)
    assert torch.get_num_threads() == before


def test_constructors_refuse_what_is_out_of_range(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="threads"):
        CpuRasterizer(threads=0)
    with pytest.raises(ConfigError, match="statistics_transmittance_min"):
        CpuRasterizer(statistics_transmittance_min=1.0)
    with pytest.raises(ConfigError, match="dtype"):
        ReferenceRasterizer(dtype=torch.float16)
    with pytest.raises(BackendUnavailable, match="sparc"):
        CpuRasterizer(instruction_set="sparc")
    monkeypatch.setenv("POTR_INSTRUCTION_SET", INSTRUCTION_SETS[-1])
    assert CpuRasterizer().instruction_set == INSTRUCTION_SETS[-1]


def test_inference_mode_and_another_default_dtype_make_no_difference() -> None:
    model, views = random_model(4), random_views(4)
    rasterizer = select("cpu", threads=1)
    expected = rasterizer.removal_cost(model, views)
    with torch.inference_mode():
        fresh = random_model(4)
        image = rasterizer.render(fresh, views[0].camera, (0.0, 0.0, 0.0))
        fresh.sh_dc.add_(1.0)
        assert not torch.equal(rasterizer.render(fresh, views[0].camera, (0.0, 0.0, 0.0)), image)
    torch.set_default_dtype(torch.float64)
    try:
        costs, statistics = rasterizer.removal_cost(model, views), rasterizer.color_statistics(model, views)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(costs.delta_sse, expected.delta_sse)
    assert statistics.hessian.dtype is torch.float32
