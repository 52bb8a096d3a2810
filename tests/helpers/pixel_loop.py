# SPDX-License-Identifier: Apache-2.0
"""The image formation of 3DGS once more, as nested loops over pixels and splats in Python floats."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from potr.model.cameras import RGB, Camera
from potr.model.sh import sh_color
from potr.model.splats import SplatModel


def render_by_loops(model: SplatModel, camera: Camera, background: RGB) -> NDArray[np.float64]:
    """[H, W, 3]; the camera's principal point must be the image centre, as 3DGS has it."""
    assert (camera.cx, camera.cy) == (camera.width / 2, camera.height / 2)
    width, height = camera.width, camera.height
    tan_x, tan_y = width / (2 * camera.fx), height / (2 * camera.fy)
    view = camera.viewmat.double().numpy()
    center = -view[:3, :3].T @ view[:3, 3]
    # The projection to normalised device coordinates, x and y over the half field of view.
    splats = []
    for i in range(model.num_splats):
        mean = model.means[i].double().numpy()
        x, y, z = view[:3, :3] @ mean + view[:3, 3]
        if z <= 0.2:
            continue
        ndc = (x / (z * tan_x), y / (z * tan_y))
        pixel = [((v + 1) * size - 1) / 2 for v, size in zip(ndc, (width, height), strict=True)]

        tx = min(1.3 * tan_x, max(-1.3 * tan_x, x / z)) * z
        ty = min(1.3 * tan_y, max(-1.3 * tan_y, y / z)) * z
        jacobian = np.array([[camera.fx / z, 0, -camera.fx * tx / z**2], [0, camera.fy / z, -camera.fy * ty / z**2]])
        w, a, b, c = model.quats[i].double().numpy() / np.linalg.norm(model.quats[i].double().numpy())
        rotation = np.array(
            [
                [1 - 2 * (b * b + c * c), 2 * (a * b - w * c), 2 * (a * c + w * b)],
                [2 * (a * b + w * c), 1 - 2 * (a * a + c * c), 2 * (b * c - w * a)],
                [2 * (a * c - w * b), 2 * (b * c + w * a), 1 - 2 * (a * a + b * b)],
            ]
        )
        scale = np.diag(np.exp(2 * model.log_scales[i].double().numpy()))
        sigma = rotation @ scale @ rotation.T
        cov = jacobian @ view[:3, :3] @ sigma @ view[:3, :3].T @ jacobian.T + 0.3 * np.eye(2)
        determinant = cov[0, 0] * cov[1, 1] - cov[0, 1] ** 2
        middle = (cov[0, 0] + cov[1, 1]) / 2
        radius = math.ceil(3 * math.sqrt(middle + math.sqrt(max(0.1, middle**2 - determinant))))
        first = [max(0, int((p - radius) / 16)) for p in pixel]
        last = [max(0, int((p + radius + 15) / 16)) for p in pixel]
        direction = (mean - center) / np.linalg.norm(mean - center)
        color = sh_color(model.sh[i].double(), torch.from_numpy(direction)).clamp_min(0).numpy()
        opacity = 1 / (1 + math.exp(-float(model.opacity_logits[i])))
        splats.append((z, i, pixel, np.linalg.inv(cov), opacity, color, first, last))
    splats.sort(key=lambda s: s[:2])

    image = np.zeros((height, width, 3))
    for row in range(height):
        for column in range(width):
            tile = (column // 16, row // 16)
            transmittance = 1.0
            for _, _, pixel, inverse, opacity, color, first, last in splats:
                if not all(f <= t < e for f, t, e in zip(first, tile, last, strict=True)):
                    continue
                d = np.array([pixel[0] - column, pixel[1] - row])
                alpha = min(0.99, opacity * math.exp(-0.5 * d @ inverse @ d))
                if alpha < 1 / 255:
                    continue
                if transmittance * (1 - alpha) < 0.0001:
                    break
                image[row, column] += transmittance * alpha * color
                transmittance *= 1 - alpha
            image[row, column] += transmittance * np.array(background)
    return image
