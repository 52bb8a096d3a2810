# SPDX-License-Identifier: Apache-2.0
"""Laws of the quantiser: errors within half a step, both ends of every range, order, idempotence."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import potr.encoder.quantize as quantize_module
from potr.encoder.config import QuantizeConfig
from potr.encoder.quantize import (
    nearest_opacity,
    opacity_table,
    quantize,
    quantize_colors,
    quantize_geometry,
    required_depths,
)
from potr.encoder.sh_rates import measured_rates
from potr.format.decode import dequantize
from potr.format.quantized import MAX_DEPTH, QuantizedModel
from potr.model.rotation import quats_to_matrices
from potr.model.splats import SplatModel
from potr.render.base import ColorStatistics


def random_model(n: int, degree: int = 3, seed: int = 0) -> SplatModel:
    g = torch.Generator().manual_seed(seed)
    k = (degree + 1) ** 2
    return SplatModel(
        means=torch.randn(n, 3, generator=g),
        log_scales=torch.randn(n, 3, generator=g) - 4,
        quats=torch.randn(n, 4, generator=g),
        opacity_logits=3 * torch.randn(n, generator=g),
        sh_dc=torch.randn(n, 3, generator=g),
        sh_ac=0.1 * torch.randn(n, k - 1, 3, generator=g),
    )


def matched(model: SplatModel, config: QuantizeConfig) -> tuple[SplatModel, SplatModel]:
    """The model and its quantised self in the same order (matched by mean, which quantisation hardly moves)."""
    decoded = dequantize(quantize(model, config))
    nearest = torch.cdist(decoded.means.double(), model.means.double()).argmin(dim=1)
    assert len(nearest.unique()) == model.num_splats
    return model.select(nearest), decoded


def covariance(model: SplatModel) -> Tensor:
    rotation = quats_to_matrices(model.quats.double())
    return rotation @ torch.diag_embed((2 * model.log_scales.double()).exp()) @ rotation.transpose(1, 2)


def test_every_attribute_is_within_half_a_step() -> None:
    config = QuantizeConfig(position_gamma=0.1, rotation_levels=4001, scale_step=0.01)
    model, decoded = matched(random_model(400), config)
    half_cell = 0.5 * 0.1 * model.scales.min(dim=1).values
    assert ((decoded.means - model.means).abs().max(dim=1).values <= half_cell * 1.001).all()
    assert (decoded.sh - model.sh).abs().max() <= 1.5 * 0.5 / 11 * 3**0.5
    assert (decoded.opacities - model.opacities).abs().max() <= 0.5 / 21 + 1e-6
    relative = (covariance(decoded) - covariance(model)).norm(dim=(1, 2)) / covariance(model).norm(dim=(1, 2))
    assert float(relative.max()) < 0.02


@pytest.mark.parametrize("levels", [2, 22, 256])
def test_opacities_reach_both_ends(levels: int) -> None:
    table = opacity_table(levels)
    assert (np.diff(table) > 0).all()
    assert nearest_opacity(torch.tensor([0.0, 1.0]), table).tolist() == [0, levels - 1]
    middle = 1 / (1 + np.exp(-table))
    assert nearest_opacity(torch.from_numpy(middle), table).tolist() == list(range(levels))


def test_precision_follows_the_splat() -> None:
    model = random_model(3)
    sizes = torch.tensor([1e-3, 1e-2, 1e-1]).log()
    model = SplatModel(
        model.means, sizes[:, None].expand(3, 3), model.quats, model.opacity_logits, model.sh_dc, model.sh_ac
    )
    depths = required_depths(model, 0.25, torch.zeros(3), extent=1.0)
    assert depths.tolist() == [12, 9, 6]
    blurred = required_depths(model, 0.25, torch.full((3,), 1.0), extent=1.0)
    assert (blurred < depths).all()
    assert required_depths(model, 1e-6, torch.zeros(3), extent=1.0).max() == MAX_DEPTH


def test_a_splat_whose_centre_no_view_sees_keeps_its_size_and_place() -> None:
    model = random_model(50)
    unsighted = torch.full((50,), torch.inf)
    config = QuantizeConfig()
    plain, unseen = quantize(model, config), quantize(model, config, pixel_size=unsighted)
    assert unseen.depths.tolist() == plain.depths.tolist()
    assert torch.equal(dequantize(unseen).log_scales, dequantize(plain).log_scales)


def test_positions_coarser_than_asked_are_told(caplog: pytest.LogCaptureFixture) -> None:
    model = random_model(50)
    quantize(model, QuantizeConfig())
    assert not caplog.records
    model.means[0] = 1e5
    quantize(model, QuantizeConfig())
    assert "50 of 50 splats are placed to 0.0477 units, more coarsely than asked" in caplog.text


def test_a_scale_step_too_fine_for_16_bits_is_widened() -> None:
    model = random_model(50)
    model.log_scales[0, 0] = 12.0
    model.log_scales[1, 0] = -30.0
    _, decoded = matched(model, QuantizeConfig(scale_step=1e-4))
    assert float(decoded.log_scales.max()) == pytest.approx(12.0, abs=1e-3)
    assert float(decoded.log_scales.min()) == pytest.approx(-30.0, abs=1e-3)


def test_quantising_again_changes_nothing() -> None:
    config = QuantizeConfig()
    once = quantize(random_model(500), config)
    again = quantize(dequantize(once), config)
    np.testing.assert_array_equal(rows(again), rows(once))


def rows(quantized: QuantizedModel) -> NDArray[np.int64]:
    """Every splat's opacity and SH levels, sorted: the cube, and with it the order, may shift by half a cell, and a
    rotation at the border between two ways to label the axes may cross it.
    """
    n = quantized.num_splats
    table = np.column_stack([quantized.opacity, quantized.sh.reshape(n, -1)]).astype(np.int64)
    return table[np.lexsort(table.T)]


def test_splats_of_one_place_are_all_kept() -> None:
    model = random_model(10)
    same = model.select(torch.zeros(7, dtype=torch.int64))
    decoded = dequantize(quantize(same, QuantizeConfig()))
    assert decoded.num_splats == 7
    assert (decoded.means == decoded.means[0]).all()


@pytest.mark.parametrize("n", [0, 1])
@pytest.mark.parametrize("degree", [0, 3])
def test_tiny_models(n: int, degree: int) -> None:
    decoded = dequantize(quantize(random_model(n, degree), QuantizeConfig()))
    assert (decoded.num_splats, decoded.sh_degree) == (n, degree)


def test_inputs_are_left_alone() -> None:
    model = random_model(50)
    before = [getattr(model, name).clone() for name in model.__dataclass_fields__]
    quantize(model, QuantizeConfig())
    for name, tensor in zip(model.__dataclass_fields__, before, strict=True):
        assert torch.equal(getattr(model, name), tensor)


def test_groups_of_colours_leave_the_rest_free_to_move() -> None:
    model = random_model(50, degree=1)
    config = QuantizeConfig(color_groups=3, joint_rounding=False)
    geometry, order = quantize_geometry(model, config)
    sh = model.sh[order]
    seen: list[Tensor] = []

    def moved(current: Tensor, share: float) -> tuple[Tensor, ColorStatistics]:
        seen.append(current.clone())
        nothing = torch.zeros(0)
        return current + 1.0, ColorStatistics(nothing, nothing, nothing, nothing, nothing, 0.0, 0)

    result = dequantize(quantize_colors(geometry, sh, config, None, 0.0, refitted=moved)).sh
    at_once = dequantize(quantize_colors(geometry, sh, config, None, 0.0)).sh
    assert len(seen) == 2
    group = torch.arange(50) % 3
    torch.testing.assert_close(result[group == 0], at_once[group == 0])
    for number, current in enumerate(seen):  # done before: as the decoder has them; the others: moved so many times
        for other in range(3):
            expected = result[group == other] if other <= number else sh[group == other] + number
            torch.testing.assert_close(current[group == other], expected, atol=1e-5, rtol=1e-5)
    assert ((result - sh)[group == 2] - 2).abs().max() < 1.01 * 3**0.5 / config.dc_multiplier


def test_a_second_round_moves_one_group_at_a_time() -> None:
    model = random_model(50, degree=1)
    config = QuantizeConfig(color_groups=2, color_rounds=2, joint_rounding=False)
    geometry, order = quantize_geometry(model, config)
    seen: list[tuple[Tensor, float]] = []

    def moved(current: Tensor, share: float) -> tuple[Tensor, ColorStatistics]:
        seen.append((current.clone(), share))
        nothing = torch.zeros(0)
        return current + 1.0, ColorStatistics(nothing, nothing, nothing, nothing, nothing, 0.0, 0)

    result = dequantize(quantize_colors(geometry, model.sh[order], config, None, 0.0, refitted=moved)).sh
    assert [share for _, share in seen] == [0.5, 0.5, 0.5]
    group = torch.arange(50) % 2
    before_second, before_last = seen[1][0], seen[2][0]
    torch.testing.assert_close(before_last[group == 1], before_second[group == 1])  # the first group's turn
    assert ((before_last - before_second)[group == 0] - 1).abs().max() < 0.2
    torch.testing.assert_close(result[group == 0], before_last[group == 0], atol=1e-5, rtol=1e-5)
    assert ((result - before_last)[group == 1] - 1).abs().max() < 0.2


def test_one_group_has_one_round() -> None:
    model = random_model(20, degree=1)
    config = QuantizeConfig(color_groups=1, color_rounds=3, joint_rounding=False)
    geometry, order = quantize_geometry(model, config)

    def never(sh: Tensor, share: float) -> tuple[Tensor, ColorStatistics]:
        raise AssertionError

    quantize_colors(geometry, model.sh[order], config, None, 0.0, refitted=never)


def test_measured_rates_are_those_of_the_levels_chosen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(40, degree=1)
    config = QuantizeConfig(color_groups=2, color_rounds=2, measured_rates=True, joint_rounding=False)
    geometry, order = quantize_geometry(model, config)
    measured: list[int] = []

    def counted(levels: Tensor) -> Tensor:
        measured.append(len(levels))
        return measured_rates(levels)

    monkeypatch.setattr(quantize_module, "measured_rates", counted)
    nothing = torch.zeros(0)
    statistics = ColorStatistics(nothing, nothing, nothing, nothing, nothing, 0.0, 0)
    quantize_colors(geometry, model.sh[order], config, None, 0.0, refitted=lambda sh, share: (sh, statistics))
    assert measured == [20, 20, 40, 40]  # the first group by assumed rates, then all that is chosen


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_splats_than_groups(n: int) -> None:
    model = random_model(n)
    config = QuantizeConfig(color_groups=16)
    geometry, order = quantize_geometry(model, config)
    found = quantize_colors(geometry, model.sh[order], config, None, 0.0, refitted=None)
    assert found.num_splats == n
