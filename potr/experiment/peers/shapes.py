# SPDX-License-Identifier: Apache-2.0
"""Euler angles of quaternions and ellipsoids of covariances, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from potr.model.rotation import matrices_to_quats, normalize_quats

_POLE = 1 - 1e-9  # |sin(pitch)| above which roll and yaw are one angle


def ellipsoids(covariances: Tensor) -> tuple[Tensor, Tensor]:
    """Unit quaternions [N, 4] and standard deviations [N, 3] of covariances [N, 3, 3], smallest axis first."""
    variances, axes = torch.linalg.eigh(covariances.double())
    handed = torch.where(torch.linalg.det(axes) < 0, -1.0, 1.0)
    axes = torch.cat([axes[:, :, :2], axes[:, :, 2:] * handed[:, None, None]], dim=2)
    return matrices_to_quats(axes), variances.clamp_min(0).sqrt()


def quats_to_euler(quats: Tensor) -> Tensor:
    """[N, 3] float64 roll, pitch and yaw of [N, 4] wxyz quaternions: rotation about x, then y, then z.

    Roll and yaw in -pi..pi, pitch in -pi/2..pi/2. At the poles, where only their difference or sum means anything, yaw
    is 0.
    """
    w, x, y, z = normalize_quats(quats.double()).unbind(1)
    sine = (2 * (w * y - z * x)).clamp(-1, 1)
    roll = torch.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    yaw = torch.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    pole = sine.abs() > _POLE
    pole_roll = torch.remainder(2 * torch.atan2(x, w) + torch.pi, 2 * torch.pi) - torch.pi
    return torch.stack([torch.where(pole, pole_roll, roll), torch.asin(sine), torch.where(pole, 0.0, yaw)], dim=1)


def euler_to_quats(angles: Tensor) -> Tensor:
    """[N, 4] unit wxyz quaternions of [N, 3] roll, pitch and yaw."""
    cr, cp, cy = (angles / 2).cos().unbind(1)
    sr, sp, sy = (angles / 2).sin().unbind(1)
    components = [
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    ]
    return torch.stack(components, dim=1)
