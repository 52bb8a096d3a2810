# SPDX-License-Identifier: Apache-2.0
"""The container of the peers that are written here: deflated sections behind one checksum.

8 bytes magic, u16 version, u16 sections, u32 CRC-32 of everything behind it, u64 file size,
then per section u64 raw size and u64 coded size, then the sections as zlib streams in the same order.
Little-endian.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potr.errors import BitstreamError
from potr.reader import Reader

VERSION = 1
_HEADER = struct.Struct("<8sHHIQ")
_ENTRY = struct.Struct("<QQ")
SPLATS_BEYOND_BYTES = 64  # a file may hold that many splats more than it has bytes, so that tiny claims nothing huge
MAX_SPLATS = (1 << 32) - 1


@dataclass(frozen=True, eq=False)
class Section:
    """One stream, still deflated; ``offset`` is that of its first byte in the file."""

    name: str
    raw_size: int
    coded: memoryview
    offset: int

    def decode(self, smallest: int, largest: int | None = None) -> bytes:
        """The raw bytes, of which there must be ``smallest`` to ``largest``, by default exactly ``smallest``.

        Raises:
            BitstreamError: another size, or not one whole zlib stream.
        """
        largest = smallest if largest is None else largest
        if not smallest <= self.raw_size <= largest:
            expected = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
            raise self.error(f"expected a raw size of {expected} bytes, got {self.raw_size}")
        inflater = zlib.decompressobj()
        try:
            raw = inflater.decompress(self.coded, self.raw_size + 1)  # one more than it may be, so that excess shows
        except zlib.error as error:
            raise self.error(f"zlib: {error}") from None
        if len(raw) != self.raw_size or not inflater.eof or inflater.unused_data:
            raise self.error(f"expected one zlib stream of {self.raw_size} raw bytes, got {len(raw)} or another end")
        return raw

    def array(self, dtype: str, *shape: int) -> NDArray[np.generic]:
        """An array that ``planes`` wrote, of a little-endian dtype such as "<u2"."""
        kind = np.dtype(dtype)
        raw = self.decode(int(np.prod(shape)) * kind.itemsize)
        return from_planes(raw, dtype, *shape)

    def reader(self, size: int) -> Reader:
        """A reader of the raw bytes."""
        return Reader(self.decode(size), self.name, self.offset, raw=True)

    def error(self, reason: str) -> BitstreamError:
        return BitstreamError(self.name, self.offset, reason)


def pack(magic: bytes, sections: Mapping[str, bytes], num_splats: int) -> tuple[bytes, dict[str, int]]:
    """The file, and the coded bytes of every section.

    Sections are deflated at the highest effort, and only stored where the file would hold improbably many splats.
    """
    for level in (9, 0):
        coded = {name: zlib.compress(raw, level) for name, raw in sections.items()}
        table = b"".join(_ENTRY.pack(len(sections[name]), len(payload)) for name, payload in coded.items())
        rest = table + b"".join(coded.values())
        size = _HEADER.size + len(rest)
        if num_splats <= size + SPLATS_BEYOND_BYTES:
            break
    checked = struct.pack("<Q", size) + rest
    data = _HEADER.pack(magic, VERSION, len(coded), zlib.crc32(checked), size) + rest
    return data, {name: len(payload) for name, payload in coded.items()}


def unpack(magic: bytes, names: Sequence[str], data: bytes) -> dict[str, Section]:
    """Check header, sizes and checksum.

    Raises:
        BitstreamError: the bytes are not a whole and unchanged file of this codec.
    """
    header = Reader(memoryview(data)[: _HEADER.size], "header", 0)
    if bytes(header.bytes(len(magic))) != magic:
        raise header.error(f"expected the magic bytes {magic!r}", 0)
    version, count, checksum, size = header.u16(), header.u16(), header.u32(), header.u64()
    if version != VERSION:
        raise header.error(f"expected version {VERSION}, got {version}", 8)
    if count != len(names):
        raise header.error(f"expected {len(names)} sections, got {count}", 10)
    if size != len(data):
        raise header.error(f"expected a file of {size} bytes, got {len(data)}", 16)
    if zlib.crc32(memoryview(data)[16:]) != checksum:
        raise header.error("the checksum does not hold", 12)
    start = _HEADER.size + _ENTRY.size * count
    table = Reader(memoryview(data)[_HEADER.size : start], "table", _HEADER.size)
    payload = Reader(memoryview(data)[start:], "payload", start)
    sections = {}
    for name in names:
        raw_size, coded_size = table.u64(), table.u64()
        offset = start + payload.position
        sections[name] = Section(name, raw_size, payload.bytes(coded_size), offset)
    payload.finish()
    return sections


def check_num_splats(num_splats: int, data_size: int, error: BitstreamError) -> None:
    """Raise the error if a file of this size cannot hold that many splats."""
    if num_splats > data_size + SPLATS_BEYOND_BYTES:
        raise error


def planes(array: NDArray[np.generic]) -> bytes:
    """An [N, ...] array as planes: all first bytes of the first component, all second bytes, then the next component.

    Alike bytes stand together that way, which deflate wants.
    """
    little = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    return little.reshape(len(little), -1).view(np.uint8).T.tobytes() if little.size else b""


def from_planes(raw: bytes, dtype: str, *shape: int) -> NDArray[np.generic]:
    """The inverse of ``planes``."""
    kind = np.dtype(dtype)
    if not raw:
        return np.zeros(shape, kind.newbyteorder("="))
    rows = np.frombuffer(raw, np.uint8).reshape(-1, shape[0]).T
    return np.ascontiguousarray(rows).view(kind).astype(kind.newbyteorder("=")).reshape(shape)
