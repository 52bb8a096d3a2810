# SPDX-License-Identifier: Apache-2.0
"""The encoder as a whole: deterministic, pure, monotone in quality, resumable, and clear about bad input."""

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from potr import files
from potr.encoder.compact import compact
from potr.encoder.config import CompactConfig, QuantizeConfig
from potr.encoder.encode import encode
from potr.encoder.prune import early_schedule, late_schedule, prune
from potr.encoder.quality import PRESETS, config_for
from potr.encoder.quantize import REFIT_ROOM, check_levels_fit, quantize, sh_steps
from potr.encoder.refit import refit, refit_geometry
from potr.encoder.resume import Resume
from potr.errors import ConfigError, ModelError, SceneError
from potr.format.decode import decode
from potr.format.quantized import MAX_SH
from potr.io.ply import load_ply, save_ply
from potr.model.cameras import View
from potr.model.footprint import pixel_sizes
from potr.model.opponent import rgb_to_opponent
from potr.model.scene import Scene
from potr.model.splats import SplatModel
from potr.progress import Progress
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
    assert all(p["real_mse_change"] is not None or p["removed"] == p["unseen"] for p in passes)
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


def interrupted_at(number: int) -> Progress:
    """Progress that is interrupted at its report of this number, as Ctrl-C does it."""
    count = iter(range(1 << 20))

    def report(stage: str, done: int, total: int) -> None:
        if next(count) == number:
            raise KeyboardInterrupt

    return Progress(report)


PASS = 3 * (1 + 2 * 2)  # reports of the longest one: three views; removal costs, then two rounds of two steps


@pytest.mark.parametrize("every", [0.0, 60.0])
def test_interrupted_anywhere_it_goes_on_to_the_same_bytes_and_reports(
    scene: tuple[SplatModel, list[View]], tmp_path: Path, every: float, caplog: pytest.LogCaptureFixture
) -> None:
    found: set[str] = set()
    model, views = scene[0].select(torch.arange(120)), scene[1][:3]
    passes = {"early_passes": 3, "late_passes": 2, "refit_rounds": 1, "final_refit_rounds": 1}
    config = config_for(0.3, overrides={"prune": passes, "quantize": {"color_groups": 2}})
    calls: list[str] = []
    progress = Progress(lambda stage, done, total: calls.append(stage))
    whole = encode(model, views, config=config, rasterizer=RASTERIZER, progress=progress)
    assert not whole.resumed
    quantising = calls.index("quantisation of geometry")
    for number in range(2, len(calls), 11):
        resume = Resume(tmp_path / f"{number}", every)
        with pytest.raises(KeyboardInterrupt):
            encode(
                model, views, config=config, rasterizer=RASTERIZER, resume=resume, progress=interrupted_at(number)
            )  # fmt: skip
        again: list[str] = []
        progress = Progress(lambda stage, done, total, again=again: again.append(stage))
        caplog.clear()
        with caplog.at_level(logging.INFO):
            resumed = encode(model, views, config=config, rasterizer=RASTERIZER, resume=resume, progress=progress)
        assert resumed.data == whole.data
        said = [record.getMessage() for record in caplog.records]
        ends = [line.split(" done after ")[0] for line in said if " done after " in line]
        assert ends == [stage.name for stage in whole.stages]  # a line for the end of every stage
        found |= {line.rpartition("here: ")[2] for line in said if "goes on after" in line}
        assert [(s.name, s.splats_before, s.splats_after, s.details) for s in resumed.stages] == [
            (s.name, s.splats_before, s.splats_after, s.details) for s in whole.stages
        ]
        repeated = number - (len(calls) - len(again))  # what was reported before the interruption, and once more now
        assert repeated <= (PASS if number < quantising else number - quantising)
        names = sorted(path.name.partition("-")[0] for path in (tmp_path / f"{number}").iterdir())
        assert names == ["costs", "early"]  # of use to others
    assert "goes on after pass 2 of 3 of early pruning" in found


