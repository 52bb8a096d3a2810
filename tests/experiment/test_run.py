# SPDX-License-Identifier: Apache-2.0
"""``python -m potr.run`` as a user types it: single runs, sweeps, help, and what it refuses."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from potr import run
from potr.encoder.quality import config_for
from potr.experiment import codec, schema, summary
from potr.experiment.result import read_result
from potr.experiment.sweep import plan
from potr.io import demo
from tests.helpers.processes import LIMIT

QUICK = ("prune.early_passes=2", "prune.late_passes=1", "evaluate.fps_seconds=0.01", "evaluate.lpips=none")


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")  # run.main sets both; given back after the test
    monkeypatch.setenv("POTR_SWEEP", "")
    monkeypatch.delenv("POTR_SWEEP")


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit code of the program with these arguments."""
    monkeypatch.setattr(sys, "argv", ["potr.run", *arguments])
    try:
        run.main()
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def on(scene: Path, outputs: Path) -> tuple[str, ...]:
    return ("dataset=folder", f"dataset.path={scene}", f"outputs={outputs}", *QUICK)


def test_a_run_ends_with_one_screen(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, *on(scene_folder, tmp_path), "quality=0.3") == 0
    out, err = capsys.readouterr()
    assert out.startswith("ball at quality 0.3: default codec, cpu rasteriser, judged on 2 test views\n")
    assert len(out.splitlines()) <= 24
    for said in ("splats", "bytes", "PSNR dB", "SSIM", "FPS", "AC zeros", "seconds", "memory", "before_after.png"):
        assert said in out
    assert "early pass" in err
    assert started(monkeypatch, *on(scene_folder, tmp_path), "quality=0.3") == 0
    again, err = capsys.readouterr()
    assert again == out
    assert "finished earlier" in err


def test_the_demo_at_a_reduced_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("WIDTH", 64), ("HEIGHT", 48), ("FOCAL", 72.0)):
        monkeypatch.setattr(demo, name, value)
    assert started(monkeypatch, "experiment=smoke", f"outputs={tmp_path}") == 0
    assert capsys.readouterr().out.startswith("demo at quality 0.5: default codec")
    result = read_result(next(tmp_path.glob("demo/q0.5*")))
    assert [stage["name"] for stage in result.stages] == ["prune_early", "compact", "prune_late", "quantize", "pack"]
    assert 0 < result.splats_after < result.splats_before
    assert result.ratio > 10
    assert result.before.psnr is not None
    assert result.after.psnr is not None
    assert result.after.psnr > result.before.psnr - 3
    assert 0 < (summary.ac_zero_share(result) or 0) < 1


def test_a_sweep_runs_every_quality_and_ends_with_a_table(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, "-m", *on(scene_folder, tmp_path), "quality=0.2,0.9") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].startswith("| dataset | quality | splats | bytes | smaller |")
    assert [line.split(" | ")[1].strip() for line in lines[2:]] == ["0.2", "0.9"]
    assert all(len(line) <= 100 for line in lines)
    assert "no BD-rate at the end: it takes 4 qualities of a codec, here are 2" in err.splitlines()[0]
    assert "run 1 of 2: ball/q0.2" in err
    assert "2 of 2: ball/q0.9" in err
    results = [read_result(path.parent) for path in sorted(tmp_path.glob("ball/*/result.json"))]
    assert [result.quality for result in results] == [0.2, 0.9]
    assert results[0].bytes < results[1].bytes
    assert {path.name for path in tmp_path.iterdir()} == {".cache", ".hydra", ".locks", "ball"}


