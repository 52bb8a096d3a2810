# SPDX-License-Identifier: Apache-2.0
"""The CUDA benchmarks' own code on the CPU: what they measure is only as good as what they do."""

import argparse
import json
import subprocess
import sys
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from experiments import bench_cuda, bench_goals, gsplat_peer
from experiments.gpu_timing import STEPS, StepTimer
from experiments.scene_like import photographed, ring_cameras, scene_like
from potr.cameras import BLACK, Camera
from potr.rasterizer.base import Rasterizer
from potr.rasterizer.cpu import CpuRasterizer
from potr.rasterizer.cuda import CudaRasterizer
from potr.splats import SplatModel
from tests.helpers.processes import LIMIT
from tests.helpers.simt import SimtLauncher, needs_gxx

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


def make(timer: StepTimer | None = None) -> Rasterizer:
    return CpuRasterizer(1)


class FakeEvent:
    """Each event is passed as many milliseconds after the one before as its number says."""

    made: list["FakeEvent"]

    def __init__(self) -> None:
        self.made.append(self)
        self.passed = sum(range(len(self.made)))
        self.waited = False

    def record(self) -> None:
        pass

    def synchronize(self) -> None:
        self.waited = True

    def elapsed_time(self, end_event: "FakeEvent") -> float:
        assert self.made[-1].waited
        return end_event.passed - self.passed


def test_steps_are_those_of_the_views_after_the_first() -> None:
    FakeEvent.made = []
    timer = StepTimer(FakeEvent)
    first, second, third = ["project", "emit", "blend"], ["project", "emit", "blend", "emit", "blend"], ["project"]
    for step in first + second + third:
        timer(step)
    # Numbers 3 to 7 are the second view's, which had to emit and blend again; the third was cut off after number 8.
    assert timer.milliseconds() == {"project": (3 + 8) / 2, "emit": (4 + 6) / 2, "blend": (5 + 7) / 2}
    assert timer.milliseconds() == {}
    timer("project")
    assert timer.milliseconds() == {}


def test_the_model_is_like_a_scene_at_any_size() -> None:
    camera = ring_cameras(2, 160, 120)[1]
    loads = []
    for splats in (3_000, 30_000):
        model = scene_like(splats)
        (view,) = photographed(model, [camera], make())
        cost = make().removal_cost(model, [view])
        loads.append(float(cost.pixels.sum()) / (camera.width * camera.height))
        assert 0.3 < float((cost.pixels > 0).float().mean()) < 0.9
        assert cost.sse / cost.samples == pytest.approx(0.02**2, rel=0.3)  # the noise
    assert all(50 < load < 120 for load in loads), loads
    assert torch.equal(scene_like(100).means, scene_like(100).means)


@pytest.fixture(scope="module")
def tiny() -> tuple[SplatModel, list[Any]]:
    model = scene_like(1_000)
    return model, photographed(model, ring_cameras(2, 64, 48), make())


def test_every_pass_is_measured(tiny: tuple[SplatModel, list[Any]]) -> None:
    row = bench_cuda.measure(*tiny, make, seconds=0.0, repeats=1)
    assert list(row["passes"]) == list(bench_cuda.PASSES)
    assert all(figures["ms"] > 0 and figures["peak_bytes"] is None for figures in row["passes"].values())
    assert row["removal_over_render"] == row["passes"]["removal cost"]["ms"] / row["passes"]["render"]["ms"]
    assert row["entries"] is None  # the cpu backend is not asked
    assert row["touched"] > 10
    row["gsplat"] = {"reason": "because"}
    failed = {"splats": 5, "width": 64, "height": 48, "failed": "out of memory"}
    text = bench_cuda.passes_markdown([row, failed])
    assert "| 1,000 | 64x48 | - |" in text
    assert text.endswith("- no gsplat figure: because\n- 5 splats at 64x48: out of memory")


@needs_gxx
def test_the_cuda_backend_tells_its_steps_and_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeEvent.made = []
    monkeypatch.setattr(bench_cuda, "StepTimer", partial(StepTimer, FakeEvent))

    def emulated(timer: StepTimer | None) -> Rasterizer:
        return CudaRasterizer(launcher=SimtLauncher(), on_step=timer)

    model = scene_like(60)
    views = photographed(model, ring_cameras(2, 40, 24), make())
    row = bench_cuda.measure(model, views, emulated, seconds=0.0, repeats=1)
    row["gsplat"] = {"ms": 1.0, "way": "gsplat, packed=True", "psnr": 44.0, "version": "1"}
    steps = {name: list(figures["steps_ms"]) for name, figures in row["passes"].items()}
    statistics = {name: list(STEPS) for name in ("removal cost", "color statistics", "geometry statistics")}
    assert steps == {"render": list(STEPS[:-1]), **statistics}
    cpu = CpuRasterizer(1)
    most = 0  # the entries of tile rectangles; the cuda backend leaves out tiles that a splat does not reach
    for view in views:
        cpu.render(model, view.camera, BLACK)
        most += cpu._native.num_entries
    assert 0 < row["entries"] * 2 * 40 * 24 <= most
    assert "| color statistics | " in bench_cuda.passes_markdown([row])


