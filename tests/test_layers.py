# SPDX-License-Identifier: Apache-2.0
"""The architecture's rules, read off the source: who imports whom."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "potr"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each imports only from layers above its own line; the names of one line are siblings and do not know each other.
LAYERS = (
    ("errors",),
    ("progress", "files", "threads"),
    ("reader", "screen"),
    ("model",),
    ("io", "render", "format"),
    ("evaluate",),
    ("encoder",),
    ("experiment",),
    ("run", "cli", "datasets"),
)
LAYER_OF = {name: level for level, names in enumerate(LAYERS) for name in names}
NATIVE = {"_format": "format", "_render": "render", "_solver": "encoder"}
SOLE_IMPORTERS = {
    "plyfile": {"potr/io/ply.py"},
    "gaussforge": {"potr/experiment/peers/gaussforge_worker.py"},
    "pooch": {"potr/experiment/scenes/fetch.py"},
    "zstandard": {"potr/format/zstd.py"},
    "cuda": {"potr/render/cubins.py", "potr/render/nvrtc.py"},
    "lpips": {"potr/evaluate/lpips.py"},
    "wandb": {"potr/experiment/tracking/wandb_process.py"},
    "matplotlib": {"potr/experiment/tables/figures.py"},
    "omegaconf": {"potr/experiment/schema.py"},
    "rich": {"potr/screen.py"},
    "joblib": {"potr/experiment/sweep/launchers.py"},
    "submitit": {"potr/experiment/sweep/launchers.py"},
    "ray": {"potr/experiment/sweep/launchers.py"},
    "hydra": {"potr/experiment/schema.py", "potr/experiment/sweep/plan.py", "potr/run.py"},
}


def imports(path: Path) -> set[str]:
    """Absolute names of every module a file imports, wherever in the file; ``from a import b`` gives a and a.b."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def part_of(module: str) -> str | None:
    """The layered part that a potr module belongs to."""
    words = module.split(".")
    return words[1] if words[0] == "potr" and len(words) > 1 else None


def module_file(module: str) -> Path | None:
    path = ROOT / Path(*module.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@pytest.mark.parametrize("path", [path for path in FILES if path != PACKAGE / "__init__.py"], ids=str)
def test_imports_go_one_way(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert own in LAYER_OF, f"{path}: give '{own}' a layer"
    for module in imports(path):
        part = part_of(module)
        if part is None or (part == own and own not in ("run", "cli", "datasets")) or part.startswith("__"):
            continue
        if part in NATIVE:
            assert own == NATIVE[part], f"{path} imports the native {module}, which belongs to {NATIVE[part]}"
            continue
        assert LAYER_OF[part] < LAYER_OF[own], f"{path} ({own}) imports {module} ({part})"


@pytest.mark.parametrize("package", SOLE_IMPORTERS)
def test_one_module_imports_each_outside_package(package: str) -> None:
    importers = {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(name.split(".")[0] == package for name in imports(path))
    }
    assert importers <= SOLE_IMPORTERS[package]


def test_the_decoder_reaches_neither_encoder_nor_cameras() -> None:
    reached, ahead = set(), ["potr.format.decode"]
    while ahead:
        module = ahead.pop()
        path = module_file(module)
        if module in reached or path is None:
            continue
        reached.add(module)
        ahead += [name for name in imports(path) if name.startswith("potr.")]
    assert "potr.model.splats" in reached
    forbidden = {"potr.model.cameras", "potr.render", "potr.encoder"}
    assert not reached & forbidden
    assert not any(module.startswith(("potr.render.", "potr.encoder.")) for module in reached)
