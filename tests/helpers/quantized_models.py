# SPDX-License-Identifier: Apache-2.0
"""Seeded quantised models, as a quantiser would leave them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from potr.format.octree import order_leaves
from potr.format.quantized import MAX_DEPTH, QuantizedModel


def random_quantized(
    seed: int,
    n: int,
    sh_degree: int = 3,
    *,
    max_depth: int = 12,
    zeros: float = 0.9,
    wide: bool = False,
    duplicates: float = 0.1,
) -> QuantizedModel:
    """``wide`` draws every symbol from its whole range (300 opacity levels), so that each needs its most bytes."""
    rng = np.random.default_rng(seed)
    k = (sh_degree + 1) ** 2
    points = np.clip(0.5 + 0.12 * rng.normal(size=(n, 3)), 0, 1 - 2**-30)
    if n:
        points[rng.random(n) < duplicates] = points[0]
    cells = np.floor(points * 2**max_depth).astype(np.uint32)
    required = rng.integers(max_depth // 2, max_depth + 1, n).astype(np.uint8)
    order, depths = order_leaves(cells, required, max_depth)
    cells = np.ascontiguousarray(cells[order] >> (max_depth - depths.astype(np.uint32))[:, None])
    if wide:
        sh = rng.integers(-(2**24), 2**24 + 1, (n, k, 3)).astype(np.int32)
        log_scales = rng.integers(0, 2**16, (n, 3)).astype(np.uint16)
        rotation_step = float(np.float32(1 / 65535))
        rotation = rng.integers(-(2**15), 2**15, (n, 3)).astype(np.int16)
    else:
        sh = np.rint(rng.laplace(scale=4, size=(n, k, 3))).astype(np.int32)
        log_scales = np.clip(300 - 18.0 * depths[:, None] + rng.normal(size=(n, 3)) * 9, 0, 400).astype(np.uint16)
        rotation_step = float(np.float32(0.05))
        rotation = rng.integers(-11, 12, (n, 3)).astype(np.int16)
    sh[:, 1:][rng.random((n, k - 1, 3)) < zeros] = 0
    levels = 300 if wide else 22
    return QuantizedModel(
        origin=rng.normal(size=3),
        extent=float(rng.uniform(1, 30)),
        cells=cells,
        depths=depths,
        opacity=rng.integers(0, levels, n).astype(np.uint16),
        opacity_table=np.linspace(-6, 6, levels).astype(np.float32),
        log_scales=log_scales,
        scale_origin=float(np.float32(-9.7)),
        scale_step=float(np.float32(0.037)),
        rotation=rotation,
        rotation_step=rotation_step,
        sh=sh,
        sh_steps=rng.uniform(0.05, 0.2, (k, 3)).astype(np.float32),
    )


def extreme_quantized(levels: int = 65536) -> QuantizedModel:
    """Every number at an end of its range, with an opacity table of that many levels."""
    top = 2**MAX_DEPTH - 1
    cells = np.array([[0, 0, 0], [top - 1, top, top], [top, top, top]], np.uint32)
    big = np.float32(2.0**64)
    return QuantizedModel(
        origin=np.array([2.0**64, -(2.0**64), 0.0]),
        extent=2.0**64,
        cells=cells,
        depths=np.full(3, MAX_DEPTH, np.uint8),
        opacity=np.array([0, levels - 1, 1], np.uint16),
        opacity_table=np.linspace(-big, big, levels).astype(np.float32),
        log_scales=np.array([[0, 65535, 0], [65535, 0, 1], [65534, 32768, 32767]], np.uint16),
        scale_origin=-(2.0**64),
        scale_step=2.0**-64,
        rotation=np.array([[-32768, 0, 0], [0, 32767, 0], [0, 0, -1]], np.int16),
        rotation_step=2.0**-15,
        sh=np.array([[[2**24, -(2**24), 0]], [[0, 1, -1]], [[5, 0, 0]]], np.int32),
        sh_steps=np.array([[2.0**64, 2.0**-64, 1.0]], np.float32),
    )


def assert_identical(a: QuantizedModel, b: QuantizedModel) -> None:
    """Bit for bit, types and shapes included."""
    for field in fields(QuantizedModel):
        x, y = np.asarray(getattr(a, field.name)), np.asarray(getattr(b, field.name))
        assert (x.dtype, x.shape) == (y.dtype, y.shape), field.name
        assert x.tobytes() == y.tobytes(), field.name
