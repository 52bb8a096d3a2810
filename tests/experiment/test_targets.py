# SPDX-License-Identifier: Apache-2.0
"""Targets as a user gives them, on a tiny scene: met, resumed, told in result.json, and refused where they must be."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import potr
from potr import cli
from potr.evaluate.measure import evaluate
from potr.experiment import pipeline, summary
from potr.experiment.identity import run_name
from potr.experiment.result import read_result
from potr.experiment.schema import (
    CodecChoice,
    DatasetConfig,
    EvaluateConfig,
    PruneOverrides,
    RunConfig,
    TargetConfig,
)

QUICK = {"prune": {"early_passes": 2, "late_passes": 1}}


def config_at(quality: float) -> potr.CodecConfig:
    return potr.config_for(quality, overrides=QUICK)


@pytest.fixture(scope="module")
def scene(scene_folder: Path) -> potr.Scene:
    return potr.load_scene(scene_folder)


@pytest.fixture(scope="module")
def sizes(scene: potr.Scene) -> tuple[potr.Encoded, potr.Encoded]:
    """At qualities 0.25 and 0.5."""
    low, high = (potr.encode(scene.model, scene.train_views, config=config_at(q)) for q in (0.25, 0.5))
    return low, high


def a_config(scene: Path, outputs: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "dataset": DatasetConfig(kind="folder", path=str(scene)),
        "prune": PruneOverrides(early_passes=2, late_passes=1),
        "evaluate": EvaluateConfig(lpips="none", fps_seconds=0),
        "outputs": str(outputs),
    }
    return RunConfig(**{**settings, **changes})


def test_a_size_is_met_and_interrupted_searches_go_on_to_the_same_bytes(
    scene: potr.Scene, sizes: tuple[potr.Encoded, potr.Encoded], tmp_path: Path
) -> None:
    target = potr.Target(size_mb=len(sizes[0].data) / 1e6)
    found = potr.encode_to_target(scene.model, scene.train_views, target, config_at=config_at)
    assert found.trials[0].bytes == len(sizes[1].data)
    assert abs(len(found.encoded.data) / len(sizes[0].data) - 1) <= 0.02
    assert found.encoded.config == config_at(found.quality)
    assert sum(p["removed"] for s in found.encoded.stages for p in s.details.get("passes", [])) == (
        scene.model.num_splats - found.trials[-1].splats
    )
    resume = potr.Resume(tmp_path / "search")
    for at in ("trial 1, quality 0.5000: early pruning pass 2/", "trial 2, ", ": quantisation statistics"):

        def interrupt(stage: str, done: int, total: int, /, at: str = at) -> None:
            if at in stage and done == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            potr.encode_to_target(
                scene.model,
                scene.train_views,
                target,
                config_at=config_at,
                resume=resume,
                progress=potr.Progress(interrupt),
            )
        assert resume.folder is not None
        assert resume.folder.exists()
    asked: set[str] = set()
    resumed = potr.encode_to_target(
        scene.model, scene.train_views, target, config_at=config_at, resume=resume,
        progress=potr.Progress(lambda stage, done, total, /: asked.add(stage)),
    )  # fmt: skip
    assert resumed.resumed
    assert resumed.encoded.data == found.encoded.data
    assert [t.quality for t in resumed.trials] == [t.quality for t in found.trials]
    assert not any(stage.startswith("trial 1,") for stage in asked)
    names = {path.name.partition("-")[0] for path in (tmp_path / "search").iterdir()}
    assert names == {"costs", "early"}  # of use to others
    resume.clear()
    assert list(tmp_path.iterdir()) == []


def test_trials_are_what_their_qualities_give_and_share_the_first_costs(scene: potr.Scene, tmp_path: Path) -> None:
    stages: list[str] = []
    progress = potr.Progress(lambda stage, done, total: stages.append(stage))
    found = potr.encode_to_target(
        scene.model, scene.train_views, potr.Target(splats=170), config_at=config_at, progress=progress,
        resume=potr.Resume(tmp_path),
    )  # fmt: skip
    alone = potr.encode(scene.model, scene.train_views, config=config_at(found.quality))
    assert found.encoded.data == alone.data
    assert len(found.trials) > 1
    first = {stage for stage in stages if stage.endswith("early pruning pass 1/2")}
    assert {stage.partition(",")[0] for stage in first} == {"trial 1"}


def test_no_refits_between_passes_and_a_trial_coarser_than_the_one_before(scene: potr.Scene) -> None:
    # Trials once went on from one another's pruning, and one that had been refitted at its end alone was mistaken for
    # one without refits: an IndexError after minutes.
    def at(quality: float) -> potr.CodecConfig:
        return potr.config_for(quality, overrides={"prune": {"early_passes": 3, "refit_rounds": 0}})

    assert at(0.5).prune.final_refit_rounds > 0
    size = len(potr.encode(scene.model, scene.train_views, config=at(0.2)).data)
    target = potr.Target(size_mb=size / 1e6)
    found = potr.encode_to_target(scene.model, scene.train_views, target, config_at=at)
    assert found.trials[1].quality < found.trials[0].quality == 0.5
    assert len(found.encoded.data) == pytest.approx(size, rel=0.02)


def test_a_loss_is_met_on_the_training_views(
    scene: potr.Scene, scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raster = potr.select_rasterizer("cpu")
    wanted = 1.2
    found = potr.encode_to_target(scene.model, scene.train_views, potr.Target(psnr_drop=wanted), config_at=config_at)
    before, after = (
        evaluate(model, scene.train_views, raster).psnr for model in (scene.model, potr.decode(found.encoded.data))
    )
    assert before - after == pytest.approx(wanted, abs=0.02)
    assert found.train_psnr == pytest.approx((before, after))
    capsys.readouterr()
    output = tmp_path / "out.potr"
    command = ["encode", str(scene_folder / "point_cloud.ply"), "-o", str(output), "--scene", str(scene_folder)]
    command += ["--psnr-drop", str(wanted), "--set", "prune.early_passes=2", "--set", "prune.late_passes=1", "-q"]
    assert cli.main(command) == 0
    text = capsys.readouterr().out
    assert f"PSNR on the training views {before:.2f} to {after:.2f} dB" in text
    assert f"\n{len(scene.test_views)} views that the encoder has not seen: PSNR " in text
    assert output.read_bytes() == found.encoded.data
    assert [path.name for path in tmp_path.iterdir()] == ["out.potr"]


def test_a_run_keeps_what_was_asked_and_tried(
    scene_folder: Path, sizes: tuple[potr.Encoded, potr.Encoded], tmp_path: Path
) -> None:
    wanted = round(len(sizes[0].data) / 1e6, 5)
    config = a_config(scene_folder, tmp_path, target=TargetConfig(size_mb=wanted))
    result = pipeline.run(config)
    assert result.folder.name.startswith(f"target.size_mb={wanted},prune.early_passes=2")
    assert abs(result.bytes / 1e6 / wanted - 1) <= 0.02
    assert result.target is not None
    assert result.target["asked"] == {"size_mb": wanted}
    assert result.target["trials"][0]["quality"] == 0.5
    assert result.quality == result.target["trials"][-1]["quality"]
    assert result.parameters["prune"]["relative_cap"] == config_at(float(str(result.quality))).prune.relative_cap
    assert read_result(result.folder) == result
    assert f"target.size_mb={wanted:g}: " in summary.summary(result)
    assert "relative_cap: null" in (result.folder / "config.yaml").read_text()
    assert pipeline.run(config).folder == result.folder  # found again


def test_a_target_that_cannot_be_met_leaves_the_reason_and_nothing_else(
    scene_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["encode", str(scene_folder / "point_cloud.ply"), "-o", str(tmp_path / "out.potr")]
    command += ["--scene", str(scene_folder), "--set", "prune.early_passes=2", "--set", "prune.late_passes=1", "-q"]
    for options, said in (
        (["--size-mb", "5"], "target.size_mb=5 cannot be met: quality=1 is the finest there is; the closest is 0.0"),
        (["--splats", "400"], "target.splats=400 cannot be met: the model has 300 splats, which is the closest"),
        (["--size-mb", "-1"], "target.size_mb: expected a number in"),
        (["--splats", "100", "--set", "prune.target_splats=50"], "prune.target_splats=50 contradict each other"),
    ):
        assert cli.main([*command, *options]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("potr encode: ")
        assert said in err
        assert err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []
    for pair in (["--size-mb", "5", "--psnr-drop", "1"], ["--splats", "5", "--quality", "0.3"]):
        with pytest.raises(SystemExit):
            cli.main([*command, *pair])
        assert "not allowed with argument" in capsys.readouterr().err


def test_contradictions_are_refused_when_a_run_is_composed() -> None:
    with pytest.raises(potr.ConfigError, match="expected one of size_mb, psnr_drop, splats, got size_mb=1 and splats"):
        TargetConfig(size_mb=1, splats=10)
    with pytest.raises(potr.ConfigError, match=r"target.size_mb=1 and quality=0.3 contradict each other"):
        RunConfig(target=TargetConfig(size_mb=1), quality=0.3)
    with pytest.raises(potr.ConfigError, match="codec=spz is not searched; only default and paper are"):
        RunConfig(target=TargetConfig(size_mb=1), codec=CodecChoice("spz"))
    paper = RunConfig(target=TargetConfig(psnr_drop=0.5), codec=CodecChoice("paper"))
    assert run_name(paper) == "paper,target.psnr_drop=0.5"
    assert run_name(dataclasses.replace(paper, target=TargetConfig())) == "paper,q0.5"


def test_a_damaged_trial_is_made_again(scene: potr.Scene, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def interrupt(stage: str, done: int, total: int, /) -> None:
        if stage.startswith("trial 2,"):
            raise KeyboardInterrupt

    def found(progress: potr.Progress) -> potr.Targeted:
        return potr.encode_to_target(
            scene.model, scene.train_views, potr.Target(splats=170), config_at=config_at,
            resume=potr.Resume(tmp_path), progress=progress,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        found(potr.Progress(interrupt))
    (trial,) = tmp_path.glob("trial-*")
    trial.write_bytes(b"no archive")
    again = found(potr.Progress())
    assert f"{trial}: unreadable" in caplog.text
    assert again.trials[-1].splats == pytest.approx(170, rel=0.02)
    assert list(tmp_path.glob("trial-*")) == []
    json.dumps(again.to_dict(), allow_nan=False)
