# SPDX-License-Identifier: Apache-2.0
"""The entropy stage: raw section bytes to coded bytes and back. The one module that imports zstandard."""

from __future__ import annotations

from enum import IntEnum

import zstandard

_MAX_WINDOW = 1 << 27  # bytes; what zstd's levels up to 22 use at most


class Coder(IntEnum):
    """Coder ids as stored in the section table. 2 is kept for an asymmetric numeral system coder."""

    STORED = 0
    ZSTD = 1


class CodingError(ValueError):
    """The coded bytes do not decode to the declared size; the container says where."""


def encode(raw: bytes, zstd_level: int) -> tuple[Coder, bytes]:
    """The smaller of the raw bytes and one zstd frame. Deterministic for one version of zstandard."""
    coded = zstandard.ZstdCompressor(level=zstd_level, write_checksum=False, write_content_size=True).compress(raw)
    return (Coder.ZSTD, coded) if len(coded) < len(raw) else (Coder.STORED, raw)


def decode(coder: Coder, coded: bytes | memoryview, raw_size: int) -> bytes:
    """Undo ``encode``.

    Allocates no more than ``raw_size`` plus the coder's window, whatever the bytes say; the caller bounds ``raw_size``.

    Raises:
        CodingError: the bytes are not exactly one frame of ``raw_size`` bytes.
    """
    if coder is Coder.STORED:
        if len(coded) != raw_size:
            raise CodingError(f"stored bytes: expected {raw_size}, got {len(coded)}")
        return bytes(coded)
    try:
        frame = zstandard.get_frame_parameters(coded)
        if frame.content_size != raw_size:
            known = frame.content_size != zstandard.CONTENTSIZE_UNKNOWN
            found = frame.content_size if known else "no content size"
            raise CodingError(f"zstd frame: expected a content size of {raw_size}, got {found}")
        if frame.dict_id:
            raise CodingError(f"zstd frame: expected no dictionary, got id {frame.dict_id}")
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW)
        raw = decompressor.decompress(coded, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodingError(f"zstd frame: {error}") from None
    if len(raw) != raw_size:
        raise CodingError(f"zstd frame: expected {raw_size} bytes, got {len(raw)}")
    return raw
