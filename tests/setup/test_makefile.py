# SPDX-License-Identifier: Apache-2.0
"""`make setup`: what it runs, with a Python that only writes down what it was asked for."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CPU_INDEX = "--index-url https://download.pytorch.org/whl/cpu"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the set-up depends on; its `python` lists what it is called with, and fails on FAIL."""
    (tmp_path / "potr" / "native").mkdir(parents=True)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(
        '#!/bin/sh\necho "$*" >> calls\ncase "$*" in *"${FAIL:-nothing fails}"*) echo refused >&2; exit 1;; esac\n'
    )
    python.chmod(0o755)
    return tmp_path


def make(checkout: Path, *arguments: str, fail: str = "nothing fails") -> tuple[int, str, list[str]]:
    """Exit code, what was printed, and what Python was called with."""
    calls = checkout / "calls"
    calls.unlink(missing_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "TORCH"))}
    done = subprocess.run(
        ["make", *arguments], cwd=checkout, env={**kept, "FAIL": fail},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, calls.read_text().splitlines() if calls.exists() else []


def test_every_step_says_its_name_and_how_long_it_took(checkout: Path) -> None:
    code, text, calls = make(checkout, "setup")
    assert code == 0, text
    steps = re.findall(r"^  ([\w ]+?) \.* ?\d+ s$", text, re.MULTILINE)
    assert steps == [
        "virtual environment", "torch", "build tools", "native build and the other packages", "LPIPS weights",
    ]  # fmt: skip
    assert not any("index-url" in call for call in calls)
    assert any(call.endswith("install -c constraints.txt torch") for call in calls)
    assert make(checkout, "setup")[2] == []  # a second call has nothing to do


def test_torch_of_an_index_is_taken_once(checkout: Path) -> None:
    code, text, calls = make(checkout, "setup", "TORCH=cpu")
    assert code == 0, text
    from_index = [call for call in calls if "index-url" in call]
    assert len(from_index) == 1
    assert f"{CPU_INDEX} --no-deps --force-reinstall torch torchvision" in from_index[0]
    for again in (("setup", "TORCH=cpu"), ("setup",)):
        assert make(checkout, *again)[2] == []
    os.utime(checkout / "constraints.txt", (2e9, 2e9))  # as an edit would
    for again in (("setup", "TORCH=cpu"), ("setup",)):
        calls = make(checkout, *again)[2]
        assert sum(f"{CPU_INDEX} --no-deps torch torchvision" in call for call in calls) == 1


def test_another_torch_replaces_the_one_that_is_there(checkout: Path) -> None:
    assert make(checkout, "setup")[0] == 0
    assert sum(CPU_INDEX in call for call in make(checkout, "setup", "TORCH=cpu")[2]) == 1
    calls = make(checkout, "setup", "TORCH=cu130")[2]
    assert sum("--index-url https://download.pytorch.org/whl/cu130" in call for call in calls) == 1


def test_a_step_that_fails_ends_the_set_up(checkout: Path) -> None:
    code, text, calls = make(checkout, "setup", fail="scikit-build-core")
    assert code != 0
    assert "refused" in text
    assert "scikit-build-core" in calls[-1]
    assert not (checkout / ".venv" / ".setup-done").exists()
    assert make(checkout, "setup")[0] == 0


def test_missing_weights_do_not(checkout: Path) -> None:
    assert make(checkout, "setup", fail="potr.evaluate.weights")[0] == 0
