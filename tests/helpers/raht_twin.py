# SPDX-License-Identifier: Apache-2.0
"""RAHT by its definition: a recursion over the bits of the Morton codes, one point set at a time."""

import math

import numpy as np


def raht_twin(keys: list[int], values: np.ndarray, bits: int) -> list[np.ndarray]:
    """The coefficients, unordered: the mean of all first. Points of one code are split by their place among them."""
    highs: list[tuple[int, np.ndarray]] = []
    deepest = max((keys.count(key) for key in keys), default=1).bit_length()
    points = []
    for i, key in enumerate(keys):
        points.append((key << deepest | keys[:i].count(key), values[i]))
    low, _ = _node(points, bits + deepest, highs)
    return [low, *(high for _, high in highs)]


def _node(points: list[tuple[int, np.ndarray]], bits: int, highs: list) -> tuple[np.ndarray, int]:
    """What is carried on from a node, and its weight."""
    if bits == 0:
        assert len(points) == 1
        return points[0][1], 1
    half = 1 << (bits - 1)
    sides = ([p for p in points if p[0] < half], [(key - half, v) for key, v in points if key >= half])
    lows = [_node(side, bits - 1, highs) for side in sides if side]
    if len(lows) == 1:
        return lows[0]
    (x1, w1), (x2, w2) = lows
    a, b = math.sqrt(w1 / (w1 + w2)), math.sqrt(w2 / (w1 + w2))
    highs.append((bits, a * x2 - b * x1))
    return a * x1 + b * x2, w1 + w2
