# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from tests.helpers.scene_folder import make_scene_folder


@pytest.fixture(scope="session")
def scene_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny scene with 8 training and 2 test views; read only."""
    return make_scene_folder(tmp_path_factory.mktemp("scenes") / "ball")
