# SPDX-License-Identifier: Apache-2.0
"""Region-adaptive hierarchical transform (de Queiroz and Chou 2016): an orthonormal wavelet on an octree's points.

Going up from the leaves one bit of the Morton code at a time, two neighbours x1, x2 of weights w1, w2 (points below
them) become

    low = (sqrt(w1) x1 + sqrt(w2) x2) / sqrt(w1 + w2)      carried on with weight w1 + w2
    high = (sqrt(w1) x2 - sqrt(w2) x1) / sqrt(w1 + w2)     a coefficient

and a node without a neighbour is carried on as it is. Points of one cell are told apart by further levels below it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Butterflies:
    """The pairs of one level: positions of both sides, and their shares sqrt(w / (w1 + w2)) [P, 1]."""

    left: Indices
    right: Indices
    left_share: Floats
    right_share: Floats


@dataclass(frozen=True, eq=False)
class Raht:
    """The transform for one set of points in Morton order.

    Attributes:
        levels: finest first. A level's high coefficients stand where its right sides stood.
        order: [N] where the coefficients stand, coarsest first: the mean of all, then level by level.
    """

    levels: tuple[Butterflies, ...]
    order: Indices

    def forward(self, values: Floats) -> Floats:
        """Coefficients [N, C] of values [N, C], coarsest first."""
        x = np.array(values, np.float64)
        for level in self.levels:
            left, right = x[level.left], x[level.right]
            x[level.left] = level.left_share * left + level.right_share * right
            x[level.right] = level.left_share * right - level.right_share * left
        return x[self.order]

    def inverse(self, coefficients: Floats) -> Floats:
        """Values [N, C] of coefficients [N, C]."""
        x = np.empty(coefficients.shape)
        x[self.order] = coefficients
        for level in reversed(self.levels):
            low, high = x[level.left], x[level.right]
            x[level.left] = level.left_share * low - level.right_share * high
            x[level.right] = level.right_share * low + level.left_share * high
        return x


def raht(keys: NDArray[np.uint64], bits: int) -> Raht:
    """The transform for points with these Morton codes.

    Args:
        keys: [N] uint64 below 2^bits, ascending; equal codes are points of one cell.
        bits: of a code.
    """
    n = len(keys)
    first = np.concatenate([[True], keys[1:] != keys[:-1]])[:n]
    starts = np.flatnonzero(first)
    rank = np.arange(n) - starts[np.cumsum(first) - 1] if n else np.zeros(0, np.int64)
    levels: list[Butterflies] = []
    active, weights = np.arange(n), np.ones(n)
    while len(active) > len(starts):  # the points of a cell, by their rank in it
        is_right = rank[active] % 2 == 1
        active, weights = _merge(active, weights, is_right, levels)
        rank = rank // 2
    codes = keys[active]
    for _ in range(bits):
        codes = codes >> np.uint64(1)
        is_right = np.concatenate([[False], codes[1:] == codes[:-1]])[: len(codes)]
        active, weights = _merge(active, weights, is_right, levels)
        codes = codes[~is_right]
    order = [active, *(level.right for level in reversed(levels))]
    return Raht(tuple(levels), np.concatenate(order))


def _merge(
    active: Indices, weights: Floats, is_right: NDArray[np.bool_], levels: list[Butterflies]
) -> tuple[Indices, Floats]:
    """Join each right node to the node before it, note the level if there are any, and return what is carried on."""
    right = np.flatnonzero(is_right)
    if not right.size:
        return active, weights
    left = right - 1
    total = weights[left] + weights[right]
    shares = [np.sqrt(weights[side] / total)[:, None] for side in (left, right)]
    levels.append(Butterflies(active[left], active[right], *shares))
    weights = weights.copy()
    weights[left] = total
    return active[~is_right], weights[~is_right]


def morton_codes(cells: NDArray[np.uint32], depth: int) -> NDArray[np.uint64]:
    """[N] uint64: the bits of [N, 3] cells interleaved, x first, most significant first; depth <= 21."""
    codes = np.zeros(len(cells), np.uint64)
    for axis in range(3):
        spread = cells[:, axis].astype(np.uint64)
        for shift, mask in (
            (32, 0x001F00000000FFFF),
            (16, 0x001F0000FF0000FF),
            (8, 0x100F00F00F00F00F),
            (4, 0x10C30C30C30C30C3),
            (2, 0x1249249249249249),
        ):
            spread = (spread | (spread << np.uint64(shift))) & np.uint64(mask)
        codes |= spread << np.uint64(2 - axis)
    return codes
