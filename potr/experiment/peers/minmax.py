# SPDX-License-Identifier: Apache-2.0
"""Min-max quantisation: evenly spaced levels between the smallest and the largest value."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potr.reader import Reader

Floats = NDArray[np.floating]
_MAX = 1e30  # far beyond any attribute, and its square is still a float64
_CHUNK = 1 << 20


@dataclass(frozen=True)
class MinMax:
    """``levels`` values from ``low`` to ``high``, both float32 and finite, ``low <= high``."""

    low: float
    high: float
    levels: int = 256

    @classmethod
    def of(cls, values: Floats, levels: int = 256) -> MinMax:
        """The range of the values, 0..0 if there are none."""
        if not values.size:
            return cls(0.0, 0.0, levels)
        return cls(float(np.float32(values.min())), float(np.float32(values.max())), levels)

    def quantize(self, values: Floats) -> NDArray[Any]:
        """The nearest level of each value, uint8 for up to 256 levels and uint16 above."""
        spread = self.high - self.low
        scale = (self.levels - 1) / spread if spread > 0 else 0.0
        found = np.empty(values.shape, np.uint8 if self.levels <= 256 else np.uint16)
        for rows in row_chunks(values):
            scaled = (values[rows].astype(np.float64) - self.low) * scale
            found[rows] = np.clip(np.rint(scaled), 0, self.levels - 1)
        return found

    def dequantize(self, indices: NDArray[np.integer]) -> NDArray[np.float64]:
        step = (self.high - self.low) / (self.levels - 1)
        return self.low + step * indices.astype(np.float64)

    def dequantize_clipped(self, indices: NDArray[np.integer], largest: float) -> NDArray[np.float32]:
        """Within -largest..largest, and never all of it as float64."""
        values = np.empty(indices.shape, np.float32)
        for rows in row_chunks(indices):
            values[rows] = self.dequantize(indices[rows]).clip(-largest, largest)
        return values


def row_chunks(values: NDArray[Any]) -> Iterator[slice]:
    """Parts of the rows with about a million values each: float64 of all SH coefficients would be gigabytes."""
    rows = max(1, _CHUNK // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), rows):
        yield slice(start, start + rows)


def read_minmax(reader: Reader) -> MinMax:
    """Two float32 as a MinMax of 256 levels; BitstreamError unless finite and in order."""
    low, high = reader.f32(), reader.f32()
    if not -_MAX <= low <= high <= _MAX:
        raise reader.error(f"expected a finite range, got {low}..{high}")
    return MinMax(low, high)


def block_edges(count: int, blocks: int) -> NDArray[np.int64]:
    """[B + 1] where each of B = min(blocks, count) nearly equal blocks begins, and the end."""
    blocks = min(blocks, count)
    return np.arange(blocks + 1, dtype=np.int64) * count // max(blocks, 1)


def quantize_blocks(values: Floats, blocks: int, levels: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Min-max quantisation of [N, C] values, each block of each channel with a range of its own.

    Returns:
        Levels [N, C] and ranges [B, 2, C], low and high.
    """
    edges = block_edges(len(values), blocks)
    if len(edges) < 2:
        return np.zeros(values.shape, np.int64), np.zeros((0, 2, values.shape[1]), np.float32)
    low = np.minimum.reduceat(values, edges[:-1], axis=0)
    high = np.maximum.reduceat(values, edges[:-1], axis=0)
    ranges = np.stack([low, high], axis=1).astype(np.float32)
    origin, step = _per_row(ranges, edges, levels)
    scaled = np.divide(values - origin, step, out=np.zeros(values.shape), where=step > 0)
    return np.clip(np.rint(scaled), 0, levels - 1).astype(np.int64), ranges


def dequantize_blocks(indices: NDArray[np.integer], ranges: NDArray[np.float32], levels: int) -> NDArray[np.float64]:
    """The inverse of ``quantize_blocks``: [N, C]."""
    origin, step = _per_row(ranges, block_edges(len(indices), max(len(ranges), 1)), levels)
    return origin + step * indices


def _per_row(
    ranges: NDArray[np.float32], edges: NDArray[np.int64], levels: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    wide = np.repeat(ranges.astype(np.float64), np.diff(edges), axis=0)
    return wide[:, 0], (wide[:, 1] - wide[:, 0]) / (levels - 1)
