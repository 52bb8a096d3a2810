# SPDX-License-Identifier: Apache-2.0
"""The model section: how many splats, of what degree, and every real parameter (docs/format.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potr.format.container import CodedSection
from potr.format.quantized import MAX_REAL, MAX_SPLATS, SH_DEGREES, QuantizedModel
from potr.reader import Reader

_FIXED = struct.Struct("<IIB7x3dddfff4x")
_MAX_TABLE = 1 << 16
RESERVED = float(np.float32(0.33))  # once a hint to renderers; it stays so that no file changes
_LARGEST = _FIXED.size + 4 * (3 * max(SH_DEGREES) + _MAX_TABLE)


@dataclass(frozen=True, eq=False)
class Parameters:
    """What a QuantizedModel has beside its arrays over the splats; its docstring explains them."""

    num_splats: int
    origin: NDArray[np.float64]
    extent: float
    scale_origin: float
    scale_step: float
    rotation_step: float
    sh_steps: NDArray[np.float32]
    opacity_table: NDArray[np.float32]

    @property
    def num_coefficients(self) -> int:
        return int(self.sh_steps.shape[0])

    @property
    def sh_degree(self) -> int:
        return SH_DEGREES[self.num_coefficients]

    @staticmethod
    def of(model: QuantizedModel) -> Parameters:
        return Parameters(
            model.num_splats,
            model.origin,
            model.extent,
            model.scale_origin,
            model.scale_step,
            model.rotation_step,
            model.sh_steps,
            model.opacity_table,
        )


def parameters_to_bytes(parameters: Parameters) -> bytes:
    """The raw model section."""
    fixed = _FIXED.pack(
        parameters.num_splats,
        len(parameters.opacity_table),
        parameters.sh_degree,
        *parameters.origin,
        parameters.extent,
        RESERVED,
        parameters.scale_origin,
        parameters.scale_step,
        parameters.rotation_step,
    )
    return fixed + parameters.sh_steps.astype("<f4").tobytes() + parameters.opacity_table.astype("<f4").tobytes()


def parameters_from_bytes(coded: CodedSection) -> Parameters:
    """Read the model section; the ranges of the real parameters are checked with the whole model.

    Raises:
        BitstreamError: a wrong size, count, degree or reserved byte.
    """
    if coded.layout != 0:
        raise coded.error(f"expected layout 0, got {coded.layout}")
    reader = Reader(coded.decode(_FIXED.size, _LARGEST).raw, coded.id.label, coded.offset, raw=True)
    num_splats, table_size, sh_degree = reader.u32(), reader.u32(), reader.u8()
    if num_splats > MAX_SPLATS:
        raise reader.error(f"expected at most {MAX_SPLATS} splats, got {num_splats}", 0)
    if table_size > _MAX_TABLE:
        raise reader.error(f"expected at most {_MAX_TABLE} opacity levels, got {table_size}", 4)
    if sh_degree not in SH_DEGREES.values():
        raise reader.error(f"expected an SH degree of 0 to 3, got {sh_degree}", 8)
    reader.zeros(7)
    origin, extent, reserved = reader.array("<f8", 3), reader.f64(), reader.f64()
    if not abs(reserved) <= MAX_REAL:  # false for NaN too
        raise reader.error("reserved: expected a finite value up to 2^64 in magnitude", 48)
    scale_origin, scale_step, rotation_step = reader.f32(), reader.f32(), reader.f32()
    reader.zeros(4)
    num_coefficients = (sh_degree + 1) ** 2
    sh_steps = reader.array("<f4", 3 * num_coefficients).reshape(num_coefficients, 3)
    opacity_table = reader.array("<f4", table_size)
    reader.finish()
    return Parameters(num_splats, origin, extent, scale_origin, scale_step, rotation_step, sh_steps, opacity_table)
