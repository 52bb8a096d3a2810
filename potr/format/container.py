# SPDX-License-Identifier: Apache-2.0
"""The file: header, section table, coded sections. docs/format.md is the authority on every byte."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import IntEnum

from potr.errors import BitstreamError
from potr.format import zstd
from potr.format.zstd import Coder
from potr.reader import Reader

MAGIC = b"\x89POTR\r\n\x1a"  # a high bit, a line end and an end-of-file mark: text-mode copying is noticed at once
VERSIONS = (1, 3)  # 2 was a development version
_HEADER = struct.Struct("<8sHHIQI")  # magic, version, flags, sections, file size, table checksum; then its own checksum
_ENTRY = struct.Struct("<BBBBIQQ")  # id, coder, layout, reserved, checksum, raw size, coded size
_THREADS = min(4, os.cpu_count() or 1)  # at level 22 each may take hundreds of megabytes for millions of splats
HEADER_SIZE = _HEADER.size + 4
ENTRY_SIZE = _ENTRY.size


class SectionId(IntEnum):
    """Sections in file order, with the names that errors and reports use."""

    label: str

    def __new__(cls, number: int, label: str) -> SectionId:
        member = int.__new__(cls, number)
        member._value_ = number
        member.label = label
        return member

    MODEL = 1, "model"
    OCTREE_NODES = 2, "octree.nodes"
    OCTREE_TAIL_DEPTHS = 3, "octree.tail_depths"
    OCTREE_TAIL_BITS = 4, "octree.tail_bits"
    OCTREE_COUNTS = 5, "octree.counts"
    OPACITY = 6, "opacity"
    LOG_SCALES_0 = 7, "log_scales.0"
    LOG_SCALES_1 = 8, "log_scales.1"
    LOG_SCALES_2 = 9, "log_scales.2"
    ROTATION_X = 10, "rotation.x"
    ROTATION_Y = 11, "rotation.y"
    ROTATION_Z = 12, "rotation.z"
    SH_DC_LUMA = 13, "sh_dc.luma"
    SH_DC_RED_BLUE = 14, "sh_dc.red_blue"
    SH_DC_GREEN = 15, "sh_dc.green"
    SH_AC_COUNTS = 16, "sh_ac.counts"
    SH_AC_GAPS = 17, "sh_ac.gaps"
    SH_AC_VALUES = 18, "sh_ac.values"
    OCTREE = 19, "octree"
    LOG_SCALES = 20, "log_scales"
    ROTATION = 21, "rotation"
    SH_DC = 22, "sh_dc"
    SH_AC_LUMA = 24, "sh_ac.luma"
    SH_AC_CHROMA = 25, "sh_ac.chroma"


_MODELLED = (SectionId.OCTREE, SectionId.OPACITY, SectionId.LOG_SCALES, SectionId.ROTATION, SectionId.SH_DC)
_SECTIONS = {
    version: {int(section): section for section in sections}
    for version, sections in {
        1: [section for section in SectionId if section < SectionId.OCTREE],
        3: [SectionId.MODEL, *_MODELLED, SectionId.SH_AC_LUMA, SectionId.SH_AC_CHROMA],
    }.items()
}


@dataclass(frozen=True)
class Section:
    """One stream before the entropy stage.

    Attributes:
        id: which one.
        raw: its bytes.
        layout: bytes per symbol, or 0 where the section has no choice.
        splits: offsets in ``raw`` where its statistics change; a hint for the entropy stage, not stored.
    """

    id: SectionId
    raw: bytes
    layout: int = 0
    splits: tuple[int, ...] = ()


@dataclass(frozen=True)
class ModelledSection:
    """One stream that its context model has coded; ``raw_size`` is that of its integers in bytes."""

    id: SectionId
    coded: bytes
    raw_size: int


@dataclass(frozen=True, eq=False)
class CodedSection:
    """One stream as it lies in the file; ``offset`` is that of its first byte there."""

    id: SectionId
    coder: Coder
    layout: int
    raw_size: int
    coded: memoryview
    offset: int

    def decode(self, smallest: int, largest: int) -> Section:
        """The raw section, whose size must lie in the given range; nothing is allocated before that is known.

        Raises:
            BitstreamError: a size out of range, or bytes that do not decode.
        """
        if not smallest <= self.raw_size <= largest:
            expected = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
            raise self.error(f"expected a raw size of {expected} bytes, got {self.raw_size}")
        try:
            return Section(self.id, zstd.decode(self.coder, self.coded, self.raw_size), self.layout)
        except zstd.CodingError as error:
            raise self.error(str(error)) from None

    def error(self, reason: str) -> BitstreamError:
        return BitstreamError(self.id.label, self.offset, reason)

    def error_within(self, offset: int, reason: str) -> BitstreamError:
        """At a byte of the coded section."""
        return BitstreamError(self.id.label, self.offset + offset, reason)


@dataclass(frozen=True, eq=False)
class Bitstream:
    """A file whose header, table and checksums hold; its sections are still coded."""

    version: int
    size: int
    sections: tuple[CodedSection, ...]

    def find(self, section: SectionId) -> CodedSection:
        """Raises BitstreamError if the section is not there."""
        for coded in self.sections:
            if coded.id is section:
                return coded
        raise BitstreamError("table", HEADER_SIZE, f"expected a section '{section.label}', found none")


def pack(sections: Sequence[Section], zstd_level: int, *, smallest_size: int = 0) -> bytes:
    """Code the sections, in ascending order of id, and write the file.

    Args:
        sections: each id at most once.
        zstd_level: 1 to 22.
        smallest_size: bytes the file must have at least; sections are stored uncompressed, largest gain first, until
            it has. (The format wants this of files with improbably many splats.)
    """
    ordered = sorted(sections, key=lambda s: s.id)
    if len({s.id for s in ordered}) != len(ordered):
        raise ValueError("expected every section at most once")
    with ThreadPoolExecutor(_THREADS) as pool:  # zstd works without the GIL
        coded = list(pool.map(lambda s: zstd.encode(s.raw, zstd_level, s.splits), ordered))
    overhead = HEADER_SIZE + ENTRY_SIZE * len(ordered)
    for i in sorted(range(len(ordered)), key=lambda i: len(coded[i][1]) - len(ordered[i].raw)):
        if overhead + sum(len(payload) for _, payload in coded) >= smallest_size:
            break
        coded[i] = (Coder.STORED, ordered[i].raw)
    return _write(
        1,
        [(s.id, coder, s.layout, len(s.raw), payload) for s, (coder, payload) in zip(ordered, coded, strict=True)],
    )


def pack_modelled(model: Section, sections: Sequence[ModelledSection], zstd_level: int) -> bytes:
    """The version 3 file of the model section and what the context models coded, in ascending order of id."""
    coder, payload = zstd.encode(model.raw, zstd_level)
    entries = [(s.id, Coder.MODELLED, 0, s.raw_size, s.coded) for s in sorted(sections, key=lambda s: s.id)]
    return _write(3, [(model.id, coder, model.layout, len(model.raw), payload), *entries])


def _write(version: int, entries: Sequence[tuple[SectionId, Coder, int, int, bytes]]) -> bytes:
    """The file; an entry is id, coder, layout, raw size, coded bytes."""
    table = b"".join(
        _ENTRY.pack(number, coder, layout, 0, zlib.crc32(payload), raw_size, len(payload))
        for number, coder, layout, raw_size, payload in entries
    )
    payloads = [entry[-1] for entry in entries]
    size = HEADER_SIZE + len(table) + sum(map(len, payloads))
    header = _HEADER.pack(MAGIC, version, 0, len(entries), size, zlib.crc32(table))
    return b"".join([header, struct.pack("<I", zlib.crc32(header)), table, *payloads])


def unpack(data: bytes) -> Bitstream:
    """Check header, table and every checksum. Sections are views of ``data``, not yet decoded.

    Raises:
        BitstreamError: the bytes are not a file of a known version, whole and unchanged.
    """
    header = Reader(memoryview(data)[:HEADER_SIZE], "header", 0)
    if bytes(header.bytes(len(MAGIC))) != MAGIC:
        raise header.error("expected the magic bytes of a POTR file", 0)
    version = header.u16()
    if version == 2:
        raise header.error("format version 2 is of a development version of potr: encode the model again", 8)
    if version not in VERSIONS:
        raise header.error(f"expected format version 1 or 3, got {version}", 8)
    flags, count, size, table_checksum = header.u16(), header.u32(), header.u64(), header.u32()
    if header.u32() != zlib.crc32(data[: _HEADER.size]):
        raise header.error("the header's checksum does not hold", _HEADER.size)
    if flags:
        raise header.error(f"expected no flags, got {flags:#06x}", 10)
    known = _SECTIONS[version]
    if count > len(known):
        raise header.error(f"expected at most {len(known)} sections, got {count}", 12)
    if size != len(data):
        raise header.error(f"expected a file of {size} bytes, got {len(data)}", 16)

    start = HEADER_SIZE + ENTRY_SIZE * count
    table = Reader(memoryview(data)[HEADER_SIZE:start], "table", HEADER_SIZE)
    entries = [table.bytes(ENTRY_SIZE) for _ in range(count)]
    if zlib.crc32(data[HEADER_SIZE:start]) != table_checksum:
        raise table.error("the table's checksum does not hold", 0)
    payload = Reader(memoryview(data)[start:], "payload", start)
    sections: list[CodedSection] = []
    for i, entry in enumerate(entries):
        reader = Reader(entry, "table", HEADER_SIZE + ENTRY_SIZE * i)
        sections.append(_read_entry(reader, version, payload, start, sections))
    payload.finish()
    return Bitstream(version, size, tuple(sections))


def _read_entry(entry: Reader, version: int, payload: Reader, start: int, before: list[CodedSection]) -> CodedSection:
    number, coder, layout, reserved, checksum, raw_size, coded_size = _ENTRY.unpack(entry.bytes(ENTRY_SIZE))
    if number not in _SECTIONS[version]:
        raise entry.error(f"unknown section id {number}", 0)
    section = _SECTIONS[version][number]
    if before and before[-1].id >= section:
        raise entry.error(f"expected ascending section ids, got {number} after {int(before[-1].id)}", 0)
    modelled = version > 1 and section is not SectionId.MODEL
    if coder not in ((Coder.MODELLED,) if modelled else (Coder.STORED, Coder.ZSTD)):
        raise entry.error(f"unknown coder id {coder}", 1)
    if modelled and layout:
        raise entry.error(f"expected layout 0, got {layout}", 2)
    if reserved:
        raise entry.error(f"expected a reserved zero byte, got {reserved}", 3)
    offset = start + payload.position
    coded = payload.bytes(coded_size)
    if zlib.crc32(coded) != checksum:
        raise BitstreamError(section.label, offset, "the section's checksum does not hold")
    return CodedSection(section, Coder(coder), layout, raw_size, coded, offset)
