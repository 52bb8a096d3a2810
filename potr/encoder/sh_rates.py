# SPDX-License-Identifier: Apache-2.0
"""What a level of an SH coefficient costs to code: the rate that rounding minimises together with the error."""

from __future__ import annotations

import torch
from torch import Tensor

from potr.encoder.sh_solver import RATE_LEVELS

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
