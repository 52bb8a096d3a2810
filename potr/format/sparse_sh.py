# SPDX-License-Identifier: Apache-2.0
"""The AC coefficients as counts, gaps and values: three streams that a zero costs nothing in (docs/format.md).

A splat's P = 3 (K - 1) coefficients are numbered channel by channel. Its non-zero ones are given by their count, the
gaps between them and their values. The streams are ordered for an order-0 coder, which sees no context: gaps by where
they begin and how many non-zero ones are still to come, values by their position.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_REMAINING_CLASSES = 4  # 1, 2, 3, and more still to come


class GapError(ValueError):
    """A gap leaves no room for the coefficients that must still come; ``index`` is its place in the stream."""

    def __init__(self, index: int) -> None:
        super().__init__(f"gap {index} leads beyond the last coefficient")
        self.index = index


class SparseCoefficients(NamedTuple):
    """Attributes: counts [N] uint8; gaps [M] uint8; values [M] int32, not 0; M is the sum of the counts."""

    counts: NDArray[np.uint8]
    gaps: NDArray[np.uint8]
    values: NDArray[np.int32]


def sparse_from_dense(sh_ac: NDArray[np.int32]) -> SparseCoefficients:
    """Split [N, K-1, 3] coefficients."""
    planes = _planes(sh_ac)
    splats, positions = np.nonzero(planes.T)  # splat by splat, ascending positions
    counts = np.count_nonzero(planes, axis=0)
    firsts = np.cumsum(counts) - counts
    rank = np.arange(len(splats)) - firsts[splats]
    starts = np.zeros_like(positions)
    starts[1:] = np.where(rank[1:] > 0, positions[:-1] + 1, 0)
    remaining = np.minimum(counts[splats] - rank, _REMAINING_CLASSES)
    order = np.argsort((starts * _REMAINING_CLASSES + remaining - 1).astype(np.uint8), kind="stable")
    gaps = (positions - starts)[order]
    return SparseCoefficients(counts.astype(np.uint8), gaps.astype(np.uint8), planes[planes != 0])


def significance_from_gaps(
    counts: NDArray[np.uint8], gaps: NDArray[np.uint8], num_coefficients: int
) -> NDArray[np.bool_]:
    """Which coefficients are not zero, [P, N], from any gaps.

    Args:
        counts: [N], each at most ``num_coefficients``.
        gaps: [sum of counts].
        num_coefficients: P.

    Raises:
        GapError: a gap leads too far.
    """
    significant = np.zeros((num_coefficients, len(counts)), np.bool_)
    remaining = counts.astype(np.intp)
    start = np.where(counts > 0, 0, 255).astype(np.uint8)  # 255: nothing more to come
    taken = 0
    for position in range(num_coefficients):
        splats = np.flatnonzero(start == position)
        classes = np.minimum(remaining[splats], _REMAINING_CLASSES).astype(np.uint8)
        splats = splats[np.argsort(classes, kind="stable")]
        found = gaps[taken : taken + len(splats)].astype(np.intp) + position
        beyond = np.flatnonzero(found + remaining[splats] > num_coefficients)
        if beyond.size:
            raise GapError(taken + int(beyond[0]))
        taken += len(splats)
        significant[found, splats] = True
        remaining[splats] -= 1
        start[splats] = np.where(remaining[splats] > 0, found + 1, 255)
    return significant


def dense_from_values(significant: NDArray[np.bool_], values: NDArray[np.int32]) -> NDArray[np.int32]:
    """[N, K-1, 3] coefficients (a view) from their places [P, N] and the values, position by position."""
    planes = np.zeros(significant.shape, np.int32)
    planes[significant] = values
    num_coefficients, n = significant.shape
    return planes.reshape(3, num_coefficients // 3, n).transpose(2, 1, 0)


def _planes(sh_ac: NDArray[np.int32]) -> NDArray[np.int32]:
    """[P, N] from [N, K-1, 3], channel by channel."""
    n, rest, _ = sh_ac.shape
    return np.ascontiguousarray(sh_ac.transpose(2, 1, 0)).reshape(3 * rest, n)
