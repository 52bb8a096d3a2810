# SPDX-License-Identifier: Apache-2.0
"""How many bytes a bitstream takes and on what, and how far two rate-distortion curves are apart (Bjontegaard)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from potr.errors import ConfigError
from potr.model.splats import UNCOMPRESSED_BYTES_PER_SPLAT

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SectionRate:
    """A section's part of the bitstream; ``bits_per_splat`` counts the splats that are left, None if there are none."""

    name: str
    bytes: int
    share: float
    bits_per_splat: float | None


@dataclass(frozen=True)
class RateReport:
    """What a bitstream costs.

    Attributes:
        bytes: everything the decoder needs.
        uncompressed_bytes: of the model that went in, at 248 bytes a splat.
        ratio: uncompressed_bytes / bytes.
        splats_before, splats_after: in the model that went in, in the bitstream.
        bits_per_splat: of the bitstream, per splat that is left; None if none is.
        sections: in the order given; ``"container"`` is what no section accounts for (header, table, checksums).
    """

    bytes: int
    uncompressed_bytes: int
    ratio: float
    splats_before: int
    splats_after: int
    bits_per_splat: float | None
    sections: tuple[SectionRate, ...]


def rate(total_bytes: int, splats_before: int, splats_after: int, sections: Mapping[str, int]) -> RateReport:
    """Account for the bytes of a bitstream.

    Args:
        total_bytes: ``len`` of the bitstream.
        splats_before, splats_after: splats in the model that went in, and in the bitstream.
        sections: name to payload bytes, as ``potr.format.decode`` describes a bitstream.

    Raises:
        ConfigError: the bitstream is empty, a count is negative, or the sections hold more than the whole.
    """
    if total_bytes < 1 or min(splats_before, splats_after) < 0 or any(size < 0 for size in sections.values()):
        raise ConfigError(f"rate: expected bytes > 0 and counts >= 0, got {total_bytes} bytes, {dict(sections)}")
    rest = total_bytes - sum(sections.values())
    if rest < 0:
        raise ConfigError(f"rate: expected sections of at most {total_bytes} bytes together, got {dict(sections)}")

    def bits(size: int) -> float | None:
        return 8.0 * size / splats_after if splats_after else None

    uncompressed = UNCOMPRESSED_BYTES_PER_SPLAT * splats_before
    return RateReport(
        bytes=total_bytes,
        uncompressed_bytes=uncompressed,
        ratio=uncompressed / total_bytes,
        splats_before=splats_before,
        splats_after=splats_after,
        bits_per_splat=bits(total_bytes),
        sections=tuple(
            SectionRate(name, size, size / total_bytes, bits(size))
            for name, size in (*sections.items(), ("container", rest))
        ),
    )


class Interpolation(Enum):
    """How a curve runs between its points."""

    PCHIP = "pchip"  # piecewise cubic, monotone between points: what JCT-VC and JVET use
    CUBIC = "cubic"  # one cubic through (or, from five points on, nearest to) all: VCEG-M33, the classic


def bd_rate(
    anchor: Sequence[tuple[float, float]],
    test: Sequence[tuple[float, float]],
    interpolation: Interpolation = Interpolation.PCHIP,
) -> float:
    """Bjontegaard's rate difference: percent of bytes the test curve spends beyond the anchor at equal quality.

    The mean of log(rate) over the qualities both curves reach, one minus the other (VCEG-M33; JVET-T2010 for PCHIP).
    Negative: the test curve is better.

    Args:
        anchor, test: (rate, quality) points in any order; rate > 0 in any unit, quality in dB or any other measure.
        interpolation: between the points.

    Raises:
        ConfigError: too few points, a quality that does not rise with the rate, or no quality that both reach.
    """
    (rate_a, quality_a), (rate_t, quality_t) = _curve(anchor, interpolation), _curve(test, interpolation)
    return 100.0 * math.expm1(_mean_gap(quality_a, rate_a, quality_t, rate_t, interpolation))


