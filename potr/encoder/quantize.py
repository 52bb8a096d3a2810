# SPDX-License-Identifier: Apache-2.0
"""Quantisation: every attribute of a splat to integers, in depth-first octree order (method.md section 4)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.encoder.config import QuantizeConfig
from potr.encoder.sh_rates import assumed_rates, measured_rates
from potr.encoder.sh_solver import RateModel, round_coefficients
from potr.errors import ConfigError
from potr.format.octree import order_leaves
from potr.format.quantized import MAX_DEPTH, MAX_SH, QuantizedModel
from potr.model.opponent import opponent_to_rgb, rgb_to_opponent
from potr.model.rotation import canonical_axes
from potr.model.splats import SplatModel
from potr.render.base import ColorStatistics

log = logging.getLogger(__name__)

MAX_SCALE_INDEX = (1 << 16) - 1
REFIT_ROOM = 2.0  # how far refits may raise the largest SH coefficient before its level no longer fits
DILATION = 0.3  # px^2 that the projection adds to every splat's variance (Kerbl et al. 2023)


def quantize(
    model: SplatModel,
    config: QuantizeConfig,
    *,
    statistics: ColorStatistics | None = None,
    cap: float = 0.0,
    pixel_size: Tensor | None = None,
) -> QuantizedModel:
    """Quantise a model: its geometry to the closest levels, its colours as they are, all at once.

    The encoder does more between the two (encoder.encode): levels by price, refits.

    Args:
        model: N splats.
        config: the steps.
        statistics: of this model, see ``quantize_colors``.
        cap: see ``quantize_colors``.
        pixel_size: see ``quantize_geometry``.

    Returns:
        The integers, in octree order; which splat of ``model`` went where is not kept.
    """
    levels, steps = quantize_sh(model.sh, config, *_metric(config, statistics, cap))
    quantized, order = quantize_geometry(model, config, pixel_size)
    return replace(quantized, sh=levels.cpu()[order].numpy(), sh_steps=steps.cpu().numpy())


def quantize_colors(
    quantized: QuantizedModel, sh: Tensor, config: QuantizeConfig, statistics: ColorStatistics | None, cap: float,
    *, refitted: Callable[[Tensor, float], tuple[Tensor, ColorStatistics]] | None = None,
) -> QuantizedModel:  # fmt: skip
    """The model with its colours quantised, in ``config.color_groups`` groups: splat i is of group i mod that.

    In the first round the colours still free are refitted after each group and make up for what it lost. In further
    ones each group in turn is refitted to all others, which are quantised, and its levels are chosen again.

    Args:
        quantized: the geometry.
        sh: [N, K, 3] float32 coefficients, in its order.
        config: the steps.
        statistics: how the training views see each splat's colour, in the same order: SH levels are then chosen jointly
            in that metric, each taking up the others' rounding errors; else every coefficient is rounded by itself.
        cap: rise of the MSE that a splat is worth (the pruning cap), which config.bit_cost refers to.
        refitted: what the colours [N, K, 3] become if a share of all splats, spread over the model, can still move, and
            statistics. None: they stay, all in one group.
    """
    groups = 1 if refitted is None else min(config.color_groups, max(1, len(sh)))
    rounds = 1 if groups == 1 else config.color_rounds  # one group alone has nothing to be refitted to
    sh, levels = sh.clone(), torch.zeros(sh.shape, dtype=torch.int32, device=sh.device)
    group_of = torch.arange(len(sh), device=sh.device) % groups
    for number in range(groups * rounds):
        group = group_of == number % groups
        if number and refitted is not None:
            statistics = metric = None  # freed before the next are made
            free = group_of >= number if number < groups else group
            moved, statistics = refitted(sh, max(1, groups - number) / groups)
            sh = torch.where(free[:, None, None], moved, sh)
        metric, price = _metric(config, statistics, cap)
        metric, chosen = None if metric is None else metric[group], levels[group_of < number]
        if config.measured_rates and number == 0:  # nothing to measure yet but this group by the assumed rates
            chosen, _ = quantize_sh(sh[group], config, metric, price)
        rates = measured_rates(chosen) if config.measured_rates else None
        levels[group], steps = quantize_sh(sh[group], config, metric, price, rates)
        sh[group] = opponent_to_rgb(levels[group] * steps)
    return replace(quantized, sh=levels.cpu().numpy(), sh_steps=steps.cpu().numpy())


def _metric(config: QuantizeConfig, statistics: ColorStatistics | None, cap: float) -> tuple[Tensor | None, float]:
    """The Hessian that levels are chosen by, if they are, and the price of a bit in its units."""
    if statistics is None or not config.joint_rounding:
        return None, 0.0
    return statistics.hessian, config.bit_cost * cap * statistics.samples


def quantize_geometry(
    model: SplatModel, config: QuantizeConfig, pixel_size: Tensor | None = None
) -> tuple[QuantizedModel, Tensor]:
    """All but the colours.

    Args:
        model: N splats.
        config: the steps.
        pixel_size: [N] world size of a pixel at the splat in the nearest training view that sees it; precision far
            below it is not spent. Where it is inf (no view has the centre in sight, though a large splat may still
            reach in) the splat's own size alone decides.

    Returns:
        The integers in octree order, colours all 0, and [N] int64 on the CPU: which splat of ``model`` each is.
    """
    coefficients = model.sh_ac.shape[1] + 1
    model = replace(model, sh_ac=model.sh_ac[:, :0]).to("cpu")
    footprint = torch.zeros_like(model.opacity_logits) if pixel_size is None else _footprint(pixel_size.cpu())
    origin, extent, fine_cells = _cells(model.means)
    depths_wanted = required_depths(model, config.position_gamma, footprint, extent)
    order, depths = order_leaves(fine_cells, depths_wanted, MAX_DEPTH)
    cells = fine_cells[order] >> (MAX_DEPTH - depths.astype(np.uint32))[:, None]

    index = torch.from_numpy(order)
    ordered = raise_scales(model.select(index), footprint[index])
    quats, log_scales = canonical_axes(ordered.quats, ordered.log_scales)
    scale_origin, scale_step = _scale_levels(log_scales, config.scale_step)
    scales = torch.round((log_scales - scale_origin) / scale_step).clamp(0, MAX_SCALE_INDEX)
    rotation_step = 2.0 / (config.rotation_levels - 1)
    table = opacity_table(config.opacity_levels)
    quantized = QuantizedModel(
        origin=origin,
        extent=extent,
        cells=cells,
        depths=depths,
        opacity=nearest_opacity(ordered.opacities, table),
        opacity_table=table,
        log_scales=scales.numpy().astype(np.uint16),
        scale_origin=float(np.float32(scale_origin)),
        scale_step=float(np.float32(scale_step)),
        rotation=torch.round(quats[:, 1:] / rotation_step).numpy().astype(np.int16),
        rotation_step=float(np.float32(rotation_step)),
        sh=np.zeros((len(order), coefficients, 3), np.int32),
        sh_steps=_sh_steps(coefficients, config).numpy(),
    )
    return quantized, index


def raise_scales(model: SplatModel, pixel_size: Tensor) -> SplatModel:
    """The model with its least scales raised to 4 % of what the projection's dilation adds, which nobody sees."""
    floor = (DILATION / 25) ** 0.5 * _footprint(pixel_size)
    return replace(model, log_scales=torch.maximum(model.log_scales, floor.clamp_min(1e-30).log()[:, None]))


