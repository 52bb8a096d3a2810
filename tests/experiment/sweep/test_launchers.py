# SPDX-License-Identifier: Apache-2.0
"""Launchers: what they accept, how they divide the machine, and that the work of a process that dies is not lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from potr.errors import BackendUnavailable, ConfigError
from potr.experiment import pipeline, summary
from potr.experiment.result import RunResult
from potr.experiment.sweep import launcher, launchers
from potr.experiment.sweep.launcher import LAUNCHERS, LauncherConfig
from potr.threads import available_cores, available_threads
from tests.experiment.test_run import _own_environment, on, started  # noqa: F401
from tests.helpers import processes
from tests.helpers.processes import LIMIT

needs_joblib = pytest.mark.skipif(
    not launcher.installed("joblib"), reason="joblib is not installed: pip install joblib"
)
needs_submitit = pytest.mark.skipif(
    not launcher.installed("submitit"), reason="submitit is not installed: pip install submitit"
)
needs_ray = pytest.mark.skipif(not launcher.installed("ray"), reason="ray is not installed: pip install ray")
ROOT = Path(__file__).parents[3]
THREE = "quality=0.3,0.6,0.9"


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
    with pytest.raises(
        BackendUnavailable, match=rf"launcher={name} needs .* pip install -c constraints.txt -e '\.\[{extra}\]'"
    ):
        launcher.require(LauncherConfig(name))


def test_a_launcher_without_a_sweep_is_refused(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, *on(scene_folder, tmp_path), "launcher=joblib") == 2
    assert "launcher=joblib is for sweeps: add -m" in capsys.readouterr().err


def disturbed(what: Path | str, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    """The program; its runs of quality 0.6 die, or wait for a file, in the second pruning pass."""
    command = [sys.executable, "-m", "tests.helpers.disturbed_run", str(what), *arguments]
    return processes.started(command, cwd=ROOT)


def wait_for(found: Callable[[], Any]) -> Any:
    """What ``found`` returns once it is something."""
    for _ in range(12_000):
        if value := found():
            return value
        time.sleep(0.01)
    raise AssertionError("it never came")


def checkpoints(outputs: Path) -> list[Path]:
    return list(outputs.glob(".cache/encode/early-*.npz"))


def figures(outputs: Path) -> list[tuple[Any, ...]]:
    """What an interruption must not change of the results under a folder."""
    runs = summary.collect(outputs)
    assert runs.failures == runs.problems == ()

    def of(r: RunResult) -> tuple[Any, ...]:
        return r.folder.name, r.bytes, r.bitstream_sha256, r.splats_after, r.after.psnr, r.after.ssim, r.before.psnr

    return [of(result) for result in runs.results]


@pytest.fixture(scope="module")
def uninterrupted(scene_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    outputs = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POTR_SWEEP", "")
        patch.setenv("HYDRA_FULL_ERROR", "0")
        assert started(patch, "-m", *on(scene_folder, outputs), THREE) == 0
    return figures(outputs)


def test_a_killed_sweep_started_again_gives_the_same_table(
    scene_folder: Path,
    tmp_path: Path,
    uninterrupted: list[tuple[Any, ...]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    sweep = ("-m", *on(scene_folder, tmp_path), THREE)
    with disturbed("die", *sweep) as process:
        process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGKILL
    assert len(summary.collect(tmp_path).results) == 1
    assert len(checkpoints(tmp_path)) == 2  # what the finished run leaves to others, and where the killed one stood
    assert started(monkeypatch, *sweep) == 0
    out, err = capsys.readouterr()
    assert err.count("finished earlier") == 1
    assert len(out.splitlines()) == 2 + 3
    assert figures(tmp_path) == uninterrupted
    assert [result.resumed for result in summary.collect(tmp_path).results] == [False, True, False]


@needs_joblib
def test_a_killed_joblib_process_takes_no_other_run_along(
    scene_folder: Path, tmp_path: Path, uninterrupted: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = ("-m", *on(scene_folder, tmp_path), THREE)
    with disturbed("die", *sweep, "launcher=joblib") as process:
        out, err = process.communicate(timeout=LIMIT)
    assert process.returncode == 2, err
    assert len(out.splitlines()) == 2 + 2 + 1 + 2 + 1
    assert "its process died (killed, perhaps for want of memory); the same command tries again" in out
    assert "a process died; the " in err
    assert "[3/3] ball/q0.9" in err
    (failure,) = summary.collect(tmp_path).failures
    assert failure.quality == 0.6
    assert started(monkeypatch, *sweep) == 0
    assert figures(tmp_path) == uninterrupted
    threads = {result.quality: result.machine["threads"] for result in summary.collect(tmp_path).results}
    assert threads[0.3] == threads[0.9] == max(1, min(available_threads(), available_cores() // 2))


@needs_joblib
def test_ctrl_c_stops_the_processes_of_joblib(scene_folder: Path, tmp_path: Path) -> None:
    never = tmp_path / "never"
    with disturbed(never, "-m", *on(scene_folder, tmp_path), "quality=0.6", "launcher=joblib") as process:
        wait_for(lambda: checkpoints(tmp_path))
        (lock,) = tmp_path.glob(".locks/ball/*")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
        assert process.returncode == 130
        assert "interrupted after 0 of 1 runs; the same command goes on" in err
        assert "Traceback" not in err
        worker = int(lock.read_text().split()[1])
        assert worker != process.pid
        wait_for(
            lambda: not Path(f"/proc/{worker}").exists() or "\nState:\tZ" in Path(f"/proc/{worker}/status").read_text()
        )


def test_two_sweeps_at_a_time_share_the_work(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ball").mkdir()
    go_on = tmp_path / "ball" / "go on"
    at_work = pipeline.run

    def freeing(config: Any, **options: Any) -> RunResult:
        result = at_work(config, **options)
        go_on.touch()  # the first sweep goes on once the second has done its other run
        return result

    monkeypatch.setattr(pipeline, "run", freeing)
    with disturbed(go_on, "-m", *on(scene_folder, tmp_path), "quality=0.6,0.9") as first:
        wait_for(lambda: checkpoints(tmp_path))
        assert started(monkeypatch, "-m", *on(scene_folder, tmp_path), "quality=0.6,0.9") == 0
        second_out, second_err = capsys.readouterr()
        first_out, first_err = first.communicate(timeout=LIMIT)
    assert first.returncode == 0, first_err
    assert f"process {first.pid} on " in second_err
    assert "works on it; it comes later" in second_err
    assert second_err.count("finished earlier") == first_err.count("finished earlier") == 1
    assert first_out.splitlines()[3].split()[:8] == second_out.splitlines()[3].split()[:8]
    assert [result.quality for result in summary.collect(tmp_path).results] == [0.6, 0.9]


def test_ctrl_c_while_the_program_is_still_loading_is_quiet(tmp_path: Path) -> None:
    code = "import signal; print('loading', flush=True); signal.pause()"
    (tmp_path / "hydra.py").write_text(code)  # found before the package, so that potr.run loads for ever
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "potr.run", "--help"]
    with processes.started(command, cwd=tmp_path, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "loading\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGINT
    assert err == ""


@needs_submitit
def test_submitit_runs_jobs_as_slurm_would_and_one_that_dies_is_a_hole(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Dies(launchers.Resumable):
        def __call__(self, job: Any) -> Any:
            return os.kill(os.getpid(), 9) if job.number == 1 else super().__call__(job)

    monkeypatch.setattr(launchers, "Resumable", Dies)
    sweep = ("-m", *on(scene_folder, tmp_path), "quality=0.3,0.9", "launcher=submitit_local", "launcher.jobs=2")
    assert started(monkeypatch, *sweep) == 2
    out = capsys.readouterr().out
    assert "| quality=0.3 | its process died (" in out
    assert [result.quality for result in summary.collect(tmp_path).results] == [0.9]
    logs = "".join(path.read_text() for path in tmp_path.glob(".submitit/*/*_log.err"))
    assert "[2/2] ball/q0.9" in logs


@needs_ray
def test_ray_runs_the_jobs(scene_folder: Path, tmp_path: Path) -> None:
    sweep = ("-m", *on(scene_folder, tmp_path), "quality=0.3,0.9", "launcher=ray", "launcher.cpus=1")
    command = [sys.executable, "-m", "potr.run", *sweep]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2 + 2
