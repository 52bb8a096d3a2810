# SPDX-License-Identifier: Apache-2.0
"""The search for a quality that meets a target, on made-up codecs: few trials, and clear where there is none."""

import math
from collections.abc import Callable

import pytest

from potr.encoder.target import FIRST, MOST_TRIALS, Target, Trial, search
from potr.errors import ConfigError, TargetError

# bytes of real scenes at quality 0.1, 0.3, 0.5, 0.8, 1 (codec=default of fbb320c), log-linear in between
QUALITIES = (0.1, 0.3, 0.5, 0.8, 1.0)
CHAIR = (709_557, 992_927, 1_452_816, 2_114_943, 2_665_872)
BONSAI = (701_908, 1_042_952, 1_462_777, 2_247_044, 2_832_386)
FERN = (322_808, 464_103, 619_354, 882_295, 1_065_393)


def between(quality: float, values: tuple[int, ...]) -> float:
    """Log-linear, also beyond the ends."""
    index = max(0, min(len(QUALITIES) - 2, sum(quality > q for q in QUALITIES) - 1))
    a, b = QUALITIES[index], QUALITIES[index + 1]
    share = (quality - a) / (b - a)
    return math.exp((1 - share) * math.log(values[index]) + share * math.log(values[index + 1]))


def codec(size: Callable[[float], float], drop: Callable[[float], float] = lambda q: 0.0) -> Callable[[float], Trial]:
    def attempt(quality: float) -> Trial:
        assert 0 < quality <= 1
        size_bytes = round(size(quality))
        return Trial(quality, size_bytes, size_bytes // 10, drop(quality))

    return attempt


@pytest.mark.parametrize("scene", [CHAIR, BONSAI, FERN])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999])
def test_a_size_is_met_in_few_trials(scene: tuple[int, ...], share: float) -> None:
    wanted = scene[0] * (scene[-1] / scene[0]) ** share / 1e6
    trials = search(Target(size_mb=wanted), codec(lambda q: between(q, scene)))
    assert abs(trials[-1].bytes / 1e6 / wanted - 1) <= 0.02
    assert trials[0].quality == FIRST
    assert len(trials) <= 4
    splats = search(Target(splats=round(1e5 * wanted)), codec(lambda q: between(q, scene)))
    assert abs(splats[-1].splats / (1e5 * wanted) - 1) <= 0.02
    assert len(splats) <= 4


@pytest.mark.parametrize("loss", [0.05, 0.3, 1.0, 2.0])
def test_a_loss_is_met_in_few_trials(loss: float) -> None:
    # The MSE rises by what the pruning cap allows, which falls by a factor of 100 from quality 0 to 1.
    trials = search(Target(psnr_drop=loss), codec(lambda q: 1e6, lambda q: 10 * math.log10(1 + 0.9 * 10 ** (-2 * q))))
    assert trials[-1].psnr_drop == pytest.approx(loss, abs=0.02)
    assert len(trials) <= 5


def test_a_size_that_wavers_and_jumps_is_met() -> None:
    def size(quality: float) -> float:
        return (between(quality, CHAIR) + 150_000 * (quality > 0.62)) * (1 + 0.004 * math.sin(400 * quality))

    trials = search(Target(size_mb=1.9), codec(size))
    assert trials[-1].bytes == pytest.approx(1.9e6, rel=0.02)


def test_the_same_search_twice_asks_the_same() -> None:
    asked = [[t.quality for t in search(Target(size_mb=0.9), codec(lambda q: between(q, CHAIR)))] for _ in range(2)]
    assert asked[0] == asked[1]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (Target(size_mb=5), r"target.size_mb=5 cannot be met: quality=1 is the finest there is; the closest is "
         r"2.666 MB, at quality=1$"),
        (Target(size_mb=0.1), r"quality=0.01 is the coarsest that is tried; the closest is 0.61 MB, at quality=0.01"),
        (Target(psnr_drop=0), r"quality=1 is the finest there is; the closest is \+0.100 dB lost, at quality=1"),
        (Target(psnr_drop=9), r"quality=0.01 is the coarsest"),
        (Target(splats=270_000), r"quality=1 is the finest .* 266,587 splats"),
    ],
)  # fmt: skip
def test_what_no_quality_gives_is_refused_with_what_is_nearest(target: Target, message: str) -> None:
    asked = []
    attempt = codec(lambda q: between(q, CHAIR), lambda q: 1.1 - q)

    def counted(quality: float) -> Trial:
        asked.append(quality)
        return attempt(quality)

    if target.splats == 270_000:  # within 2 % of the finest
        assert search(target, counted)[-1].quality == 1
        target = Target(splats=280_000)
    with pytest.raises(TargetError, match=message):
        search(target, counted)
    assert len(asked) <= 8


def test_a_jump_over_the_target_ends_with_what_lies_on_either_side() -> None:
    asked: list[float] = []

    def attempt(quality: float) -> Trial:
        asked.append(quality)
        return codec(lambda q: 1e6 if q < 0.4321 else 1.5e6)(quality)

    with pytest.raises(TargetError, match=r"no quality in between was found in \d+ trials; the closest is 1 MB"):
        search(Target(size_mb=1.2), attempt)
    assert len(asked) <= MOST_TRIALS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "target: expected one of size_mb, psnr_drop, splats, got none"),
        ({"size_mb": 5.0, "splats": 10}, "got size_mb=5 and splats=10"),
        ({"size_mb": 0.0}, "target.size_mb: expected a number in"),
        ({"size_mb": math.nan}, "target.size_mb: expected a number in"),
        ({"psnr_drop": -0.1}, "target.psnr_drop: expected a number in"),
        ({"splats": 0}, "target.splats: expected a number in"),
        ({"splats": 10.5}, "target.splats: expected a whole number"),
    ],
)
def test_a_target_that_makes_no_sense_is_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Target(**values)  # type: ignore[arg-type]
