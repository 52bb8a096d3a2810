# SPDX-License-Identifier: Apache-2.0
"""The encoder as a whole: deterministic, pure, monotone in quality, resumable, and clear about bad input."""

import dataclasses
import logging
from pathlib import Path

import pytest
import torch

from potr.encoder.compact import compact
from potr.encoder.config import CompactConfig, PruneConfig, QuantizeConfig
from potr.encoder.encode import encode
from potr.encoder.prune import prune
from potr.encoder.quality import PRESETS, config_for
from potr.encoder.quantize import REFIT_ROOM, check_levels_fit, quantize, quantize_sh
from potr.encoder.refit import refit
from potr.errors import ConfigError, ModelError, SceneError
from potr.format.decode import decode
from potr.format.quantized import MAX_SH
from potr.io.ply import load_ply, save_ply
from potr.model.cameras import View
from potr.model.scene import Scene
from potr.model.splats import SplatModel
from potr.render.select import select
from tests.helpers.scenes import look_at_camera, random_model, random_views

RASTERIZER = select("cpu", threads=1)


@pytest.fixture(scope="module")
def scene() -> tuple[SplatModel, list[View]]:
    """A model and photographs that are its renders with a little noise, seen from all around."""
    model = random_model(5, num_splats=400, log_scale=-2.5, opacity_logit=1.0, sh_ac=0.1)
    generator = torch.Generator().manual_seed(5)
    views = []
    for i in range(10):
        camera = look_at_camera(i * 0.63, width=64, height=48)
        image = RASTERIZER.render(model, camera, (0.0, 0.0, 0.0))
        image = (image + 0.02 * torch.randn(image.shape, generator=generator)).clamp(0, 1)
        views.append(View(f"view {i}", camera, image))
    return model, views


@pytest.mark.parametrize("preset", PRESETS)
def test_encode_decode(scene: tuple[SplatModel, list[View]], preset: str) -> None:
    model, views = scene
    encoded = encode(model, views, config=config_for(0.5, preset), rasterizer=RASTERIZER)
    assert [s.name for s in encoded.stages] == ["prune_early", "compact", "prune_late", "quantize", "pack"]
    decoded = decode(encoded.data)
    assert decoded.num_splats == encoded.stages[-1].splats_after < model.num_splats
    assert len(encoded.data) < 248 * model.num_splats / 8
    passes = [p for s in encoded.stages for p in s.details.get("passes", [])]
    assert all(p["real_mse_change"] is not None for p in passes)
    assert sum(p["removed"] for p in passes) == model.num_splats - decoded.num_splats