def test_an_experiment_sweeps_without_m(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ("experiment=rate_distortion", *on(scene_folder, tmp_path), "quality=0.1,0.3,0.5,0.9")
    assert started(monkeypatch, *asked) == 0
    said, err = capsys.readouterr()
    lines = said.splitlines()
    assert sum(line.startswith("| ball ") for line in lines) == 8 + 1
    head = next(number for number, line in enumerate(lines) if "BD-rate, PSNR" in line)
    cells = [cell.strip() for cell in lines[head + 2].split("|")[1:4]]
    assert cells == ["ball", "default (ours), prune.early_passes=2, prune.late_passes=1", "4"]
    assert len({len(line) for line in lines[head : head + 3]}) == 1  # aligned
    assert "no BD-rate" not in err
    tables = tmp_path / "tables"
    assert f"{tables / 'rate_distortion'}.md, .tex, .csv" in said
    rows = (tables / "rate_distortion" / "points.csv").read_text().splitlines()
    assert len(rows) == 1 + 8
    assert {path.name for path in tables.iterdir()} == {
        *(f"rate_distortion{ending}" for ending in ("", ".md", ".tex", ".csv")),
        "results",
    }


def test_one_refused_job_does_not_stop_a_sweep(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, "-m", *on(scene_folder, tmp_path), "quality=0.2,7,0.9") == 2
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert len(lines) == 2 + 2 + 1 + 2 + 1
    assert lines[-1] == "| quality=7 | quality: expected a number in (0, 1], got 7.0 |"
    assert err.index("run 2 of 3: quality=7: quality: expected a number in (0, 1], got 7.0") < err.index("run 1 of 3")


def test_a_bug_in_one_job_is_a_hole_with_its_reason_until_it_runs_again(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails_at_low_quality(self: codec.PotrCoder, *arguments: Any) -> Any:
        if self.config == config_for(0.2, "default", {"prune": {"early_passes": 2, "late_passes": 1}}):
            raise IndexError("out of splats")
        return encode(self, *arguments)

    encode = codec.PotrCoder.encode
    sweep_of_two = ("-m", *on(scene_folder, tmp_path), "quality=0.2,0.9")
    with monkeypatch.context() as patch:
        patch.setattr(codec.PotrCoder, "encode", fails_at_low_quality)
        assert started(patch, *sweep_of_two) == 1
    out, err = capsys.readouterr()
    assert "IndexError: out of splats" in out
    assert "Traceback" in err
    runs = summary.collect(tmp_path)
    assert [result.quality for result in runs.results] == [0.9]
    (failure,) = runs.failures
    assert (failure.dataset, failure.quality, failure.reason) == ("ball", 0.2, "IndexError: out of splats")
    assert failure.settings["prune.early_passes"] == 2
    assert "fails_at_low_quality" in str(failure.trace)
    assert started(monkeypatch, *sweep_of_two) == 0
    runs = summary.collect(tmp_path)
    assert [result.quality for result in runs.results] == [0.2, 0.9]
    assert runs.failures == runs.problems == ()


def test_a_misspelt_name_refuses_the_whole_sweep_before_its_first_run(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for wrong, message in (
        ("codec=default,papr", "unknown codec: 'papr'; did you mean 'paper'? allowed: "),
        ("quality=0.2,good", "quality: Value 'good' of type 'str' could not be converted to Float"),
        ("prune.capp=1,2", "unknown key 'prune.capp'; did you mean 'prune.cap'?"),
    ):
        monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
        assert started(monkeypatch, "-m", *on(scene_folder, tmp_path), wrong) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert message in err
    assert not list(tmp_path.rglob("result.json"))


def test_a_sweep_over_presets_has_a_column_for_what_differs_and_runs_each_run_once(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    choices = ("compact=from_quality,none", "compact.enabled=null,false")  # four combinations of two runs
    assert started(monkeypatch, "-m", *on(scene_folder, tmp_path), *choices) == 0
    out, err = capsys.readouterr()
    rows = [[cell.strip() for cell in line.split("|")[1:5]] for line in out.splitlines()]
    assert rows[0] == ["dataset", "compact", "compact.enabled", "splats"]
    assert [row[:3] for row in rows[2:]] == [["ball", "from_quality", "False"], ["ball", "from_quality", "null"]]
    assert "run 2 of 2" in err


def test_the_same_command_is_the_same_sweep() -> None:
    assert plan.name_of(["quality=0.5"]) is None
    names = {
        plan.name_of(words)
        for words in (["-m", "b=1,2", "a=x"], ["a=x", "b=1,2", "-m", "outputs=elsewhere", "tracker=wandb"])
    }
    assert names == {"a=x,b=1,2"}
    assert plan.name_of(["-m", "dataset.path=/data/my scene"]) == "dataset.path=_data_my_scene"
    many = "dataset=" + ",".join(f"scene_{number}" for number in range(20))
    long = {plan.name_of(["-m", many, f"quality={q}"]) for q in (0.1, 0.9)}
    assert len(long) == 2


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("dataset=dmo", "unknown dataset: 'dmo'; did you mean 'demo'? allowed: bicycle, bonsai"),
        ("prune=gentl", "unknown prune: 'gentl'; did you mean 'gentle'? allowed: from_quality, gentle, none, "),
        ("prune.capp=1", "unknown key 'prune.capp'; did you mean 'prune.cap'? allowed: prune.early_passes, "),
        ("compact=stron", "unknown compact: 'stron'; did you mean 'strong'? allowed: from_quality, none, "),
        ("quantize=paperr", "unknown quantize: 'paperr'; did you mean 'paper'? allowed: coarse, eight_bit, fine, "),
        ("backend=gpu", "unknown backend: 'gpu'; did you mean 'cpu'? allowed: auto, cpu, cuda, reference"),
        ("codec=papr", "unknown codec: 'papr'; did you mean 'paper'? allowed: "),
        ("tracker=wandbb", "unknown tracker: 'wandbb'; did you mean 'wandb'? allowed: none, wandb"),
        ("evaluate=standart", "unknown evaluate: 'standart'; did you mean 'standard'? allowed: standard"),
        ("launcher=slrum", "unknown launcher: 'slrum'; did you mean 'slurm'? allowed: joblib, local, ray, slurm, "),
        ("launcher.job=2", "unknown key 'launcher.job'; did you mean 'launcher.jobs'? allowed: launcher.name, "),
        ("qualty=0.3", "unknown key 'qualty'; did you mean 'quality'? allowed: dataset, "),
        ("evaluate.lpips=vg", "unknown value of evaluate.lpips: 'vg'; did you mean 'vgg'? allowed: none, vgg, alex"),
        ("prune.cap=small", "prune.cap: Value 'small' of type 'str' could not be converted to Float"),
        ("prune.cap=2", "PruneConfig.cap: expected a number in [0.0, 1.0], got 2.0"),
        ("codec=sog codec.options.iterations=abc", "codec.options.iterations: expected a whole number in [1, 1000]"),
        ("codec=c3dgs codec.options.seed=-1", "codec.options.seed: expected a whole number in [0, 2.14748e+09]"),
        ("codec=mesongs seed=3000000000", "codec.options.seed: expected a whole number in [0, 2.14748e+09] or null"),
        ("--quality 0.3", "--quality 0.3: did you mean quality=0.3?"),
        ("quality", "cannot read 'quality' as KEY=VALUE"),
        ("prune.cap=[1", "cannot read 'prune.cap=[1' as KEY=VALUE"),
        ("dataset=folder", "dataset=folder needs the scene's folder: dataset.path=DIR"),
        ("+speed=2", "unknown key 'speed'; did you mean 'seed'? allowed: dataset, "),
        ("experiment=rate", "unknown experiment: 'rate'; allowed: ablation, fps, main_table"),
    ],
)
def test_what_is_wrong_is_one_line_that_says_what_is_right(
    argument: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert started(monkeypatch, *argument.split(), f"outputs={tmp_path / 'outputs'}") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.glob("outputs/*"))


def test_ctrl_c_says_so_and_exits_with_130(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(codec, "encode", interrupted)
        assert started(patch, *on(scene_folder, tmp_path)) == 130
    assert "interrupted, nothing is half-written" in capsys.readouterr().err
    assert not list(tmp_path.rglob("result.json"))


def test_as_a_module_from_another_folder(scene_folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "potr.run", "dataset=folder", f"dataset.path={scene_folder}", *QUICK]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    result = next((tmp_path / "outputs" / "ball").glob("q0.5*/result.json"))
    assert json.loads(result.read_text())["bytes"] > 0
    assert {path.name for path in tmp_path.iterdir()} == {"outputs"}


def test_help_lists_groups_keys_and_examples() -> None:
    done = subprocess.run([sys.executable, "-m", "potr.run", "--help"], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stderr
    for said in ("dataset=folder dataset.path=DIR", "dataset: bicycle, bonsai, ", "  cap: null", "0 < quality <= 1"):
        assert said in done.stdout


def test_conf_is_found_in_a_wheel_and_in_a_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "potr"
    (package / "experiment").mkdir(parents=True)
    monkeypatch.setattr(schema, "__file__", str(package / "experiment" / "schema.py"))
    assert schema.conf_folder() == tmp_path / "site" / "conf"
    (package / "conf").mkdir()
    assert schema.conf_folder() == package / "conf"


def test_two_runs_of_one_folder_are_not_taken_for_one(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "elsewhere" / scene_folder.name
    shutil.copytree(scene_folder, copy)
    paths = f"dataset.path={scene_folder},{copy}"
    assert started(monkeypatch, "-m", "dataset=folder", paths, f"outputs={tmp_path / 'o'}", *QUICK) == 2
    out, _ = capsys.readouterr()
    assert "give each its own dataset.name" in out
    assert len(summary.collect(tmp_path / "o").results) == 1


def test_a_failure_that_cannot_be_recorded_stops_no_other_run(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "blocked").write_text("not a folder")
    names = "dataset.name=blocked,open"
    assert started(monkeypatch, "-m", *on(scene_folder, tmp_path), names) == 2
    assert [result.dataset for result in summary.collect(tmp_path).results] == ["open"]
    assert "cannot record it" in capsys.readouterr().err
