# SPDX-License-Identifier: Apache-2.0
"""Sections 12 to 15 of docs/format.md from the document alone: the second decoder's slow, obvious models."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Sequence

WORD = 0xFFFFFFFF
LOGISTIC = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
    40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
)  # fmt: skip
SQUASH = [(LOGISTIC[i >> 7] * (128 - (i & 127)) + LOGISTIC[(i >> 7) + 1] * (i & 127) + 64) >> 7 for i in range(4096)]
STRETCH = [next((x for x in range(-2047, 2048) if SQUASH[x + 2048] >> 4 >= p), 2047) for p in range(4096)]


class Refused(Exception):
    pass


def must(condition: bool, what: str) -> None:
    if not condition:
        raise Refused(what)


class Decisions:
    """Section 12, the arithmetic decoder."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.range = data, 8, 2**64 - 1
        self.value = int.from_bytes(data[:8].ljust(8, b"\0"), "big")

    def next(self, one: int) -> int:
        bound = (self.range >> 16) * one
        bit = int(self.value < bound)
        if bit:
            self.range = bound
        else:
            self.value -= bound
            self.range -= bound
        while self.range < 2**32:
            self.range <<= 32
            self.value = self.value << 32 | int.from_bytes(self.data[self.at : self.at + 4].ljust(4, b"\0"), "big")
            self.at += 4
        return bit

    def finish(self) -> None:
        must(self.at >= len(self.data) and not self.data.endswith(b"\0"), "the end of a modelled section")


