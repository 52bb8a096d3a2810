# SPDX-License-Identifier: Apache-2.0
"""Per-splat quadratic problems over SH coefficients, batched over all splats in C++; slow twins in numpy float64.

All coefficients are in the opponent colour space of ``potr.model.opponent``, where the three channels are independent.

The problems are solved where their tensors are: on the CPU by the native module, on a GPU by the kernels of
native/cuda/sh_solver.cu, which share their mathematics (native/sh_solver_math.h). Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.model.splats import SH_COEFFICIENTS
from potr.render.launcher import Argument, Launcher

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
    """What levels cost.

    Attributes:
        bit_cost: of a bit by channel, in Hessian units.
        ac_bits: [K, 3, RATE_LEVELS] float64: of the magnitudes 0 to RATE_LEVELS - 2, and of each one further, by
            coefficient and channel; DC's are not looked at.
    """

    bit_cost: Triple
    ac_bits: Tensor


RATE_LEVELS = 32  # kRateLevels of sh_solver_math.h
# Weight of staying at the input where no view sees the difference, as a share of the Hessian's mean diagonal.
ANCHOR = 1e-3
SWEEPS = 4
_RELATIVE_RIDGE, _ABSOLUTE_RIDGE = 2e-5, 1e-12  # as in sh_solver_math.h, which says why
_THREADS, _LANES = 128, 16  # of a block, of a problem: kThreads and kLanes of sh_solver.cu


def compact(hessian: Tensor, sh: Tensor, parameters: CompactParameters, *, launcher: Launcher | None = None) -> Tensor:
    """Minimise (f - f0)^T A (f - f0) + ridge |f_ac|^2, dropping AC coefficients and solving again for the others.

    An AC coefficient goes while the cheapest one's removal, all others re-solved, raises the objective by at most
    ``drop_cost``. Before that, a basis more parallel than ``redundancy_cosine`` to a kept one of lower index (cosine
    in the metric A) goes if that costs at most ``redundancy_cost`` drop costs.

    Args:
        hessian: [N, K(K+1)/2] float32 packed lower triangles of A, K in 1, 4, 9, 16.
        sh: [N, K, 3] float32 coefficients f0, on the same device.
        launcher: runs the kernels, in place of the device's own.

    Returns:
        [N, K, 3] float32, dropped coefficients exactly 0.

    Raises:
        ValueError: a shape, dtype or device is another (so do the other two).
        BackendUnavailable: the tensors are on a GPU and kernels cannot be run there (so do the other two).
    """
    hessian, sh = _checked(hessian, sh)
    p, result = parameters, torch.empty_like(sh)
    launcher = launcher or _launcher(sh.device)
    if launcher is not None:
        values = _values([*p.ridge, *p.drop_cost, p.redundancy_cosine, p.redundancy_cost], sh.device)
        _launch(launcher, "compact", 3 * len(sh), hessian, sh, len(sh), sh.shape[1], values, result)
        return result
    from potr import _sh_solver

    _sh_solver.compact(
        hessian, sh, p.ridge, p.drop_cost, p.redundancy_cosine, p.redundancy_cost, result, torch.get_num_threads()
    )
    return result


def newton_step(
    hessian: Tensor, gradient: Tensor, damping: Tensor, relative_prior: float, absolute_prior: float,
    *, launcher: Launcher | None = None,
) -> Tensor:  # fmt: skip
    """The damped Newton step -(d A + prior I)^-1 b of every splat by itself.

    Args:
        hessian: [N, K(K+1)/2] float32 packed lower triangles of A, K in 1, 4, 9, 16.
        gradient: [N, K, 3] float32 b, half the derivative.
        damping: [N] d, taken as float32.
        relative_prior, absolute_prior: prior = relative * mean diagonal of d A + absolute.
        launcher: runs the kernels, in place of the device's own.

    Returns:
        [N, K, 3] float32.
    """
    hessian, gradient = _checked(hessian, gradient)
    damping = damping.float().contiguous()
    if damping.shape != gradient.shape[:1] or damping.device != gradient.device:
        raise ValueError(f"damping: expected [{len(gradient)}] on {gradient.device}, got {_described(damping)}")
    result = torch.empty_like(gradient)
    launcher = launcher or _launcher(gradient.device)
    if launcher is not None:
        n, k = gradient.shape[:2]
        values = _values([relative_prior, absolute_prior], gradient.device)
        _launch(launcher, "newton_step", n, hessian, gradient, damping, n, k, values, result)
        return result
    from potr import _sh_solver

    _sh_solver.newton_step(
        hessian, gradient, damping, relative_prior, absolute_prior, result, torch.get_num_threads()
    )  # fmt: skip
    return result


def round_coefficients(
    hessian: Tensor, sh: Tensor, steps: Tensor, rate: RateModel, *, launcher: Launcher | None = None
) -> Tensor:
    """Integers n that minimise (s n - f0)^T A (s n - f0) + bit_cost * bits(n), nearly: sequential rounding in which the
    coefficients still free take up each one's error, then coordinate descent.

    Args:
        hessian: [N, K(K+1)/2] float32 packed lower triangles of A, K in 1, 4, 9, 16.
        sh: [N, K, 3] float32 coefficients f0, on the same device.
        steps: [K, 3] float32 quantisation steps s.
        rate: what a level costs.
        launcher: runs the kernels, in place of the device's own.

    Returns:
        [N, K, 3] int32.
    """
    hessian, sh = _checked(hessian, sh)
    if steps.shape != sh.shape[1:] or steps.dtype != torch.float32:
        raise ValueError(f"steps: expected float32 {list(sh.shape[1:])}, got {_described(steps)}")
    steps = steps.to(sh.device).contiguous()
    result = torch.empty_like(sh, dtype=torch.int32)
    if rate.ac_bits.shape != (*steps.shape, RATE_LEVELS) or rate.ac_bits.dtype != torch.float64:
        raise ValueError(f"ac_bits: expected float64 {[*steps.shape, RATE_LEVELS]}, got {_described(rate.ac_bits)}")
    bits = rate.ac_bits.to(sh.device).contiguous()
    launcher = launcher or _launcher(sh.device)
    if launcher is not None:
        values = _values([*rate.bit_cost, ANCHOR], sh.device)
        n, k = sh.shape[:2]
        _launch(launcher, "round_coefficients", 3 * n, hessian, sh, steps, bits, n, k, values, SWEEPS, result)
        return result
    from potr import _sh_solver

    _sh_solver.round_coefficients(
        hessian, sh, steps, bits, rate.bit_cost, ANCHOR, SWEEPS, result, torch.get_num_threads()
    )
    return result


def _launcher(device: torch.device) -> Launcher | None:
    """What runs the kernels on a device; None where the native module does the work."""
    if device.type == "cpu":
        return None
    from potr.render.nvrtc import launcher_on

    return launcher_on(device)


def _launch(launcher: Launcher, kernel: str, problems: int, *arguments: Argument) -> None:
    launcher.launch("sh_solver", kernel, -(-problems * _LANES // _THREADS), _THREADS, *arguments)


def _values(values: Sequence[float], device: torch.device) -> Tensor:
    """A struct of doubles, as bytes."""
    return torch.tensor(values, dtype=torch.float64).view(torch.uint8).to(device)


def _checked(hessian: Tensor, sh: Tensor) -> tuple[Tensor, Tensor]:
    """Both contiguous; ValueError if they do not fit: kernels look at nothing but their pointers."""
    if sh.ndim != 3 or sh.shape[1] not in SH_COEFFICIENTS or sh.shape[2] != 3 or sh.dtype != torch.float32:
        raise ValueError(f"sh: expected float32 [N, K, 3] with K in {SH_COEFFICIENTS}, got {_described(sh)}")
    n, k = sh.shape[:2]
    if hessian.shape != (n, k * (k + 1) // 2) or hessian.dtype != torch.float32 or hessian.device != sh.device:
        expected = f"float32 [{n}, {k * (k + 1) // 2}] on {sh.device}"
        raise ValueError(f"hessian: expected {expected}, got {_described(hessian)}")
    return hessian.contiguous(), sh.contiguous()


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"


def unpack_hessian(packed: Tensor, num_coefficients: int) -> Tensor:
    """[N, K(K+1)/2] packed lower triangles to [N, K, K] symmetric matrices."""
    rows, columns = torch.tril_indices(num_coefficients, num_coefficients, device=packed.device)
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
