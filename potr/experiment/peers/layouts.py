# SPDX-License-Identifier: Apache-2.0
"""How many bytes of the peers' files go to what, read off their own headers and tables."""

from __future__ import annotations

import struct

from potr.errors import BitstreamError

# SPZ version 4: a header of 32 bytes, then per stream its coded and its raw size, then the streams in this order.
_SPZ_MAGIC = b"NGSP"
_SPZ_STREAMS = ("means", "opacity", "sh_dc", "scales", "rotation", "sh_ac")
_SPZ_COUNT, _SPZ_TABLE = struct.Struct("<B"), struct.Struct("<I")
_SPZ_COUNT_AT, _SPZ_TABLE_AT = 15, 16
_SPZ_ENTRY = struct.Struct("<QQ")
_PLY_BYTES = {"float": 4, "uint": 4, "uchar": 1}


def spz_sections(data: bytes) -> dict[str, int]:
    """Coded bytes by attribute of an SPZ of version 4; nothing for older ones, which are one gzip stream.

    Raises:
        BitstreamError: the table does not fit the file.
    """
    if data[:4] != _SPZ_MAGIC:
        return {}
    try:
        (streams,) = _SPZ_COUNT.unpack_from(data, _SPZ_COUNT_AT)
        (table,) = _SPZ_TABLE.unpack_from(data, _SPZ_TABLE_AT)
        sizes = [_SPZ_ENTRY.unpack_from(data, table + i * _SPZ_ENTRY.size)[0] for i in range(streams)]
    except struct.error as error:
        raise BitstreamError("spz", _SPZ_COUNT_AT, f"the table of streams does not fit the file: {error}") from None
    if streams > len(_SPZ_STREAMS) or table + streams * _SPZ_ENTRY.size + sum(sizes) > len(data):
        raise BitstreamError("spz", table, f"{streams} streams of {sum(sizes)} bytes do not fit {len(data)} bytes")
    return dict(zip(_SPZ_STREAMS, sizes, strict=False))


def compressed_ply_sections(data: bytes) -> dict[str, int]:
    """Bytes by element of a compressed .ply: chunk (ranges of 256 splats), vertex (four words a splat), sh.

    Raises:
        BitstreamError: the header is not one.
    """
    end = data.find(b"end_header")
    sections: dict[str, int] = {}
    name, count = "", 0
    try:
        for line in data[: max(end, 0)].decode("ascii").splitlines():
            words = line.split()
            if words and words[0] == "element":
                name, count = words[1], int(words[2])
                sections[name] = 0
            elif words and words[0] == "property":
                sections[name] += count * _PLY_BYTES[words[1]]
    except (ValueError, KeyError, IndexError) as error:
        raise BitstreamError("header", 0, f"not a compressed .ply: {error!r}") from None
    return sections
