# SPDX-License-Identifier: Apache-2.0
"""Quaternions (wxyz) and rotation matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def normalize_quats(quats: Tensor) -> Tensor:
    """[..., 4] of unit length; a zero quaternion becomes the identity."""
    norm = quats.norm(dim=-1, keepdim=True)
    identity = torch.zeros_like(quats)
    identity[..., 0] = 1
    return torch.where(norm > 0, quats / norm.clamp_min(torch.finfo(quats.dtype).tiny), identity)


def quats_to_matrices(quats: Tensor) -> Tensor:
    """[..., 3, 3] rotation matrices of [..., 4] wxyz quaternions of any positive length."""
    w, x, y, z = normalize_quats(quats).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(*quats.shape[:-1], 3, 3)


def multiply_quats(a: Tensor, b: Tensor) -> Tensor:
    """Hamilton product of [..., 4] wxyz quaternions."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        dim=-1,
    )


def _axis_relabelings() -> tuple[Tensor, Tensor]:
    """The 24 rotations that map coordinate axes onto coordinate axes.

    Returns:
        Quaternions [24, 4], and [24, 3] the axis that each axis is mapped onto.
    """
    digits = torch.cartesian_prod(*[torch.tensor([0.0, 1.0, -1.0])] * 4)
    nonzero = (digits != 0).sum(-1)
    leading = digits.gather(1, (digits != 0).int().argmax(1, keepdim=True))[:, 0]
    quats = digits[((nonzero == 1) | (nonzero == 2) | (nonzero == 4)) & (leading > 0)]
    quats = quats / quats.norm(dim=-1, keepdim=True)
    return quats, quats_to_matrices(quats).abs().argmax(dim=1)


def canonical_axes(quats: Tensor, log_scales: Tensor) -> tuple[Tensor, Tensor]:
    """The same ellipsoids with their axes relabelled so that the rotation is the smallest of the 24 equivalent ones.

    Args:
        quats: [N, 4] wxyz, any positive length.
        log_scales: [N, 3].

    Returns:
        Unit quaternions [N, 4] with w > 0.85 and |x|, |y|, |z| < 0.39, and the log-scales [N, 3] permuted to match.
    """
    relabelings, permutations = (t.to(quats.device) for t in _axis_relabelings())
    units = normalize_quats(quats.double())
    # w component of quats * relabeling, for all 24
    w = units @ (relabelings.double() * torch.tensor([1.0, -1.0, -1.0, -1.0], device=quats.device)).T
    best = w.abs().argmax(dim=1)
    rotated = multiply_quats(units, relabelings.double()[best])
    rotated = rotated * torch.where(rotated[:, :1] < 0, -1.0, 1.0)
    return rotated.to(quats.dtype), log_scales.gather(1, permutations[best])
