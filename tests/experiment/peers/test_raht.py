# SPDX-License-Identifier: Apache-2.0
"""RAHT: against its definition, and by its laws (orthonormal, invertible)."""

import numpy as np
import pytest

from potr.experiment.peers.raht import morton_codes, raht
from tests.helpers.raht_twin import raht_twin


def points(n: int, depth: int, seed: int) -> np.ndarray:
    cells = np.random.default_rng(seed).integers(0, 2**depth, (n, 3)).astype(np.uint32)
    return np.sort(morton_codes(cells, depth))


CASES = [(0, 3), (1, 3), (2, 1), (40, 1), (60, 2), (50, 5), (30, 21)]  # 40 and 60 points share cells


@pytest.mark.parametrize(("n", "depth"), CASES)
def test_agrees_with_the_recursion(n: int, depth: int) -> None:
    keys = points(n, depth, seed=n)
    values = np.random.default_rng(7).normal(size=(n, 2))
    coefficients = raht(keys, 3 * depth).forward(values)
    assert coefficients.shape == values.shape
    if n == 0:
        return
    expected = np.array(raht_twin([int(key) for key in keys], values, 3 * depth))
    np.testing.assert_allclose(coefficients[0], expected[0], atol=1e-12)
    ascending = [rows[np.lexsort(rows.T)] for rows in (coefficients, expected)]
    np.testing.assert_allclose(*ascending, atol=1e-12)


@pytest.mark.parametrize(("n", "depth"), CASES)
def test_is_orthonormal_and_inverts(n: int, depth: int) -> None:
    transform = raht(points(n, depth, seed=n + 1), 3 * depth)
    assert sorted(transform.order) == list(range(n))
    matrix = transform.forward(np.eye(n))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(n), atol=1e-12)
    np.testing.assert_allclose(transform.inverse(matrix), np.eye(n), atol=1e-12)


def test_a_constant_has_one_coefficient() -> None:
    coefficients = raht(points(64, 4, seed=2), 12).forward(np.full((64, 1), 3.0))
    np.testing.assert_allclose(coefficients[0], 3.0 * 8)  # sqrt(64) times the mean
    np.testing.assert_allclose(coefficients[1:], 0, atol=1e-12)


def test_coarse_coefficients_come_first() -> None:
    """Two clusters of two points: the difference between the clusters stands before those within."""
    keys = np.array([0, 1, 0b111_000, 0b111_001], np.uint64)
    coefficients = raht(keys, 6).forward(np.array([[0.0], [0.0], [1.0], [1.0]]))
    np.testing.assert_allclose(coefficients[:, 0], [1, 1, 0, 0], atol=1e-12)


@pytest.mark.parametrize("depth", [1, 4, 21])
def test_morton_codes_interleave_bits(depth: int) -> None:
    cells = np.random.default_rng(0).integers(0, 2**depth, (20, 3)).astype(np.uint32)
    cells[0], cells[1] = 0, 2**depth - 1  # both ends
    for cell, code in zip(cells, morton_codes(cells, depth), strict=True):
        bits = [format(int(c), f"0{depth}b") for c in cell]
        assert int(code) == int("".join(x + y + z for x, y, z in zip(*bits, strict=True)), 2)