def _footprint(pixel_size: Tensor) -> Tensor:
    """[N] size of a pixel at the splat, 0 where no view has it in sight."""
    return torch.where(pixel_size.isfinite(), pixel_size, 0.0)


def _scale_levels(log_scales: Tensor, step: float) -> tuple[float, float]:
    """Origin and step of the log-scales; a step too fine for 16-bit indices over their range is widened to fit."""
    if log_scales.numel() == 0:
        return 0.0, step
    low, high = float(log_scales.min()), float(log_scales.max())
    return low, max(step, (high - low) / MAX_SCALE_INDEX)


def _cells(means: Tensor) -> tuple[NDArray[np.float64], float, NDArray[np.uint32]]:
    """The cube around all means, and each mean's cell at MAX_DEPTH: origin [3], extent, cells [N, 3]."""
    points = means.double().cpu().numpy()
    if len(points) == 0:
        return np.zeros(3), 1.0, np.zeros((0, 3), np.uint32)
    origin = points.min(axis=0)
    extent = float((points.max(axis=0) - origin).max()) * (1 + 1e-9) or 1.0
    scaled = np.floor((points - origin) / extent * 2**MAX_DEPTH)
    return origin, extent, np.clip(scaled, 0, 2**MAX_DEPTH - 1).astype(np.uint32)


