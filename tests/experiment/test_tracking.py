# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases, read back from what its own client wrote offline; and everything that can go wrong with it."""

import json
import logging
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from potr import run
from potr.experiment import coder, pipeline, report, tracking, wandb_mark, wandb_run
from potr.experiment.result import RunResult, read_result
from potr.experiment.schema import DatasetConfig, EvaluateConfig, PruneOverrides, RunConfig, TrackerConfig
from potr.experiment.views import read_views
from tests.helpers.wandb_log import WandbLog, read_wandb_logs
from tests.helpers.wandb_server import wandb_server

SWEEP = ("prune.early_passes=2", "prune.late_passes=1", "evaluate.fps_seconds=0.01", "evaluate.lpips=none")


def without_wandb_of_the_user(patch: pytest.MonkeyPatch, home: Path) -> None:
    for name in [*filter(lambda name: name.startswith("WANDB_"), os.environ), "NETRC", "XDG_CACHE_HOME"]:
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(home))


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_wandb_of_the_user(monkeypatch, tmp_path / "home")


@pytest.fixture(scope="module")
def outputs(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep of two qualities, tracked without a login."""
    folder = tmp_path_factory.mktemp("tracked")
    arguments = ["-m", "dataset=folder", f"dataset.path={scene_folder}", f"outputs={folder / 'outputs'}", *SWEEP]
    arguments += ["tracker=wandb", "tracker.artifact=true", "tracker.tags=[paper]", "sweep=ends", "quality=0.2,0.9"]
    with pytest.MonkeyPatch.context() as patch:
        without_wandb_of_the_user(patch, folder / "home")
        for name in ("HYDRA_FULL_ERROR", "POTR_SWEEP"):
            patch.setenv(name, "")
            patch.delenv(name)
        patch.setenv("WANDB_TAGS", "from_the_environment")
        patch.setattr(sys, "argv", ["potr.run", *arguments])
        patch.chdir(folder)
        with pytest.raises(SystemExit) as ended:
            run.main()
    assert not ended.value.code
    assert {path.name for path in folder.iterdir()} == {"outputs"}  # neither ./wandb nor anything in HOME
    return folder / "outputs"


@pytest.fixture(scope="module")
def tracked(outputs: Path) -> tuple[RunResult, WandbLog]:
    """The run at quality 0.2 as result.json and as W&B have it."""
    (folder,) = outputs.glob("ball/q0.2,*")
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
    assert said["ac_zero_share"] == report.ac_zero_share(result)
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


def test_the_report_is_not_confused_by_w_and_b_s_files(tracked: tuple[RunResult, WandbLog], outputs: Path) -> None:
    online = tracked[0].folder / "wandb" / "run-1" / "files"
    online.mkdir(parents=True)
    (online / "config.yaml").write_text("wandb_version: 1\n")
    found = report.collect(outputs)
    assert [result.quality for result in found.results] == [0.2, 0.9]
    assert found.problems == found.failures == ()


def test_a_sweep_ends_with_its_rate_distortion_curves(outputs: Path) -> None:
    results = [read_result(path.parent) for path in sorted(outputs.glob("ball/q*/result.json"))]
    (folder,) = outputs.glob("ball/.curves/*")
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
    outputs: Path, tmp_path: Path, fake: Any, scene_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SYNC", str(tmp_path))
    said = fake(LOG="print(json.dumps(row, default=str), file=open(os.environ['FAKE_SAID'] + '_rows', 'a'))")
    shutil.copytree(outputs, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb", ".curves"))
    config = a_config(scene_folder, tmp_path / "copy", sweep="ends")
    folders = sorted((tmp_path / "copy" / "ball").glob("q*"))
    for _ in range(2):
        tracking.track_sweep(config, folders)
    assert len(said.read_text().splitlines()) == 1
    failure = pipeline.record_failure(config, "no memory left")
    tracking.track_sweep(config, [*folders, failure.folder, tmp_path / "never_ran"])
    tracking.track_sweep(replace(config, tracker=TrackerConfig()), folders)
    assert len(said.read_text().splitlines()) == 2
    row = json.loads(Path(f"{said}_rows").read_text().splitlines()[-2])
    assert (row["runs"], row["holes"]) == (2, 1)


def test_curves_that_cannot_be_read_are_a_warning(
    outputs: Path, scene_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "result.json").write_text("{")
    tracking.track_sweep(a_config(scene_folder, tmp_path), [tmp_path])
    assert "W&B: " in caplog.text


def a_config(scene: Path, outputs: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "dataset": DatasetConfig(kind="folder", path=str(scene)),
        "prune": PruneOverrides(early_passes=2, late_passes=1),
        "evaluate": EvaluateConfig(lpips="none", fps_seconds=0.01),
        "outputs": str(outputs),
        "tracker": TrackerConfig(name="wandb"),
    }
    return RunConfig(**{**settings, **changes})


@pytest.fixture
def finished(outputs: Path, scene_folder: Path, tmp_path: Path) -> RunConfig:
    """The configuration of a finished run that W&B has not heard of."""
    shutil.copytree(outputs, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb"))
    return a_config(scene_folder, tmp_path / "copy", quality=0.2)


FAKE = """
import json, os, sys, time
class Config(dict):
    def update(self, new, allow_val_change): super().update(new)
class Run:
    settings = type("S", (), {"mode": "offline", "sync_dir": os.environ.get("FAKE_SYNC", "/sync/here")})
    config, summary, url = Config(), {}, "https://here"
    def define_metric(self, *a, **k): pass
    def log(self, row, commit=True): LOG
    def log_artifact(self, artifact): pass
    def finish(self, exit_code):
        FINISH
        open(os.environ["FAKE_SAID"], "a").write(json.dumps([exit_code, self.summary]) + "\\n")
Settings, Image, Table = dict, (lambda path, caption: path), dict
plot = type("P", (), {"line_series": dict})
class Artifact(dict):
    def add_file(self, *a, **k): pass
def teardown(): pass
def init(**options):
    INIT
    return Run()
"""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A wandb package that does as it is told at one place, instead of the real one."""

    def made(**places: str) -> Path:
        text = FAKE
        for place in ("LOG", "FINISH", "INIT"):
            text = text.replace(place, places.get(place, "pass"))
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "wandb.py").write_text(places.get("import", "") + text)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
        monkeypatch.setenv("FAKE_SAID", str(tmp_path / "said"))
        return tmp_path / "said"

    return made


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"import": "raise ModuleNotFoundError(\"No module named 'wandb'\")"}, "No module named 'wandb'"),
        ({"INIT": "raise RuntimeError('the service did not start')"}, "the service did not start"),
        ({"INIT": "os._exit(3)"}, "its process ended with 3"),
        ({"INIT": "os.write(1, b'{garbage')"}, None),
        ({"LOG": "raise OSError(28, 'No space left on device')"}, "No space left on device; wandb sync /sync/here"),
        ({"FINISH": "raise TimeoutError('still uploading')"}, "still uploading; wandb sync /sync/here"),
        ({"FINISH": "os.kill(os.getpid(), 9)"}, "its process ended with -9; wandb sync /sync/here"),
    ],
)
def test_nothing_that_goes_wrong_costs_a_result(
    fault: dict[str, str], said: str | None, finished: RunConfig, fake: Any, caplog: pytest.LogCaptureFixture
) -> None:
    fake(**fault)
    with caplog.at_level(logging.INFO):
        result = pipeline.run(finished)
    assert read_result(result.folder) == result
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    if said is None:
        assert warnings == []
        return
    assert len(warnings) == 1
    assert said in warnings[0]
    assert warnings[0].endswith(f"the results in {result.folder} are not touched by this")
    assert not (result.folder / wandb_mark.MARKER).exists()