class Mixer:
    """Section 12, the mixed probabilities."""

    def __init__(self, decisions: Decisions, inputs: int) -> None:
        self.decisions, self.inputs = decisions, inputs
        self.counters: defaultdict[tuple[int, int, int], list[int]] = defaultdict(lambda: [2**21, 0])
        self.weights: defaultdict[tuple[int, int], int] = defaultdict(lambda: 4096)
        self.hashes: list[int] = []
        self.slots: list[int] = []

    def choose(self, *contexts: Sequence[int]) -> None:
        assert len(contexts) == self.inputs
        self.hashes = []
        for numbers in contexts:
            h = 0
            for number in numbers:
                h = (h + number + 1) * 0x9E3779B1 & WORD
            self.hashes.append(h)
        self.lines(0)

    def lines(self, prefix: int) -> None:
        self.slots = [((h + prefix) * 0x85EBCA6B & WORD) >> 20 for h in self.hashes]

    def decide(self, node: int, weights: int) -> int:
        counters = [self.counters[i, slot, node] for i, slot in enumerate(self.slots)]
        inputs = [STRETCH[p >> 10] for p, _ in counters]
        total = sum(self.weights[weights, i] * x for i, x in enumerate(inputs))
        p = SQUASH[min(max(total >> 14, -2047), 2047) + 2048]
        bit = self.decisions.next(p)
        error = ((bit << 16) - p) * 3 >> 5
        for i, (x, counter) in enumerate(zip(inputs, counters, strict=True)):
            moved = self.weights[weights, i] + ((x * error + 8192) >> 14)
            self.weights[weights, i] = min(max(moved, -65536), 65536)
            seen = counter[1]
            counter[0] += ((2**22 - 1 if bit else 0) - counter[0]) * (5120 // (10 * seen + 16)) >> 9
            counter[1] = min(seen + 1, 30 if i else 12) if seen < (30 if i else 12) else seen
        return bit

    def symbol(self, bits: int, weights: int) -> int:
        prefix = node = 1
        for i in range(bits):
            if i and i % 4 == 0:
                self.lines(prefix)
                node = 1
            bit = self.decide(node, weights + i)
            prefix, node = 2 * prefix + bit, 2 * node + bit
        return prefix - 2**bits

    def gamma(self, node: int, weights: int, most: int) -> int:
        length = 0
        while self.decide(min(node + length, 15), weights):
            must(length < most, "a number's length")
            length += 1
        value = 1
        for _ in range(length):
            value = 2 * value + self.decisions.next(32768)
        return value - 1


def read_octree(data: bytes, n: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Section 13: the four streams of section 6."""
    decisions = Decisions(data)
    tail_mixer, depth_mixer = Mixer(decisions, 4), Mixer(decisions, 4)
    node_mixer, count_mixer = Mixer(decisions, 5), Mixer(decisions, 2)
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
                bits += [decisions.next(32768) for _ in range(3 * down)]
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
                    (depth, siblings.bit_count(), count),
                )
                code = node_mixer.symbol(8, 8 * count)
                must(code > 0, "a node without children")
                nodes.append(code)
                occupancy[cell] = code
                below += [(2 * x + (c >> 2), 2 * y + (c >> 1 & 1), 2 * z + (c & 1)) for c in range(8) if code >> c & 1]
            must(len(tail_depths) + len(level) - index - 1 + len(below) <= n, "too many leaves")
            previous = cell
        level, above = dict.fromkeys(below), occupancy
    counts, left, last = bytearray(), n, 0
    for _ in tail_depths:
        count_mixer.choose((), (min(last, 3),))
        last = more = count_mixer.gamma(1, 0, 27)
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
    mixer, symbols = Mixer(decisions, 4), []
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
    mixer = Mixer(decisions, 5)
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
                (axis, depth, (low + high) // 2, mean // 4),
            )
            values[i].append(lowest + mixer.symbol(bits, 26 * axis))
            must(values[i][axis] < 65536, "scale")
    decisions.finish()
    return values


def read_rotation(data: bytes, around: Around, scales: Sequence[Sequence[int]]) -> list[list[int]]:
    decisions, columns = ranges(data, 3, -32768, 32767)
    mixer = Mixer(decisions, 4)
    orders = [4 * (s[0] > s[1]) + 2 * (s[1] > s[2]) + (s[0] > s[2]) for s in scales]
    values: list[list[int]] = []
    for i in range(len(scales)):
        near = [around.nearest(i, 0, lambda j, axis=axis: values[j][axis]) for axis in range(3)]
        near_order = around.nearest(i, 0, orders.__getitem__)
        own: list[int] = []
        values.append(own)
        for axis, (lowest, bits) in enumerate(columns):
            change = (own[axis - 1] - near[axis - 1]) >> 2 if axis else 0
            mixer.choose(
                (axis,),
                (axis, own[0] if axis else 0, own[1] if axis > 1 else 0),
                (axis, near[axis], orders[i]),
                (axis, orders[i], near_order, near[axis], change),
            )
            own.append(lowest + mixer.symbol(bits, 26 * axis))
            must(own[axis] < 32768, "rotation")
    decisions.finish()
    return values


def read_sh_dc(data: bytes, around: Around) -> list[list[int]]:
    decisions, columns = ranges(data, 3, -(2**24), 2**24)
    mixer = Mixer(decisions, 5)
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
                (channel, mean // 4),
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


def read_sh_ac(
    data: bytes, around: Around, opacity: Sequence[int], scales: Sequence[Sequence[int]], k_total: int
) -> list[list[list[int]]]:
    """Section 15: [N][channel][k], k = 0 unused."""
    decisions = Decisions(data)
    count_mixer, places, values = (Mixer(decisions, 4) for _ in range(3))
    counts: list[list[int]] = []
    sh: list[list[list[int]]] = []
    for i in range(len(opacity)):
        own: list[int] = []
        for channel in range(3):
            luma, red_blue = [*own, 0, 0][:2]
            near = sum(around.nearest(i, rank, lambda j, channel=channel: counts[j][channel]) for rank in (0, 1))
            count_mixer.choose(
                (channel, luma, red_blue),
                (channel, luma, near),
                (channel, max(scales[i]), opacity[i]),
                (channel, luma + red_blue, sum(scales[i]) // 4),
            )
            own.append(count_mixer.symbol((k_total - 1).bit_length(), 4 * channel))
            must(own[-1] < k_total, "AC count")
        counts.append(own)
        sh.append([[0] * k_total for _ in range(3)])
        for channel in range(3):
            left, history, total, last = own[channel], 0, 0, 0
            for k in range(1, k_total):
                if left == 0:
                    break
                near = [min(max(sh[j][channel][k], -50), 50) for j in around.near[i]]
                magnitudes = min(sum(map(abs, near)), 63)
                luma = classify(sh[i][0][k]) if channel > 0 else 0
                red_blue = classify(sh[i][1][k]) if channel > 1 else 0
                significant = 1
                if left < k_total - k:
                    before = int(i > 0 and sh[i - 1][channel][k] != 0)
                    places.choose(
                        (k, channel, sum(v != 0 for v in near), before),
                        (k, channel, history % 16, own[channel]),
                        (k, channel, magnitudes, left),
                        (k, channel, left, luma, min(red_blue % 16, 3)),
                    )
                    significant = places.decide(1, 3 * k + channel)
                history = 2 * history + significant
                if not significant:
                    continue
                done, left = own[channel] - left, left - 1
                nearest = classify(around.nearest(i, 0, lambda j, k=k, channel=channel: sh[j][channel][k]))
                values.choose(
                    (k, channel),
                    (k, channel, luma, red_blue),
                    (k, channel, last, int(last > 0 and sh[i][channel][last] < 0)),
                    (channel, classify(sum(near)), nearest),
                )
                negative = values.decide(0, 3 * k + channel)
                band = 1 if k < 4 else 2 if k < 9 else 3
                values.choose(
                    (k, channel, magnitudes),
                    (k, channel, sum(own)),
                    (k, channel, luma % 16, red_blue % 16),
                    (channel, band, min(31, 2 * total // done) if done else 0, own[channel]),
                )
                magnitude = 1
                while magnitude < 15 and values.decide(magnitude, 45 + 3 * magnitude + band):
                    magnitude += 1
                if magnitude == 15:
                    magnitude += values.gamma(15, 48, 24)
                must(magnitude <= 2**24, "AC")
                sh[i][channel][k] = -magnitude if negative else magnitude
                total, last = min(total + magnitude, 2**24), k
    decisions.finish()
    return sh
