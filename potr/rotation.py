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
