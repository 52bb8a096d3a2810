# SPDX-License-Identifier: Apache-2.0
"""Per-splat quadratic problems over SH coefficients, batched over all splats in C++, and what levels cost to code.

All coefficients are in the opponent colour space of ``potr.model.opponent``, where the three channels are independent.

The problems are solved where their tensors are: on the CPU by the native module, on a GPU by the kernels of
native/cuda/sh_solver.cu, which share their mathematics (native/sh_solver_math.h). Both give the same bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from potr.model.opponent import opponent_to_rgb, rgb_to_opponent
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
    if launcher is not None or sh.device.type != "cpu":
        values = _values([*p.ridge, *p.drop_cost, p.redundancy_cosine, p.redundancy_cost], sh.device)
        _launch(launcher, "compact", 3 * len(sh), hessian, sh, len(sh), sh.shape[1], values, result)
        return result
    from potr import _solver

    _solver.compact(
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
    if launcher is not None or gradient.device.type != "cpu":
        n, k = gradient.shape[:2]
        values = _values([relative_prior, absolute_prior], gradient.device)
        _launch(launcher, "newton_step", n, hessian, gradient, damping, n, k, values, result)
        return result
    from potr import _solver

    _solver.newton_step(
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
    if launcher is not None or sh.device.type != "cpu":
        values = _values([*rate.bit_cost, ANCHOR], sh.device)
        n, k = sh.shape[:2]
        _launch(launcher, "round_coefficients", 3 * n, hessian, sh, steps, bits, n, k, values, SWEEPS, result)
        return result
    from potr import _solver

    _solver.round_coefficients(hessian, sh, steps, bits, rate.bit_cost, ANCHOR, SWEEPS, result, torch.get_num_threads())
    return result


def _launch(launcher: Launcher | None, kernel: str, problems: int, hessian: Tensor, *arguments: Argument) -> None:
    """Run a kernel, by the device's own launcher where none is given."""
    if launcher is None:
        from potr.render.nvrtc import launcher_on

        launcher = launcher_on(hessian.device)
    launcher.launch("sh_solver", kernel, -(-problems * _LANES // _THREADS), _THREADS, hessian, *arguments)


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


# Before any level is known: bits of a zero, of another level's presence and sign, and of a doubling of its magnitude.
_ZERO, _NONZERO, _DOUBLING = 0.2, 4.5, 2.0
_TRUST = 8.0  # decisions that a probability's neighbour is worth
_RAREST = 2.0**-16  # the coder's own least probability


def assumed_rates(coefficients: int) -> Tensor:
    """[K, 3, RATE_LEVELS] float64 bits, see ``RateModel``, the same for all coefficients."""
    magnitudes = torch.arange(1, RATE_LEVELS - 1, dtype=torch.float64)
    bits = torch.cat([torch.tensor([_ZERO]).double(), _NONZERO + _DOUBLING * magnitudes.log2()])
    further = bits[-1:] - bits[-2:-1]
    return torch.cat([bits, further]).expand(coefficients, 3, RATE_LEVELS).contiguous()


def measured_rates(levels: Tensor) -> Tensor:
    """Bits by the statistics of levels already chosen, by coefficient and channel, without any other context.

    A magnitude m is m decisions "more than t", t = 0, 1, ..., and one "no more"; a sign is one bit. A decision's
    probability leans on that of the one before, and of the first on that of all coefficients of the channel.

    Args:
        levels: [N, K, 3] int32.

    Returns:
        [K, 3, RATE_LEVELS] float64, see ``RateModel``, on the CPU.
    """
    n, coefficients, _ = levels.shape
    kinds = 3 * coefficients
    magnitude = levels.abs().clamp_max(RATE_LEVELS - 1).reshape(n, kinds).long()
    cells = magnitude + RATE_LEVELS * torch.arange(kinds, device=levels.device)
    counts = torch.bincount(cells.flatten(), minlength=kinds * RATE_LEVELS).cpu().double()
    counts = counts.reshape(coefficients, 3, RATE_LEVELS)
    reached = counts.flip(-1).cumsum(-1).flip(-1)  # of magnitude t or more
    of_channel = reached[min(1, coefficients - 1) :].sum(0)
    before = ((of_channel[:, 1] + 0.5) / (of_channel[:, 0] + 1)).expand(coefficients, 3)

    bits = torch.zeros(coefficients, 3, RATE_LEVELS, dtype=torch.float64)
    passed = torch.zeros(coefficients, 3, dtype=torch.float64)  # bits of the decisions "more than t" so far
    for t in range(RATE_LEVELS - 1):
        before = (reached[..., t + 1] + _TRUST * before) / (reached[..., t] + _TRUST)
        before = before.clamp(_RAREST, 1 - _RAREST)
        bits[..., t] = passed - torch.log2(1 - before) + (t > 0)
        passed -= torch.log2(before)
    bits[..., -1] = -torch.log2(before)
    return bits


def quantize_group(
    hessian: Tensor | None, sh: Tensor, steps: Tensor, price: float, chosen: Tensor | None, measured: bool
) -> tuple[Tensor, Tensor]:
    """Levels of colours, and the colours that they stand for.

    Args:
        hessian: [M, K(K+1)/2] the metric that levels are chosen in; None rounds each coefficient by itself.
        sh: [M, K, 3] RGB coefficients, on the same device, as are all others.
        steps: [K, 3] float32.
        price: of a bit, in units of the metric.
        chosen: [L, K, 3] levels whose statistics say what a level costs; None: nothing has been chosen yet.
        measured: whether they do; otherwise all coefficients have the assumed costs.

    Returns:
        [M, K, 3] int32 and [M, K, 3] float32.
    """
    opponent = rgb_to_opponent(sh)
    if hessian is None or len(sh) == 0:
        levels = torch.round(opponent / steps).to(torch.int32)
    else:
        # The first levels of all are chosen twice: by the assumed rates, and by those of what that gave.
        for _ in range(2 if measured and chosen is None else 1):
            rates = measured_rates(chosen) if measured and chosen is not None else assumed_rates(len(steps))
            levels = chosen = round_coefficients(hessian, opponent, steps, RateModel((price,) * 3, rates))
    return levels, opponent_to_rgb(levels * steps)
