# SPDX-License-Identifier: Apache-2.0
"""Quality, speed and machine reports, with a rasteriser whose images and frame times are known."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from potr.errors import ConfigError
from potr.evaluate.machine import describe_machine, peak_memory_bytes, reset_peak_memory
from potr.evaluate.measure import evaluate, evenly_spaced
from potr.evaluate.metrics import PSNR_CAP, psnr, ssim
from potr.evaluate.speed import frames_per_second
from potr.io.folder import load_scene
from potr.model.cameras import RGB, WHITE, Camera, View
from potr.model.splats import SplatModel
from potr.progress import Progress
from potr.render.select import select

MODEL = SplatModel(
    torch.zeros(1, 3), torch.zeros(1, 3), torch.eye(1, 4), torch.zeros(1), torch.zeros(1, 3), torch.zeros(1, 0, 3)
)


class FakeRasterizer:
    """Answers with the camera's focal length as the gray of the image, and tells when it was called."""

    name = "fake"
    threads = 7

    def __init__(self, on_render: Callable[[Camera, RGB], None] = lambda camera, background: None) -> None:
        self.on_render = on_render

    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        self.on_render(camera, background)
        return torch.full((camera.height, camera.width, 3), camera.fx)


def camera(gray: float) -> Camera:
    return Camera(16, 12, gray, 1.0, 8.0, 6.0, torch.eye(4))


def views() -> list[View]:
    generator = torch.Generator().manual_seed(1)
    return [View(f"r_{i}", camera(0.2 * i + 0.1), torch.rand(12, 16, 3, generator=generator), WHITE) for i in range(3)]


def test_report_holds_each_view_and_the_means() -> None:
    told, backgrounds = [], []
    scene = views()
    raster = FakeRasterizer(lambda camera, background: backgrounds.append(background))
    report = evaluate(MODEL, scene, raster, progress=Progress(lambda *event: told.append(event), "evaluate"))
    expected = [(v.name, psnr(FakeRasterizer().render(MODEL, v.camera, WHITE), v.read())) for v in scene]
    assert [(view.name, view.psnr) for view in report.views] == expected
    assert report.psnr == pytest.approx(sum(value for _, value in expected) / 3)
    assert report.views[1].ssim == ssim(torch.full((12, 16, 3), 0.3), scene[1].read())
    assert backgrounds == [WHITE] * 3
    assert told[-1] == ("evaluate", 3, 3)
    assert (report.lpips, report.lpips_views, report.lpips_reason) == (None, 0, "not asked for")


def test_report_is_json_even_for_perfect_renders() -> None:
    perfect = View("same", camera(0.5), torch.full((12, 16, 3), 0.5))
    report = evaluate(MODEL, [perfect], FakeRasterizer())
    assert report.psnr == PSNR_CAP
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["views"][0]["name"] == "same"


def test_evaluate_needs_views() -> None:
    with pytest.raises(ConfigError, match="at least one view"):
        evaluate(MODEL, [], FakeRasterizer())


def test_evenly_spaced_views() -> None:
    assert evenly_spaced(25, 4) == {0, 8, 16, 24}
    assert evenly_spaced(25, 1) == {12}
    assert evenly_spaced(3, None) == evenly_spaced(3, 7) == {0, 1, 2}
    assert all(len(evenly_spaced(37, count)) == count for count in range(1, 38))
    with pytest.raises(ConfigError, match="at least 1, got 0"):
        evenly_spaced(25, 0)


def test_frames_per_second_is_the_median_camera_of_the_median_repetition() -> None:
    time = 0.0
    calls = 0
    cost = {0.25: 0.5, 0.5: 1.0, 0.75: 4.0}  # seconds a frame, by camera

    def spend(camera: Camera, background: RGB) -> None:
        nonlocal time, calls
        calls += 1
        time += 100.0 if calls in (1, 6) else cost[camera.fx]  # a cold first frame, and a hiccup in the second round

    cameras = [camera(gray) for gray in cost]
    report = frames_per_second(MODEL, cameras, WHITE, FakeRasterizer(spend), seconds=115.0, clock=lambda: time)
    assert report.frame_seconds == (0.5, 1.0, 4.0)
    assert (report.fps, report.slowest_fps) == (1.0, 0.25)
    assert report.frames == calls - 1 == 9
    assert (report.rasterizer, report.threads, report.width, report.height) == ("fake", 7, 16, 12)


