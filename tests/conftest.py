# SPDX-License-Identifier: Apache-2.0
import os

# Before torch loads OpenMP. Its threads otherwise spin while they wait, and where several test processes share few
# cores they spin in each other's way: a run on a tiny scene took 0.15 s of processor time with this, 1 to 3 s without.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import functools
from pathlib import Path

import pytest

GPU_VARIABLE = "POTR_GPU"  # "required": a test marked gpu fails where there is none (`make gpu-test`)


@functools.cache
def why_no_gpu() -> str | None:
    from potr.render.nvrtc import why_not

    return why_not()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip tests marked `gpu` where kernels cannot run; from one line, so that the report has one line for all."""
    if item.get_closest_marker("gpu") is None or why_no_gpu() is None:
        return
    if os.environ.get(GPU_VARIABLE) == "required":
        pytest.fail(f"{GPU_VARIABLE}=required, and {why_no_gpu()}", pytrace=False)
    pytest.skip(f"no GPU: {why_no_gpu()}")


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny scene with 8 training and 2 test views; read only."""
    from tests.helpers.scene_folder import make_scene_folder

    return make_scene_folder(tmp_path_factory.mktemp("scenes") / "ball")


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/garden and models/garden in the layouts they are released in; read only."""
    from tests.helpers.released import make_released, source_scene  # not needed, nor to be had, by the tests of a GPU

    root = tmp_path_factory.mktemp("released")
    make_released(root, source_scene(tmp_path_factory.mktemp("demo")))
    return root
