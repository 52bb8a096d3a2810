# SPDX-License-Identifier: Apache-2.0
"""The quantised model: integers and the steps that made them, in octree order. What a bitstream holds, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potr.errors import ModelError

MAX_DEPTH = 21  # of the octree: three 21-bit coordinates make a 63-bit Morton code
MAX_SPLATS = 1 << 27
MAX_SH = 1 << 24  # of |sh|: integers up to here are exact in float32
MAX_REAL = 2.0**64  # of the magnitude of every real parameter, so that no decoded value overflows float32
MIN_STEP = 2.0**-64
SH_DEGREES = {1: 0, 4: 1, 9: 2, 16: 3}  # from K


class QuantizedModelError(ModelError):
    """A field of a QuantizedModel breaks its contract; ``field`` names it."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True, eq=False)
class QuantizedModel:
    """N splats as integers, in depth-first octree order.

    Attributes:
        origin: [3] float64, lowest corner of the cube around all means, world units.
        extent: side of that cube, world units; > 0.
        cells: [N, 3] uint32, the splat's cell at its own depth; a splat's mean is the centre of its cell.
        depths: [N] uint8, 0..MAX_DEPTH; a cell's side is extent / 2^depth. Splats of one cell are adjacent and
            have one depth; no splat's cell contains another splat's smaller cell.
        opacity: [N] uint16, index into opacity_table.
        opacity_table: [L] float32 opacity logits, strictly ascending, L <= 65536.
        log_scales: [N, 3] uint16; the value is scale_origin + index * scale_step.
        scale_origin, scale_step: float32 values.
        rotation: [N, 3] int16, (x, y, z) of the canonical unit quaternion over rotation_step; w = sqrt(1 - x^2
            - y^2 - z^2), so x^2 + y^2 + z^2 <= 1 must hold after rounding.
        rotation_step: float32 value.
        sh: [N, K, 3] int32 coefficients in the decorrelated colour space of ``potr.model.opponent``, over sh_steps;
            magnitudes up to MAX_SH.
        sh_steps: [K, 3] float32, > 0.

    Real parameters have magnitudes up to MAX_REAL, steps and the extent are at least MIN_STEP.
    """

    origin: NDArray[np.float64]
    extent: float
    cells: NDArray[np.uint32]
    depths: NDArray[np.uint8]
    opacity: NDArray[np.uint16]
    opacity_table: NDArray[np.float32]
    log_scales: NDArray[np.uint16]
    scale_origin: float
    scale_step: float
    rotation: NDArray[np.int16]
    rotation_step: float
    sh: NDArray[np.int32]
    sh_steps: NDArray[np.float32]

    @property
    def num_splats(self) -> int:
        return int(self.cells.shape[0])

    @property
    def sh_degree(self) -> int:
        return SH_DEGREES[int(self.sh_steps.shape[0])]


def validate(model: QuantizedModel) -> None:
    """Check everything but the octree order, which coding the octree checks. The encoder's and the decoder's rule.

    Raises:
        QuantizedModelError: names the first field that is wrong.
    """
    n, k = model.num_splats, model.sh_steps.shape[0]
    if n > MAX_SPLATS:
        raise QuantizedModelError("cells", f"expected at most {MAX_SPLATS} splats, got {n}")
    if k not in SH_DEGREES:
        raise QuantizedModelError("sh_steps", f"expected 1, 4, 9 or 16 coefficients, got {k}")
    arrays: dict[str, tuple[tuple[int, ...], Any]] = {
        "origin": ((3,), np.float64),
        "cells": ((n, 3), np.uint32),
        "depths": ((n,), np.uint8),
        "opacity": ((n,), np.uint16),
        "opacity_table": ((model.opacity_table.size,), np.float32),
        "log_scales": ((n, 3), np.uint16),
        "rotation": ((n, 3), np.int16),
        "sh": ((n, k, 3), np.int32),
        "sh_steps": ((k, 3), np.float32),
    }
    for field, (shape, dtype) in arrays.items():
        array = getattr(model, field)
        if array.shape != shape or array.dtype != dtype:
            expected = f"{list(shape)} {np.dtype(dtype)}"
            raise QuantizedModelError(field, f"expected {expected}, got {list(array.shape)} {array.dtype}")
    _validate_reals(model)
    if n:
        _validate_symbols(model)


def _validate_reals(model: QuantizedModel) -> None:
    for field in ("origin", "extent", "opacity_table", "scale_origin"):
        if not np.all(np.abs(getattr(model, field)) <= MAX_REAL):  # false for NaN too
            raise QuantizedModelError(field, "expected finite values up to 2^64 in magnitude")
    for field in ("extent", "scale_step", "rotation_step", "sh_steps"):
        steps = np.asarray(getattr(model, field))
        if not np.all((steps >= MIN_STEP) & (steps <= MAX_REAL)):
            raise QuantizedModelError(field, "expected positive values in 2^-64..2^64")
    for field in ("scale_origin", "scale_step", "rotation_step"):
        value = getattr(model, field)
        if float(np.float32(value)) != value:
            raise QuantizedModelError(field, f"expected a float32 value, got {value!r}")
    if len(model.opacity_table) > 1 << 16:
        raise QuantizedModelError("opacity_table", f"expected at most 65536 entries, got {len(model.opacity_table)}")
    if not np.all(model.opacity_table[1:] > model.opacity_table[:-1]):
        raise QuantizedModelError("opacity_table", "expected strictly ascending logits")


def _validate_symbols(model: QuantizedModel) -> None:
    largest = int(model.opacity.max())
    if largest >= len(model.opacity_table):
        raise QuantizedModelError("opacity", f"expected indices below {len(model.opacity_table)}, got {largest}")
    outside = np.flatnonzero(squared_w(dequantized_rotation(model.rotation, model.rotation_step)) < 0)
    if outside.size:
        raise QuantizedModelError("rotation", f"expected x^2 + y^2 + z^2 <= 1, splat {outside[0]} has more")
    if max(int(model.sh.max()), -int(model.sh.min())) > MAX_SH:
        raise QuantizedModelError("sh", f"expected magnitudes up to {MAX_SH}")


def dequantized_rotation(rotation: NDArray[np.int16], step: float) -> NDArray[np.float64]:
    """[N, 3] (x, y, z) of the quantised quaternions: float32 products, as float64."""
    return (rotation.astype(np.float32) * np.float32(step)).astype(np.float64)


def squared_w(xyz: NDArray[np.float64]) -> NDArray[np.float64]:
    """[N] 1 - x^2 - y^2 - z^2 in this order; the squares of float32 values are exact in float64."""
    x, y, z = xyz[:, 0], xyz[:, 1], xyz[:, 2]
    return ((1.0 - x * x) - y * y) - z * z
