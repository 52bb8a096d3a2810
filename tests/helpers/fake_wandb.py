# SPDX-License-Identifier: Apache-2.0
"""For tests of tracking: settings with W&B, an environment without the user's, and a wandb that does as it is told."""

import os
from pathlib import Path
from typing import Any

import pytest

from potr.experiment.schema import DatasetConfig, EvaluateConfig, PruneOverrides, RunConfig, TrackerConfig


def without_wandb_of_the_user(patch: pytest.MonkeyPatch, home: Path) -> None:
    for name in [*filter(lambda name: name.startswith("WANDB_"), os.environ), "NETRC", "XDG_CACHE_HOME"]:
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(home))


def a_config(scene: Path, outputs: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "dataset": DatasetConfig(kind="folder", path=str(scene)),
        "prune": PruneOverrides(early_passes=2, late_passes=1),
        "evaluate": EvaluateConfig(lpips="none", fps_seconds=0.01),
        "outputs": str(outputs),
        "tracker": TrackerConfig(name="wandb"),
    }
    return RunConfig(**{**settings, **changes})


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


def make_fake(patch: pytest.MonkeyPatch, folder: Path) -> Any:
    """A function that puts a wandb package, told at LOG, FINISH or INIT what to do, in place of the real one."""

    def made(**places: str) -> Path:
        text = FAKE
        for place in ("LOG", "FINISH", "INIT"):
            text = text.replace(place, places.get(place, "pass"))
        (folder / "packages").mkdir()
        (folder / "packages" / "wandb.py").write_text(places.get("import", "") + text)
        patch.setenv("PYTHONPATH", str(folder / "packages"))
        patch.setenv("FAKE_SAID", str(folder / "said"))
        return folder / "said"

    return made
