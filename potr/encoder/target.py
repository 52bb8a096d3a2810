# SPDX-License-Identifier: Apache-2.0
"""A size, a loss or a number of splats instead of a quality: the search for the quality that gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from potr.errors import ConfigError, TargetError

FIRST = 0.5  # quality of the first trial
LOWEST, HIGHEST = 0.01, 1.0  # qualities the search may try
MOST_TRIALS = 16
TOLERANCE = {"size_mb": 0.02, "psnr_drop": 0.02, "splats": 0.02}  # relative, dB, relative
# Typical rise of log(bytes), -drop and log(splats) with quality; only the second trial relies on it.
_SLOPE = {"size_mb": 1.5, "psnr_drop": 1.5, "splats": 1.1}
_STEEPEST = 8.0  # times the typical slope, and one over it: the limits of what two one-sided trials are trusted with
_NARROWEST = 1e-5  # of quality; what jumps within that has nothing in between


@dataclass(frozen=True)
class Target:
    """What a compressed model is to come to; exactly one of the three.

    Attributes:
        size_mb: the file's size in 10^6 bytes, met within 2 %.
        psnr_drop: loss in dB of the mean PSNR over the training views against the uncompressed model's, met within
            0.02 dB.
        splats: how many are kept, met within 2 %.

    Raises:
        ConfigError: none or several are given, or one is out of its range.
    """

    size_mb: float | None = None
    psnr_drop: float | None = None
    splats: int | None = None

    def __post_init__(self) -> None:
        given = [f"{name}={value:g}" for name, value in asdict(self).items() if value is not None]
        if len(given) != 1:
            names = ", ".join(TOLERANCE)
            raise ConfigError(f"target: expected one of {names}, got {' and '.join(given) if given else 'none'}")
        for name, low, high in (("size_mb", 1e-6, 1e6), ("psnr_drop", 0.0, 50.0), ("splats", 1, 2**31)):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                raise ConfigError(f"target.{name}: expected a number in [{low:g}, {high:g}], got {value}")
        if self.splats is not None and self.splats != int(self.splats):
            raise ConfigError(f"target.splats: expected a whole number, got {self.splats}")

    @property
    def name(self) -> str:
        """Which of the three it is."""
        return next(name for name, value in asdict(self).items() if value is not None)

    @property
    def value(self) -> float:
        """Of the one that is given."""
        return float(getattr(self, self.name))

    def __str__(self) -> str:
        return f"target.{self.name}={self.value:g}"

    def reached(self, trial: Trial) -> float:
        """What the trial came to, in the target's unit."""
        if self.name == "psnr_drop":
            assert trial.psnr_drop is not None, "a trial for a loss measures it"
            return trial.psnr_drop
        return trial.bytes / 1e6 if self.name == "size_mb" else float(trial.splats)

    def excess(self, trial: Trial) -> float:
        """By how much the trial is finer than the target, on a scale on which quality is nearly linear."""
        reached = self.reached(trial)
        if self.name == "psnr_drop":
            return self.value - reached
        return math.log(max(reached, 1e-9) / self.value)

    def met(self, trial: Trial) -> bool:
        """Whether the trial is within the tolerance."""
        scale = 1.0 if self.name == "psnr_drop" else self.value
        return abs(self.reached(trial) - self.value) <= TOLERANCE[self.name] * scale

    def told(self, trial: Trial) -> str:
        """What the trial came to, in words."""
        reached = self.reached(trial)
        if self.name == "psnr_drop":
            return f"{reached:+.3f} dB lost"
        return f"{reached:.4g} MB" if self.name == "size_mb" else f"{reached:,.0f} splats"


@dataclass(frozen=True)
class Trial:
    """What one quality came to; ``psnr_drop`` (dB, on the training views) only where the target asks for it."""

    quality: float
    bytes: int
    splats: int
    psnr_drop: float | None = None
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without what was not measured."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def search(target: Target, attempt: Callable[[float], Trial]) -> tuple[Trial, ...]:
    """Trials until one meets the target; that is the last.

    Args:
        target: size, loss or splats.
        attempt: encodes at a quality. The file is taken to grow, and the loss to shrink, with quality.

    Raises:
        TargetError: no quality meets it; says what the closest is.
    """
    trials: list[Trial] = []
    while not trials or not target.met(trials[-1]):
        trials.append(attempt(next_quality(target, trials)))
    return tuple(trials)


def next_quality(target: Target, trials: Sequence[Trial]) -> float:
    """Which quality to try after trials that all missed: inverse interpolation, kept inside the bracket.

    Raises:
        TargetError: nothing is left to try.
    """
    if not trials:
        return FIRST
    points = sorted((trial.quality, target.excess(trial)) for trial in trials)
    low = max((q for q, excess in points if excess < 0), default=None)
    high = min((q for q, excess in points if excess >= 0), default=None)
    if low == HIGHEST:
        raise _missed(target, trials, f"quality={HIGHEST:g} is the finest there is")
    if high == LOWEST:
        raise _missed(target, trials, f"quality={LOWEST:g} is the coarsest that is tried")
    if len(trials) >= MOST_TRIALS or (low is not None and high is not None and high - low < _NARROWEST):
        raise _missed(target, trials, f"no quality in between was found in {len(trials)} trials")
    if low is None or high is None:
        guess = _extrapolated(points, _SLOPE[target.name])
        return min(HIGHEST, guess) if high is None else max(LOWEST, guess)
    if len(trials) >= 6 and len(trials) % 2 == 0:  # interpolation has had its chance; halving always ends
        return (low + high) / 2
    margin = 0.02 * (high - low)
    return min(max(_interpolated(points, low, high), low + margin), high - margin)


def _extrapolated(points: Sequence[tuple[float, float]], typical: float) -> float:
    """Along the slope of the two trials nearest to the target, a little too far, or the typical one."""
    (q, excess), *others = sorted(points, key=lambda point: abs(point[1]))
    slope = typical
    if others:
        slope = (excess - others[0][1]) / (q - others[0][0])
        slope = min(max(slope, typical / _STEEPEST), typical * _STEEPEST)
    step = -excess / slope
    return q + step * (1.05 if others else 1.0)


def _interpolated(points: Sequence[tuple[float, float]], low: float, high: float) -> float:
    """Quality at excess 0: by Lagrange's parabola through the bracket and the nearest other trial, or the secant."""
    excess_of = dict(points)
    a, b = excess_of[low], excess_of[high]
    secant = low - a * (high - low) / (b - a)
    others = [(abs(e), q, e) for q, e in points if q not in (low, high) and (e < a or e > b)]
    if not others:
        return secant
    _, q, c = min(others)
    parabola = low * b * c / ((a - b) * (a - c)) + high * a * c / ((b - a) * (b - c)) + q * a * b / ((c - a) * (c - b))
    return parabola if low < parabola < high else secant


def _missed(target: Target, trials: Sequence[Trial], why: str) -> TargetError:
    closest = min(trials, key=lambda trial: abs(target.excess(trial)))
    return TargetError(
        f"{target} cannot be met: {why}; the closest is {target.told(closest)}, at quality={closest.quality:.6g}"
    )