def test_frames_per_second_times_every_camera_once_at_least() -> None:
    ticks = iter(range(100))
    report = frames_per_second(
        MODEL, [camera(0.5)] * 5, WHITE, FakeRasterizer(), seconds=0.0, clock=lambda: next(ticks)
    )
    assert report.frames == 5
    with pytest.raises(ConfigError, match="at least one camera"):
        frames_per_second(MODEL, [], WHITE, FakeRasterizer())


class FakeGpu:
    """Work is queued and takes its time only once somebody waits; events know when they were passed."""

    def __init__(self, cost: dict[float, float]) -> None:
        self.cost, self.time, self.waits = cost, 0.0, 0
        self.queue: list[FakeEvent | float] = []
        self.rendered: list[float] = []

    def render(self, camera: Camera, background: RGB) -> None:
        self.rendered.append(camera.fx)
        self.queue.append(self.cost[camera.fx] if len(self.rendered) > len(self.cost) else 100.0)  # a cold round

    def wait(self) -> None:
        self.waits += 1
        for item in self.queue:
            if isinstance(item, FakeEvent):
                item.passed = self.time
            else:
                self.time += item
        self.queue.clear()


class FakeEvent:
    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.passed: float | None = None

    def record(self) -> None:
        self.gpu.queue.append(self)

    def synchronize(self) -> None:
        self.gpu.wait()

    def elapsed_time(self, end_event: "FakeEvent") -> float:
        assert self.passed is not None
        assert end_event.passed is not None
        return 1e3 * (end_event.passed - self.passed)


def test_frames_per_second_by_events_waits_once_a_round() -> None:
    gpu = FakeGpu({0.25: 0.5, 0.5: 1.0, 0.75: 4.0})
    cameras = [camera(gray) for gray in gpu.cost]
    report = frames_per_second(
        MODEL,
        cameras,
        WHITE,
        FakeRasterizer(gpu.render),
        seconds=12.0,
        clock=lambda: gpu.time,
        event=partial(FakeEvent, gpu),
    )
    assert report.frame_seconds == pytest.approx((0.5, 1.0, 4.0))  # the cold round is not among them
    assert (report.fps, report.slowest_fps) == pytest.approx((1.0, 0.25))
    assert report.frames == 9  # three rounds of 5.5 s
    assert gpu.waits == 4
    assert gpu.rendered == [0.25, 0.5, 0.75] * 4


def test_frames_per_second_by_events_renders_one_timed_round_at_least() -> None:
    gpu = FakeGpu({0.5: 1.0})
    report = frames_per_second(
        MODEL, [camera(0.5)], WHITE, FakeRasterizer(gpu.render), seconds=0.0, event=partial(FakeEvent, gpu)
    )
    assert (report.frames, gpu.waits) == (1, 2)


def test_frames_per_second_moves_the_model_to_the_backend_s_device() -> None:
    class OnDevice(FakeRasterizer):
        device = torch.device("meta")

        def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
            assert model.device == self.device
            return super().render(model, camera, background)

    assert frames_per_second(MODEL, [camera(0.5)], WHITE, OnDevice(), seconds=0.0).device == "meta"


def test_peak_memory_sees_an_allocation_and_forgets_it_on_reset() -> None:
    before = peak_memory_bytes()
    if before is None:
        pytest.skip("this system does not report peak memory")
    size = before + (64 << 20)  # beyond what this process ever had
    block = torch.ones(size, dtype=torch.uint8)
    high = peak_memory_bytes()
    assert high is not None
    assert high >= size
    del block
    if reset_peak_memory():
        after = peak_memory_bytes()
        assert after is not None
        assert after < high - (32 << 20)


def test_machine_description_is_json() -> None:
    machine = json.loads(json.dumps(asdict(describe_machine()), allow_nan=False))
    assert machine["cores"] >= 1
    assert machine["threads"] >= 1
    assert machine["torch"] == str(torch.__version__)
    assert machine["cpu"]


CHAIR = Path(os.environ.get("POTR_SCENES", Path(__file__).parents[2].parent / "shared" / "scenes")) / "chair"


@pytest.mark.scenes
@pytest.mark.skipif(not CHAIR.is_dir(), reason=f"no real scene at {CHAIR} (set POTR_SCENES)")
def test_trained_chair_scores_what_its_training_renderer_measured() -> None:
    scene = load_scene(CHAIR)
    views = [view for view in scene.test_views if view.name.endswith("r_168")]
    report = evaluate(scene.model, views, select())
    assert [view.psnr for view in report.views] == [pytest.approx(36.52, abs=0.01)]
