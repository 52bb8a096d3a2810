# SPDX-License-Identifier: Apache-2.0
"""Section 12 of docs/format.md from the document alone: the second decoder's slow, obvious arithmetic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

WORD = 0xFFFFFFFF
LOGISTIC = (
    22, 36, 60, 98, 162, 267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768,
    40793, 47911, 53581, 57724, 60565, 62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514,
)  # fmt: skip
SQUASH = [(LOGISTIC[i >> 7] * (128 - (i & 127)) + LOGISTIC[(i >> 7) + 1] * (i & 127) + 64) >> 7 for i in range(4096)]


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
        must(self.value < self.range, "the first bytes of a modelled section")

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

    def bits(self, count: int) -> int:
        self.range >>= count
        number = self.value // self.range
        must(number < 2**count, "bits")
        self.value -= number * self.range
        while self.range < 2**32:
            self.range <<= 32
            self.value = self.value << 32 | int.from_bytes(self.data[self.at : self.at + 4].ljust(4, b"\0"), "big")
            self.at += 4
        return number

    def finish(self) -> None:
        must(self.at >= len(self.data) and not self.data.endswith(b"\0"), "the end of a modelled section")


def towards_0(a: int, b: int) -> int:
    return a // b if a >= 0 else -(-a // b)


LEVELS = [SQUASH[8 * level + 4] for level in range(512)]


def counter_after(seen: int, level: int, bit: int, limit: int) -> tuple[int, int]:
    one = LEVELS[level] if seen else 32768
    age = min(seen, limit)
    moved = one + towards_0(((65535 if bit else 0) - one) * 10, 250 if age == 15 else 10 * age + 16)
    nearest = min(range(512), key=lambda to: (abs(LEVELS[to] - moved), to))
    if seen and nearest == level:
        nearest = min(max(level + (1 if bit else -1), 0), 511)
    return min(seen + 1, limit), nearest


AFTER: dict[tuple[int, int, int, int], tuple[int, int]] = {}  # what counter_after said


class Mixer:
    """Section 12, the mixed probabilities. `slots` may be anything that tells lines apart."""

    def __init__(self, decisions: Decisions) -> None:
        self.decisions = decisions
        self.states: defaultdict[tuple[int, object, int], tuple[int, int]] = defaultdict(lambda: (0, 256))
        self.weights: defaultdict[tuple[int, int], int] = defaultdict(lambda: 2375)
        self.hashes: list[int] = []
        self.slots: list[object] = []

    def choose(self, *contexts: Sequence[int]) -> None:
        assert len(contexts) == 4
        self.hashes = []
        for numbers in contexts:
            h = 0
            for number in numbers:
                h = (h + number + 1) * 0x9E3779B1 & WORD
            self.hashes.append(h)
        self.lines(0)

    def lines(self, prefix: int) -> None:
        self.slots = [((h + prefix) * 0x85EBCA6B & WORD) >> 20 for h in self.hashes]

    def choose_lines(self, *contexts: tuple[int, ...]) -> None:
        """Lines of their own, not by hash."""
        assert len(contexts) == 4
        self.slots = list(contexts)

    def decide(self, node: int, weights: int) -> int:
        keys = [(i, slot, node) for i, slot in enumerate(self.slots)]
        states = [self.states[key] for key in keys]
        inputs = [towards_0((32 * level - 8176) * seen, seen + 1) for seen, level in states]
        total = sum(self.weights[weights, i] * x for i, x in enumerate(inputs))
        one = SQUASH[min(max(total >> 15, -2047), 2047) + 2048]
        bit = self.decisions.next(one)
        error = ((bit << 16) - one) >> 6
        for i, (key, (seen, level), x) in enumerate(zip(keys, states, inputs, strict=True)):
            moved = self.weights[weights, i] + ((x * error + 16384) >> 15)
            self.weights[weights, i] = min(max(moved, -32767), 32767)
            change = (seen, level, bit, 15 if i else 8)
            if change not in AFTER:
                AFTER[change] = counter_after(*change)
            self.states[key] = AFTER[change]
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
        for bit in self.way(length):
            value = 2 * value + bit
        return value - 1

    def way(self, count: int) -> list[int]:
        bits: list[int] = []
        while len(bits) < count:
            some = min(count - len(bits), 16)
            number = self.decisions.bits(some)
            bits += [number >> (some - 1 - i) & 1 for i in range(some)]
        return bits
