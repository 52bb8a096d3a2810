# SPDX-License-Identifier: Apache-2.0
"""The slow, obvious twin of the native octree coder: recursive, one splat at a time, lists and dicts."""

from __future__ import annotations

import numpy as np

from potr.format.octree import OctreeStreams

MAX_DEPTH = 21


def octant(cell, level, depth):
    """Which child of the node at ``level`` the cell (at ``depth``) falls into: 4 x + 2 y + z."""
    x, y, z = (int(c) >> (depth - 1 - level) & 1 for c in cell)
    return 4 * x + 2 * y + z


def order_leaves(cells, required, max_depth):
    order, depths = [], []

    def visit(splats, level):
        if all(required[i] <= level for i in splats):
            # Inside a leaf the order is still the Morton order at max_depth, then the input's.
            path = {i: [octant(cells[i], k, max_depth) for k in range(max_depth)] for i in splats}
            order.extend(sorted(splats, key=lambda i: (path[i], i)))
            depths.extend([level] * len(splats))
            return
        for child in range(8):
            inside = [i for i in splats if octant(cells[i], level, max_depth) == child]
            if inside:
                visit(inside, level + 1)

    if len(cells):
        visit(list(range(len(cells))), 0)
    return np.array(order, np.int64), np.array(depths, np.uint8)


def encode_octree(cells, depths):
    leaves: list[tuple[tuple[int, ...], int]] = []
    counts: list[int] = []
    for cell, depth in zip(cells.tolist(), depths.tolist(), strict=True):
        if leaves and leaves[-1] == (tuple(cell), depth):
            counts[-1] += 1
        else:
            leaves.append((tuple(cell), depth))
            counts.append(1)
    nodes, tail_depths, bits = [], [], ""
    level, row = 0, [leaves] if leaves else []
    while row:
        below = []
        for inside in row:
            if len(inside) == 1:
                cell, depth = inside[0]
                nodes.append(0)
                tail_depths.append(depth - level)
                bits += "".join(f"{octant(cell, k, depth):03b}" for k in range(level, depth))
                continue
            children = [[leaf for leaf in inside if octant(leaf[0], level, leaf[1]) == child] for child in range(8)]
            nodes.append(sum(1 << child for child in range(8) if children[child]))
            below += [child for child in children if child]
        level, row = level + 1, below
    bits += "0" * (-len(bits) % 8)
    packed = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    return OctreeStreams(bytes(nodes), bytes(tail_depths), packed, b"".join(leb128(c - 1) for c in counts))


def leb128(value):
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def decode_octree(streams, num_splats):
    """Of valid streams only."""
    nodes, tail_depths = iter(streams.nodes), iter(streams.tail_depths)
    bits = "".join(f"{byte:08b}" for byte in streams.tail_bits)
    at, level, row, leaves = 0, 0, [()] if num_splats else [], []
    while row:
        below = []
        for path in row:
            occupancy = next(nodes)
            if occupancy == 0:
                length = next(tail_depths)
                leaves.append(path + tuple(int(bits[at + 3 * k : at + 3 * k + 3], 2) for k in range(length)))
                at += 3 * length
            below += [(*path, child) for child in range(8) if occupancy >> child & 1]
        level, row = level + 1, below
    cells, depths, counts = [], [], iter(streams.counts)
    for path in sorted(leaves):
        count, shift, byte = 1, 0, 128
        while byte & 128:
            byte = next(counts)
            count, shift = count + ((byte & 127) << shift), shift + 7
        cell = [sum((o >> axis & 1) << (len(path) - 1 - k) for k, o in enumerate(path)) for axis in (2, 1, 0)]
        cells += [cell] * count
        depths += [len(path)] * count
    return np.array(cells, np.uint32).reshape(-1, 3), np.array(depths, np.uint8)
