# SPDX-License-Identifier: Apache-2.0
"""The scenes of the paper by name: their configs, a run on the released layout, and the message where it is missing."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from potr.errors import ConfigError
from potr.experiment import schema
from potr.experiment.result import read_result
from potr.experiment.scenes import open
from potr.experiment.scenes.suites import SCENES
from tests.experiment.test_conf import CONF, composed
from tests.helpers.processes import LIMIT
from tests.helpers.released import SCENES as SCENES_FOLDER


def program(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("POTR_")}
    command = [sys.executable, "-m", "potr.run", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=kept | environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_has_a_config_that_agrees_with_what_is_known(name: str) -> None:
    dataset = composed(f"dataset={name}").dataset
    scene = SCENES[name]
    assert dataset == schema.DatasetConfig(kind="suite", scene=name, suite=scene.suite, name=name)
    text = (CONF / "dataset" / f"{name}.yaml").read_text()
    assert f"{scene.width} x {scene.height}" in text
    assert scene.images in (None, "images") or scene.images in text
    assert scene.splats is None or f"{scene.splats:,} splats" in text


def test_no_dataset_is_left_without_a_scene() -> None:
    assert {path.stem for path in (CONF / "dataset").glob("*.yaml")} == {*SCENES, "demo", "folder"}


def test_paths_follow_the_environment_and_stay_out_of_the_run_s_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("POTR_DATA", "POTR_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    assert composed("dataset=garden").paths == schema.PathsConfig("data", "models")
    monkeypatch.setenv("POTR_DATA", "/there")
    config = composed("dataset=garden", "paths.models=/elsewhere")
    assert config.paths == schema.PathsConfig("/there", "/elsewhere")
    assert schema.changes(config) == {}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset.scene=gardn", "expected a scene of the paper"),
        ("dataset.suite=mipnerf360", "did you mean 'MipNeRF360'|allowed: MipNeRF360"),
    ],
)
def test_wrong_names_are_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        composed("dataset=garden", override)


def test_a_run_on_the_released_layout(released: Path, tmp_path: Path) -> None:
    """The command of the README, unchanged, with data/ and models/ in the working directory."""
    for folder in ("data", "models"):
        (tmp_path / folder).symlink_to(released / folder)
    done = program("dataset=garden", "quality=0.8", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("garden at quality 0.8: ")
    result = read_result(tmp_path / "outputs" / "garden" / "q0.8")
    assert result.train_views == 14
    assert len(result.before.views) == 2
    assert result.splats_before > result.splats_after > 0


def test_a_run_without_the_data_ends_with_one_message(tmp_path: Path) -> None:
    done = program("dataset=garden", "quality=0.8", cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.count("python -m potr.datasets download garden") == 1
    assert "garden (MipNeRF360): no photographs and no model found" in done.stderr
    assert not (tmp_path / "outputs" / "garden").exists()


def test_a_sweep_as_a_module_says_what_is_missing_and_leaves_nothing(tmp_path: Path) -> None:
    done = program("-m", "dataset=garden,truck", cwd=tmp_path)
    assert done.returncode == 2
    assert re.match(r"\d\d:\d\d:\d\d MipNeRF360: 0 of 1 scenes here\n", done.stderr)  # by our handler: with the time
    for said in ("TanksAndTemples: 0 of 1 scenes here", "none of the 2 runs can be done"):
        assert done.stderr.count(said) == 1
    assert not list(tmp_path.iterdir())
    done = program("-m", "dataset=garden,folder", "dataset.path=.", "--quality", "0.3", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--quality 0.3: did you mean quality=0.3?" in done.stderr
    assert "Traceback" not in done.stderr


def test_path_and_model_can_be_given_for_one_scene(
    released: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = composed(
        "dataset=garden",
        f"dataset.path={released / 'data' / 'garden'}",
        f"dataset.model={released / 'models' / 'garden'}",
        f"paths.data={tmp_path}",
        f"paths.models={tmp_path}",
        "dataset.max_views=2",
    )
    with caplog.at_level(logging.WARNING):
        scene = open.open_scene(config)
    message = (
        "garden: not as in the paper: photographs 16, not 185; test views 2, not 24; size 200 x 133, not 1297 x 840"
    )
    assert (message if (SCENES_FOLDER / "bonsai").is_dir() else message.partition("; size")[0]) in caplog.text
    assert (scene.name, len(scene.train_views), len(scene.test_views)) == ("garden", 2, 2)
