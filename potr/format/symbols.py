# SPDX-License-Identifier: Apache-2.0
"""Arrays of integers as sections of byte planes, and the prediction of log-scales from the octree depth."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potr.format.container import CodedSection, Section, SectionId

_PREDICTOR = struct.Struct("<HH")  # slope in 1 / _SLOPE_UNIT index a level, base
_SLOPE_UNIT = 16


def symbol_section(section: SectionId, symbols: NDArray[Any], prefix: bytes = b"") -> Section:
    """Unsigned symbols as 1, 2 or 4 byte planes, lowest bytes first; the width is the section's layout."""
    largest = int(symbols.max()) if symbols.size else 0
    width = 1 if largest < 1 << 8 else 2 if largest < 1 << 16 else 4
    planes = symbols.astype(f"<u{width}").view(np.uint8).reshape(-1, width).T
    return Section(section, prefix + planes.tobytes(), width)


def read_symbols(coded: CodedSection, n: int, widest: int) -> NDArray[np.uint32]:
    """[n] symbols of at most ``widest`` bytes each.

    Raises:
        BitstreamError: another layout or size.
    """
    return _read_prefixed(coded, n, widest, 0)[1]


def zigzag(values: NDArray[Any]) -> NDArray[np.uint32]:
    """Signed to unsigned: 0, -1, 1, -2, ... to 0, 1, 2, 3, ..."""
    wide = values.astype(np.int32)
    return ((wide << 1) ^ (wide >> 31)).view(np.uint32)


def unzigzag(symbols: NDArray[np.uint32]) -> NDArray[np.int32]:
    """The inverse of ``zigzag``, for every uint32."""
    return ((symbols >> 1) ^ (0 - (symbols & 1))).view(np.int32)


def predicted_section(
    section: SectionId, indices: NDArray[np.uint16], depths: NDArray[np.uint8], slopes: Sequence[float]
) -> Section:
    """Log-scale indices as residuals of a line in the octree depth: a deeper splat is a smaller one.

    Args:
        section: the id it gets.
        indices: [N].
        depths: [N].
        slopes: by how many indices a level the line may fall; the one of the lowest residual entropy is taken.
    """
    lines = [int(min(max(round(slope * _SLOPE_UNIT), 0), 0xFFFF)) for slope in slopes]
    _, prefix, symbols = min(_residuals(indices, depths, line) for line in lines)
    return symbol_section(section, np.frombuffer(symbols, "<u2"), prefix)


def _residuals(indices: NDArray[np.uint16], depths: NDArray[np.uint8], slope: int) -> tuple[float, bytes, bytes]:
    """Entropy in bits, predictor, and symbols (uint16) of the residuals around one line."""
    level = indices.astype(np.int64) + _fall(slope, depths)
    base = int(np.median(level)) & 0xFFFF if len(indices) else 0
    symbols = zigzag((level - base).astype(np.uint16).view(np.int16)).astype("<u2")
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    bits = float(-(counts * np.log2(counts / max(len(indices), 1))).sum())
    return bits, _PREDICTOR.pack(slope, base), symbols.tobytes()


def read_predicted(coded: CodedSection, depths: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The inverse of ``predicted_section``; arithmetic modulo 2^16, so every stream has a meaning.

    Raises:
        BitstreamError: another layout or size.
    """
    prefix, symbols = _read_prefixed(coded, len(depths), 2, _PREDICTOR.size)
    slope, base = _PREDICTOR.unpack(prefix)
    indices: NDArray[np.uint16] = (unzigzag(symbols) + base - _fall(slope, depths)).astype(np.uint16)
    return indices


def _read_prefixed(coded: CodedSection, n: int, widest: int, prefix: int) -> tuple[bytes, NDArray[np.uint32]]:
    width = coded.layout
    if width not in (1, 2, 4) or width > widest:
        raise coded.error(f"expected a layout of at most {widest} bytes a symbol, got {width}")
    raw = coded.decode(prefix + n * width, prefix + n * width).raw
    planes = np.frombuffer(raw, np.uint8, offset=prefix).reshape(width, n)
    symbols = planes[0].astype(np.uint32)
    for i in range(1, width):
        symbols |= planes[i].astype(np.uint32) << np.uint32(8 * i)
    return raw[:prefix], symbols


def _fall(slope: int, depths: NDArray[np.uint8]) -> NDArray[np.int64]:
    """By how many indices the line falls from depth 0 to each depth."""
    return (slope * depths.astype(np.int64) + _SLOPE_UNIT // 2) // _SLOPE_UNIT