def rasterization_of(change: float) -> Callable[..., tuple[Tensor, None, None]]:
    """What gsplat's function does, as its documentation has it, by the cpu backend."""

    def rasterization(
        means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, colors: Tensor, *, viewmats: Tensor,
        Ks: Tensor, width: int, height: int, near_plane: float, sh_degree: int, packed: bool, backgrounds: Tensor,
    ) -> tuple[Tensor, None, None]:  # fmt: skip
        assert (near_plane, sh_degree, tuple(viewmats.shape), tuple(Ks.shape)) == (0.2, 3, (1, 4, 4), (1, 3, 3))
        model = SplatModel(means, scales.log(), quats, opacities.logit(), colors[:, 0] + change, colors[:, 1:])
        (fx, _, cx), (_, fy, cy), _ = Ks[0].tolist()
        camera = Camera(width, height, fx, fy, cx, cy, viewmats[0])
        return make().render(model, camera, tuple(backgrounds[0].tolist()))[None], None, None

    return rasterization


def test_gsplat_counts_only_where_it_renders_the_same_image(
    tiny: tuple[SplatModel, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, cameras = tiny[0], [view.camera for view in tiny[1]]
    module = types.ModuleType("gsplat")
    monkeypatch.setitem(sys.modules, "gsplat", module)
    module.rasterization = rasterization_of(0.0)  # type: ignore[attr-defined]
    figures = gsplat_peer.compare(model, cameras, (0.1, 0.2, 0.3), make(), 0.0)
    assert figures["ms"] > 0
    assert figures["psnr"] > 60
    assert figures["way"].startswith("gsplat, packed=")
    module.rasterization = rasterization_of(0.3)  # type: ignore[attr-defined]
    reason = gsplat_peer.compare(model, cameras, BLACK, make(), 0.0)["reason"]
    assert reason.count("renders another image") == 2
    monkeypatch.setitem(sys.modules, "gsplat", None)  # as if not installed
    assert gsplat_peer.compare(model, cameras, BLACK, make(), 0.0)["reason"].startswith("gsplat: ModuleNotFoundError")


def test_the_goals_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    found = list(bench_goals.goals(CPU, make, whole=(800, 9, 48, 32), largest=(500, 64, 48)))
    by_name = {goal["what"].split(":")[0]: goal for goal in found}
    assert by_name["encode at quality 0.3"]["value"] > by_name["- quantize"]["value"] > 0
    assert {"- prune_early", "- compact", "- prune_late", "- quantize", "- pack"} <= by_name.keys()
    assert by_name["next pruning pass"]["value"] > 0
    memory = by_name["peak memory, color statistics"]
    assert (memory["value"], memory["goal"], memory["note"]) == (None, 24.0, "no GPU")
    assert bench_goals.goals_markdown(found).count("\n") == 1 + len(found)


def test_what_fails_is_a_hole_with_its_reason() -> None:
    def failing() -> tuple[float, str]:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried 5 GB\nand more")

    goal = bench_goals._measured("x", "s", 1.0, failing)
    assert (goal["value"], goal["note"]) == (None, "OutOfMemoryError: CUDA out of memory. Tried 5 GB")
    assert bench_goals.goals_markdown([goal]).endswith(
        "| x | - | 1 s | OutOfMemoryError: CUDA out of memory. Tried 5 GB |"
    )


def test_reports_are_written_row_by_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(bench_cuda, "IMAGES", ((48, 32),))
    monkeypatch.setattr(bench_cuda, "VIEWS", 2)
    monkeypatch.setenv("POTR_COMMIT", "abc")
    chosen = argparse.Namespace(scene=None, sizes=[200, 300], only="passes", to=tmp_path / "new")
    record = bench_cuda.run(chosen, CPU, make)
    assert json.loads((tmp_path / "new" / "bench_cuda.json").read_text()) == record
    assert (tmp_path / "new" / "bench_cuda.md").read_text() == capsys.readouterr().out
    assert [row["splats"] for row in record["passes"]] == [200, 300]
    assert record["environment"]["commit"] == "abc"
    assert all(set(row["gsplat"]) == {"reason"} for row in record["passes"])
    assert record["goals"] == []


def test_what_fails_is_a_row_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(timer: StepTimer | None) -> Rasterizer:
        raise torch.cuda.OutOfMemoryError("no memory")

    monkeypatch.setattr(bench_cuda, "IMAGES", ((48, 32),))
    chosen = argparse.Namespace(scene=None, sizes=[200], only="passes", to=tmp_path)
    (row,) = bench_cuda.run(chosen, CPU, failing)["passes"]
    assert row == {"splats": 200, "width": 48, "height": 32, "failed": "no memory"}
    assert "- 200 splats at 48x32: no memory" in (tmp_path / "bench_cuda.md").read_text()


def test_the_benchmark_says_why_it_cannot_run() -> None:
    script = ROOT / "experiments" / "bench_rasterizer.py"
    done = subprocess.run(
        [sys.executable, script, "--backend", "cuda"], capture_output=True, text=True, cwd="/", timeout=LIMIT
    )
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("nothing measured: ")
