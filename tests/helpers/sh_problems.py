# SPDX-License-Identifier: Apache-2.0
"""Quadratic problems over SH coefficients for the solver's tests, and a slow twin of the solver."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.model.sh import sh_basis

RELATIVE_RIDGE, ABSOLUTE_RIDGE = 2e-5, 1e-12  # as in sh_solver_math.h, which says why


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


def compact_reference(
    hessian: NDArray[np.float64], f0: NDArray[np.float64], ridge: float, drop_cost: float,
    redundancy_cosine: float, redundancy_cost: float,
) -> NDArray[np.float64]:  # fmt: skip
    """Slow twin of ``compact`` for one splat and channel, by dense solves: A [K, K], f0 [K] -> f [K]."""
    k = len(f0)
    guard = RELATIVE_RIDGE * np.trace(hessian) / k + ABSOLUTE_RIDGE
    system = hessian + np.diag([guard] + [guard + ridge] * (k - 1))
    right = hessian @ f0 + guard * f0

    def solve(support: list[int]) -> NDArray[np.float64]:
        f = np.zeros(k)
        f[support] = np.linalg.solve(system[np.ix_(support, support)], right[support])
        return f

    def objective(f: NDArray[np.float64]) -> float:
        return float(f @ system @ f - 2 * right @ f)

    def rise(support: list[int], i: int) -> float:
        return objective(solve([j for j in support if j != i])) - objective(solve(support))

    support = list(range(k))
    if redundancy_cosine < 1:
        norms = np.sqrt(np.diag(hessian))
        for i in range(1, k):
            parallel = any(abs(hessian[i, j]) > redundancy_cosine * norms[i] * norms[j] for j in support if j < i)
            if parallel and rise(support, i) <= redundancy_cost * drop_cost:
                support.remove(i)
    while len(support) > 1:
        cheapest = min(support[1:], key=lambda i: rise(support, i))
        if rise(support, cheapest) > drop_cost:
            break
        support.remove(cheapest)
    return solve(support)
