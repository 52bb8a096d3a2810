# SPDX-License-Identifier: Apache-2.0
"""build/gpu/site, from which POTR runs uninstalled: links to the sources and native modules built for this Python.

    python3 experiments/gpu_site.py

For `make gpu-test` and `make gpu-bench`, on a machine with torch, cuda-core and a C++ compiler, without a network. Says
what is missing and what is left out for it; ends with 1 if nothing can run.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "gpu"
NEEDED = ("torch", "numpy", "cuda.core", "cuda.bindings")
OPTIONAL = {  # what goes without
    "pytest": "gpu-test",
    "hypothesis": "tests that draw their cases",
    "zstandard": "the last step of gpu-bench's encode (packing)",
    "plyfile": "gpu-bench on scene folders",
    "gsplat": "gpu-bench's comparison with gsplat",
}
MARKED = re.compile(r"^\s*@pytest\.mark\.gpu\b|\b(marks|pytestmark) ?= ?\[?pytest\.mark\.gpu\b", re.MULTILINE)
NATIVE = r"_render|_format|_solver|render\.cpu|format\.octree|encoder\.(sh_solver|quantize|encode)"
NATIVE_IMPORT = re.compile(rf"^(from|import) potr.*\b({NATIVE})\b", re.MULTILINE)


def installed(module: str) -> bool:
    """Whether a module is there; it is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False


def program(*names: str) -> str | None:
    """The first of the programs that is on the PATH or beside this Python."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def build_native(build: Path) -> str | None:
    """Builds the native modules in a folder; why they could not be built, or None."""
    cmake, ninja = program("cmake"), program("ninja")
    if cmake is None:
        return "cmake is not there"
    if not installed("nanobind"):
        return "nanobind is not installed"
    if program("c++", "g++", "clang++") is None:
        return "there is no C++ compiler"
    configure = [cmake, "-S", str(ROOT / "potr" / "native"), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release"]
    configure += [f"-DPython_EXECUTABLE={sys.executable}", *(["-GNinja"] if ninja else [])]
    configure += [f"-DCMAKE_MAKE_PROGRAM={ninja}"] if ninja else []
    for command in (configure, [cmake, "--build", str(build), "--parallel"]):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            return "the build failed:\n" + "\n".join(done.stdout.splitlines()[-15:])
    return None


def link(site: Path, build: Path) -> None:
    """The package's folder in ``site``: a link to everything in potr/, and to the native modules in ``build``."""
    package = site / "potr"
    shutil.rmtree(package, ignore_errors=True)
    package.mkdir(parents=True)
    for source in [*(ROOT / "potr").iterdir(), *build.glob("_*.so")]:
        if source.name != "__pycache__":
            (package / source.name).symlink_to(source)


def gpu_tests(native: bool) -> tuple[list[str], list[str]]:
    """Test files with tests marked gpu: those to run, and those that cannot be imported without native modules."""
    files = {path: path.read_text() for path in sorted((ROOT / "tests").rglob("test_*.py"))}
    marked = {str(path.relative_to(ROOT)): text for path, text in files.items() if MARKED.search(text)}
    without = [] if native else [name for name, text in marked.items() if NATIVE_IMPORT.search(text)]
    return [name for name in marked if name not in without], without


def main() -> int:
    """Prepare the site and the list of tests, and print what is not there."""
    missing = [name for name in NEEDED if not installed(name)]
    if missing:
        print(f"gpu: {sys.executable} has no {', '.join(missing)}; GPU_PYTHON=... names another", file=sys.stderr)
        return 1
    for name, what in OPTIONAL.items():
        if not installed(name):
            print(f"gpu: no {name}: left out: {what}")
    reason = build_native(BUILD / "native")
    if reason is not None:
        print(f"gpu: no native modules: {reason}")
        print("gpu: left out for it: the encode of gpu-bench and", " ".join(gpu_tests(False)[1]))
    link(BUILD / "site", BUILD / "native")
    (BUILD / "tests").write_text("\n".join(gpu_tests(reason is None)[0]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
