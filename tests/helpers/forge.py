# SPDX-License-Identifier: Apache-2.0
"""Takes a file apart and puts it together again with lies in it and fitting checksums. Shares no code with potr."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass

import zstandard

HEADER = 32
ENTRY = 24


@dataclass
class Entry:
    id: int
    coder: int
    layout: int
    reserved: int
    raw_size: int
    coded: bytes
    coded_size: int | None = None  # None: the truth


class Forge:
    """``file.entry(3).raw_size = 7; bytes(file)``; header fields of None mean the truth."""

    def __init__(self, data: bytes) -> None:
        self.magic = data[:8]
        self.version, self.flags, count = struct.unpack_from("<HHI", data, 8)
        self.count: int | None = None
        self.size: int | None = None
        self.trailing = b""
        self.entries = []
        at = HEADER + ENTRY * count
        for i in range(count):
            number, coder, layout, reserved, _, raw, coded = struct.unpack_from("<BBBBIQQ", data, HEADER + ENTRY * i)
            self.entries.append(Entry(number, coder, layout, reserved, raw, data[at : at + coded]))
            at += coded

    def entry(self, number: int) -> Entry:
        return next(e for e in self.entries if e.id == number)

    def raw(self, number: int) -> bytes:
        entry = self.entry(number)
        return zstandard.decompress(entry.coded) if entry.coder == 1 else entry.coded

    def set_raw(self, number: int, raw: bytes) -> None:
        """Stored, with its true sizes."""
        entry = self.entry(number)
        entry.coder, entry.raw_size, entry.coded = 0, len(raw), raw

    def set_coded(self, number: int, coded: bytes, raw_size: int) -> None:
        """As a zstd section."""
        entry = self.entry(number)
        entry.coder, entry.raw_size, entry.coded = 1, raw_size, coded

    def patch(self, number: int, offset: int, layout: str, *values: float) -> None:
        raw = bytearray(self.raw(number))
        struct.pack_into("<" + layout, raw, offset, *values)
        self.set_raw(number, bytes(raw))

    def __bytes__(self) -> bytes:
        table = b"".join(
            struct.pack(
                "<BBBBIQQ",
                e.id,
                e.coder,
                e.layout,
                e.reserved,
                zlib.crc32(e.coded),
                e.raw_size,
                len(e.coded) if e.coded_size is None else e.coded_size,
            )
            for e in self.entries
        )
        payload = b"".join(e.coded for e in self.entries) + self.trailing
        size = HEADER + len(table) + len(payload) if self.size is None else self.size
        count = len(self.entries) if self.count is None else self.count
        start = self.magic + struct.pack("<HHIQI", self.version, self.flags, count, size, zlib.crc32(table))
        return start + struct.pack("<I", zlib.crc32(start)) + table + payload


def with_true_checksums(data: bytes) -> bytes:
    """Damaged bytes with every checksum recomputed as far as the damage lets them be found."""
    if len(data) < HEADER:
        return data
    file = bytearray(data)
    end = min(len(file), HEADER + ENTRY * struct.unpack_from("<I", file, 12)[0])
    at = end
    for entry in range(HEADER, end - ENTRY + 1, ENTRY):
        size = struct.unpack_from("<Q", file, entry + 16)[0]
        struct.pack_into("<I", file, entry + 4, zlib.crc32(file[at : at + size]))
        at = min(at + size, len(file))
    struct.pack_into("<I", file, 24, zlib.crc32(file[HEADER:end]))
    struct.pack_into("<I", file, 28, zlib.crc32(file[:28]))
    return bytes(file)


def zstd_zeros(size: int, *, content_size: int | None = None, claim: bool = True) -> bytes:
    """A hand-made zstd frame of ``size`` zeros, 4 bytes for every 128 KiB: a bomb.

    ``content_size`` is what the frame says of itself (the truth by default); ``claim=False`` leaves the field out.
    """
    window = bytes([(27 - 10) << 3])  # 2^27 bytes
    if claim:
        head = bytes([0xC0]) + window + struct.pack("<Q", size if content_size is None else content_size)
    else:
        head = bytes([0]) + window
    blocks = []
    while size:
        block = min(size, 1 << 17)
        size -= block
        blocks.append(struct.pack("<I", block << 3 | 1 << 1 | (size == 0))[:3] + b"\0")  # RLE
    return b"\x28\xb5\x2f\xfd" + head + b"".join(blocks)
