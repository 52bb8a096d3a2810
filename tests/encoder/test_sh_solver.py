# SPDX-License-Identifier: Apache-2.0
"""The native SH solver against dense float64 solves, and the laws of rounding."""

import numpy as np
import pytest
import torch
from torch import Tensor

from potr.encoder.sh_solver import (
    ANCHOR,
    RATE_LEVELS,
    CompactParameters,
    RateModel,
    assumed_rates,
    compact,
    round_coefficients,
    unpack_hessian,
)
from potr.model.sh import sh_basis
from tests.helpers.sh_problems import compact_reference, seen_from_a_cone


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize("cosine", [1.0, 0.6])
def test_compact_equals_dense_solves(degree: int, cosine: float) -> None:
    hessian, sh = seen_from_a_cone(12, degree)
    parameters = CompactParameters((1e-3, 3e-3, 3e-3), (2e-3, 6e-3, 6e-3), cosine, 2.0)
    result = compact(hessian, sh, parameters)
    full = unpack_hessian(hessian, sh.shape[1]).double().numpy()
    for n in range(len(sh)):
        for c in range(3):
            expected = compact_reference(
                full[n], sh[n, :, c].double().numpy(), parameters.ridge[c], parameters.drop_cost[c], cosine, 2.0
            )
            np.testing.assert_allclose(result[n, :, c].numpy(), expected, atol=2e-5)
    if degree > 0:
        assert (result[:, 1:] == 0).any()
        assert (result[:, 1:] != 0).any()


def test_compact_drops_everything_of_an_unseen_splat_but_its_dc() -> None:
    sh = torch.randn(3, 16, 3, generator=torch.Generator().manual_seed(0))
    result = compact(torch.zeros(3, 136), sh, CompactParameters((1e-3,) * 3, (1e-3,) * 3, 1.0, 1.0))
    torch.testing.assert_close(result[:, 0], sh[:, 0])
    assert not result[:, 1:].any()


def test_compact_keeps_what_it_may_not_drop() -> None:
    hessian, sh = seen_from_a_cone(5, 3, views=400)
    result = compact(hessian, sh, CompactParameters((0.0,) * 3, (0.0,) * 3, 1.0, 0.0))
    torch.testing.assert_close(result, sh, atol=1e-3, rtol=0)


@pytest.mark.parametrize("views", [3, 100])
def test_compact_stays_near_its_input_where_hardly_any_direction_is_seen(views: int) -> None:
    # Sums of float32, as the rasteriser makes them: large splats, no ridge to speak of, eigenvalues around 0.
    generator = torch.Generator().manual_seed(1)
    axis = torch.nn.functional.normalize(torch.randn(200, 1, 3, generator=generator), dim=-1)
    directions = axis + 0.1 * torch.randn(200, views, 3, generator=generator)
    basis = sh_basis(torch.nn.functional.normalize(directions, dim=-1), 3)
    rows, columns = torch.tril_indices(16, 16)
    hessian = torch.zeros(200, 136)
    for view in range(views):
        hessian += 1e4 * basis[:, view, rows] * basis[:, view, columns]
    sh = 0.1 * torch.randn(200, 16, 3, generator=generator)
    drop = 1e-4
    result = compact(hessian, sh, CompactParameters((0.0,) * 3, (drop,) * 3, 1.0, 1.0))
    assert float(result.abs().max()) < 10 * float(sh.abs().max())
    exact = torch.einsum("nvi,nvj->nij", basis.double(), basis.double()) * 1e4
    difference = (result - sh).double()
    rise = torch.einsum("nic,nij,njc->nc", difference, exact, difference)
    assert float(rise.max()) < 15 * drop + 1e-2


def error(hessian: Tensor, difference: Tensor) -> Tensor:
    full = unpack_hessian(hessian, difference.shape[1]).double()
    return torch.einsum("nic,nij,njc->nc", difference.double(), full, difference.double())


def test_rounding_beats_plain_rounding_and_cannot_be_improved_by_one_step() -> None:
    hessian, sh = seen_from_a_cone(40, 3)
    steps = torch.full((16, 3), 1 / 11)
    levels = round_coefficients(hessian, sh, steps, RateModel((0.0,) * 3, assumed_rates(16)))
    joint = error(hessian, levels * steps - sh)
    plain = error(hessian, torch.round(sh / steps) * steps - sh)
    assert float(joint.sum()) < 0.5 * float(plain.sum())
    anchored = hessian.clone()
    diagonal = torch.tensor([i * (i + 1) // 2 + i for i in range(16)])
    anchored[:, diagonal] += ANCHOR * hessian[:, diagonal].mean(dim=1, keepdim=True)
    best = error(anchored, levels * steps - sh)
    for i in range(16):
        for move in (-1, 1):
            changed = levels.clone()
            changed[:, i] += move
            assert (error(anchored, changed * steps - sh) >= best * (1 - 1e-5)).all()


def test_dearer_bits_make_more_zeros() -> None:
    hessian, sh = seen_from_a_cone(40, 3)
    steps = torch.full((16, 3), 1 / 11)
    rates = assumed_rates(16)
    zeros = [
        int((round_coefficients(hessian, sh, steps, RateModel((bit,) * 3, rates)) == 0).sum())
        for bit in (0.0, 1e-4, 1e-2)
    ]
    assert zeros[0] < zeros[1] < zeros[2]


def test_no_single_step_of_a_coefficient_lowers_error_and_rate_together() -> None:
    hessian, sh = seen_from_a_cone(40, 3)
    steps, bit = torch.full((16, 3), 1 / 11), 3e-4
    bits = torch.rand(16, 3, RATE_LEVELS, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).cumsum(-1)
    levels = round_coefficients(hessian, sh, steps, RateModel((bit,) * 3, bits))
    anchored = hessian.clone()
    diagonal = torch.tensor([i * (i + 1) // 2 + i for i in range(16)])
    anchored[:, diagonal] += ANCHOR * hessian[:, diagonal].mean(dim=1, keepdim=True)

    def objective(levels: Tensor) -> Tensor:
        magnitudes = levels.abs().long()
        last = RATE_LEVELS - 2
        table = bits.expand(len(levels), -1, -1, -1)
        rate = table.gather(-1, magnitudes.clamp_max(last)[..., None])[..., 0]
        rate += (magnitudes - last).clamp_min(0) * bits[..., -1]
        return error(anchored, levels * steps - sh) + bit * rate[:, 1:].sum(1)

    least = objective(levels)
    assert (levels != round_coefficients(hessian, sh, steps, RateModel((bit,) * 3, assumed_rates(16)))).any()
    for i in range(1, 16):
        for move in (-1, 1):
            changed = levels.clone()
            changed[:, i] += move
            assert (objective(changed) >= least - 1e-6 * least.abs()).all()
        changed = levels.clone()
        changed[:, i] = 0
        assert (objective(changed) >= least - 1e-6 * least.abs()).all()


@pytest.mark.parametrize("huge", [1e30, float("inf"), float("nan")])
def test_absurd_coefficients_come_to_an_end(huge: float) -> None:
    hessian, sh = seen_from_a_cone(3, 1)
    sh[1, 2, 0] = huge
    round_coefficients(hessian, sh, torch.full((4, 3), 0.1), RateModel((1e-4,) * 3, assumed_rates(4)))
