# SPDX-License-Identifier: Apache-2.0
"""Sections 13 and 14 of docs/format.md from the document alone: the second decoder's slow, obvious models."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from tests.format.second_mixers import Decisions, Mixer, must


def read_octree(data: bytes, n: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Section 13: the four streams of section 6."""
    decisions = Decisions(data)
    tail_mixer, depth_mixer, node_mixer, count_mixer = (Mixer(decisions) for _ in range(4))
    nodes, tail_depths, bits = bytearray(), bytearray(), []
    level = {(0, 0, 0): None} if n else {}  # cell -> occupancy, in depth-first order
    above: dict[tuple[int, int, int], int] = {}
    for depth in range(22):
        occupancy: dict[tuple[int, int, int], int] = {}
        leaf_depth: dict[tuple[int, int, int], int] = {}  # of tails
        below = []
        last_leaf_depth = 0
        previous = None
        for index, cell in enumerate(level):
            x, y, z = cell
            parent = (x >> 1, y >> 1, z >> 1)
            octant = 4 * (x & 1) + 2 * (y & 1) + (z & 1)
            siblings = above[parent] if depth else 1
            beside = [(x - 1, y, z), (x + 1, y, z), (x, y - 1, z), (x, y + 1, z), (x, y, z - 1), (x, y, z + 1)]
            present = sum(1 << f for f in range(6) if beside[f] in level)
            count = present.bit_count()
            known = [c for c in beside if c in occupancy]
            tails = [c for c in known if occupancy[c] == 0]
            touching = [occupancy.get(beside[2 * axis], 0) & (0xF0, 0xCC, 0xAA)[axis] for axis in range(3)]
            before = 0
            if previous is not None and tuple(v >> 1 for v in previous) == parent:
                before = 1 + (occupancy[previous] == 0)
            tail = depth == 21
            if not tail and not (depth and siblings.bit_count() == 1):
                tail_mixer.choose(
                    (depth, before),
                    (siblings.bit_count(), count, before),
                    (len(tails), len(known) - len(tails), count),
                    (siblings, octant),
                )
                tail = bool(tail_mixer.decide(1, depth))
            if tail:
                deepest = max((leaf_depth[c] for c in tails), default=0)
                depth_mixer.choose(
                    (depth, last_leaf_depth), (depth,), (depth, deepest), (depth, count, siblings.bit_count())
                )
                down = depth_mixer.symbol(5, 0)
                must(down <= 21 - depth, "leaf depth")
                bits += depth_mixer.way(3 * down)
                nodes.append(0)
                tail_depths.append(down)
                occupancy[cell] = 0
                leaf_depth[cell] = last_leaf_depth = depth + down
            else:
                touched = sum(1 << axis for axis in range(3) if touching[axis])
                node_mixer.choose(
                    (depth,),
                    (siblings, octant),
                    (depth, present, touched),
                    (*touching, present & 42),
                )
                code = node_mixer.symbol(8, 8 * count)
                must(code > 0, "a node without children")
                nodes.append(code)
                occupancy[cell] = code
                below += [(2 * x + (c >> 2), 2 * y + (c >> 1 & 1), 2 * z + (c & 1)) for c in range(8) if code >> c & 1]
            must(len(tail_depths) + len(level) - index - 1 + len(below) <= n, "too many leaves")
            previous = cell
        level, above = dict.fromkeys(below), occupancy
    counts, left, last, last_but_one = bytearray(), n, 0, 0
    for _ in tail_depths:
        count_mixer.choose((), (min(last, 3),), (min(last, 3), min(last_but_one, 3)), (min(last, 15),))
        more = count_mixer.gamma(1, 0, 27)
        last, last_but_one = more, last
        must(more < left, "too many splats")
        left -= more + 1
        while more > 127:
            counts.append(more & 127 | 128)
            more >>= 7
        counts.append(more)
    decisions.finish()
    bits += [0] * (-len(bits) % 8)
    packed = bytes(sum(bit << (7 - k) for k, bit in enumerate(bits[i : i + 8])) for i in range(0, len(bits), 8))
    return bytes(nodes), bytes(tail_depths), packed, bytes(counts)


