# SPDX-License-Identifier: Apache-2.0
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from potr import run
from potr.experiment.schema import RunConfig
from tests.helpers.fake_wandb import a_config, make_fake, without_wandb_of_the_user

SWEEP = ("prune.early_passes=2", "prune.late_passes=1", "evaluate.fps_seconds=0.01", "evaluate.lpips=none")


@pytest.fixture(scope="session")
def tracked_outputs(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
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


@pytest.fixture
def finished(tracked_outputs: Path, scene_folder: Path, tmp_path: Path) -> RunConfig:
    """The configuration of a finished run that W&B has not heard of."""
    shutil.copytree(tracked_outputs, tmp_path / "copy", ignore=shutil.ignore_patterns("wandb"))
    return a_config(scene_folder, tmp_path / "copy", quality=0.2)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A wandb package that does as it is told at one place, instead of the real one."""
    return make_fake(monkeypatch, tmp_path)