def required_depths(model: SplatModel, gamma: float, pixel_size: Tensor, extent: float) -> NDArray[np.uint8]:
    """[N] octree depth at which a cell is at most ``gamma`` times the splat's size.

    The size is the splat's smallest standard deviation, widened as the projection widens it.
    """
    smallest = model.scales.double().min(dim=1).values if model.num_splats else model.means.double()[:, 0]
    size = (smallest.square() + DILATION * pixel_size.double().square()).sqrt()
    depth = torch.ceil(torch.log2(extent / (gamma * size)))
    beyond = int((depth > MAX_DEPTH).sum())
    if beyond:
        cell = extent / 2**MAX_DEPTH
        log.warning("%d of %d splats are placed to %.3g units, more coarsely than asked", beyond, len(depth), cell)
    return depth.clamp(0, MAX_DEPTH).cpu().numpy().astype(np.uint8)


def opacity_table(levels: int) -> NDArray[np.float32]:
    """[levels] float32 logits of evenly spaced opacities; the ends are a quarter of a level inside 0..1."""
    opacities = np.clip(np.arange(levels) / (levels - 1), 0.25 / (levels - 1), 1 - 0.25 / (levels - 1))
    return np.log(opacities / (1 - opacities)).astype(np.float32)


def nearest_opacity(opacities: Tensor, table: NDArray[np.float32]) -> NDArray[np.uint16]:
    """[N] index of the table's entry nearest in opacity."""
    values = 1 / (1 + np.exp(-table.astype(np.float64)))
    midpoints = (values[1:] + values[:-1]) / 2
    return np.searchsorted(midpoints, opacities.double().cpu().numpy()).astype(np.uint16)


def _sh_steps(coefficients: int, config: QuantizeConfig) -> Tensor:
    """[K, 3] float32 on the CPU."""
    steps = torch.full((coefficients, 3), 1.0 / config.ac_multiplier)
    steps[0] = 1.0 / config.dc_multiplier
    steps[:, 1:] *= config.chroma_step_ratio
    return steps


def check_levels_fit(model: SplatModel, config: QuantizeConfig) -> None:
    """Refuse steps so fine that levels of the model's colours would not fit the format, before any work is done.

    Raises:
        ConfigError: names the multiplier, and the largest that fits.
    """
    gain = max(
        3**0.5, 4 / 6**0.5 / config.chroma_step_ratio
    )  # rows of the opponent transform, over the channels' steps
    for name, sh in (("dc_multiplier", model.sh_dc), ("ac_multiplier", model.sh_ac)):
        peak = float(sh.abs().max()) if sh.numel() else 0.0
        most = MAX_SH / (REFIT_ROOM * gain * peak) if peak else float("inf")
        if getattr(config, name) > most:
            raise ConfigError(
                f"QuantizeConfig.{name}: expected at most {most:.6g} for SH coefficients of up to {peak:.6g}, "
                f"whose levels must stay below 2^24, got {getattr(config, name):g}"
            )


def quantize_sh(
    sh: Tensor, config: QuantizeConfig, hessian: Tensor | None = None, bit_cost: float = 0.0,
    rates: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """SH levels [N, K, 3] int32 in the opponent space, and their steps [K, 3] float32.

    Jointly in the metric of the packed ``hessian`` [N, K(K+1)/2] with a price per bit, or each by itself without.
    ``rates`` [K, 3, RATE_LEVELS] are bits (encoder.sh_rates), by default the assumed ones. All on the device of ``sh``.
    """
    steps = _sh_steps(sh.shape[1], config).to(sh.device)
    opponent = rgb_to_opponent(sh)
    if hessian is None or len(opponent) == 0:
        return torch.round(opponent / steps).to(torch.int32), steps
    rates = assumed_rates(sh.shape[1]) if rates is None else rates
    return round_coefficients(hessian, opponent, steps, RateModel((bit_cost,) * 3, rates)), steps