class Around:
    """Section 14: each splat's neighbours."""

    def __init__(self, paths: Sequence[tuple[int, ...]]) -> None:
        self.depths = [len(path) for path in paths]
        centers = []
        for path in paths:
            cell = [sum((c >> (2 - axis) & 1) << (len(path) - 1 - j) for j, c in enumerate(path)) for axis in range(3)]
            centers.append([(2 * v + 1) << (21 - len(path)) for v in cell])
        self.near: list[list[int]] = []
        self.weights: list[list[int]] = []
        for i, center in enumerate(centers):
            distance = {
                j: sum(abs(a - b) for a, b in zip(center, centers[j], strict=True)) for j in range(max(0, i - 64), i)
            }
            near = sorted(distance, key=lambda j: (distance[j], -j))[:4]
            unit = 2 ** (22 - self.depths[i]) // 4 + 1
            self.near.append(near)
            self.weights.append([65536 // (1 + distance[j] // unit) + 1 for j in near])

    def mean(self, i: int, value: Callable[[int], int]) -> int:
        total = sum(self.weights[i])
        weighted = sum(w * value(j) for w, j in zip(self.weights[i], self.near[i], strict=True))
        return (4 * weighted + total // 2) // total if total else 0

    def nearest(self, i: int, rank: int, value: Callable[[int], int]) -> int:
        return value(self.near[i][rank]) if rank < len(self.near[i]) else 0


def ranges(data: bytes, columns: int, low: int, high: int) -> tuple[Decisions, list[tuple[int, int]]]:
    must(len(data) >= 5 * columns, "ranges")
    found = [struct.unpack_from("<iB", data, 5 * c) for c in range(columns)]
    must(all(low <= lowest <= high and bits <= 26 for lowest, bits in found), "ranges")
    return Decisions(data[5 * columns :]), found


def classify(v: int) -> int:
    a = abs(v)
    c = a if a < 4 else 4 if a < 6 else 5 if a < 9 else 6 if a < 14 else 7 if a < 22 else 8 if a < 40 else 9
    return 16 + c if v < 0 else c


def read_opacity(data: bytes, around: Around) -> list[int]:
    decisions, [(lowest, bits)] = ranges(data, 1, 0, 65535)
    mixer, symbols = Mixer(decisions), []
    for i, depth in enumerate(around.depths):
        mean = around.mean(i, symbols.__getitem__)
        two = [around.nearest(i, rank, symbols.__getitem__) for rank in (0, 1)]
        mixer.choose((), (depth,), (mean // 8, depth), two)
        symbols.append(mixer.symbol(bits, 0))
    decisions.finish()
    must(all(lowest + s < 65536 for s in symbols), "opacity")
    return [lowest + s for s in symbols]


def read_scales(data: bytes, around: Around) -> list[list[int]]:
    decisions, columns = ranges(data, 3, 0, 65535)
    mixer = Mixer(decisions)
    values: list[list[int]] = []
    for i, depth in enumerate(around.depths):
        values.append([])
        for axis, (lowest, bits) in enumerate(columns):
            low, high = min(values[i], default=0), max(values[i], default=0)
            mean = around.mean(i, lambda j, axis=axis: values[j][axis])
            mixer.choose(
                (axis,),
                (axis, depth, low),
                (axis, low, high),
                (axis, depth, mean // 2),
            )
            values[i].append(lowest + mixer.symbol(bits, 26 * axis))
            must(values[i][axis] < 65536, "scale")
    decisions.finish()
    return values


def read_rotation(data: bytes, around: Around, scales: Sequence[Sequence[int]]) -> list[list[int]]:
    decisions, columns = ranges(data, 3, -32768, 32767)
    mixer = Mixer(decisions)
    values: list[list[int]] = []
    for i in range(len(scales)):
        own: list[int] = []
        values.append(own)
        for axis, (lowest, bits) in enumerate(columns):
            before = (axis, own[0] if axis else 0, own[1] if axis > 1 else 0)
            apart = abs(scales[i][(axis + 1) % 3] - scales[i][(axis + 2) % 3])
            mixer.choose((axis,), before, (axis, min(apart, 20)), (axis, sum(scales[i]) // 8, min(apart // 2, 10)))
            own.append(lowest + mixer.symbol(bits, 26 * axis))
            must(own[axis] < 32768, "rotation")
    decisions.finish()
    return values


def read_sh_dc(data: bytes, around: Around) -> list[list[int]]:
    decisions, columns = ranges(data, 3, -(2**24), 2**24)
    mixer = Mixer(decisions)
    symbols: list[list[int]] = []
    for i in range(len(around.depths)):
        own: list[int] = []
        change = [0, 0, 0]
        symbols.append(own)
        for channel, (_, bits) in enumerate(columns):
            mean = around.mean(i, lambda j, channel=channel: symbols[j][channel])
            others = [symbols[j][channel] for j in around.near[i]] or [0]
            spread = classify(max(others) - min(others))
            luma, red_blue = [*own, 0, 0][:2]
            mixer.choose(
                (channel,),
                (channel, mean // 8, spread),
                (channel, mean // 4, change[0], change[1]),
                (channel, luma // 2, red_blue),
            )
            own.append(mixer.symbol(bits, 26 * channel))
            change[channel] = classify(4 * own[channel] - mean)
    decisions.finish()
    values = [[lowest + s for (lowest, _), s in zip(columns, own, strict=True)] for own in symbols]
    must(all(abs(v) <= 2**24 for own in values for v in own), "DC")
    return values
