# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases, read back from what its own client wrote offline."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from potr.experiment import pipeline, summary
from potr.experiment.report.view_pictures import read_views
from potr.experiment.result import RunResult, read_result
from potr.experiment.schema import TrackerConfig
from potr.experiment.tracking import tracker
from tests.helpers.fake_wandb import a_config, without_wandb_of_the_user
from tests.helpers.wandb_log import WandbLog, read_wandb_logs


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_wandb_of_the_user(monkeypatch, tmp_path / "home")


@pytest.fixture(scope="module")
def tracked(tracked_outputs: Path) -> tuple[RunResult, WandbLog]:
    """The run at quality 0.2 as result.json and as W&B have it."""
    (folder,) = tracked_outputs.glob("ball/q0.2,*")
    (log,) = read_wandb_logs(folder)
    return read_result(folder), log


def test_a_run_is_named_grouped_and_tagged(tracked: tuple[RunResult, WandbLog]) -> None:
    result, log = tracked
    assert (log.run.project, log.run.run_group, log.run.job_type) == ("potr", "ball/ends", "encode")
    assert log.run.display_name == f"ball/{result.folder.name}"
    assert list(log.run.tags) == ["ball", "default", "paper", "from_the_environment"]
    assert (log.run.resume, log.exit_code) == (True, 0)


def test_the_configuration_is_the_resolved_one(tracked: tuple[RunResult, WandbLog]) -> None:
    result, log = tracked
    assert log.config["quality"] == 0.2
    assert log.config["dataset"]["name"] is None
    assert log.config["prune"] == result.parameters["prune"]  # written out, where the user gave null
    assert log.config["prune"]["early_passes"] == 2
    assert log.config["machine"] == result.machine
    assert log.config["rasterizer"] == "cpu"
    assert log.config["bitstream_sha256"] == result.bitstream_sha256
    assert "after.lpips: evaluate.lpips is none" in log.config["missing"]


def test_every_pass_is_a_row_of_the_pruning_curves(tracked: tuple[RunResult, WandbLog]) -> None:
    result, log = tracked
    passes = [p for stage in result.stages for p in stage["details"].get("passes", ())]
    rows = [row for row in log.history if "prune/pass" in row]
    assert log.steps["prune/*"] == "prune/pass"
    assert [row["prune/pass"] for row in rows] == list(range(1, len(passes) + 1))
    assert len(rows) >= 3
    for row, one in zip(rows, passes, strict=True):
        assert row["prune/splats"] == one["left"]
        assert row["prune/undone"] == int(one["undone"])
        for name in ("phase", "removed", "cap", "mse", "predicted_mse_change", "budget", "share_used"):
            assert row[f"prune/{name}"] == one[name]
        assert row.get("prune/real_mse_change") == one["real_mse_change"]


def test_the_summary_is_the_result(tracked: tuple[RunResult, WandbLog]) -> None:
    result, log = tracked
    said, last = log.summary, log.history[-1]
    assert said["bytes"] == last["bytes"] == result.bytes
    assert said["ratio"] == result.ratio
    assert said["bits_per_splat"] == 8 * result.bytes / result.splats_after
    assert (said["splats/before"], said["splats/after"]) == (result.splats_before, result.splats_after)
    for side, measured in (("before", result.before), ("after", result.after)):
        for metric in ("psnr", "ssim", "fps", "slowest_fps"):
            assert said[f"{side}/{metric}"] == getattr(measured, metric)
        assert f"{side}/lpips" not in said  # not measured: missing, never 0
    assert result.before.psnr is not None
    assert result.after.psnr is not None
    assert said["change/psnr"] == result.after.psnr - result.before.psnr
    assert {k: v for k, v in said.items() if k.startswith("section_bytes/")} == {
        f"section_bytes/{name}": size for name, size in result.bytes_per_section.items()
    }
    assert {k: v for k, v in said.items() if k.startswith("encode_seconds/")} == {
        **{f"encode_seconds/{name}": seconds for name, seconds in result.encode_seconds.items()},
        "encode_seconds/total": sum(result.encode_seconds.values()),
    }
    assert said["decode_seconds"] == result.decode_seconds
    assert said["peak_memory_bytes"] == result.peak_memory
    assert said["ac_zero_share"] == summary.ac_zero_share(result)
    assert said["stage/compact/ac_zero_share_before"] > 0
    assert said["failure"] is None


