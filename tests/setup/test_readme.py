# SPDX-License-Identifier: Apache-2.0
"""README's code and commands work as they stand there; what needs scenes of the paper is composed and not run."""

import math
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import potr
from potr import run
from potr.experiment.sweep import plan
from potr.experiment.sweep.job import Job
from tests.helpers.scene_folder import make_scene_folder

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
SECONDS = 240  # a limit on a machine that others keep busy, not an expectation


def blocks(language: str) -> list[str]:
    return [
        text for tag, text in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL) if tag == language
    ]


def commands(start: str) -> list[list[str]]:
    """The words of every command of README's blocks that begins so, without comments."""
    lines = [line for text in blocks("") for line in text.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(start)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a reader stands: a model, and a folder with it and its photographs."""
    scene = make_scene_folder(tmp_path / "scene_folder")
    (tmp_path / "point_cloud.ply").write_bytes((scene / "point_cloud.ply").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def in_a_process(*arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], env=environment, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_python_lines_do_what_they_say(folder: Path) -> None:
    (code,) = blocks("python")
    in_a_process("-c", code)
    saved = potr.load_ply(folder / "out.ply")
    assert 0 < saved.num_splats < potr.load_ply(folder / "point_cloud.ply").num_splats


def test_the_commands_do_what_they_say(folder: Path) -> None:
    asked = commands("potr ")
    assert [words[1] for words in asked] == ["encode", "decode", "info", "render", "compare"]
    for words in asked:
        assert in_a_process("-m", "potr.cli", *words[1:]).strip(), words
    assert (folder / "scene.potr").stat().st_size < (folder / "point_cloud.ply").stat().st_size / 8
    assert {path.name for path in folder.iterdir()} == {
        "scene_folder", "point_cloud.ply", "scene.potr", "out.ply", "view.png",
    }  # fmt: skip


RUNS = commands("python -m potr.run")


@pytest.mark.parametrize("words", RUNS, ids=[" ".join(words[3:]) for words in RUNS])
def test_a_run_is_composed_as_it_is_asked_for(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the whole front of potr.run, up to where the first run would begin."""
    composed: list[Job] = []

    def instead_of_running(jobs: list[Job], progress: object) -> tuple[int, str]:
        composed.extend(jobs)
        return 0, ""

    monkeypatch.setattr(run, "_run", instead_of_running)
    # Of a sweep's lists the first and the last value, for every run takes a second; and nothing outside of tmp_path.
    ends = [
        re.sub(r"=([^,]*),.*,([^,]*)$", r"=\1,\2", word.replace("=/shared/", f"={tmp_path}/")) for word in words[3:]
    ]
    monkeypatch.setattr(sys, "argv", ["potr.run", *ends])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    monkeypatch.delenv(plan.NAME_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert not ended.value.code
    if words[-1] == "--help":
        assert "quality" in capsys.readouterr().out
        return
    assert [job.refusal for job in composed if job.refusal] == []
    if any(word.startswith("experiment=") for word in words):
        assert len(composed) > 1
    else:
        assert len(composed) == math.prod(word.count(",") + 1 for word in ends)


def test_every_make_target_and_extra_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for text in re.findall(r"(?:^|`)make ([a-z -]+)", README, re.MULTILINE) for word in text.split()}
    assert {"run", "test", "setup"} <= named
    assert named <= targets
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "conf").rglob("*.yaml"))]
    for path in documents:
        text = path.read_text()
        assert "pip install 'potr[" not in text, f"{path}: POTR is on no registry"
        assert set(re.findall(r"-e '\.\[(\w+)\]'", text)) <= set(extras), path


def test_the_environment_is_active_before_its_first_use() -> None:
    lines = README.splitlines()
    active = lines.index("source .venv/bin/activate")
    used = [number for number, line in enumerate(lines) if line.startswith(("potr ", "python ", "torchrun "))]
    assert active < min(used)
