# SPDX-License-Identifier: Apache-2.0
"""What a person sees who prints a value: one short line, and no tensor."""

import pytest
import torch

import potr
from potr.encoder.encode import StageReport
from tests.helpers.scene_folder import camera_around
from tests.helpers.scenes import random_model

CAMERA = camera_around(0.0)
MODEL = random_model(0, num_splats=1200)
VIEW = potr.View("a.png", CAMERA, torch.zeros(36, 48, 3), (1.0, 1.0, 0.5))
STAGES = (StageReport("prune_early", 1.0, 2000, 1500), StageReport("pack", 1.0, 1500, 1200))


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (MODEL, "SplatModel(1,200 splats, SH degree 3, float32 on cpu)"),
        (CAMERA, "Camera(48 x 36, fx=50, fy=50, at (0, 0, 4))"),
        (VIEW, "View('a.png', 48 x 36, background (1, 1, 0.5))"),
        (potr.Scene("room", MODEL, (VIEW,) * 3, (VIEW,)), "Scene('room', 1,200 splats, 3 training and 1 test views)"),
        (
            potr.Encoded(bytes(12345), STAGES, potr.config_for(0.5)),
            "Encoded(12,345 bytes, 1,200 of 2,000 splats, codec=default)",
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_is_one_line(value: object, line: str) -> None:
    assert repr(value) == str(value) == line
