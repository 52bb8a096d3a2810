# SPDX-License-Identifier: Apache-2.0
"""How large a pixel is at a splat, against the rasteriser's own picture of what is in view."""

from dataclasses import replace

import pytest
import torch

from potr.model.cameras import Camera
from potr.model.footprint import pixel_sizes
from tests.helpers.scenes import look_at_camera, random_model


def ahead(*points: tuple[float, float, float]) -> torch.Tensor:
    model = replace(random_model(0, num_splats=len(points)), means=torch.tensor(points, dtype=torch.float32))
    return pixel_sizes(model, [Camera(100, 80, 200.0, 100.0, 50.0, 40.0, torch.eye(4))])


def test_a_pixel_is_depth_over_the_longer_focal_length() -> None:
    assert ahead((0, 0, 1), (0, 0, 4)).tolist() == pytest.approx([1 / 200, 4 / 200])


def test_out_of_view_is_infinite() -> None:
    # The border is at x = 0.25 z; a splat reaches in from up to 0.15 of the width beyond it, which is at 0.325 z.
    sizes = ahead((0.32, 0, 1), (0.33, 0, 1), (0, 0, 0.1), (0, 0, -1))
    assert sizes.isfinite().tolist() == [True, False, False, False]


def test_the_nearest_camera_that_sees_the_splat_decides() -> None:
    model = random_model(1, num_splats=20, spread=0.5)
    cameras = [look_at_camera(azimuth) for azimuth in (0.0, 1.5, 3.0)]
    single = torch.stack([pixel_sizes(model, [camera]) for camera in cameras])
    assert torch.equal(pixel_sizes(model, cameras), single.min(dim=0).values)
    assert bool((single.max(dim=0).values > single.min(dim=0).values).all())
    assert bool(pixel_sizes(model, []).isinf().all())