def test_views_picture_and_bitstream_lie_beside_it(tracked: tuple[RunResult, WandbLog]) -> None:
    result, log = tracked
    (wandb_folder,) = result.folder.glob("wandb/offline-run-*")
    table = json.loads((wandb_folder / "files" / log.summary["views/path"]).read_text())
    assert table["columns"] == ["view", "psnr before", "psnr after", "ssim before", "ssim after"]
    assert [row[0] for row in table["data"]] == ["view_08.png", "view_09.png"]
    assert [row[2] for row in table["data"]] == [view["psnr"] for view in result.after.views]
    (picture,) = log.summary["before_after/filenames"]
    assert (wandb_folder / "files" / picture).read_bytes() == (result.folder / "before_after.png").read_bytes()
    (view, *_) = read_views(result.folder)
    shown = log.summary[f"view/{view.view}/filenames"]
    for name, path in zip(shown, (view.photo, view.before, view.after), strict=True):
        assert (wandb_folder / "files" / name).read_bytes() == path.read_bytes()
    assert {log.summary["views/path"], picture, *shown} <= log.files
    artifact = log.artifacts["bitstream"]
    assert artifact.name.startswith("ball-q0.2-prune.early_passes-2")
    assert json.loads(artifact.metadata)["bytes"] == result.bytes
    paths = {entry.path: entry.local_path for entry in artifact.manifest.contents}
    assert set(paths) == {"scene.potr", "result.json", "config.yaml"}
    assert paths["scene.potr"] == str(result.folder / "scene.potr")  # not a copy


def test_the_report_is_not_confused_by_w_and_b_s_files(
    tracked: tuple[RunResult, WandbLog], tracked_outputs: Path
) -> None:
    online = tracked[0].folder / "wandb" / "run-1" / "files"
    online.mkdir(parents=True)
    (online / "config.yaml").write_text("wandb_version: 1\n")
    found = summary.collect(tracked_outputs)
    assert [result.quality for result in found.results] == [0.2, 0.9]
    assert found.problems == found.failures == ()


def test_a_sweep_ends_with_its_rate_distortion_curves(tracked_outputs: Path) -> None:
    results = [read_result(path.parent) for path in sorted(tracked_outputs.glob("ball/q*/result.json"))]
    (folder,) = tracked_outputs.glob("ball/.curves/*")
    (log,) = read_wandb_logs(folder)
    assert (log.run.run_group, log.run.job_type) == ("ball/ends", "rate-distortion")
    assert log.run.display_name == "ball/rate-distortion"
    assert (log.summary["runs"], log.summary["holes"], log.exit_code) == (2, 0, 0)
    assert log.config["curves"] == ["default (ours), prune.early_passes=2, prune.late_passes=1"]
    (files,) = folder.glob("wandb/offline-run-*/files")
    table = json.loads((files / log.summary["points/path"]).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [(row["quality"], row["bytes"], row["after/psnr"]) for row in rows] == [
        (result.quality, result.bytes, result.after.psnr) for result in results
    ]
    for metric in ("psnr", "ssim", "fps"):
        chart = log.config[f"_wandb/visualize/rate_distortion/{metric}"]
        assert chart["panel_config"]["panelDefId"] == "wandb/lineseries/v0"
        drawn = json.loads((files / log.summary[f"rate_distortion/{metric}_table/path"]).read_text())
        assert drawn["data"] == [[r.bytes / 1e6, log.config["curves"][0], getattr(r.after, metric)] for r in results]
    assert "_wandb/visualize/rate_distortion/lpips" not in log.config  # not measured


def test_curves_are_recorded_again_only_when_they_changed_and_show_their_holes(
    tracked_outputs: Path, tmp_path: Path, fake: Any, scene_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SYNC", str(tmp_path))
    said = fake(LOG="print(json.dumps(row, default=str), file=open(os.environ['FAKE_SAID'] + '_rows', 'a'))")
    shutil.copytree(tracked_outputs, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb", ".curves"))
    config = a_config(scene_folder, tmp_path / "copy", sweep="ends")
    folders = sorted((tmp_path / "copy" / "ball").glob("q*"))
    for _ in range(2):
        tracker.track_sweep(config, folders)
    assert len(said.read_text().splitlines()) == 1
    failure = pipeline.record_failure(config, "no memory left")
    tracker.track_sweep(config, [*folders, failure.folder, tmp_path / "never_ran"])
    tracker.track_sweep(replace(config, tracker=TrackerConfig()), folders)
    assert len(said.read_text().splitlines()) == 2
    row = json.loads(Path(f"{said}_rows").read_text().splitlines()[-2])
    assert (row["runs"], row["holes"]) == (2, 1)


def test_curves_that_cannot_be_read_are_a_warning(
    tracked_outputs: Path, scene_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "result.json").write_text("{")
    tracker.track_sweep(a_config(scene_folder, tmp_path), [tmp_path])
    assert "W&B: " in caplog.text
