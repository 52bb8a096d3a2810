# SPDX-License-Identifier: Apache-2.0
"""The bits of SH levels that rounding reckons with."""

import pytest
import torch

from potr.encoder.sh_solver import RATE_LEVELS, assumed_rates, measured_rates


def geometric(n: int, coefficients: int, stay: float) -> torch.Tensor:
    """[n, K, 3] int32 levels whose magnitude goes on growing with probability ``stay``."""
    generator = torch.Generator().manual_seed(3)
    uniform = torch.rand(n, coefficients, 3, dtype=torch.float64, generator=generator)
    magnitude = (uniform.log() / torch.tensor(stay).double().log()).floor()
    return (magnitude * torch.where(torch.rand(uniform.shape, generator=generator) < 0.5, -1, 1)).to(torch.int32)


@pytest.mark.parametrize("coefficients", [1, 4, 16])
@pytest.mark.parametrize("n", [0, 1, 300])
def test_probabilities_of_all_levels_sum_to_one(n: int, coefficients: int) -> None:
    bits = measured_rates(geometric(n, coefficients, 0.7))
    assert bits.shape == (coefficients, 3, RATE_LEVELS)
    assert bits.isfinite().all()
    share = 2.0 ** -bits[..., :-1]
    share[..., 1:] *= 2  # of either sign
    beyond = share[..., -1] * 2.0 ** -bits[..., -1] / (1 - 2.0 ** -bits[..., -1])
    torch.testing.assert_close(share.sum(-1) + beyond, torch.ones_like(beyond))


def test_bits_are_those_of_the_levels_distribution() -> None:
    bits = measured_rates(geometric(200_000, 4, 0.5))
    magnitudes = torch.arange(6).double()
    expected = magnitudes + 1 + (magnitudes > 0)  # 1/2, 1/4, 1/8, ... and a sign
    torch.testing.assert_close(bits[..., :6], expected.expand(4, 3, 6), atol=0.1, rtol=0)


def test_each_coefficient_has_its_own_bits() -> None:
    levels = torch.zeros(1000, 4, 3, dtype=torch.int32)
    levels[:, 1, 0] = 3
    levels[::100, 2, 1] = -1
    bits = measured_rates(levels)
    assert bits[1, 0, 3] < 2 < bits[1, 0, 0]
    assert bits[2, 1, 0] < 0.1
    assert 5 < bits[2, 1, 1] < bits[3, 1, 1]


def test_assumed_bits_grow_with_the_magnitude() -> None:
    bits = assumed_rates(16)
    assert bits.shape == (16, 3, RATE_LEVELS)
    assert (bits[..., 1:-1] > bits[..., :-2]).all()
    assert (bits[..., -1] > 0).all()


def test_bits_are_finite_where_all_levels_are_alike() -> None:
    bits = measured_rates(torch.full((200_000, 4, 3), 6, dtype=torch.int32))
    assert bits.isfinite().all()
    assert (bits[..., 5] > 10).all()
    assert (bits[..., 6] < 1.1).all()
