# SPDX-License-Identifier: Apache-2.0
"""The demo's procedural textures, over a surface's own coordinates: -1..1 on solids, world units on the table.

Sums of a few sinusoids and soft thresholds of them, so that they hold no detail below a few pixels of the photographs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32 unless said otherwise
Texture = Callable[[Array], Array]  # local coordinates [n, 3] to albedo [n, 3]


def parquet(p: Array) -> Array:
    """Light and dark wood in soft squares, with grain."""
    x, y = p[:, 0], p[:, 1]
    checker = _soft(np.sin(np.float32(4.2) * x) * np.sin(np.float32(4.2) * y), 5)
    grain = np.sin(13 * x * checker + 13 * y * (1 - checker) + 2 * _waves(p, 1.7, 3))
    rings = _soft(np.cos(np.float32(7.5) * np.hypot(x, y)), 3)
    wood = _mix((0.74, 0.55, 0.36), (0.50, 0.32, 0.19), checker)
    shades: Array = (np.float32(0.92) + np.float32(0.08) * grain + np.float32(0.06) * rings)[:, None]
    return wood * shades


def marble(p: Array) -> Array:
    """Blue veins in white."""
    vein = np.sin(6 * p[:, 0] + 4 * p[:, 2] + np.float32(2.6) * _waves(p, 4.5, 7))
    return _mix((0.90, 0.89, 0.86), (0.18, 0.30, 0.52), _soft(vein, 2.0) ** 2)


def stripes(p: Array) -> Array:
    """Red and cream bands that wave around the z axis."""
    bands = np.sin(9 * p[:, 2] + np.float32(1.6) * (p[:, 0] ** 3 - 3 * p[:, 0] * p[:, 1] ** 2))  # three-fold waves
    return _mix((0.86, 0.22, 0.16), (0.95, 0.88, 0.72), _soft(bands, 3.5))


def dots(p: Array) -> Array:
    """Yellow spots on green."""
    q = np.sin(5 * p[:, 0]) * np.sin(5 * p[:, 1] + 1) * np.sin(5 * p[:, 2] + 2)
    return _mix((0.12, 0.48, 0.42), (0.97, 0.80, 0.24), _soft(np.abs(q) * 3 - np.float32(0.9), 3))


def copper(p: Array) -> Array:
    """Two browns, blotched."""
    return _mix((0.62, 0.30, 0.16), (0.80, 0.46, 0.28), _soft(_waves(p, 3.5, 11), 1.2))


def leaves(p: Array) -> Array:
    """Two greens, blotched, with faint lines."""
    green = _mix((0.16, 0.36, 0.10), (0.56, 0.68, 0.22), _soft(_waves(p, 4.0, 19), 2))
    lines: Array = np.float32(0.9) + np.float32(0.1) * np.sin(11 * p[:, 0] + 4 * p[:, 2])
    return green * lines[:, None]


def tiles(p: Array) -> Array:
    """Three by three violet tiles a side."""
    squares = np.sin(4.7 * p[:, 0]) * np.sin(4.7 * p[:, 1]) * np.sin(4.7 * p[:, 2])
    return _mix((0.34, 0.30, 0.58), (0.82, 0.74, 0.90), _soft(squares, 3))


def _waves(p: Array, frequency: float, seed: int) -> Array:
    """[n] smooth noise in about -1..1: six plane waves of random direction and phase."""
    rng = np.random.default_rng(seed)
    vectors = (unit(rng.normal(size=(6, 3))) * frequency * rng.uniform(0.7, 1.8, (6, 1))).astype(np.float32)
    phases = rng.uniform(0, 2 * np.pi, 6).astype(np.float32)
    noise: Array = sum(np.sin(dot(p, vector) + phase) for vector, phase in zip(vectors, phases, strict=True))
    return noise * np.float32(0.4)


def _soft(values: Array, sharpness: float) -> Array:
    """0..1, a threshold at 0 as soft as the sharpness is low."""
    result: Array = np.float32(0.5) + np.float32(0.5) * np.tanh(np.float32(sharpness) * values)
    return result


def _mix(a: tuple[float, float, float], b: tuple[float, float, float], share: Array) -> Array:
    first, second = np.array(a, np.float32), np.array(b, np.float32)
    return first + (second - first) * share[:, None]


def unit(vectors: Array) -> Array:
    """[n, 3] rows of length 1."""
    result: Array = (vectors / np.sqrt(dot(vectors, vectors))[:, None]).astype(np.float32)
    return result


def dot(a: Array, b: Array) -> Array:
    """[n] scalar products of rows; not BLAS, whose threads would fight with those that trace the views."""
    product: Array = np.einsum("...k,...k->...", a, b)
    return product
