# SPDX-License-Identifier: Apache-2.0
"""Rotations and covariances in other clothes are the same rotations and covariances."""

import math

import torch

from potr.experiment.peers.shapes import ellipsoids, euler_to_quats, quats_to_euler
from potr.model.rotation import matrices_to_quats, normalize_quats, quats_to_matrices


def some_quats() -> torch.Tensor:
    random = torch.randn(200, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    special = torch.cat([torch.eye(4), -torch.eye(4), torch.tensor([[1.0, 0, 1, 0], [1, 0, -1, 0], [1, 1, 1, 1]])])
    half = math.sqrt(0.5)
    poles = torch.tensor([[0.6 * half, 0.8 * half, 0.6 * half, -0.8 * half], [0.6, 0.8, -0.6, 0.8]])  # pitch 90, -90
    return torch.cat([random, special.double(), poles.double()])


def test_matrices_to_quats() -> None:
    matrices = quats_to_matrices(some_quats())
    torch.testing.assert_close(quats_to_matrices(matrices_to_quats(matrices)), matrices)


def test_euler_angles_round_trip_also_at_the_poles() -> None:
    quats = some_quats()
    angles = quats_to_euler(quats)
    assert float(angles.abs().max()) <= math.pi + 1e-12
    torch.testing.assert_close(quats_to_matrices(euler_to_quats(angles)), quats_to_matrices(quats), atol=2e-4, rtol=0)
    away = angles[:, 1].abs() < 1.5
    torch.testing.assert_close(
        quats_to_matrices(euler_to_quats(angles[away])), quats_to_matrices(quats[away]), atol=1e-9, rtol=0
    )


def test_euler_angles_are_rotations_about_x_then_y_then_z() -> None:
    roll, pitch, yaw = 0.3, -0.8, 2.1
    x, y, z = (normalize_quats(torch.tensor([q], dtype=torch.float64)) for q in (
        [math.cos(roll / 2), math.sin(roll / 2), 0, 0],
        [math.cos(pitch / 2), 0, math.sin(pitch / 2), 0],
        [math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)],
    ))  # fmt: skip
    expected = quats_to_matrices(z) @ quats_to_matrices(y) @ quats_to_matrices(x)
    angles = torch.tensor([[roll, pitch, yaw]], dtype=torch.float64)
    torch.testing.assert_close(quats_to_matrices(euler_to_quats(angles)), expected)


def test_ellipsoids_give_the_covariance_back() -> None:
    rotations = quats_to_matrices(some_quats())
    variances = torch.rand(len(rotations), 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    covariances = rotations @ (variances[:, :, None] * rotations.mT)
    quats, axes = ellipsoids(covariances)
    found = quats_to_matrices(quats)
    torch.testing.assert_close(found @ (axes.square()[:, :, None] * found.mT), covariances, atol=1e-9, rtol=0)
