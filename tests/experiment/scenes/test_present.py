# SPDX-License-Identifier: Apache-2.0
"""A sweep looks for its scenes before it starts: one message a suite, the others run, and nothing is left behind."""

from pathlib import Path

import pytest

from potr.experiment import summary
from potr.experiment.scenes.present import look
from potr.experiment.sweep import plan
from potr.experiment.sweep.job import Job
from tests.experiment.test_conf import composed
from tests.experiment.test_run import _own_environment, on, started  # noqa: F401 - the environment is given back

ROOM = "point_cloud/iteration_30000/point_cloud.ply"


def jobs(*each: tuple[str, ...]) -> list[Job]:
    return [Job(number, len(each), given, composed(*given)) for number, given in enumerate(each, 1)]


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_one_message_a_suite_says_what_is_here_what_is_missing_and_what_fetches_it(tmp_path: Path) -> None:
    roots = (f"paths.data={tmp_path / 'data'}", f"paths.models={tmp_path / 'models'}")
    for scene, images in (("garden", "images_4"), ("room", "images_2")):
        put(tmp_path / "data" / scene / "sparse" / "0" / "images.bin", tmp_path / "data" / scene / images / "a.jpg")
    put(tmp_path / "models" / "garden" / ROOM)
    asked = [(f"dataset={name}", f"codec={codec}", *roots)
             for name in ("garden", "room", "bicycle", "chair") for codec in ("default", "paper")]  # fmt: skip
    looked = look(jobs(*asked))
    assert [(job.number, job.of, job.overrides[0]) for job in looked.jobs] == [
        (1, 2, "dataset=garden"),
        (2, 2, "dataset=garden"),
    ]
    assert looked.left_out == 6
    mip, synthetic = looked.messages
    assert mip.startswith("MipNeRF360: 1 of 3 scenes here: garden\n")
    assert "no photographs of bicycle\n" in mip
    assert "no model of room, bicycle\n" in mip
    assert f"fetch: python -m potr.datasets download room bicycle --data {tmp_path / 'data'}" in mip
    assert synthetic.startswith("SyntheticNeRF: 0 of 1 scenes here\n")
    assert "models.zip of 3DGS has no models of SyntheticNeRF: train one with 3DGS" in synthetic
    assert "POTR_DATA=DIR" in synthetic
    assert mip.count("POTR_DATA") == 0


def test_a_whole_suite_is_fetched_by_its_name_and_models_that_nobody_released_are_not(tmp_path: Path) -> None:
    roots = (f"paths.data={tmp_path}", f"paths.models={tmp_path}")
    (message,) = look(jobs(*((f"dataset={name}", *roots) for name in ("drjohnson", "playroom")))).messages
    assert "python -m potr.datasets download DeepBlending" in message
    put(*(tmp_path / "chair" / f"transforms_{split}.json" for split in ("train", "test")))
    (message,) = look(jobs(("dataset=chair", *roots))).messages
    assert "no model of chair" in message
    assert "no photographs" not in message
    assert "fetch:" not in message


def test_folders_are_looked_at_too(scene_folder: Path, tmp_path: Path) -> None:
    put(tmp_path / "no_cameras" / "point_cloud.ply")
    (tmp_path / "empty").mkdir()
    paths = [scene_folder, tmp_path / "no_cameras", tmp_path / "empty", tmp_path / "nothing"]
    looked = look(jobs(*(("dataset=folder", f"dataset.path={path}") for path in paths), ("dataset=demo",)))
    assert [job.config.dataset_name() for job in looked.jobs if job.config is not None] == ["ball", "demo"]
    (message,) = looked.messages
    for said in ("3 scene folders", "no_cameras: no cameras found", "empty: expected a model", "found nothing"):
        assert said in message
    asked = ("dataset=garden", f"dataset.path={tmp_path / 'empty'}", f"dataset.model={tmp_path / 'nothing'}")
    assert "nothing: expected a model's .ply" in look(jobs(asked)).messages[0]


def test_refused_jobs_stay(scene_folder: Path) -> None:
    refused = Job(1, 2, ("quality=7",), None, "quality: expected a number in (0, 1], got 7.0")
    there = jobs(("dataset=folder", f"dataset.path={scene_folder}"))
    assert [job.refusal for job in look([refused, *there]).jobs] == [refused.refusal, None]


def test_a_sweep_without_its_data_ends_before_it_starts_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for variable in ("POTR_DATA", "POTR_MODELS"):
        monkeypatch.delenv(variable, raising=False)
    asked = ("experiment=main_table", "dataset=garden,chair", "tracker=wandb_offline")
    assert started(monkeypatch, *asked) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "none of the 4 runs can be done: their scenes are not here" in err.splitlines()[-1]
    assert len(err.splitlines()) < 25
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_what_is_here_runs_and_the_rest_is_named_once(
    scene_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [word for word in on(scene_folder, tmp_path / "o") if not word.startswith("dataset.path")]
    elsewhere = tmp_path / "elsewhere"
    assert started(monkeypatch, "-m", *arguments, f"dataset.path={scene_folder},{elsewhere}") == 2
    out, err = capsys.readouterr()
    assert "1 of 2 runs were left out, for their scenes are not here" in out
    assert out.count("\n| ball") == 1
    assert err.count(str(elsewhere)) == 1
    assert "run 1 of 1: ball/" in err
    found = summary.collect(tmp_path / "o")
    assert (len(found.results), found.failures, found.problems) == (1, (), ())


def test_forgetting_keeps_what_others_wrote(tmp_path: Path) -> None:
    (asked,) = jobs((f"outputs={tmp_path / 'outputs'}",))
    put(tmp_path / "outputs" / ".hydra" / "multirun.yaml", tmp_path / "outputs" / "kept")
    plan.forget([asked])
    assert [path.name for path in (tmp_path / "outputs").iterdir()] == ["kept"]
