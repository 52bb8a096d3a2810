# SPDX-License-Identifier: Apache-2.0
"""Per-splat quadratic problems over SH coefficients, batched over all splats in C++; slow twins in numpy float64.

All coefficients are in the opponent colour space of ``potr.codec.color``, where the three channels are independent.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class CompactParameters:
    """Attributes: see ``compact``; triples are by channel."""

    ridge: Triple
    drop_cost: Triple
    redundancy_cosine: float
    redundancy_cost: float


@dataclass(frozen=True)
class RateModel:
    """Bits of a level n: ``zero`` if n is 0, else ``nonzero + magnitude * log2|n|``; bit_cost in Hessian units."""

    bit_cost: Triple
    zero: float = 0.2
    nonzero: float = 4.5
    magnitude: float = 2.0


# Weight of staying at the input where no view sees the difference, as a share of the Hessian's mean diagonal.
ANCHOR = 1e-3
SWEEPS = 4
_RELATIVE_RIDGE, _ABSOLUTE_RIDGE = 2e-5, 1e-12  # as in sh_solver.cpp, which says why


def compact(hessian: Tensor, sh: Tensor, parameters: CompactParameters) -> Tensor:
    """Minimise (f - f0)^T A (f - f0) + ridge |f_ac|^2, dropping AC coefficients and solving again for the others.

    An AC coefficient goes while the cheapest one's removal, all others re-solved, raises the objective by at most
    ``drop_cost``. Before that, a basis more parallel than ``redundancy_cosine`` to a kept one of lower index (cosine
    in the metric A) goes if that costs at most ``redundancy_cost`` drop costs.

    Args:
        hessian: [N, K(K+1)/2] float32 packed lower triangles of A.
        sh: [N, K, 3] float32 coefficients f0.

    Returns:
        [N, K, 3] float32, dropped coefficients exactly 0.
    """
    from potr import _sh_solver

    source = sh.contiguous().cpu()
    result = torch.empty_like(source)
    p = parameters
    _sh_solver.compact(
        hessian.contiguous().cpu(), source, p.ridge, p.drop_cost, p.redundancy_cosine, p.redundancy_cost, result,
        torch.get_num_threads(),
    )  # fmt: skip
    return result.to(sh.device)


def newton_step(
    hessian: Tensor, gradient: Tensor, damping: Tensor, relative_prior: float, absolute_prior: float
) -> Tensor:
    """The damped Newton step -(d A + prior I)^-1 b of every splat by itself.

    Args:
        hessian: [N, K(K+1)/2] float32 packed lower triangles of A.
        gradient: [N, K, 3] float32 b, half the derivative.
        damping: [N] float32 d.
        relative_prior, absolute_prior: prior = relative * mean diagonal of d A + absolute.

    Returns:
        [N, K, 3] float32.
    """
    from potr import _sh_solver

    source = gradient.contiguous().cpu()
    result = torch.empty_like(source)
    _sh_solver.newton_step(
        hessian.contiguous().cpu(), source, damping.float().contiguous().cpu(), relative_prior, absolute_prior, result,
        torch.get_num_threads(),
    )  # fmt: skip
    return result.to(gradient.device)


def round_coefficients(hessian: Tensor, sh: Tensor, steps: Tensor, rate: RateModel) -> Tensor:
    """Integers n that minimise (s n - f0)^T A (s n - f0) + bit_cost * bits(n), nearly: sequential rounding in which the
    coefficients still free take up each one's error, then coordinate descent.

    Args:
        hessian: [N, K(K+1)/2] float32 packed lower triangles of A.
        sh: [N, K, 3] float32 coefficients f0.
        steps: [K, 3] float32 quantisation steps s.

    Returns:
        [N, K, 3] int32.
    """
    from potr import _sh_solver

    source = sh.contiguous().cpu()
    result = torch.empty(source.shape, dtype=torch.int32)
    _sh_solver.round_coefficients(
        hessian.contiguous().cpu(), source, steps.contiguous().cpu(), rate.bit_cost,
        (rate.zero, rate.nonzero, rate.magnitude), ANCHOR, SWEEPS, result, torch.get_num_threads(),
    )  # fmt: skip
    return result.to(sh.device)


def unpack_hessian(packed: Tensor, num_coefficients: int) -> Tensor:
    """[N, K(K+1)/2] packed lower triangles to [N, K, K] symmetric matrices."""
    rows, columns = torch.tril_indices(num_coefficients, num_coefficients)
    full = packed.new_zeros(packed.shape[0], num_coefficients, num_coefficients)
    full[:, rows, columns] = packed
    full[:, columns, rows] = packed
    return full


def compact_reference(
    hessian: NDArray[np.float64], f0: NDArray[np.float64], ridge: float, drop_cost: float,
    redundancy_cosine: float, redundancy_cost: float,
) -> NDArray[np.float64]:  # fmt: skip
    """Slow twin of ``compact`` for one splat and channel, by dense solves: A [K, K], f0 [K] -> f [K]."""
    k = len(f0)
    guard = _RELATIVE_RIDGE * np.trace(hessian) / k + _ABSOLUTE_RIDGE
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