def test_the_same_input_gives_the_same_bytes_on_any_number_of_threads(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    one = encode(model, views, quality=0.4, rasterizer=RASTERIZER).data
    assert encode(model, views, quality=0.4, rasterizer=select("cpu", threads=2)).data == one
    assert encode(model, views, quality=0.4, rasterizer=RASTERIZER).data == one


@pytest.mark.parametrize("preset", PRESETS)
def test_bytes_and_fidelity_rise_with_quality(scene: tuple[SplatModel, list[View]], preset: str) -> None:
    model, views = scene
    sizes, errors = [], []
    for quality in (0.1, 0.4, 0.7, 1.0):
        encoded = encode(model, views, config=config_for(quality, preset), rasterizer=RASTERIZER)
        sizes.append(len(encoded.data))
        errors.append(RASTERIZER.removal_cost(decode(encoded.data), views).sse)
    assert sizes == sorted(sizes)
    assert errors == sorted(errors, reverse=True)


def test_interrupted_and_resumed_gives_the_same_bytes(
    scene: tuple[SplatModel, list[View]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, views = scene
    config = config_for(0.3, overrides={"prune": {"early_passes": 4, "late_passes": 2}})
    whole = encode(model, views, config=config, rasterizer=RASTERIZER)
    for stop_at, goes_on in (
        ("early pruning pass 3/4", "goes on after pass 2 of 4 of early pruning"),
        ("compaction statistics, step 2/3", "goes on after early pruning"),
        ("late pruning pass 1/2", "goes on after compaction"),
        ("quantisation statistics, step 1/3", "goes on after late pruning"),
    ):
        caplog.clear()
        path = tmp_path / stop_at.split("/")[0].replace(" ", "_")

        def interrupt(stage: str, done: int, total: int, /, stop_at: str = stop_at) -> None:
            if stage == stop_at and done == 5:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            encode(model, views, config=config, rasterizer=RASTERIZER, checkpoint=path, progress=interrupt)
        assert path.exists()
        stages: set[str] = set()
        with caplog.at_level(logging.INFO):
            resumed = encode(
                model, views, config=config, rasterizer=RASTERIZER, checkpoint=path,
                progress=lambda stage, done, total, /, stages=stages: stages.add(stage),
            )  # fmt: skip
        assert resumed.data == whole.data
        said = [record.getMessage() for record in caplog.records]
        assert sum(line.endswith(goes_on) for line in said) == 1
        ends = [line.split(" done after ")[0] for line in said if " done after " in line]
        assert ends == [stage.name for stage in whole.stages]  # a line for the end of every stage
        assert "early pruning pass 2/4" not in stages
        assert stop_at in stages
        assert not path.exists()
        for a, b in zip(resumed.stages, whole.stages, strict=True):
            assert a.details == b.details


def test_resumed_without_early_passes_the_cap_is_still_the_input_model_s(
    scene: tuple[SplatModel, list[View]], tmp_path: Path
) -> None:
    model, views = scene
    config = config_for(0.3, overrides={"prune": {"early_passes": 0, "late_passes": 2}})
    whole = encode(model, views, config=config, rasterizer=RASTERIZER)
    path = tmp_path / "checkpoint"

    def interrupt(stage: str, done: int, total: int, /) -> None:
        if stage == "late pruning pass 1/2":  # before this phase has a state of its own
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(model, views, config=config, rasterizer=RASTERIZER, checkpoint=path, progress=interrupt)
    resumed = encode(model, views, config=config, rasterizer=RASTERIZER, checkpoint=path)
    assert resumed.stages[2].details["cap"] == whole.stages[2].details["cap"]
    assert resumed.data == whole.data


def test_a_checkpoint_of_other_parameters_is_not_used(
    scene: tuple[SplatModel, list[View]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, views = scene
    path = tmp_path / "checkpoint"

    def interrupt(stage: str, done: int, total: int, /) -> None:
        if stage.startswith("quantisation"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(model, views, quality=0.3, rasterizer=RASTERIZER, checkpoint=path, progress=interrupt)
    expected = encode(model, views, quality=0.8, rasterizer=RASTERIZER).data
    assert encode(model, views, quality=0.8, rasterizer=RASTERIZER, checkpoint=path).data == expected
    assert "starting over" in caplog.text
    path.write_bytes(b"not a checkpoint")
    assert encode(model, views, quality=0.8, rasterizer=RASTERIZER, checkpoint=path).data == expected


def test_no_stage_changes_its_inputs(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    statistics = RASTERIZER.color_statistics(model, views)

    def snapshot() -> list[torch.Tensor]:
        held = [getattr(model, f.name) for f in dataclasses.fields(model)]
        held += [
            v for f in dataclasses.fields(statistics) if isinstance(v := getattr(statistics, f.name), torch.Tensor)
        ]
        return [t.clone() for t in (*held, *(view.read() for view in views))]

    before, random_state = snapshot(), torch.get_rng_state()
    prune(model, views, RASTERIZER, PruneConfig(early_passes=2, relative_cap=5.0), "early")
    compact(model, statistics, 1e-7, 0.1, CompactConfig())
    refit(model, statistics)
    quantize(model, QuantizeConfig(bit_cost=0.01), statistics=statistics, cap=1e-7)
    for old, new in zip(before, snapshot(), strict=True):
        assert torch.equal(old, new)
    assert torch.equal(random_state, torch.get_rng_state())


def test_compaction_makes_zeros_and_keeps_the_image(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    statistics = RASTERIZER.color_statistics(model, views)
    compacted, report = compact(model, statistics, 1e-7, 1 / 11, CompactConfig(drop_cost=0.1))
    assert report.ac_zero_share > report.ac_zero_share_before + 0.1
    assert 0 < report.ac_l2_after < report.ac_l2_before  # what the paper says of it, over the AC coefficients alone
    off, _ = compact(model, statistics, 1e-7, 1 / 11, CompactConfig(enabled=False))
    torch.testing.assert_close(off.sh, model.sh)
    before = RASTERIZER.removal_cost(model, views)
    after = RASTERIZER.removal_cost(compacted, views)
    assert after.sse < 1.1 * before.sse


def test_encode_needs_views_that_see_the_model(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    with pytest.raises(ModelError, match=r"expected a SplatModel, as in encode\(scene.model, ...\), got Scene"):
        encode(Scene("whole", model, tuple(views), ()), views)  # type: ignore[arg-type]
    with pytest.raises(SceneError, match="expected training views, found none"):
        encode(model, [], rasterizer=RASTERIZER)
    away = dataclasses.replace(model, means=model.means + torch.tensor([0.0, 1e4, 0.0]))
    with pytest.raises(SceneError, match="none of the 10 views has any of the 400 splats in sight"):
        encode(away, views, rasterizer=RASTERIZER)


def test_a_model_of_trainable_parameters_is_as_good(scene: tuple[SplatModel, list[View]], tmp_path: Path) -> None:
    model, views = scene
    parameters = {f.name: torch.nn.Parameter(getattr(model, f.name)) for f in dataclasses.fields(model)}
    trained = SplatModel(**parameters)
    expected = encode(model, views, quality=0.4, rasterizer=RASTERIZER).data
    assert encode(trained, views, quality=0.4, rasterizer=RASTERIZER, checkpoint=tmp_path / "c").data == expected
    save_ply(trained, tmp_path / "trained.ply")
    assert torch.equal(load_ply(tmp_path / "trained.ply").sh_ac, model.sh_ac)


@pytest.mark.parametrize("field", ["means", "quats", "sh_ac"])
def test_a_model_with_nan_is_refused(scene: tuple[SplatModel, list[View]], field: str) -> None:
    model, views = scene
    broken = getattr(model, field).clone()
    broken[7] = torch.nan
    with pytest.raises(ModelError, match="1 of 400 splats are unusable: 1 with NaN"):
        encode(dataclasses.replace(model, **{field: broken}), views, rasterizer=RASTERIZER)


@pytest.mark.parametrize(
    ("name", "ratio", "most"),
    [("ac_multiplier", 1.0, "4843.17"), ("dc_multiplier", 1.0, "4843.17"), ("ac_multiplier", 0.1, "513.695")],
)
def test_sh_levels_that_cannot_fit_are_refused_before_any_work(
    scene: tuple[SplatModel, list[View]], name: str, ratio: float, most: str
) -> None:
    model = scene[0]
    sh = model.sh.clone()
    sh[7, 3 if name == "ac_multiplier" else 0, 1] = -1000.0  # the largest that a model may have
    config = config_for(0.5, overrides={"quantize": {name: 1e5, "chroma_step_ratio": ratio}})
    with pytest.raises(ConfigError, match=rf"{name}: expected at most {most}\d* for SH coefficients of up to 1000"):
        encode(model.with_sh(sh), [], config=config, rasterizer=RASTERIZER)


@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_levels_of_the_finest_steps_that_are_taken_fit_with_room(ratio: float) -> None:
    peak = 1000.0
    signs = torch.tensor([[a, b, c] for a in (-peak, peak) for b in (-peak, peak) for c in (-peak, peak)])
    model = random_model(1, num_splats=8).with_sh(signs[:, None].expand(8, 16, 3).contiguous())
    config = QuantizeConfig(ac_multiplier=1e5, chroma_step_ratio=ratio)
    with pytest.raises(ConfigError) as refused:
        check_levels_fit(model, config)
    most = float(str(refused.value).split("at most ")[1].split()[0]) * 0.9999
    finest = dataclasses.replace(config, dc_multiplier=most, ac_multiplier=most)
    check_levels_fit(model, finest)
    levels, _ = quantize_sh(model.sh, finest)
    assert MAX_SH * 0.49 < int(levels.abs().max()) <= MAX_SH / REFIT_ROOM


def test_a_target_share_is_met(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    config = config_for(0.5, overrides={"prune": {"target_share": 0.25}})
    assert decode(encode(model, views, config=config, rasterizer=RASTERIZER).data).num_splats == 100


def test_a_model_without_photographs_of_its_own_size_is_refused() -> None:
    model, views = random_model(1), random_views(1)
    wrong = dataclasses.replace(views[0], image=torch.zeros(3, 3, 3))
    with pytest.raises(SceneError, match="expected a float32 image"):
        encode(model, [wrong], rasterizer=RASTERIZER)


def test_encodes_that_prune_alike_share_the_early_pruning(scene: tuple[SplatModel, list[View]], tmp_path: Path) -> None:
    model, views = scene
    stages: list[str] = []
    coarse = config_for(0.3)
    fine = config_for(0.3, overrides={"quantize": {"ac_multiplier": 40}})
    for config in (coarse, fine):
        alone = encode(model, views, config=config, rasterizer=RASTERIZER)
        stages.clear()
        together = encode(
            model, views, config=config, rasterizer=RASTERIZER, shared=tmp_path,
            progress=lambda stage, done, total: stages.append(stage),
        )  # fmt: skip
        assert together.data == alone.data
        assert [a.details for a in together.stages] == [b.details for b in alone.stages]
        assert any(stage.startswith("early") for stage in stages) == (config is coarse)
        assert together.stages[0].seconds > 0
    encode(model, views, config=config_for(0.8), rasterizer=RASTERIZER, shared=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
