# SPDX-License-Identifier: Apache-2.0
import os

# Before torch loads OpenMP. Its threads otherwise spin while they wait, and where several test processes share few
# cores they spin in each other's way: a run on a tiny scene took 0.15 s of processor time with this, 1 to 3 s without.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pathlib import Path

import pytest

from tests.helpers.released import make_released, source_scene


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data/garden and models/garden in the layouts they are released in; read only."""
    root = tmp_path_factory.mktemp("released")
    make_released(root, source_scene(tmp_path_factory.mktemp("demo")))
    return root
