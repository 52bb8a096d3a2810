# SPDX-License-Identifier: Apache-2.0
"""The choice of the geometry's levels: its objective against a plain twin in NumPy, and what a price per bit does."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.encoder import geometry_levels
from potr.encoder.config import QuantizeConfig
from potr.encoder.geometry_levels import ABSOLUTE_RIDGE, RELATIVE_RIDGE, best_levels
from potr.encoder.quantize import quantize_geometry
from potr.format.decode import dequantize
from potr.format.quantized import QuantizedModel, dequantized_rotation, squared_w, validate
from potr.model.splats import SplatModel
from tests.helpers.quantized_models import assert_identical

CONFIG = QuantizeConfig()


def problem(n: int, seed: int = 0) -> tuple[QuantizedModel, SplatModel, Tensor, Tensor]:
    """Splats of many shapes, their rounded geometry and curvatures that differ a thousandfold."""
    g = torch.Generator().manual_seed(seed)
    model = SplatModel(
        means=torch.randn(n, 3, generator=g),
        log_scales=0.7 * torch.randn(n, 3, generator=g) - 4,
        quats=torch.tensor([1.0, 0, 0, 0]) + 0.3 * torch.randn(n, 4, generator=g),
        opacity_logits=2 * torch.randn(n, generator=g),
        sh_dc=torch.randn(n, 3, generator=g),
        sh_ac=torch.zeros(n, 0, 3),
    )
    quantized, order = quantize_geometry(model, CONFIG, torch.zeros(n))
    seen = torch.randn(n, 14, 10, generator=g) * (1.5 * torch.randn(n, 1, 1, generator=g)).exp() * 10
    row, column = torch.tril_indices(10, 10)
    hessian = (seen.transpose(1, 2) @ seen)[:, row, column]
    gradient = seen.transpose(1, 2) @ (0.05 * seen @ torch.randn(n, 10, 1, generator=g))  # of some step of 0.05
    return quantized, model.select(order), hessian, gradient[..., 0]


def levels_of(quantized: QuantizedModel) -> NDArray[np.int64]:
    columns = (quantized.opacity[:, None], quantized.log_scales, quantized.rotation)
    return np.concatenate([c.astype(np.int64) for c in columns], axis=1)


def rotation_matrix(w: float, x: float, y: float, z: float) -> NDArray[np.float64]:
    v = np.array([x, y, z])
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return (w * w - v @ v) * np.eye(3) + 2 * np.outer(v, v) + 2 * w * cross


def distortion(
    quantized: QuantizedModel, model: SplatModel, curvature: Tensor, gradient: Tensor, k: int, levels: NDArray[np.int64]
) -> float:
    """x^T A x + 2 x^T b of splat k with these levels, straight from the definition."""
    packed = curvature[k].double().numpy()
    a = np.zeros((10, 10))
    a[np.tril_indices(10)] = packed
    a = a + np.tril(a, -1).T + np.eye(10) * (RELATIVE_RIDGE * packed[0] + ABSOLUTE_RIDGE)
    quat = model.quats[k].double().numpy()
    axes = rotation_matrix(*(quat / np.linalg.norm(quat))) * np.exp(model.log_scales[k].double().numpy())
    xyz = dequantized_rotation(levels[None, 4:].astype(np.int16), quantized.rotation_step)
    if squared_w(xyz)[0] < 0.02:
        return float("inf")
    turned = rotation_matrix(squared_w(xyz)[0] ** 0.5, *xyz[0])
    variances = np.exp(2 * (quantized.scale_origin + levels[1:4] * quantized.scale_step))
    inverse = np.linalg.inv(axes)
    strain = (inverse @ (turned * variances) @ turned.T @ inverse.T - np.eye(3)) / 2
    centre = quantized.origin + (quantized.cells[k] + 0.5) * quantized.extent / 2.0 ** int(quantized.depths[k])
    logits = np.array([float(quantized.opacity_table[levels[0]]), float(model.opacity_logits[k])])
    log_opacity = -np.logaddexp(0, -logits)
    shift = inverse @ (centre - model.means[k].double().numpy())
    upper = strain[[0, 1, 2, 0, 0, 1], [0, 1, 2, 1, 2, 2]]
    x = np.concatenate([log_opacity[:1] - log_opacity[1:], shift, upper])
    return float(x @ a @ x + 2 * x @ gradient[k].double().numpy())


def total_distortion(quantized: QuantizedModel, other: tuple[SplatModel, Tensor, Tensor]) -> float:
    levels = levels_of(quantized)
    return sum(distortion(quantized, *other, k, levels[k]) for k in range(len(levels)))


def entropy(quantized: QuantizedModel) -> float:
    """Bits per splat of every coordinate by itself."""
    bits = 0.0
    for column in levels_of(quantized).T:
        share = np.unique(column, return_counts=True)[1] / len(column)
        bits -= float((share * np.log2(share)).sum())
    return bits


def test_without_a_price_no_level_of_a_splat_could_be_better() -> None:
    quantized, model, curvature, gradient = problem(12)
    chosen = best_levels(quantized, model, curvature, gradient, 0.0, sweeps=40)
    for k, levels in enumerate(levels_of(chosen)):
        least = distortion(quantized, model, curvature, gradient, k, levels)
        for column in range(7):
            for step in (-2, -1, 1, 2):
                other = levels.copy()
                other[column] += step
                allowed = 0 <= other[0] < len(quantized.opacity_table) and other[1:4].min() >= 0
                other_error = distortion(quantized, model, curvature, gradient, k, other)
                assert not allowed or other_error >= least - 1e-9 * abs(least)


def test_every_sweep_lowers_the_distortion_without_a_price() -> None:
    quantized, model, curvature, gradient = problem(60)
    errors = [total_distortion(quantized, (model, curvature, gradient))]
    for _ in range(3):
        quantized = best_levels(quantized, model, curvature, gradient, 0.0, sweeps=1)
        errors.append(total_distortion(quantized, (model, curvature, gradient)))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < errors[0] - 0.1 * abs(errors[0])


def test_a_higher_price_buys_fewer_bits_for_more_error() -> None:
    quantized, model, curvature, gradient = problem(500)
    chosen = [best_levels(quantized, model, curvature, gradient, price) for price in (0.0, 3.0, 30.0, 300.0)]
    bits = [entropy(c) for c in chosen]
    errors = [total_distortion(c, (model, curvature, gradient)) for c in chosen]
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    before = total_distortion(quantized, (model, curvature, gradient)) / 500
    for price, b, e in zip((3.0, 30.0, 300.0), bits[1:], errors[1:], strict=True):
        assert e / 500 + price * b < before + price * entropy(quantized)
    for c in chosen:
        validate(c)


def test_splats_hardly_seen_take_the_commonest_levels_and_unseen_ones_keep_theirs() -> None:
    quantized, model, curvature, gradient = problem(400)
    hardly, unseen = torch.arange(400) % 4 == 0, torch.arange(400) % 4 == 1
    curvature[hardly] *= 1e-9
    curvature[unseen] = 0
    gradient[hardly | unseen] = 0
    before, after = levels_of(quantized), levels_of(best_levels(quantized, model, curvature, gradient, 50.0))
    assert np.array_equal(after[unseen.numpy()], before[unseen.numpy()])
    before, after = before[hardly.numpy()], after[hardly.numpy()]
    assert len(np.unique(after[:, 0])) == 1
    for column in range(1, 7):  # their contexts differ, and so does what is commonest there
        assert len(np.unique(after[:, column])) <= 0.6 * len(np.unique(before[:, column]))


def test_spheres_are_not_turned_where_bits_cost() -> None:
    """Spheres that rounding leaves as they are, so that nothing else of them has a reason to move."""
    quantized, model, curvature, gradient = problem(300)
    spheres = np.arange(300) % 3 == 0
    scales = quantized.log_scales.copy()
    scales[spheres] = scales[spheres, :1]
    rotation = quantized.rotation.copy()
    rotation[::6] = 0  # of every other sphere: 0 is what they have in common
    quantized = replace(quantized, log_scales=scales, rotation=rotation)
    assert np.abs(quantized.rotation[3::6]).max() > 2
    decoded = dequantize(quantized)
    mask = torch.from_numpy(spheres)[:, None]
    model = replace(
        model,
        means=torch.where(mask, decoded.means, model.means),
        log_scales=torch.where(mask, decoded.log_scales, model.log_scales),
        opacity_logits=torch.where(mask[:, 0], decoded.opacity_logits, model.opacity_logits),
    )
    gradient = torch.zeros_like(gradient)
    chosen = best_levels(quantized, model, curvature * 1e4, gradient, 1.0)
    assert np.array_equal(chosen.log_scales[spheres], scales[spheres])
    assert not chosen.rotation[spheres].any()
    free = best_levels(quantized, model, curvature * 1e4, gradient, 0.0)
    assert np.array_equal(free.log_scales[spheres], scales[spheres])


def test_chunks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    quantized, model, curvature, gradient = problem(3000)
    monkeypatch.setattr(geometry_levels, "_CPU_CHUNK", 1 << 14)  # operations long enough to be shared among threads
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = best_levels(quantized, model, curvature, gradient, 10.0, sweeps=1)
    finally:
        torch.set_num_threads(before)
    for chunk in (77, 1000):
        monkeypatch.setattr(geometry_levels, "_CPU_CHUNK", chunk)
        assert_identical(best_levels(quantized, model, curvature, gradient, 10.0, sweeps=1), expected)


def test_rotations_at_the_rim_stay_valid() -> None:
    """Rounded rotations with w near 0 at a coarse step, and scales up to the last index."""
    quantized, model, curvature, gradient = problem(50)
    rim = np.tile(np.array([[8, 5, -2]], np.int16), (50, 1))
    rim[::2] = [[9, 3, 2]]  # one more in any of them, and w^2 is negative
    wide = np.linspace(0, 65535, 150).astype(np.uint16).reshape(50, 3)
    quantized = replace(
        quantized, rotation=rim, rotation_step=float(np.float32(0.1)), log_scales=wide, scale_step=2.0**-13
    )
    validate(quantized)
    validate(best_levels(quantized, model, curvature, gradient, 1.0, sweeps=1))


def test_no_splats() -> None:
    quantized, model, curvature, gradient = problem(0)
    assert_identical(best_levels(quantized, model, curvature, gradient, 1.0), quantized)
