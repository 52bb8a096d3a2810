# SPDX-License-Identifier: Apache-2.0
"""Quadratic problems over SH coefficients for the solver's tests."""

import torch
from torch import Tensor

from potr.model.sh import sh_basis


def seen_from_a_cone(n: int, degree: int, views: int = 30, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Packed Hessians [n, P] of splats seen from directions around one axis each, and coefficients [n, K, 3]."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.randn(n, 1, 3, generator=generator)
    directions = torch.nn.functional.normalize(axis + torch.randn(n, views, 3, generator=generator), dim=-1)
    basis = sh_basis(directions, degree)
    weights = torch.rand(n, views, generator=generator)
    full = torch.einsum("nvi,nvj,nv->nij", basis, basis, weights)
    k = basis.shape[-1]
    rows, columns = torch.tril_indices(k, k)
    sh = 0.1 * torch.randn(n, k, 3, generator=generator)
    return full[:, rows, columns].contiguous(), sh


def of_every_kind(n: int, degree: int) -> tuple[Tensor, Tensor]:
    """The same of very different weight: some splats are not seen at all, some by one view, some are large."""
    hessian, sh = seen_from_a_cone(n, degree)
    alone, _ = seen_from_a_cone(n, degree, views=1, seed=1)
    hessian[1::5] = alone[1::5]
    hessian *= 10.0 ** torch.linspace(-3, 3, max(n, 1))[:n, None]
    hessian[3::7] = 0
    sh[2::6] *= 300  # levels beyond those whose log2 is tabulated
    return hessian, sh
