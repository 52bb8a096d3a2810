# SPDX-License-Identifier: Apache-2.0
"""The entropy stage: raw section bytes to coded bytes and back. The one module that imports zstandard."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import zstandard

_MAX_WINDOW = 1 << 27  # bytes; what zstd's levels up to 22 use at most

_SMALLEST_BLOCK = 2048  # raw bytes; a smaller block's own code table costs more than it saves


class Coder(IntEnum):
    """Coder ids as stored in the section table. MODELLED is decoded by potr.codec.modelled, not here."""

    STORED = 0
    ZSTD = 1
    MODELLED = 2


class CodingError(ValueError):
    """The coded bytes do not decode to the declared size; the container says where."""


def encode(raw: bytes, zstd_level: int, splits: Sequence[int] = ()) -> tuple[Coder, bytes]:
    """The smallest of the raw bytes, one zstd frame, and one whose blocks end where the statistics change.

    Deterministic for one version of zstandard.

    Args:
        raw: the section.
        zstd_level: 1 to 22.
        splits: ascending offsets in ``raw`` at which a block may end; a hint for smaller files, unseen by decoders.
    """
    candidates = [(Coder.STORED, raw), (Coder.ZSTD, _compress(raw, zstd_level, ()))]
    if splits:
        candidates.append((Coder.ZSTD, _compress(raw, zstd_level, splits)))
    return min(candidates, key=lambda candidate: len(candidate[1]))


def _compress(raw: bytes, level: int, splits: Sequence[int]) -> bytes:
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=False, write_content_size=True)
    if not splits:
        return compressor.compress(raw)
    stream = compressor.compressobj(size=len(raw))
    parts, start = [], 0
    for end in splits:
        if end - start >= _SMALLEST_BLOCK:
            parts += [stream.compress(raw[start:end]), stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)]
            start = end
    return b"".join([*parts, stream.compress(raw[start:]), stream.flush()])


def decode(coder: Coder, coded: bytes | memoryview, raw_size: int) -> bytes:
    """Undo ``encode``.

    Allocates no more than ``raw_size`` plus the coder's window, whatever the bytes say; the caller bounds ``raw_size``.

    Raises:
        CodingError: the bytes are not exactly one frame of ``raw_size`` bytes.
    """
    if coder is Coder.MODELLED:
        raise CodingError("expected plain bytes, got a context-modelled section")
    if coder is Coder.STORED:
        if len(coded) != raw_size:
            raise CodingError(f"stored bytes: expected {raw_size}, got {len(coded)}")
        return bytes(coded)
    if raw_size == 0:  # zstandard would not look beyond the frame's header
        raise CodingError("zstd frame: expected an empty section to be stored")
    if bytes(coded[:4]) != zstandard.FRAME_HEADER:  # not a skippable or an old frame
        raise CodingError("zstd frame: expected its magic number")
    try:
        frame = zstandard.get_frame_parameters(coded)
        if frame.content_size != raw_size:
            known = frame.content_size != zstandard.CONTENTSIZE_UNKNOWN
            found = frame.content_size if known else "no content size"
            raise CodingError(f"zstd frame: expected a content size of {raw_size}, got {found}")
        if frame.dict_id:
            raise CodingError(f"zstd frame: expected no dictionary, got id {frame.dict_id}")
        if frame.window_size > _MAX_WINDOW:
            raise CodingError(f"zstd frame: expected a window of at most {_MAX_WINDOW} bytes, got {frame.window_size}")
        raw = zstandard.ZstdDecompressor().decompress(coded, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise CodingError(f"zstd frame: {error}") from None
    if len(raw) != raw_size:
        raise CodingError(f"zstd frame: expected {raw_size} bytes, got {len(raw)}")
    return raw
