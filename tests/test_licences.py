# SPDX-License-Identifier: Apache-2.0
"""What the package says of its licence and its origin, and that a wheel brings the texts along."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from yaml import safe_load

import potr

ROOT = Path(__file__).resolve().parents[1]
BUILD = "import sys; from scikit_build_core.build import prepare_metadata_for_build_wheel as f; f(sys.argv[1])"


@pytest.fixture(scope="module")
def metadata(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The .dist-info that a wheel of this checkout has; the backend makes it without compiling anything."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-c", BUILD, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder / f"potr-{potr.__version__}.dist-info"


def test_the_wheel_holds_the_licences(metadata: Path) -> None:
    assert (metadata / "licenses" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    notice = (metadata / "licenses" / "LICENSES" / "MIT.txt").read_text()  # the wheel has the copied survey too
    assert "Copyright (c) 2024 Wieland Morgenstern" in notice
    assert "Permission is hereby granted" in notice
    lines = (metadata / "METADATA").read_text().splitlines()
    assert "License-Expression: Apache-2.0" in lines
    assert "Author: The POTR developers" in lines


def test_the_licence_is_the_whole_of_apache_2() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert (ROOT / "LICENSES" / "Apache-2.0.txt").read_text() == text


def test_what_was_copied_says_so() -> None:
    notes: list[dict[str, Any]] = tomllib.loads((ROOT / "REUSE.toml").read_text())["annotations"]
    survey = next(note for note in notes if "survey" in str(note["path"]))
    assert survey["SPDX-License-Identifier"] == "MIT"
    assert survey["precedence"] == "override"
    named = [path for note in notes for path in ([note["path"]] if isinstance(note["path"], str) else note["path"])]
    assert [path for path in named if not list(ROOT.glob(path))] == []


def test_citation_is_of_this_version() -> None:
    citation = safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert citation["version"] == project["version"] == potr.__version__
    assert citation["license"] == project["license"]
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]


def test_the_workflow_runs_what_the_readme_names() -> None:
    workflow = safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    test = workflow["jobs"]["test"]
    assert any(step.get("run") == ".ci/run" for step in test["steps"])
    *early, last = test["strategy"]["matrix"]["python"]
    assert f"Needs Python {', '.join(early)} or {last}" in (ROOT / "README.md").read_text()
    classified = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    for python in test["strategy"]["matrix"]["python"]:
        assert f"Programming Language :: Python :: {python}" in classified
