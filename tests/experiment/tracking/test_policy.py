# SPDX-License-Identifier: Apache-2.0
"""What W&B may do wrong without costing a result, what is recorded again, and its server."""

import json
import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from potr.experiment import codec, pipeline
from potr.experiment.result import read_result
from potr.experiment.schema import RunConfig, TrackerConfig
from potr.experiment.tracking import tracker, wandb_mark, wandb_run
from tests.helpers.fake_wandb import a_config, without_wandb_of_the_user
from tests.helpers.processes import LIMIT
from tests.helpers.wandb_log import read_wandb_logs
from tests.helpers.wandb_server import wandb_server


@pytest.fixture(autouse=True)
def _no_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_wandb_of_the_user(monkeypatch, tmp_path / "home")


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
        patch.setattr(tracker, "run_content", lambda *_, **__: {}["bug"])
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
            patch.setattr(codec, "encode", fails)
            with pytest.raises(type(error)):
                pipeline.run(config)
    died = wandb_run.WandbRun(config.tracker, tmp_path / "died", "", tags=[], group="")
    assert died._process is not None
    died._process.communicate(timeout=LIMIT)  # closes its input without a word, as a killed run does
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
    monkeypatch.setattr(codec, "encode", fails)
    config = a_config(scene_folder, tmp_path, tracker=TrackerConfig(name="wandb", mode="online", timeout=1))
    with pytest.raises(IndexError):
        pipeline.run(config)
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("W&B is offline (")
    assert "connection refused" in line
    (log,) = read_wandb_logs(pipeline.run_folder(config))
    assert f"wandb sync {pipeline.run_folder(config)}/wandb/offline-run-" in line
    assert (log.exit_code, log.summary["failure"]) == (1, "out of splats")
