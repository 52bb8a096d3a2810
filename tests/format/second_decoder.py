# SPDX-License-Identifier: Apache-2.0
"""A second decoder, written from docs/format.md alone: no code of potr, loops for arrays, zstandard for RFC 8878."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import zstandard

from tests.format import second_models as models
from tests.format import second_sh_ac
from tests.format.second_mixers import Refused, must

__all__ = ["Refused", "decode"]

F32 = np.float32
SECTIONS = {1: set(range(1, 19)), 3: {1, 6, 19, 20, 21, 22, 24, 25}}


def unzigzag(symbol: int) -> int:
    return symbol // 2 if symbol % 2 == 0 else -(symbol + 1) // 2


def read_file(data: bytes) -> tuple[int, dict[int, tuple[int, bytes]], dict[int, int]]:
    """Section 3: version, id -> (layout, raw bytes, coded ones where modelled), id -> raw size."""
    must(len(data) >= 32, "header")
    must(data[:8] == bytes([0x89, 0x50, 0x4F, 0x54, 0x52, 0x0D, 0x0A, 0x1A]), "magic")
    version, flags, count, size, table_crc, header_crc = struct.unpack("<HHIQII", data[8:32])
    must(version in SECTIONS and flags == 0, "version or flags")
    must(zlib.crc32(data[:28]) == header_crc, "header checksum")
    must(size == len(data) and 32 + 24 * count <= size, "size")
    must(zlib.crc32(data[32 : 32 + 24 * count]) == table_crc, "table checksum")
    at, last, sections, raw_sizes = 32 + 24 * count, 0, {}, {}
    for i in range(count):
        number, coder, layout, reserved, crc, raw_size, coded_size = struct.unpack_from("<BBBBIQQ", data, 32 + 24 * i)
        must(last < number and number in SECTIONS[version] and reserved == 0, "table entry")
        modelled = version > 1 and number > 1
        must(coder == 2 and layout == 0 if modelled else coder in (0, 1), "coder")
        must(coded_size <= size - at, "coded size")
        coded = data[at : at + coded_size]
        must(zlib.crc32(coded) == crc, "section checksum")
        if coder == 1:
            must(raw_size > 0, "an empty section that is not stored")
            must(coded[:4] == bytes([0x28, 0xB5, 0x2F, 0xFD]), "zstd magic")
            decompressor = zstandard.ZstdDecompressor().decompressobj()
            raw = decompressor.decompress(coded)
            must(decompressor.eof and not decompressor.unused_data, "one zstd frame")
        else:
            raw = coded
        must(len(raw) == raw_size or modelled, "raw size")
        sections[number], raw_sizes[number] = (layout, raw), raw_size
        at, last = at + coded_size, number
    must(at == size, "end of file")
    return version, sections, raw_sizes


def symbol_array(section: tuple[int, bytes], n: int, skip: int = 0) -> list[int]:
    width, raw = section
    must(width in (1, 2, 4) and len(raw) == skip + n * width, "symbol array")
    return [sum(raw[skip + plane * n + i] << (8 * plane) for plane in range(width)) for i in range(n)]


def read_octree(nodes: bytes, tail_depths: bytes, tail_bits: bytes, counts: bytes, n: int) -> list[tuple[int, ...]]:
    """Section 6: the path of every splat's leaf."""
    bits = [byte >> (7 - k) & 1 for byte in tail_bits for k in range(8)]
    bit = tail = node = depth = 0
    leaves: list[tuple[int, ...]] = []
    level: list[tuple[int, ...]] = [()] if n else []
    tail_paths, only_children = set(), set()
    while level:
        following = []
        for path in level:
            code = nodes[node]
            node += 1
            if code:
                must(depth < 21, "depth")
                children = [(*path, c) for c in range(8) if code >> c & 1]
                following += children
                if len(children) == 1:
                    only_children.add(children[0])
            else:
                below = tail_depths[tail]
                tail += 1
                must(below <= 21 - depth, "tail depth")
                tail_paths.add(path)
                octants = []
                for _ in range(below):
                    octants.append(4 * bits[bit] + 2 * bits[bit + 1] + bits[bit + 2])
                    bit += 3
                leaves.append(path + tuple(octants))
        level, depth = following, depth + 1
    must(node == len(nodes) and tail == len(tail_depths), "octree streams")
    must(len(tail_bits) == (bit + 7) // 8 and not any(bits[bit:]), "tail bits")
    must(not tail_paths & only_children, "a tail written the long way")
    paths, at = [], 0
    for leaf in sorted(leaves):
        value = shift = 0
        while True:
            byte = counts[at]
            at += 1
            value += (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        paths += [leaf] * (1 + value)
    must(at == len(counts) and len(paths) == n, "counts")
    return paths


def read_sh_ac(sections: dict[int, tuple[int, bytes]], n: int, p_total: int) -> list[list[int]]:
    """Section 10: [P][N]."""
    counts, gaps = sections[16][1], sections[17][1]
    must(len(counts) == n and len(gaps) == sum(counts), "AC sizes")
    values = iter(symbol_array(sections[18], sum(counts)))
    gap = iter(gaps)
    start, left = [0] * n, list(counts)
    marked = set()
    for p in range(p_total):
        for c in (1, 2, 3, 4):
            for i in range(n):
                if left[i] and start[i] == p and min(left[i], 4) == c:
                    position = p + next(gap)
                    must(position <= p_total - left[i], "gap")
                    marked.add((position, i))
                    start[i] = position + 1
                    left[i] -= 1
    planes = [[0] * n for _ in range(p_total)]
    for p in range(p_total):
        for i in range(n):
            if (p, i) in marked:
                symbol = next(values)
                planes[p][i] = -((symbol >> 1) + 1) if symbol & 1 else (symbol >> 1) + 1
    return planes


Integers = tuple[list[int], list[list[int]], list[list[int]], np.ndarray]


def plain_integers(sections: dict[int, tuple[int, bytes]], paths: list[tuple[int, ...]], k: int) -> Integers:
    """Sections 7 to 10: opacity, scale indices, rotation, SH [N, K, 3]."""
    n = len(paths)
    indices = [[0] * 3 for _ in range(n)]
    for axis in range(3):
        section = sections[7 + axis]
        slope, base = struct.unpack_from("<HH", section[1])
        for i, symbol in enumerate(symbol_array(section, n, skip=4)):
            indices[i][axis] = (unzigzag(symbol) + base - ((slope * len(paths[i]) + 8) >> 4)) % 65536
    columns = [[unzigzag(s) for s in symbol_array(sections[10 + axis], n)] for axis in range(3)]
    integers = np.zeros((n, k, 3), np.int64)
    for channel in range(3):
        integers[:, 0, channel] = [unzigzag(s) for s in symbol_array(sections[13 + channel], n)]
    if k > 1:
        for p, plane in enumerate(read_sh_ac(sections, n, 3 * (k - 1))):
            integers[:, 1 + p % (k - 1), p // (k - 1)] = plane
    return symbol_array(sections[6], n), indices, [list(v) for v in zip(*columns, strict=True)], integers


def modelled_integers(sections: dict[int, tuple[int, bytes]], paths: list[tuple[int, ...]], k: int) -> Integers:
    """Sections 14 and 15."""
    around = models.Around(paths)
    opacity = models.read_opacity(sections[6][1], around)
    indices = models.read_scales(sections[20][1], around)
    vectors = models.read_rotation(sections[21][1], around, indices)
    integers = np.zeros((len(paths), k, 3), np.int64)
    for i, own in enumerate(models.read_sh_dc(sections[22][1], around)):
        integers[i, 0] = own
    if k > 1:
        given = (around, opacity, indices, k)
        for i, own in enumerate(second_sh_ac.read_sh_ac(sections[24][1], sections[25][1], *given)):
            integers[i, 1:] = np.array(own).T[1:]
    return opacity, indices, vectors, integers


def decode(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of section 11, float32."""
    version, sections, raw_sizes = read_file(data)
    raw = sections[1][1]
    n, levels, degree = struct.unpack_from("<IIB", raw)
    k = (degree + 1) ** 2
    must(set(sections) == SECTIONS[version] - (set() if degree else {16, 17, 18, 24, 25}), "sections")
    must(degree <= 3 and len(raw) == 72 + 12 * k + 4 * levels and n <= 65536 + len(data), "model")
    must(not any(raw[9:16]) and not any(raw[68:72]), "reserved")
    origin, extent = struct.unpack_from("<3d", raw, 16), struct.unpack_from("<d", raw, 40)[0]
    scale_origin, scale_step, rotation_step = (F32(v) for v in struct.unpack_from("<3f", raw, 56))
    sh_steps = np.array(struct.unpack_from(f"<{3 * k}f", raw, 72), F32).reshape(k, 3)
    table = np.array(struct.unpack_from(f"<{levels}f", raw, 72 + 12 * k), F32)

    if version > 1:
        expected = {6: 2, 19: 13, 20: 6, 21: 6, 22: 12, 24: 4 * (k - 1), 25: 8 * (k - 1)}
        must(all(raw_sizes[i] == n * size for i, size in expected.items() if i in sections), "raw sizes")
        paths = read_octree(*models.read_octree(sections[19][1], n), n)
        opacity, indices, vectors, integers = modelled_integers(sections, paths, k)
    else:
        paths = read_octree(*(sections[i][1] for i in (2, 3, 4, 5)), n)
        opacity, indices, vectors, integers = plain_integers(sections, paths, k)
    means = np.empty((n, 3), F32)
    for i, path in enumerate(paths):
        for axis in range(3):
            cell = sum((child >> (2 - axis) & 1) << (len(path) - 1 - j) for j, child in enumerate(path))
            means[i, axis] = F32(origin[axis] + (cell + 0.5) * (extent / 2 ** len(path)))

    log_scales = np.empty((n, 3), F32)
    for i in range(n):
        for axis in range(3):
            log_scales[i, axis] = F32(F32(indices[i][axis]) * scale_step) + scale_origin

    quats = np.empty((n, 4), F32)
    for i in range(n):
        x, y, z = (float(F32(F32(vectors[i][axis]) * rotation_step)) for axis in range(3))
        r = ((1 - x * x) - y * y) - z * z
        must(r >= 0, "rotation")
        quats[i] = F32(math.sqrt(r)), x, y, z

    constants = [np.array(bits, np.uint32).view(F32)[()] for bits in (0x3F13CD3A, 0x3F3504F3, 0x3ED105EC)]
    rgb = np.empty((n, k, 3), F32)
    for i in range(n):
        for j in range(k):
            a, b, c = (F32(F32(F32(integers[i, j, ch]) * sh_steps[j, ch]) * constants[ch]) for ch in range(3))
            base = F32(a - c)
            rgb[i, j] = F32(base + b), F32(a + F32(c + c)), F32(base - b)

    return {
        "means": means,
        "log_scales": log_scales,
        "quats": quats,
        "opacity_logits": table[opacity],
        "sh_dc": rgb[:, 0],
        "sh_ac": rgb[:, 1:],
    }
