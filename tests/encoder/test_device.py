# SPDX-License-Identifier: Apache-2.0
"""A model stays on the rasteriser's device until it is quantised: tried on a stand-in for a GPU."""

from pathlib import Path

import pytest
import torch

from potr.encoder.encode import encode
from potr.encoder.quality import PRESETS, config_for
from potr.encoder.resume import Resume
from potr.encoder.sh_solver import RATE_LEVELS, unpack_hessian
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import Progress
from potr.render.select import select
from tests.helpers.other_device import DEVICE, OtherDevice, OtherLauncher, OtherRasterizer
from tests.helpers.scenes import look_at_camera, random_model
from tests.helpers.simt import needs_gxx

CPU = select("cpu", threads=1)


@pytest.fixture(scope="module")
def scene() -> tuple[SplatModel, list[View]]:
    model = random_model(5, num_splats=300, log_scale=-2.5, opacity_logit=1.0, sh_ac=0.1)
    generator = torch.Generator().manual_seed(5)
    views = []
    for i in range(10):
        camera = look_at_camera(i * 0.63, width=64, height=48)
        image = CPU.render(model, camera, (0.0, 0.0, 0.0))
        image = (image + 0.02 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
        views.append(View(f"view {i}", camera, image))
    return model, views


@pytest.fixture
def launcher(monkeypatch: pytest.MonkeyPatch) -> OtherLauncher:
    return OtherLauncher.installed(monkeypatch)


@needs_gxx
@pytest.mark.parametrize("preset", PRESETS)
def test_an_encode_elsewhere_copies_only_what_it_quantises(
    scene: tuple[SplatModel, list[View]], launcher: OtherLauncher, preset: str
) -> None:
    model, views = scene
    config = config_for(0.5, preset)
    expected = encode(model, views, config=config, rasterizer=CPU)
    with OtherDevice() as other:
        encoded = encode(model, views, config=config, rasterizer=OtherRasterizer())
    assert encoded.data == expected.data
    assert [s.details for s in encoded.stages] == [s.details for s in expected.stages]
    n = encoded.stages[-1].splats_before
    geometry, levels, pixel_size = 14 * 4 * n, 48 * 4 * n, 4 * n
    if preset == "default":
        levels += 7 * 4 * n  # opacity, scales and rotation as chosen there
    expected_copies = {torch.float32: geometry + pixel_size, torch.int32: levels}
    if preset == "default":
        choices = config.quantize.color_groups * config.quantize.color_rounds
        expected_copies[torch.int64] = choices * 48 * RATE_LEVELS * 8  # histograms of levels
    assert other.copied == expected_copies
    if preset == "default":
        assert launcher.launched == {"compact", "newton_step", "round_coefficients"}


@needs_gxx
def test_an_interrupted_encode_goes_on_elsewhere(
    scene: tuple[SplatModel, list[View]], launcher: OtherLauncher, tmp_path: Path
) -> None:
    model, views = scene
    config = config_for(0.3, overrides={"prune": {"early_passes": 2, "late_passes": 2}})
    expected = encode(model, views, config=config, rasterizer=CPU).data
    resume = Resume(tmp_path)
    for stop_at in ("early pruning pass 2/2", "late pruning pass 1/2", "quantisation statistics, step 1/3"):

        def interrupt(stage: str, done: int, total: int, /, stop_at: str = stop_at) -> None:
            if stage == stop_at and done == 5:
                raise KeyboardInterrupt

        with OtherDevice(), pytest.raises(KeyboardInterrupt):
            encode(
                model, views, config=config, rasterizer=OtherRasterizer(), resume=resume, progress=Progress(interrupt)
            )
        assert len(list(tmp_path.iterdir())) > 1
    with OtherDevice():
        resumed = encode(model, views, config=config, rasterizer=OtherRasterizer(), resume=resume)
    assert resumed.resumed
    assert resumed.data == expected


def test_hessians_are_unpacked_where_they_are() -> None:
    with OtherDevice():
        assert unpack_hessian(torch.zeros(2, 10).to(DEVICE), 4).device == DEVICE


def test_a_model_that_is_there_is_not_copied() -> None:
    model = random_model(0)
    assert model.to("cpu") is model
    with OtherDevice():
        assert model.to(DEVICE).to("cpu") is not model
