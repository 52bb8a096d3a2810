# SPDX-License-Identifier: Apache-2.0
"""Laws of the quantiser: errors within half a step, both ends of every range, order, idempotence."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.encoder import color_levels, sh_solver
from potr.encoder.color_levels import quantize_colors
from potr.encoder.config import CodecConfig, CompactConfig, PruneConfig, QuantizeConfig
from potr.encoder.quality import config_for
from potr.encoder.quantize import nearest_opacity, opacity_table, quantize_geometry, required_depths
from potr.encoder.quantize import quantize as quantize_all
from potr.encoder.sh_solver import measured_rates, quantize_group
from potr.format.decode import dequantize
from potr.format.quantized import MAX_DEPTH, QuantizedModel
from potr.model.opponent import opponent_to_rgb
from potr.model.rotation import quats_to_matrices
from potr.model.splats import SplatModel
from potr.render.base import ColorStatistics
from potr.render.select import select
from tests.helpers.scenes import random_views


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


def quantize(model: SplatModel, config: QuantizeConfig) -> QuantizedModel:
    """All attributes to the closest levels."""
    quantized, order = quantize_geometry(model, config, torch.zeros(model.num_splats))
    levels, _ = quantize_group(None, model.sh[order], torch.from_numpy(quantized.sh_steps), 0.0, None, False)
    return replace(quantized, sh=levels.numpy())


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
    unsighted, small = torch.full((50,), torch.inf), torch.full((50,), 1e-9)
    config = CodecConfig("closest", PruneConfig(), CompactConfig(), QuantizeConfig(joint_rounding=False))
    raster, views = select("cpu", threads=1), random_views(1, 1)
    plain, unseen = (
        quantize_all(model, views, raster, config, cap=0.0, pixel_size=s).model for s in (small, unsighted)
    )
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


class Watched:
    """Stands for a rasteriser and for the refit: every splat's colour is moved by 1."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seen: list[Tensor] = []
        self.shares: list[float] = []
        monkeypatch.setattr(color_levels, "refit", self.refit)

    def color_statistics(self, model: SplatModel, views: object, **options: object) -> ColorStatistics:
        self.seen.append(model.sh)
        nothing = torch.zeros(0)
        return ColorStatistics(nothing, nothing, nothing, nothing, nothing, 0.0, 1)

    def refit(self, model: SplatModel, statistics: object, relaxation: float, share: float) -> SplatModel:
        self.shares.append(share)
        return model.with_sh(model.sh + 1.0)

    def levels(self, model: SplatModel, **changes: Any) -> Tensor:
        """The colours [N, K, 3] that the levels stand for."""
        config = CodecConfig("colours", PruneConfig(), CompactConfig(), QuantizeConfig(joint_rounding=False, **changes))
        steps = np.full((model.sh.shape[1], 3), 1 / 11, np.float32)
        raster: Any = self
        levels, _ = quantize_colors(model, [], raster, config, 0.0, steps)
        return opponent_to_rgb(torch.from_numpy(levels) * torch.from_numpy(steps))


def test_groups_of_colours_leave_the_rest_free_to_move(monkeypatch: pytest.MonkeyPatch) -> None:
    model, watched = random_model(50, degree=1), Watched(monkeypatch)
    result = watched.levels(model, color_groups=3)
    at_once = Watched(monkeypatch).levels(model)
    assert len(watched.seen) == 3
    group, sh = torch.arange(50) % 3, model.sh
    torch.testing.assert_close(result[group == 0], at_once[group == 0])
    for number, current in enumerate(watched.seen[1:]):  # done: as the decoder has them; others: moved so many times
        for other in range(3):
            expected = result[group == other] if other <= number else sh[group == other] + number
            torch.testing.assert_close(current[group == other], expected, atol=1e-5, rtol=1e-5)
    assert ((result - sh)[group == 2] - 2).abs().max() < 1.01 * 3**0.5 / 11
    assert watched.shares == pytest.approx([2 / 3, 1 / 3])


def test_a_second_round_moves_one_group_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    result = watched.levels(random_model(50, degree=1), color_groups=2, color_rounds=2)
    assert watched.shares == [0.5, 0.5, 0.5]
    group = torch.arange(50) % 2
    before_second, before_last = watched.seen[2:]
    torch.testing.assert_close(before_last[group == 1], before_second[group == 1])  # the first group's turn
    assert ((before_last - before_second)[group == 0] - 1).abs().max() < 0.2
    torch.testing.assert_close(result[group == 0], before_last[group == 0], atol=1e-5, rtol=1e-5)
    assert ((result - before_last)[group == 1] - 1).abs().max() < 0.2


def test_one_group_has_one_round(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(monkeypatch)
    watched.levels(random_model(20, degree=1), color_groups=1, color_rounds=3)
    assert len(watched.seen) == 1


def test_measured_rates_are_those_of_the_levels_chosen_before(monkeypatch: pytest.MonkeyPatch) -> None:
    model = random_model(40, degree=1)
    measured: list[int] = []

    def counted(levels: Tensor) -> Tensor:
        measured.append(len(levels))
        return measured_rates(levels)

    monkeypatch.setattr(sh_solver, "measured_rates", counted)
    quantize = QuantizeConfig(color_groups=2, color_rounds=2, measured_rates=True)
    steps = np.full((4, 3), 1 / 11, np.float32)
    raster, views = select("cpu", threads=1), random_views(1, 1)
    quantize_colors(
        model, views, raster, CodecConfig("measured", PruneConfig(), CompactConfig(), quantize), 1e-6, steps
    )
    assert measured == [20, 20, 40, 40]  # the first group by assumed rates, then all that is chosen


@pytest.mark.parametrize("n", [0, 1, 2])
def test_fewer_splats_than_groups(n: int) -> None:
    model, config = random_model(n), config_for(0.5, overrides={"quantize": {"color_groups": 16}})
    sizes, views = torch.full((n,), 0.01), random_views(1, 1)
    found = quantize_all(model, views, select("cpu", threads=1), config, cap=1e-6, pixel_size=sizes)
    assert found.model.num_splats == n
    assert dequantize(found.model).sh_degree == 3
