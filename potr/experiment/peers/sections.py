# SPDX-License-Identifier: Apache-2.0
"""The container of the peers that are written here: a .zip with a deflated file for each section."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from potr.errors import BitstreamError
from potr.reader import Reader

SPLATS_BEYOND_BYTES = 64  # a file may hold that many splats more than it has bytes, so that tiny claims nothing huge
_NO_DATE = (1980, 1, 1, 0, 0, 0)  # the same input gives the same bytes
# What zipfile raises on damaged bytes; a name that is no UTF-8 is a ValueError.
_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Section:
    """One stream, still deflated."""

    archive: zipfile.ZipFile
    entry: zipfile.ZipInfo

    def decode(self, smallest: int, largest: int | None = None) -> bytes:
        """The raw bytes, of which there must be ``smallest`` to ``largest``, by default exactly ``smallest``.

        Raises:
            BitstreamError: another size, or not one whole deflated stream whose checksum holds.
        """
        largest = smallest if largest is None else largest
        if not smallest <= self.entry.file_size <= largest:
            expected = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
            raise self.error(f"expected a raw size of {expected} bytes, got {self.entry.file_size}")
        try:
            raw = self.archive.read(self.entry)
        except _DAMAGE as error:
            raise self.error(f"not a whole stream: {error}") from None
        if len(raw) != self.entry.file_size:
            raise self.error(f"expected {self.entry.file_size} raw bytes, got {len(raw)}")
        return raw

    def array(self, dtype: str, *shape: int) -> NDArray[np.generic]:
        """An array that ``planes`` wrote, of a little-endian dtype such as "<u2"."""
        raw = self.decode(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return from_planes(raw, dtype, *shape)

    def reader(self, size: int) -> Reader:
        """A reader of the raw bytes."""
        return Reader(self.decode(size), self.entry.filename, self.entry.header_offset, raw=True)

    def error(self, reason: str) -> BitstreamError:
        return BitstreamError(self.entry.filename, self.entry.header_offset, reason)


def pack(sections: Mapping[str, bytes], num_splats: int) -> tuple[bytes, dict[str, int]]:
    """The file, and the coded bytes of every section.

    Sections are deflated at the highest effort, and only stored where the file would hold improbably many splats.
    """
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name, raw in sections.items():
                archive.writestr(zipfile.ZipInfo(name, _NO_DATE), raw, method, compresslevel=9)
        if num_splats <= len(file.getvalue()) + SPLATS_BEYOND_BYTES:
            break
    return file.getvalue(), {entry.filename: entry.compress_size for entry in archive.infolist()}


def unpack(names: Sequence[str], data: bytes) -> dict[str, Section]:
    """The sections of a file.

    Raises:
        BitstreamError: the bytes are not a .zip of exactly these sections.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGE as error:
        raise BitstreamError("header", 0, f"not a .zip: {error}") from None
    if archive.namelist() != list(names):
        raise BitstreamError("header", 0, f"expected sections {', '.join(names)}, got {', '.join(archive.namelist())}")
    for entry in archive.infolist():
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others inflate without bounds
            raise BitstreamError(entry.filename, entry.header_offset, "expected a stored or a deflated stream")
    return {entry.filename: Section(archive, entry) for entry in archive.infolist()}


def read_num_splats(reader: Reader, file_size: int) -> int:
    """The next u32; BitstreamError if a file of this size cannot hold that many splats."""
    count = reader.u32()
    if count > file_size + SPLATS_BEYOND_BYTES:
        raise reader.error(f"expected no more splats than a file of {file_size} bytes holds, got {count}", 0)
    return count


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