def test_resumed_without_early_passes_the_cap_is_still_the_input_model_s(
    scene: tuple[SplatModel, list[View]], tmp_path: Path
) -> None:
    model, views = scene
    config = config_for(0.3, overrides={"prune": {"early_passes": 0, "late_passes": 2}})
    whole = encode(model, views, config=config, rasterizer=RASTERIZER)

    def interrupt(stage: str, done: int, total: int, /) -> None:
        if stage == "late pruning pass 1/2":  # before this phase has a state of its own
            raise KeyboardInterrupt

    resume = Resume(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        encode(model, views, config=config, rasterizer=RASTERIZER, resume=resume, progress=Progress(interrupt))
    resumed = encode(model, views, config=config, rasterizer=RASTERIZER, resume=resume)
    assert resumed.resumed
    assert resumed.stages[2].details["cap"] == whole.stages[2].details["cap"]
    assert resumed.data == whole.data


def test_what_other_parameters_left_is_not_used(scene: tuple[SplatModel, list[View]], tmp_path: Path) -> None:
    model, views = scene

    def interrupt(stage: str, done: int, total: int, /) -> None:
        if stage.startswith("quantisation"):
            raise KeyboardInterrupt

    resume = Resume(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        encode(model, views, quality=0.3, rasterizer=RASTERIZER, resume=resume, progress=Progress(interrupt))
    expected = encode(model, views, quality=0.8, rasterizer=RASTERIZER).data
    encoded = encode(model, views, quality=0.8, rasterizer=RASTERIZER, resume=resume)
    assert encoded.data == expected
    assert not encoded.resumed
    assert encoded.stages[0].saved_seconds > 0  # the removal costs that all qualities begin with


def test_damaged_files_are_made_again_with_a_word(
    scene: tuple[SplatModel, list[View]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model, views = scene
    resume = Resume(tmp_path)
    expected = encode(model, views, quality=0.8, rasterizer=RASTERIZER, resume=resume).data
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:1000])
    assert encode(model, views, quality=0.8, rasterizer=RASTERIZER, resume=resume).data == expected
    assert caplog.text.count("it is made again") == 2
    caplog.clear()
    again = encode(model, views, quality=0.8, rasterizer=RASTERIZER, resume=resume)
    assert again.data == expected
    assert again.stages[0].saved_seconds > 0
    assert not caplog.text


@pytest.mark.parametrize("late", [0, 2])
def test_a_stage_changes_none_of_its_inputs(scene: tuple[SplatModel, list[View]], late: int) -> None:
    model, views = scene
    config = config_for(0.3, overrides={"prune": {"early_passes": 2, "late_passes": late}})
    sizes = pixel_sizes(model, [view.camera for view in views])
    geometry = RASTERIZER.geometry_statistics(model, views)
    colors = RASTERIZER.color_statistics(model, views)
    stages: dict[str, Callable[[], object]] = {
        "prune": lambda: prune(model, views, RASTERIZER, config.prune, early_schedule(config.prune)),
        "refit": lambda: refit(model, colors),
        "refit_geometry": lambda: refit_geometry(model, geometry),
        "compact": lambda: compact(model, views, RASTERIZER, config, cap=None),
        "late": lambda: prune(model, views, RASTERIZER, config.prune, late_schedule(config.prune, 1e-7)),
        "quantize": lambda: quantize(model, views, RASTERIZER, config, cap=1e-7, pixel_size=sizes),
        "encode": lambda: encode(model, views, config=config, rasterizer=RASTERIZER),
    }

    def held() -> list[torch.Tensor]:
        values = [getattr(inputs, f.name) for inputs in (model, geometry, colors) for f in dataclasses.fields(inputs)]
        return [v.clone() for v in (*values, sizes, *(view.read() for view in views)) if isinstance(v, torch.Tensor)]

    before, random_state = held(), torch.get_rng_state()
    threads = torch.get_num_threads()
    for name, stage in stages.items():
        stage()
        assert all(torch.equal(old, new) for old, new in zip(before, held(), strict=True)), name
        assert torch.equal(random_state, torch.get_rng_state()), name
        assert torch.get_num_threads() == threads, name


def test_compaction_makes_zeros_and_keeps_the_image(scene: tuple[SplatModel, list[View]]) -> None:
    model, views = scene
    config = config_for(
        0.5, "paper", {"compact": {"drop_cost": 0.1, "strength": 0.1}, "quantize": {"ac_multiplier": 11}}
    )
    found = compact(model, views, RASTERIZER, config, cap=1e-7)
    assert found.ac_zero_share > found.ac_zero_share_before + 0.1
    assert 0 < found.ac_l2_after < found.ac_l2_before  # what the paper says of it, over the AC coefficients alone
    assert found.cap == 1e-7
    off = dataclasses.replace(config, compact=CompactConfig(enabled=False))
    same = compact(model, views, RASTERIZER, off, cap=1e-7)
    torch.testing.assert_close(torch.cat([same.sh_dc[:, None], same.sh_ac], 1), model.sh)
    before = RASTERIZER.removal_cost(model, views)
    after = RASTERIZER.removal_cost(dataclasses.replace(model, sh_dc=found.sh_dc, sh_ac=found.sh_ac), views)
    assert found.mse_before == pytest.approx(before.sse / before.samples)
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
    assert encode(trained, views, quality=0.4, rasterizer=RASTERIZER, resume=Resume(tmp_path / "r")).data == expected
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
    levels = torch.round(rgb_to_opponent(model.sh) / sh_steps(16, finest))
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
    progress = Progress(lambda stage, done, total: stages.append(stage))
    coarse = config_for(0.3)
    fine = config_for(0.3, overrides={"quantize": {"ac_multiplier": 40}})
    for config in (coarse, fine):
        alone = encode(model, views, config=config, rasterizer=RASTERIZER)
        stages.clear()
        together = encode(
            model, views, config=config, rasterizer=RASTERIZER, resume=Resume(tmp_path), progress=progress
        )  # fmt: skip
        assert together.data == alone.data
        assert [a.details for a in together.stages] == [b.details for b in alone.stages]
        assert any(stage.startswith("early") for stage in stages) == (config is coarse)
        assert (together.stages[0].saved_seconds > 0) == (config is fine)
        assert not together.resumed
    encode(model, views, config=config_for(0.8), rasterizer=RASTERIZER, resume=Resume(tmp_path))
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["costs", "early", "early"]


def test_a_disk_that_takes_nothing_is_no_error(
    scene: tuple[SplatModel, list[View]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, views = scene
    expected = encode(model, views, quality=0.2, rasterizer=RASTERIZER).data
    (tmp_path / "file").write_text("in the way")
    assert encode(model, views, quality=0.2, rasterizer=RASTERIZER, resume=Resume(tmp_path / "file")).data == expected
    monkeypatch.setattr(files, "LEFT_FREE", 1 << 60)
    assert encode(model, views, quality=0.2, rasterizer=RASTERIZER, resume=Resume(tmp_path / "full")).data == expected
    assert list((tmp_path / "full").iterdir()) == []
