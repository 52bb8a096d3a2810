# SPDX-License-Identifier: Apache-2.0
"""One scene over several processes: the bytes of one, and an end for all when one of them ends."""

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch

from potr import run
from potr.errors import BackendUnavailable
from potr.experiment import ranks
from potr.experiment.result import RunResult, read_result
from potr.render.ranks import TorchRanks, expected, local_share
from potr.render.select import select
from tests.helpers.processes import started
from tests.helpers.scene_folder import make_scene_folder

LONG = 300  # seconds, for processes that take a few


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three blocks of training views, so that two ranks have unequal shares; read only."""
    return make_scene_folder(tmp_path_factory.mktemp("scenes") / "ball", train=19, test=1, num_splats=200)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # run.main sets both; given back after the test
    monkeypatch.setenv("POTR_SWEEP", "")
    monkeypatch.delenv("POTR_SWEEP")


def arguments(scene: Path, outputs: Path, early_passes: int = 2) -> list[str]:
    quick = ("prune.late_passes=1", "evaluate.fps_seconds=0", "evaluate.lpips=none", "cache=false")
    return [
        "dataset=folder",
        f"dataset.path={scene}",
        f"outputs={outputs}",
        f"prune.early_passes={early_passes}",
        *quick,
    ]


def alone(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """The program in this process."""
    monkeypatch.setattr(sys, "argv", ["potr.run", *words])
    with pytest.raises(SystemExit) as end:
        run.main()
    assert not end.value.code


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def results(outputs: Path) -> list[RunResult]:
    return [read_result(path.parent) for path in sorted(outputs.glob("ball/*/result.json"))]


def test_a_sweep_under_torchrun_gives_the_bytes_of_one_process(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", "quality=0.3,0.8"]
    alone(monkeypatch, *words, *arguments(scene, tmp_path / "one"))
    single_said = "".join(capsys.readouterr())
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*torchrun, "-m", "potr.run", *words, *arguments(scene, tmp_path / "two")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG)
    assert done.returncode == 0, done.stderr
    single, shared = results(tmp_path / "one"), results(tmp_path / "two")
    assert [result.quality for result in shared] == [0.3, 0.8]
    for a, b in zip(single, shared, strict=True):
        assert (a.machine["processes"], b.machine["processes"]) == (1, 2)
        assert (a.folder / a.file).read_bytes() == (b.folder / b.file).read_bytes()
        assert [stage["details"] for stage in a.stages] == [stage["details"] for stage in b.stages]
    for said in ("early pass", "19 training views", "run 2 of 2"):  # one rank speaks
        assert (done.stdout + done.stderr).count(said) == single_said.count(said) > 0, said


def test_a_rank_that_dies_ends_the_run_with_one_message_and_one_process_goes_on_from_there(
    scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = arguments(scene, tmp_path / "cut", early_passes=80)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                started(
                    [sys.executable, "-m", "potr.run", *words],
                    env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank},
                )
            )
            for rank in "01"
        ]
        until = time.monotonic() + LONG
        while not list(tmp_path.glob("cut/ball/*/resume/early-*.npz")) and time.monotonic() < until:
            time.sleep(0.01)
        processes[1].kill()
        out, err = processes[0].communicate(timeout=LONG)
        processes[1].communicate(timeout=LONG)
    assert processes[0].returncode == 2, err
    assert err.count("lost contact between the processes of this run") == 1
    assert "Traceback" not in err
    assert out == ""
    alone(monkeypatch, *words)
    alone(monkeypatch, *arguments(scene, tmp_path / "whole", early_passes=80))
    (resumed,), (whole,) = results(tmp_path / "cut"), results(tmp_path / "whole")
    assert (resumed.resumed, whole.resumed) == (True, False)
    assert resumed.bitstream_sha256 == whole.bitstream_sha256


def test_without_torchrun_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "8")  # as some clusters leave it lying about, without the rest
    assert (expected(), ranks.count()) == (1, 1)
    rasterizer = select("cpu", threads=1)
    assert ranks.shared(rasterizer, None) is rasterizer
    called: list[int] = []
    ranks.lead(lambda: called.append(1))
    assert called == [1]


def test_ranks_of_a_machine_share_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert local_share(6) == 6
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert (local_share(9), local_share(2)) == (2, 1)


def test_processes_that_never_come_are_told_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "no number"), ("RANK", "0"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        ranks.lead(lambda: None)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("lost contact between the processes of this run (")


@pytest.mark.skipif(torch.cuda.is_available(), reason="of a machine without a GPU")
def test_a_device_that_the_machine_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "RANK": "0", "WORLD_SIZE": "1"}
    for name, value in address.items():
        monkeypatch.setenv(name, value)
    alone = TorchRanks()
    try:
        assert alone.device("cpu") == torch.device("cpu")
        with pytest.raises(BackendUnavailable, match="a GPU, and NCCL, for each of the 1 processes"):
            alone.device("cuda")
        assert not alone.broken
    finally:
        alone.leave()
