# SPDX-License-Identifier: Apache-2.0
"""What the codec makes of the cuda backend's answers and of the cpu's: emulated here on a small scene, and on a GPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from experiments.bench_goals import encoder
from experiments.scene_like import photographed, ring_cameras, scene_like
from potr.encoder.prune import select_removals
from potr.encoder.quality import PRESETS, config_for
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer
from potr.render.cpu import CpuRasterizer
from potr.render.cuda import CudaRasterizer
from tests.helpers.simt import SimtLauncher, needs_gxx

CPU = CpuRasterizer()


def scene(splats: int, views: int, width: int, height: int) -> tuple[SplatModel, list[View]]:
    model = scene_like(splats)
    return model, photographed(model, ring_cameras(views, width, height), CPU)


def check_selection(model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, tolerance: float) -> None:
    """The same splats go, but for some whose cost is at the limit."""
    config = config_for(0.5).prune
    expected = CPU.removal_cost(model, views)
    found = rasterizer.removal_cost(model.to(rasterizer.device), views)
    cap = config.final_cap(expected.sse / expected.samples, model.num_splats)
    for share in (0.1, 0.4):
        there, _ = select_removals(found, config, cap=cap, share=share, target=None)
        here, charged = select_removals(expected, config, cap=cap, share=share, target=None)
        assert here.any()
        assert there.device == rasterizer.device
        other = here ^ there.cpu()
        limit = float(charged[here].max())
        assert ((charged[other] - limit).abs() <= tolerance * limit).all()
        assert float(other.double().mean()) < 0.01


def check_encode(model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, preset: str) -> Any:
    """Much the same in the end: one splat chosen otherwise changes what follows."""
    encode, without_packing = encoder()
    config = config_for(0.5, preset)
    found = encode(model, views, config=config, rasterizer=rasterizer)
    expected = encode(model, views, config=config, rasterizer=CPU)
    assert [s.name for s in found.stages] == [s.name for s in expected.stages]
    for mine, other in zip(found.stages, expected.stages, strict=True):
        assert mine.splats_after == pytest.approx(other.splats_after, rel=0.01)
        for key in ("mse_before", "ac_zero_share", "ac_l2_after", "dc_l2_after"):
            if key in mine.details:
                assert mine.details[key] == pytest.approx(other.details[key], rel=0.01), (mine.name, key)
    if not without_packing:
        assert len(found.data) == pytest.approx(len(expected.data), rel=0.01)
        from potr.format.decode import decode

        errors = [CPU.removal_cost(decode(encoded.data), views).sse for encoded in (found, expected)]
        assert errors[0] == pytest.approx(errors[1], rel=0.01)
    return found


@needs_gxx
def test_the_emulated_backend_prunes_the_same_splats() -> None:
    model, views = scene(600, 3, 64, 48)
    check_selection(model, views, CudaRasterizer(launcher=SimtLauncher()), 1e-3)


@needs_gxx
def test_the_emulated_backend_encodes_alike() -> None:
    model, views = scene(600, 3, 64, 48)
    check_encode(model, views, CudaRasterizer(launcher=SimtLauncher()), "default")


@pytest.mark.gpu
def test_a_gpu_prunes_the_same_splats() -> None:
    model, views = scene(100_000, 12, 320, 240)
    check_selection(model, views, CudaRasterizer(), 1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("preset", PRESETS)
def test_a_gpu_encodes_alike_and_the_same_every_time(preset: str) -> None:
    model, views = scene(50_000, 12, 320, 240)
    found = check_encode(model, views, CudaRasterizer(), preset)
    again = encoder()[0](model, views, config=config_for(0.5, preset), rasterizer=CudaRasterizer())
    assert found.data == again.data
    assert [s.details for s in found.stages] == [s.details for s in again.stages]


@pytest.mark.gpu
@pytest.mark.parametrize("preset", PRESETS)
def test_a_gpu_encodes_the_demo_scene_alike(tmp_path: Path, preset: str) -> None:
    pytest.importorskip("plyfile", reason="the demo scene is a .ply")
    from potr.io.demo import demo_folder
    from potr.io.folder import load_scene

    demo = load_scene(demo_folder(tmp_path / "demo"))
    check_encode(demo.model, demo.train_views, CudaRasterizer(), preset)
