# SPDX-License-Identifier: Apache-2.0
"""`make gpu-test gpu-bench` on a machine that has torch and little else: what they import, and how they prepare."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import gpu_site
from tests.helpers.processes import LIMIT

ROOT = Path(__file__).parents[1]
ABSENT = (
    "gaussforge", "gsplat", "hydra", "joblib", "lpips", "omegaconf", "playwright", "plyfile", "pooch", "ray",
    "submitit", "wandb", "xdist", "zstandard",
)  # fmt: skip
BARE = """
import json, sys
class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.split(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent)
import pytest
assert pytest.main(["--collect-only", "-q", "-m", "gpu", "-p", "no:cacheprovider", *{files}]) == 0
import torch
from experiments import bench_cuda, bench_goals
from potr.render.cpu import CpuRasterizer
goals = bench_goals.whole_goals(torch.device("cpu"), CpuRasterizer(1), 500, 3, 48, 32)
print(json.dumps({{goal["what"].split(":")[0]: [goal["value"], goal["note"]] for goal in goals}}))
"""


def test_gpu_tests_and_benchmarks_need_none_of_the_other_packages() -> None:
    files, without = gpu_site.gpu_tests(native=True)
    assert "tests/render/test_nvrtc.py" in files
    assert without == []
    code = BARE.format(absent=set(ABSENT), files=files)
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f"{name}::" in done.stdout for name in files)
    goals = json.loads(done.stdout.splitlines()[-1])
    seconds, note = goals["encode at quality 0.3"]
    assert seconds > goals["- quantize"][0] > 0
    assert note == "without packing: zstandard is not installed"
    assert "- pack" not in goals


def test_the_site_is_the_package_with_native_modules(tmp_path: Path) -> None:
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "_render.abi.so").touch()
    for _ in range(2):  # a second time is as good as the first
        gpu_site.link(tmp_path / "site", tmp_path / "native")
        package = tmp_path / "site" / "potr"
        assert (package / "_render.abi.so").resolve() == tmp_path / "native" / "_render.abi.so"
        assert (package / "files.py").read_text() == (ROOT / "potr" / "files.py").read_text()
        assert (package / "native" / "CMakeLists.txt").is_file()
        assert not (package / "__pycache__").exists()


def test_without_native_modules_what_imports_them_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {
        "test_a.py": "from potr import _render\n@pytest.mark.gpu\n",
        "test_b.py": "from potr.render.cpu import CpuRasterizer\n@pytest.mark.gpu\n",
        "test_c.py": "from potr.render.cuda import CudaRasterizer\n@pytest.mark.gpu\n",
        "test_d.py": "from potr.render.cpu import CpuRasterizer\n",
    }
    (tmp_path / "tests").mkdir()
    for name, text in texts.items():
        (tmp_path / "tests" / name).write_text(text)
    monkeypatch.setattr(gpu_site, "ROOT", tmp_path)
    assert gpu_site.gpu_tests(native=True) == (["tests/test_a.py", "tests/test_b.py", "tests/test_c.py"], [])
    assert gpu_site.gpu_tests(native=False) == (["tests/test_c.py"], ["tests/test_a.py", "tests/test_b.py"])


def test_what_is_missing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu_site, "BUILD", tmp_path)
    monkeypatch.setattr(gpu_site, "program", lambda *names: None)
    monkeypatch.setattr(gpu_site, "installed", lambda module: module != "zstandard")
    assert gpu_site.main() == 0
    said = capsys.readouterr().out
    assert "gpu: no zstandard: left out: the last step of gpu-bench's encode (packing)\n" in said
    assert "gpu: no native modules: cmake is not there\n" in said
    assert "tests/render/test_nvrtc.py" in (tmp_path / "tests").read_text().split()
    monkeypatch.setattr(gpu_site, "installed", lambda module: module != "cuda.core")
    assert gpu_site.main() == 1
    assert "has no cuda.core; GPU_PYTHON=... names another" in capsys.readouterr().err


def test_a_build_that_fails_says_how(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cmake").write_text("#!/bin/sh\necho configuring; echo 'no OpenMP'; exit 1\n")
    (tmp_path / "cmake").chmod(0o755)
    monkeypatch.setattr(gpu_site, "program", lambda *names: str(tmp_path / names[0]))
    monkeypatch.setattr(gpu_site, "installed", lambda module: True)
    assert gpu_site.build_native(tmp_path / "build") == "the build failed:\nconfiguring\nno OpenMP"
