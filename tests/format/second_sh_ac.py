# SPDX-License-Identifier: Apache-2.0
"""Section 15 of docs/format.md from the document alone: the second decoder's AC coefficients."""

from __future__ import annotations

from collections.abc import Sequence

from tests.format.second_mixers import Decisions, Mixer, must
from tests.format.second_models import Around


def level(v: int) -> int:
    a = min(abs(v), 31)
    return a if a < 4 else 4 if a < 6 else 5 if a < 9 else 6 if a < 14 else 7 if a < 22 else 8 if a < 30 else 9


def signed_level(v: int) -> int:
    return 9 + level(v) if v < 0 else level(v)


def read_sh_ac(
    luma: bytes, chroma: bytes, around: Around, opacity: Sequence[int], scales: Sequence[Sequence[int]], k_total: int
) -> list[list[list[int]]]:
    """[N][channel][k], k = 0 unused."""
    sections = [Decisions(luma), Decisions(chroma)]
    channels = [AcChannel(sections[min(c, 1)], c, around, opacity, scales, k_total) for c in range(3)]
    sh: list[list[list[int]]] = []
    for i in range(len(opacity)):
        sh.append([[0] * k_total for _ in range(3)])
        for channel in channels:
            channel.read(i, sh)
    for decisions in sections:
        decisions.finish()
    return sh


class AcChannel:
    def __init__(
        self,
        decisions: Decisions,
        channel: int,
        around: Around,
        opacity: Sequence[int],
        scales: Sequence[Sequence[int]],
        k_total: int,
    ) -> None:
        self.count, self.place, self.sign, self.magnitude = (Mixer(decisions) for _ in range(4))
        self.channel, self.around, self.opacity, self.scales = channel, around, opacity, scales
        self.k_total = k_total

    def read(self, i: int, sh: list[list[list[int]]]) -> None:
        c, k_total, own = self.channel, self.k_total, sh[i][self.channel]
        counts = [sum(v != 0 for v in sh[i][b]) if b < c else 0 for b in (0, 1)]
        near = [self.around.nearest(i, rank, lambda j: sum(v != 0 for v in sh[j][c])) for rank in range(3)]
        total = sum(self.scales[i])
        self.count.choose(
            tuple(counts),
            (counts[0], (2 * near[0] + near[1] + near[2]) // 2),
            (max(self.scales[i]), self.opacity[i]),
            (sum(counts), total // 32),
        )
        count = 0
        if self.count.decide(0, 4):
            count = 1 + self.count.symbol((k_total - 2).bit_length(), 0)
        must(count < k_total, "AC count")
        impact = 8 * min(self.opacity[i] // 4, 7) + min(total // 48, 7)
        values = [[min(max(sh[j][c][k], -31), 31) for j in self.around.near[i]] for k in range(k_total)]
        luma, red_blue = (sh[i][b] if b < c else [0] * k_total for b in (0, 1))

        places: list[int] = []
        left, history = count, 0
        for k in range(1, k_total):
            significant = left == k_total - k
            if left and not significant:
                before = int(i > 0 and sh[i - 1][c][k] != 0)
                self.place.choose_lines(
                    (k, sum(v != 0 for v in values[k]), before),
                    (k, history, count),
                    (k, impact, left),
                    (k, left, level(luma[k]), min(level(red_blue[k]), 3)),
                )
                significant = bool(self.place.decide(0, k))
                history = (2 * history + significant) % 16
            if left and significant:
                places.append(k)
                left -= 1

        nearest = [self.around.nearest(i, 0, lambda j, k=k: min(max(sh[j][c][k], -31), 31)) for k in range(k_total)]
        negative, last, signs = 0, 0, []
        for k in places:
            self.sign.choose_lines(
                (k,),
                (k, signed_level(luma[k]), signed_level(red_blue[k])),
                (k, last, negative),
                (signed_level(sum(values[k])), signed_level(nearest[k])),
            )
            negative, last = self.sign.decide(0, k), k
            signs.append(negative)

        total, done = 0, 0
        for k, negative in zip(places, signs, strict=True):
            band = 0 if k < 4 else 1 if k < 9 else 2
            others = (sum(map(abs, values[k])) - abs(nearest[k])) // 2
            self.magnitude.choose_lines(
                (k, level(nearest[k]), level(others)),
                (k, impact),
                (k, level(luma[k]), level(red_blue[k])),
                (band, min(31, 2 * total // done) if done else 0, count),
            )
            magnitude = 1
            while magnitude < 15 and self.magnitude.decide(magnitude, 3 * magnitude + band):
                magnitude += 1
            if magnitude == 15:
                magnitude += self.magnitude.gamma(15, 0, 24)
            must(magnitude <= 2**24, "AC")
            own[k] = -magnitude if negative else magnitude
            total, done = min(total + magnitude, 2**24), done + 1
