# SPDX-License-Identifier: Apache-2.0
"""Launchers: what they accept, how they divide the machine, and that the work of a process that dies is not lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from potr import run
from potr.errors import BackendUnavailable, ConfigError
from potr.experiment import launch, launcher, report
from potr.experiment.launcher import LAUNCHERS, LauncherConfig
from potr.experiment.result import RunResult
from tests.experiment.test_run import _own_environment, on, started  # noqa: F401

needs_joblib = pytest.mark.skipif(not launcher.installed("joblib"), reason="joblib is not installed: pip install joblib")
needs_submitit = pytest.mark.skipif(
    not launcher.installed("submitit"), reason="submitit is not installed: pip install submitit"
)
needs_ray = pytest.mark.skipif(not launcher.installed("ray"), reason="ray is not installed: pip install 'potr[ray]'")
LONG = ("prune.early_passes=150", "prune.max_share=0.001")  # passes enough to be killed between


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "jobib"}, "did you mean 'joblib'. allowed: local, joblib, submitit_local, slurm, ray"),
        ({"name": "joblib", "partition": "gpu"}, "launcher=joblib takes launcher.jobs; got launcher.partition=gpu"),
        ({"name": "local", "jobs": 2}, "launcher=local takes nothing; got launcher.jobs=2"),
        ({"name": "joblib", "jobs": 0}, "launcher.jobs: expected a whole number of at least 1, got 0"),
        ({"name": "slurm", "gpus": -1}, "launcher.gpus: expected a whole number of at least 0, got -1"),
    ],
)
def test_what_a_launcher_does_not_take_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LauncherConfig(**settings)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_a_missing_package_is_one_line_with_the_command(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "installed", lambda package: False)
    if name == "local":
        launcher.require(LauncherConfig(name))
        return
    extra = "ray" if name == "ray" else "launchers"
    with pytest.raises(BackendUnavailable, match=rf"launcher={name} needs .* pip install 'potr\[{extra}\]'"):
        launcher.require(LauncherConfig(name))


def test_a_launcher_without_a_sweep_is_refused(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, *on(scene_folder, tmp_path), "launcher=joblib") == 2
    assert "launcher=joblib is for sweeps: add -m" in capsys.readouterr().err


def program(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "potr.run", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)


def wait_until(found: Callable[[], Any], process: subprocess.Popen[str]) -> Any:
    """What ``found`` returns once it is something, while the process runs."""
    for _ in range(12_000):
        if value := found():
            return value
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    raise AssertionError("nothing found")


def figures(outputs: Path) -> list[tuple[Any, ...]]:
    """What an interruption must not change of the results under a folder."""
    runs = report.collect(outputs)
    assert runs.failures == runs.problems == ()

    def of(r: RunResult) -> tuple[Any, ...]:
        return r.folder.name, r.bytes, r.bitstream_sha256, r.splats_after, r.after.psnr, r.after.ssim, r.before.psnr

    return [of(result) for result in runs.results]


def holder(outputs: Path, run_start: str) -> int | None:
    """The process that works on a run and has finished a pruning pass of it."""
    if not list(outputs.glob(f"ball/{run_start}*/prune.checkpoint")):
        return None
    (lock,) = outputs.glob(f".locks/ball/{run_start}*")
    return int(lock.read_text().split()[1])


@pytest.fixture(scope="module")
def uninterrupted(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    outputs = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POTR_SWEEP", "")
        patch.setenv("HYDRA_FULL_ERROR", "0")
        assert started(patch, "-m", *on(scene_folder, outputs), *LONG, "quality=0.3,0.6,0.9") == 0
    return figures(outputs)


def test_a_killed_sweep_started_again_gives_the_same_table(
    scene_folder: Path, tmp_path: Path, uninterrupted: list[tuple[Any, ...]]
) -> None:
    sweep = ("-m", *on(scene_folder, tmp_path), *LONG, "quality=0.3,0.6,0.9")
    process = program(*sweep, cwd=tmp_path)
    assert wait_until(lambda: holder(tmp_path, "q0.6"), process) == process.pid
    process.kill()
    process.communicate()
    assert len(list(tmp_path.glob("ball/*/result.json"))) == 1
    again = program(*sweep, cwd=tmp_path)
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert "q0.3" in err.split("finished earlier")[0]
    assert len(out.splitlines()) == 2 + 3
    assert figures(tmp_path) == uninterrupted
    resumed = [result.resumed for result in report.collect(tmp_path).results]
    assert resumed == [False, True, False]


@needs_joblib
def test_a_killed_joblib_process_takes_no_other_run_along(
    scene_folder: Path, tmp_path: Path, uninterrupted: list[tuple[Any, ...]]
) -> None:
    sweep = ("-m", *on(scene_folder, tmp_path), *LONG, "quality=0.3,0.6,0.9", "launcher=joblib")
    process = program(*sweep, cwd=tmp_path)
    first = wait_until(lambda: holder(tmp_path, "q0.6"), process)
    assert first != process.pid
    os.kill(first, signal.SIGKILL)

    def second() -> int | None:
        pid = holder(tmp_path, "q0.6")
        return None if pid == first else pid

    os.kill(wait_until(second, process), signal.SIGKILL)  # tried once more, alone; then it is a hole
    out, err = process.communicate()
    assert process.returncode == 2, err
    assert len(out.splitlines()) == 2 + 2 + 1 + 2 + 1
    assert "its process died (killed, perhaps for want of memory); the same command tries again" in out
    assert "[3/3] " in err
    (failure,) = report.collect(tmp_path).failures
    assert failure.quality == 0.6
    again = program(*sweep, cwd=tmp_path)
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert figures(tmp_path) == uninterrupted


@needs_joblib
def test_ctrl_c_stops_the_processes_of_joblib(scene_folder: Path, tmp_path: Path) -> None:
    process = program("-m", *on(scene_folder, tmp_path), *LONG, "quality=0.3,0.6", "launcher=joblib", cwd=tmp_path)
    workers = [wait_until(lambda start=start: holder(tmp_path, start), process) for start in ("q0.3", "q0.6")]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "interrupted after 0 of 2 runs; the same command goes on" in err
    assert "Traceback" not in err
    for worker in workers:
        wait_until_gone(worker)


def wait_until_gone(pid: int) -> None:
    for _ in range(6000):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.01)
    raise AssertionError(f"process {pid} still runs")


@needs_submitit
def test_submitit_runs_jobs_as_slurm_would(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep = ("-m", *on(scene_folder, tmp_path), "quality=0.3,0.9", "launcher=submitit_local", "launcher.jobs=2")
    assert started(monkeypatch, *sweep) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2
    assert len(report.collect(tmp_path).results) == 2
    logs = "".join(path.read_text() for path in tmp_path.glob(".submitit/*/*_log.err"))
    assert "[1/2] ball/q0.3" in logs
    assert "[2/2] ball/q0.9" in logs


@needs_submitit
def test_a_submitted_job_that_dies_is_a_hole(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Dies(launch.Resumable):
        def __call__(self, job: Any) -> Any:
            return os.kill(os.getpid(), 9) if job.number == 1 else super().__call__(job)

    monkeypatch.setattr(launch, "Resumable", Dies)
    sweep = ("-m", *on(scene_folder, tmp_path), "quality=0.3,0.9", "launcher=submitit_local", "launcher.jobs=2")
    assert started(monkeypatch, *sweep) == 2
    out = capsys.readouterr().out
    assert "| ball/q0.3" in out
    assert "its process died (" in out
    assert [result.quality for result in report.collect(tmp_path).results] == [0.9]


@needs_ray
def test_ray_runs_the_jobs(scene_folder: Path, tmp_path: Path) -> None:
    sweep = ("-m", *on(scene_folder, tmp_path), "quality=0.3,0.9", "launcher=ray", "launcher.cpus=1")
    process = program(*sweep, cwd=tmp_path)
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert len(out.splitlines()) == 2 + 2


def test_two_sweeps_at_a_time_share_the_work(scene_folder: Path, tmp_path: Path) -> None:
    sweep = ("-m", *on(scene_folder, tmp_path), *LONG, "quality=0.3,0.9")
    first = program(*sweep, cwd=tmp_path)
    wait_until(lambda: holder(tmp_path, "q0.3"), first)
    second = program(*sweep, cwd=tmp_path)
    told = [process.communicate() for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], told
    for out, _ in told:
        assert len(out.splitlines()) == 2 + 2
    assert [out.splitlines()[2].split(" | ")[:5] for out, _ in told][0] == [
        out.splitlines()[2].split(" | ")[:5] for out, _ in told
    ][1]
    assert len(figures(tmp_path)) == 2


def test_a_launcher_s_name_is_listed_when_it_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, "-m", "launcher=slrum", f"outputs={tmp_path}") == 2
    assert "unknown launcher: 'slrum'; did you mean 'slurm'? allowed: joblib, local" in capsys.readouterr().err
    assert run.main is not None
