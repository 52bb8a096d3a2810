# SPDX-License-Identifier: Apache-2.0
"""One scene over several processes: the bytes of one, and an end for all when one of them ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from potr.experiment import pipeline, ranks, schema
from potr.experiment.result import RunResult, read_result
from potr.rasterizer.ranks import local_share
from potr.rasterizer.select import select
from tests.helpers.scene_folder import make_scene_folder

QUICK = ("prune.early_passes=2", "prune.late_passes=1", "evaluate.fps_seconds=0", "evaluate.lpips=none")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks of training views: two ranks have unequal shares."""
    return make_scene_folder(tmp_path_factory.mktemp("scenes") / "ball", train=19, test=1, num_splats=200)


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "passive", "OMP_NUM_THREADS": "1", **variables}


def on(scene: Path, outputs: Path) -> tuple[str, ...]:
    return ("dataset=folder", f"dataset.path={scene}", f"outputs={outputs}", *QUICK)


def results(outputs: Path) -> list[RunResult]:
    return [read_result(path.parent) for path in sorted(outputs.glob("ball/*/result.json"))]


def alone(outputs: Path, quality: float) -> RunResult:
    """The run that a result belongs to, by this process alone, in other folders."""
    stored = read_result(next(outputs.glob(f"ball/q{quality:g}*")))
    assert stored.machine["processes"] == 2
    assert stored.quality == quality
    return stored


def test_a_sweep_under_torchrun_gives_the_bytes_of_one_process(scene: Path, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "potr.run", "-m", "quality=0.3,0.8"]
    done = subprocess.run(
        [*command, *on(scene, tmp_path / "two")], capture_output=True, text=True, env=environment(), timeout=300
    )
    assert done.returncode == 0, done.stderr
    command = [sys.executable, "-m", "potr.run", "-m", "quality=0.3,0.8"]
    one = subprocess.run(
        [*command, *on(scene, tmp_path / "one")], capture_output=True, text=True, env=environment(), timeout=300
    )
    assert one.returncode == 0, one.stderr
    shared, single = results(tmp_path / "two"), results(tmp_path / "one")
    assert [result.quality for result in shared] == [0.3, 0.8]
    for a, b in zip(shared, single, strict=True):
        assert (a.machine["processes"], b.machine["processes"]) == (2, 1)
        assert (a.folder / a.file).read_bytes() == (b.folder / b.file).read_bytes()
        assert [stage["details"] for stage in a.stages] == [stage["details"] for stage in b.stages]
    for said in ("early pass", "judged", "19 training views"):  # one rank speaks
        assert (done.stdout + done.stderr).count(said) == (one.stdout + one.stderr).count(said), said
