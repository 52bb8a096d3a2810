# SPDX-License-Identifier: Apache-2.0
"""What the set-up asks for can be had from the public registry, on every Python that README names: by metadata alone.

pip's own settings stay out: a machine that serves a `+cpu` build of torch from disk does not see what others meet.
"""

import os
import re
import subprocess
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REGISTRY = "https://pypi.org/simple"
# Constraints hold torch for CUDA 13 and what it brings; README and docs/cuda.md install this one without them.
UNCONSTRAINED = ("cuda12",)
ONLY_AS_SOURCE = "antlr4-python3-runtime"  # of hydra; pure Python


def pythons() -> list[str]:
    """The versions of README's sentence on what is needed."""
    sentence = re.search(r"Needs Python ((?:3\.\d+|, | or )+)", README)
    assert sentence is not None
    return re.findall(r"3\.\d+", sentence[1])


def uv() -> list[str]:
    pytest.importorskip("uv", reason="uv is not installed (make setup)")
    return [sys.executable, "-m", "uv"]


@pytest.fixture(scope="module")
def registry() -> str:
    try:
        urllib.request.urlopen(f"{REGISTRY}/hydra-core/", timeout=10).close()
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        pytest.skip(f"{REGISTRY} cannot be reached: {error}")
    return REGISTRY


def resolve(registry: str, python: str, constraints: Path | None, *extras: str) -> subprocess.CompletedProcess[str]:
    """What would be installed, by metadata alone; wheels only, so that nothing would have to be built."""
    command = [*uv(), "pip", "compile", "--no-config", "--no-progress", "--no-header", "--no-annotate"]
    command += ["--default-index", registry, "--python", sys.executable, "--no-python-downloads"]
    command += ["--python-version", python, "--python-platform", "x86_64-manylinux_2_28"]
    command += ["--only-binary", ":all:", "--no-binary", ONLY_AS_SOURCE]
    command += [word for extra in extras for word in ("--extra", extra)]
    command += ["-c", str(constraints)] if constraints else []
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    return subprocess.run(
        [*command, str(ROOT / "pyproject.toml")],
        env=environment, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


def test_readme_names_the_pythons_that_the_project_says_it_takes() -> None:
    named = pythons()
    assert "3.11" in named
    assert PROJECT["requires-python"] == f">={named[0]}"
    classified = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert classified == named


@pytest.mark.parametrize("python", pythons())
def test_the_set_up_can_be_had(registry: str, python: str) -> None:
    extras = [name for name in PROJECT["optional-dependencies"] if name not in UNCONSTRAINED]
    done = resolve(registry, python, ROOT / "constraints.txt", *extras)
    assert done.returncode == 0, done.stderr
    found = set(done.stdout.split())
    pinned = re.search(r"^torch==.*", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert pinned is not None
    assert pinned[0] in found
    assert any(line.startswith("nvidia-cuda-nvrtc==13.") for line in found)


@pytest.mark.parametrize("extra", UNCONSTRAINED)
def test_what_constraints_leave_out_can_be_had_without_them(registry: str, extra: str) -> None:
    done = resolve(registry, pythons()[0], None, extra)
    assert done.returncode == 0, done.stderr
    assert "nvidia-cuda-nvrtc-cu12" in done.stdout


def test_constraints_that_contradict_each_other_are_seen(registry: str, tmp_path: Path) -> None:
    """The NVRTC that no torch of these constraints takes, which once stood in them."""
    broken = tmp_path / "constraints.txt"
    broken.write_text((ROOT / "constraints.txt").read_text() + "nvidia-cuda-nvrtc==13.5.37\n")
    done = resolve(registry, pythons()[0], broken, "dev")
    assert done.returncode != 0
    assert "nvidia-cuda-nvrtc" in done.stderr