def bd_psnr(
    anchor: Sequence[tuple[float, float]],
    test: Sequence[tuple[float, float]],
    interpolation: Interpolation = Interpolation.PCHIP,
) -> float:
    """Bjontegaard's quality difference: dB the test curve lies above the anchor, mean over log(rate) (VCEG-M33).

    Arguments and errors as for ``bd_rate``; positive: the test curve is better.
    """
    (rate_a, quality_a), (rate_t, quality_t) = _curve(anchor, interpolation), _curve(test, interpolation)
    return _mean_gap(rate_a, quality_a, rate_t, quality_t, interpolation)


def _curve(points: Sequence[tuple[float, float]], interpolation: Interpolation) -> tuple[Floats, Floats]:
    """log(rate) and quality, both strictly rising."""
    needed = 4 if interpolation is Interpolation.CUBIC else 2
    table = np.array(sorted(points), dtype=np.float64)
    if len(points) < needed:
        raise ConfigError(f"rate-distortion curve: expected at least {needed} points, got {len(points)}")
    if not np.isfinite(table).all() or (table[:, 0] <= 0).any() or (np.diff(table, axis=0) <= 0).any():
        raise ConfigError(f"rate-distortion curve: expected rates > 0, quality rising with rate, got {table.tolist()}")
    return np.log(table[:, 0]), table[:, 1]


def _mean_gap(x_a: Floats, y_a: Floats, x_t: Floats, y_t: Floats, interpolation: Interpolation) -> float:
    """Mean of y_t(x) - y_a(x) over the x that both curves cover."""
    low, high = max(x_a[0], x_t[0]), min(x_a[-1], x_t[-1])
    if low >= high:
        raise ConfigError(
            f"rate-distortion curves: expected a common range, got [{x_a[0]}, {x_a[-1]}] and [{x_t[0]}, {x_t[-1]}]"
        )
    integral = _pchip_integral if interpolation is Interpolation.PCHIP else _cubic_integral
    return float((integral(x_t, y_t, low, high) - integral(x_a, y_a, low, high)) / (high - low))


def _cubic_integral(x: Floats, y: Floats, low: float, high: float) -> float:
    center = 0.5 * (x[0] + x[-1])  # the fit is better conditioned there
    antiderivative = np.polynomial.Polynomial.fit(x - center, y, 3).integ()
    return float(antiderivative(high - center) - antiderivative(low - center))


def _pchip_integral(x: Floats, y: Floats, low: float, high: float) -> float:
    """Of the piecewise cubic Hermite interpolant, segment by segment in the segment's own 0..1."""
    width, slope = np.diff(x), _pchip_slopes(x, y)
    start, end = (np.clip((bound - x[:-1]) / width, 0.0, 1.0) for bound in (low, high))

    def antiderivative(t: Floats) -> Floats:
        t2, t3, t4 = t**2, t**3, t**4
        left, right = t - t3 + t4 / 2, t3 - t4 / 2
        slope_left, slope_right = t2 / 2 - 2 * t3 / 3 + t4 / 4, t4 / 4 - t3 / 3
        return left * y[:-1] + right * y[1:] + width * (slope_left * slope[:-1] + slope_right * slope[1:])

    return float((width * (antiderivative(end) - antiderivative(start))).sum())


def _pchip_slopes(x: Floats, y: Floats) -> Floats:
    """Fritsch and Butland's (1984) slopes at the points: weighted harmonic means inside, three-point at the ends."""
    width, secant = np.diff(x), np.diff(y) / np.diff(x)
    if len(x) == 2:
        return np.repeat(secant, 2)
    before, after = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    inner = (before + after) / (before / secant[:-1] + after / secant[1:])  # the secants are > 0, the curve rises
    return np.concatenate(
        [
            [_end_slope(width[0], width[1], secant[0], secant[1])],
            inner,
            [_end_slope(width[-1], width[-2], secant[-1], secant[-2])],
        ]
    )


def _end_slope(width: float, next_width: float, secant: float, next_secant: float) -> float:
    """Three-point estimate, kept within what leaves a rising segment monotone."""
    slope = ((2 * width + next_width) * secant - width * next_secant) / (width + next_width)
    return float(min(max(slope, 0.0), 3 * secant))
