# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from potr.errors import ConfigError
from potr.evaluate.bd_rate import Interpolation, bd_psnr, bd_rate, rate

# x265 at two presets, the example of the `bjontegaard` package (PyPI, FAU-LMS; agrees with JVET-T2010's sheet), and the
# classic example of the VCEG-M33 scripts. Expected values: that package's 1.3.0 output for both.
X265 = (
    [(9487.76, 40.037), (4593.60, 38.615), (2486.44, 36.845), (1358.24, 34.851)],
    [(9787.80, 40.121), (4469.00, 38.651), (2451.52, 36.970), (1356.24, 34.987)],
)
CLASSIC = (
    [(686.76, 40.28), (309.58, 37.18), (157.11, 34.24), (85.95, 31.42)],
    [(893.34, 40.39), (407.8, 37.21), (204.93, 34.17), (112.75, 31.24)],
)


@pytest.mark.parametrize(
    ("curves", "interpolation", "expected_rate", "expected_psnr"),
    [
        (X265, Interpolation.PCHIP, -4.417485350589, 0.119692785425),
        (X265, Interpolation.CUBIC, -4.420462706026, 0.120409419115),
        (CLASSIC, Interpolation.PCHIP, 31.379878202398, -1.183472404622),
        (CLASSIC, Interpolation.CUBIC, 31.397374054909, -1.184897921770),
    ],
)
def test_bjontegaard_known_values(curves, interpolation, expected_rate, expected_psnr) -> None:
    assert bd_rate(*curves, interpolation) == pytest.approx(expected_rate, abs=1e-6)
    assert bd_psnr(*curves, interpolation) == pytest.approx(expected_psnr, abs=1e-6)


@pytest.mark.parametrize("interpolation", Interpolation)
def test_bjontegaard_of_a_moved_curve_is_the_move(interpolation) -> None:
    anchor = CLASSIC[0]
    assert bd_rate(anchor, [(0.7 * r, q) for r, q in anchor], interpolation) == pytest.approx(-30.0, abs=1e-9)
    assert bd_psnr(anchor, [(r, q + 0.4) for r, q in anchor], interpolation) == pytest.approx(0.4, abs=1e-9)
    assert bd_rate(anchor, anchor[::-1], interpolation) == pytest.approx(0.0, abs=1e-9)


def test_pchip_against_scipy_on_uneven_curves() -> None:
    interpolate = pytest.importorskip("scipy.interpolate", reason="scipy comes with lpips")
    generator = np.random.default_rng(5)
    for count in (3, 5, 9):
        log_a, log_t, q_a, q_t = (np.cumsum(generator.exponential(1.0, count) + 0.01) for _ in range(4))
        q_t *= q_a[-1] / q_t[-1]  # so that they share a range
        low, high = max(q_a[0], q_t[0]), min(q_a[-1], q_t[-1])
        expected = [
            interpolate.PchipInterpolator(q, log).integrate(low, high) for q, log in ((q_a, log_a), (q_t, log_t))
        ]
        gap = (expected[1] - expected[0]) / (high - low)
        curves = [list(zip(np.exp(log), q, strict=True)) for log, q in ((log_a, q_a), (log_t, q_t))]
        assert bd_rate(*curves) == pytest.approx(100 * np.expm1(gap), rel=1e-9)


def test_bjontegaard_refuses_what_has_no_answer() -> None:
    anchor = CLASSIC[0]
    with pytest.raises(ConfigError, match="expected at least 4 points, got 3"):
        bd_rate(anchor, anchor[:3], Interpolation.CUBIC)
    with pytest.raises(ConfigError, match="quality rising with rate"):
        bd_rate(anchor, [(100, 30), (200, 29), (300, 33)])
    with pytest.raises(ConfigError, match="common range"):
        bd_rate(anchor, [(r, q + 20) for r, q in anchor])


def test_rate_accounts_for_every_byte() -> None:
    report = rate(1000, splats_before=500, splats_after=100, sections={"octree": 200, "sh_ac": 700})
    assert report.uncompressed_bytes == 124_000
    assert report.ratio == 124.0
    assert report.bits_per_splat == 80.0
    assert [(s.name, s.bytes, s.share, s.bits_per_splat) for s in report.sections] == [
        ("octree", 200, 0.2, 16.0),
        ("sh_ac", 700, 0.7, 56.0),
        ("container", 100, 0.1, 8.0),
    ]
    assert rate(60, 500, 0, {}).bits_per_splat is None
    with pytest.raises(ConfigError, match="at most 1000 bytes"):
        rate(1000, 500, 100, {"sh_ac": 1001})