@pytest.mark.parametrize("place", ["INIT", "FINISH"])
def test_waiting_for_w_and_b_ends(
    place: str, finished: RunConfig, fake: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wandb_run, "_START_SECONDS", 0)
    fake(**{place: "time.sleep(600)"})
    result = pipeline.run(replace(finished, tracker=TrackerConfig(name="wandb", timeout=1)))
    assert read_result(result.folder) == result
    assert "not done after 2 s (tracker.timeout)" in caplog.text


def test_a_new_run_goes_through_without_wandb(
    scene_folder: Path, tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fake(INIT="raise RuntimeError('no')")
    result = pipeline.run(a_config(scene_folder, tmp_path))
    assert (result.folder / "scene.potr").stat().st_size == result.bytes
    with monkeypatch.context() as patch:
        patch.setattr(sys, "executable", str(tmp_path / "no_python"))
        assert pipeline.run(a_config(scene_folder, tmp_path)) == result
    with monkeypatch.context() as patch:
        patch.setattr(tracking, "run_content", lambda *_, **__: {}["bug"])
        assert pipeline.run(a_config(scene_folder, tmp_path)) == result
    warnings = [record.getMessage().partition(";")[0] for record in caplog.records if record.levelname == "WARNING"]
    assert warnings[0] == "W&B: RuntimeError: no"
    assert warnings[1].endswith("no_python'")
    assert warnings[2:] == ["W&B: 'bug'", "W&B: RuntimeError: no"]


def test_a_finished_run_is_recorded_once(
    finished: RunConfig, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("FAKE_SYNC", str(tmp_path))
    said = fake()
    with caplog.at_level(logging.INFO):
        result = pipeline.run(finished)
    assert f"W&B is offline; to send this run: wandb sync {tmp_path}" in caplog.text
    assert json.loads((result.folder / wandb_mark.MARKER).read_text())["sha256"] == result.bitstream_sha256
    pipeline.run(finished)
    assert len(said.read_text().splitlines()) == 1
    pipeline.run(replace(finished, tracker=TrackerConfig(name="wandb", project="elsewhere")))
    assert len(said.read_text().splitlines()) == 2
    pipeline.run(replace(finished, tracker=TrackerConfig()))
    assert len(said.read_text().splitlines()) == 2


def test_a_finished_run_is_recorded_again_when_more_is_asked_for(
    finished: RunConfig, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    offline = tmp_path / "offline run"
    offline.mkdir()
    monkeypatch.setenv("FAKE_SYNC", str(offline))
    said = fake(INIT="Run.settings.mode = os.environ.get('FAKE_MODE', 'offline')")

    def recorded(**settings: Any) -> int:
        caplog.clear()
        with caplog.at_level(logging.INFO):
            pipeline.run(replace(finished, tracker=TrackerConfig(name="wandb", **settings)))
        return len(said.read_text().splitlines())

    assert recorded(images=False) == 1
    assert recorded(images=False) == 1
    assert f"was recorded earlier, offline: wandb sync '{offline}'" in caplog.text
    assert recorded() == 2
    assert recorded(images=False) == recorded(mode="offline") == 2  # it has more
    assert recorded(artifact=True) == 3
    assert recorded() == 3
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("FAKE_MODE", "online")
    assert recorded(artifact=True) == 4  # after a login
    assert recorded(artifact=True, mode="online") == recorded(mode="offline") == 4
    assert "offline" not in caplog.text


def test_what_was_synced_or_can_be_sent_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offline, asked = tmp_path / "offline-run", wandb_mark.Asked(None, None, "sha")
    offline.mkdir()
    wandb_mark.mark(tmp_path, asked, wandb_run.Recorded("offline", str(offline)))

    def enough(mode: str = "auto") -> bool:
        return wandb_mark.is_enough(tmp_path, asked, TrackerConfig(name="wandb", mode=mode))

    assert enough()
    assert not enough("online")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai login user password 0123\n")
    (tmp_path / "home" / ".netrc").chmod(0o600)
    assert not enough()
    assert enough("offline")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert enough()
    (offline / "run-1.wandb.synced").touch()
    assert enough("online")
    (tmp_path / wandb_mark.MARKER).write_text(json.dumps({"entity": None, "project": None, "sha256": "sha"}))
    assert not enough()  # of an earlier version, which did not say


def test_how_a_run_ended_is_told(
    scene_folder: Path, tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = fake()
    config = a_config(scene_folder, tmp_path)
    for error in (IndexError("out of splats"), KeyboardInterrupt()):

        def fails(*_: Any, error: BaseException = error, **__: Any) -> Any:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(coder, "encode", fails)
            with pytest.raises(type(error)):
                pipeline.run(config)
    died = wandb_run.WandbRun(config.tracker, tmp_path / "died", "", tags=[], group="")
    assert died._process is not None
    died._process.communicate()  # closes its input without a word, as a killed run does
    pipeline.run(config)
    assert [json.loads(line) for line in said.read_text().splitlines()] == [
        [1, {"failure": "out of splats"}],
        [255, {"failure": "interrupted"}],
        [1, {"failure": "the process ended without a word"}],
        [0, {"failure": None}],
    ]


def test_a_run_keeps_its_identity(tmp_path: Path, fake: Any) -> None:
    fake()

    def identity(folder: str, hashes: str) -> str:
        made = wandb_run.WandbRun(TrackerConfig(name="wandb"), tmp_path / folder, hashes, tags=[], group="")
        made.end({"exit_code": 0})
        return made.id

    first = identity("a", "settings inputs")
    assert identity("a", "settings inputs") == first
    assert len({first, identity("b", "settings inputs"), identity("a", "others inputs")}) == 3


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_of_what_was_never_sent_only_the_last_stays(
    mode: str, tmp_path: Path, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(INIT=f"Run.settings.mode = '{mode}'")

    def recorded() -> str:
        made = wandb_run.WandbRun(TrackerConfig(name="wandb"), tmp_path, "", tags=[], group="")
        made.end({"exit_code": 0})
        return made.id

    own = recorded()
    folders = [tmp_path / "wandb" / name for name in (f"offline-run-{n}-{own}" for n in range(4))]
    for folder in [*folders, tmp_path / "wandb" / "offline-run-1-another"]:
        folder.mkdir()
    (folders[1] / f"run-{own}.wandb.synced").touch()
    monkeypatch.setenv("FAKE_SYNC", str(folders[3]))
    recorded()
    left = {path.name for path in (tmp_path / "wandb").iterdir()}
    assert left == {folders[1].name, folders[3].name, "offline-run-1-another"}


def test_online_a_run_reaches_the_server(
    finished: RunConfig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with wandb_server() as server, caplog.at_level(logging.INFO):
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        result = pipeline.run(replace(finished, tracker=TrackerConfig(name="wandb", mode="online", artifact=True)))
    asked = dict(reversed(server.asked))  # of each operation the first
    assert f"W&B: {server.url}/me/potr/runs/{asked['UpsertBucket']['name']}" in caplog.text
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert asked["UpsertBucket"]["groupName"] == "ball"
    assert [row["prune/pass"] for row in server.history[:-1]] == list(range(1, len(server.history)))
    assert server.history[-1]["bytes"] == result.bytes
    assert json.loads(server.uploaded["wandb-summary.json"])["after/psnr"] == result.after.psnr
    pictures = [data for name, data in server.uploaded.items() if name.startswith("media/images/before_after")]
    assert pictures == [(result.folder / "before_after.png").read_bytes()]
    created = [given["input"] for operation, given in server.asked if operation == "CreateArtifact"]
    assert "bitstream" in {artifact["artifactTypeName"] for artifact in created}
    assert server.exit_code == 0
    assert (result.folder / wandb_mark.MARKER).exists()


def test_without_its_server_w_and_b_goes_offline_and_a_failure_is_marked(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise IndexError("out of splats")

    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(coder, "encode", fails)
    config = a_config(scene_folder, tmp_path, tracker=TrackerConfig(name="wandb", mode="online", timeout=1))
    with pytest.raises(IndexError):
        pipeline.run(config)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("W&B is offline (")
    assert "connection refused" in line
    (log,) = read_wandb_logs(pipeline.run_folder(config))
    assert f"wandb sync {pipeline.run_folder(config)}/wandb/offline-run-" in line
    assert (log.exit_code, log.summary["failure"]) == (1, "out of splats")
