# SPDX-License-Identifier: Apache-2.0
"""The quantised model: integers and the steps that made them, in octree order. What a bitstream holds, bit for bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DEPTH = 21  # of the octree: three 21-bit coordinates make a 63-bit Morton code


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
        opacity_table: [L] float32 opacity logits, ascending.
        log_scales: [N, 3] uint16; the value is scale_origin + index * scale_step.
        scale_origin, scale_step: float32 values.
        rotation: [N, 3] int16, (x, y, z) of the canonical unit quaternion over rotation_step; w = sqrt(1 - x^2
            - y^2 - z^2).
        rotation_step: float32 value.
        sh: [N, K, 3] int32 coefficients in the decorrelated colour space of ``potr.codec.color``, over sh_steps.
        sh_steps: [K, 3] float32, > 0.
        opacity_boost: the paper's hint to renderers; decoders carry it and do not apply it.
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
    opacity_boost: float

    @property
    def num_splats(self) -> int:
        return int(self.cells.shape[0])
