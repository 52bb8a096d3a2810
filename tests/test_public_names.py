# SPDX-License-Identifier: Apache-2.0
"""``import potr``: light, complete, and the same for people, IDEs and type checkers."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import potr
from tests.helpers.processes import LIMIT

HEAVY = ("torch", "numpy", "wandb", "hydra", "omegaconf", "rich", "plyfile", "zstandard", "PIL", "lpips", "pooch")


def modules_after(code: str) -> set[str]:
    program = f"{code}\nimport json, sys\nsys.stdout.write(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=LIMIT)
    return set(json.loads(done.stdout))


def test_importing_potr_loads_nothing_heavy() -> None:
    loaded = modules_after("import potr")
    assert "potr" in loaded
    assert not loaded & {*HEAVY, "potr._format", "potr._render", "potr._solver"}


def test_decoding_loads_no_rasterizer_and_no_experiment() -> None:
    loaded = modules_after("import potr; potr.decode; potr.load_ply")
    assert "potr.format.decode" in loaded
    assert not loaded & {"potr._render", "potr.encoder.encode", "potr.experiment", "hydra", "wandb", "rich"}


@pytest.mark.parametrize("name", potr.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(potr, name).__name__ == ("select" if name == "select_rasterizer" else name)


def test_lazy_names_and_typed_names_agree() -> None:
    tree = ast.parse(Path(potr.__file__).read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    typed = {
        alias.asname or alias.name for node in block.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert typed == set(potr.__all__)
    assert typed <= set(dir(potr))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'potr' has no attribute 'compress'"):
        potr.compress  # noqa: B018
