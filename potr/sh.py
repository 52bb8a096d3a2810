# SPDX-License-Identifier: Apache-2.0
"""Real spherical harmonics up to degree 3, with the signs and order of 3DGS (Kerbl et al. 2023, after Sloan 2008)."""

from __future__ import annotations

import torch
from torch import Tensor

C0 = 0.28209479177387814
_C1 = 0.4886025119029199
_C2 = (1.0925484305920792, -1.0925484305920792, 0.31539156525252005, -1.0925484305920792, 0.5462742152960396)
_C3 = (
    -0.5900435899266435,
    2.890611442640554,
    -0.4570457994644658,
    0.3731763325901154,
    -0.4570457994644658,
    1.445305721320277,
    -0.5900435899266435,
)


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """The basis functions' values.

    Args:
        directions: [..., 3] unit vectors from the camera to the splat.
        degree: 0..3.

    Returns:
        [..., (degree + 1)^2], of the directions' dtype.
    """
    x, y, z = directions.unbind(-1)
    basis = [torch.full_like(x, C0)]
    if degree > 0:
        basis += [-_C1 * y, _C1 * z, -_C1 * x]
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        basis += [
            _C2[0] * x * y,
            _C2[1] * y * z,
            _C2[2] * (2 * zz - xx - yy),
            _C2[3] * x * z,
            _C2[4] * (xx - yy),
        ]
        if degree > 2:
            basis += [
                _C3[0] * y * (3 * xx - yy),
                _C3[1] * x * y * z,
                _C3[2] * y * (4 * zz - xx - yy),
                _C3[3] * z * (2 * zz - 3 * xx - 3 * yy),
                _C3[4] * x * (4 * zz - xx - yy),
                _C3[5] * z * (xx - yy),
                _C3[6] * x * (xx - 3 * yy),
            ]
    return torch.stack(basis, dim=-1)


def sh_color(sh: Tensor, directions: Tensor) -> Tensor:
    """Colours before clamping at 0: 0.5 + SH(direction).

    Args:
        sh: [..., K, 3] coefficients.
        directions: [..., 3] unit vectors from the camera to the splat.

    Returns:
        [..., 3].
    """
    degree = int(round(sh.shape[-2] ** 0.5)) - 1
    return 0.5 + (sh_basis(directions, degree)[..., None] * sh).sum(-2)
