# SPDX-License-Identifier: Apache-2.0
"""The oracle: what a splat's removal is said to cost is what really removing it costs."""

import torch

from potr.cameras import Camera, View
from potr.rasterizer.cpu import CpuRasterizer
from potr.splats import SplatModel


def test_removal_cost_is_what_removal_costs() -> None:
    torch.manual_seed(0)
    n = 40
    model = SplatModel(
        torch.rand(n, 3) * torch.tensor([2.0, 2.0, 2.0]) + torch.tensor([-1.0, -1.0, 2.0]),
        torch.randn(n, 3) * 0.5 - 1.5,
        torch.randn(n, 4),
        torch.randn(n) * 2,
        torch.randn(n, 3),
        torch.randn(n, 15, 3) * 0.2,
    )
    photo = torch.rand(37, 53, 3)
    camera = Camera(53, 37, 40.0, 42.0, 26.5, 18.5, torch.eye(4))
    for background in ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
        view = View("v", camera, photo, background)
        raster = CpuRasterizer()
        costs = raster.removal_cost(model, [view])
        for k in range(n):
            keep = torch.arange(n) != k
            real = raster.removal_cost(model.select(keep), [view]).sse - costs.sse
            assert abs(float(costs.delta_sse[k]) - real) <= 1e-4 * abs(real) + 2e-5, k
