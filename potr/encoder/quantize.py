# SPDX-License-Identifier: Apache-2.0
"""Quantisation: every attribute of a splat to integers, in depth-first octree order (method.md section 4)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from potr.encoder.color_levels import quantize_colors
from potr.encoder.config import CodecConfig, QuantizeConfig
from potr.encoder.geometry_levels import MAX_SCALE_INDEX, choose_levels
from potr.errors import ConfigError
from potr.format.decode import dequantize
from potr.format.octree import order_leaves
from potr.format.quantized import MAX_DEPTH, MAX_SH, QuantizedModel
from potr.model.cameras import View
from potr.model.constants import DILATION
from potr.model.rotation import canonical_axes
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import Rasterizer

log = logging.getLogger(__name__)

REFIT_ROOM = 2.0  # how far refits may raise the largest SH coefficient before its level no longer fits


@dataclass(frozen=True, eq=False)
class Quantized:
    """What quantisation made of a model.

    Attributes:
        model: the integers.
        mse_before: of the colours as they came in, on the geometry as the decoder will have it.
        ac_zero_share: share of AC levels that are 0; 1 where there are none.
    """

    model: QuantizedModel
    mse_before: float
    ac_zero_share: float


def quantize(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, config: CodecConfig,
    *, cap: float, pixel_size: Tensor, progress: Progress = SILENT,
) -> Quantized:  # fmt: skip
    """Integers for every attribute: geometry first, then the colours, refitted to the geometry that came of it.

    Args:
        model: N splats.
        views: the training views.
        rasterizer: a backend.
        config: the steps and prices, and how often colours are refitted.
        cap: rise of the MSE that a splat is worth (the pruning cap), which the prices of bits refer to.
        pixel_size: [N] world size of a pixel at the splat in the nearest training view that sees it; precision far
            below it is not spent. Where it is inf (no view has the centre in sight, though a large splat may still
            reach in) the splat's own size alone decides.
        progress: called after each view of each pass.
    """
    settings, footprint = config.quantize, torch.where(pixel_size.isfinite(), pixel_size, 0.0)
    with progress.step("quantisation of geometry"):
        geometry, order = quantize_geometry(model, settings, footprint)
    model, footprint = model.select(order), footprint[order]
    if settings.geometry_bit_cost > 0:
        raised = replace(model, log_scales=torch.maximum(model.log_scales, _least_log_scales(footprint)))
        geometry = choose_levels(geometry, raised, views, rasterizer, settings.geometry_bit_cost * cap, progress)
    # The colours are refitted to the geometry as the decoder will have it, and make up for some of its errors.
    decoded = dequantize(geometry).to(model.device).with_sh(model.sh)
    levels, mse = quantize_colors(decoded, views, rasterizer, config, cap, geometry.sh_steps, progress)
    zeros = float((levels[:, 1:] == 0).mean()) if levels[:, 1:].size else 1.0
    return Quantized(replace(geometry, sh=levels), mse, zeros)


def quantize_geometry(model: SplatModel, config: QuantizeConfig, footprint: Tensor) -> tuple[QuantizedModel, Tensor]:
    """All but the colours, to the closest levels.

    Args:
        model: N splats.
        config: the steps.
        footprint: [N] ``pixel_size`` of ``quantize``, 0 where it is inf.

    Returns:
        The integers in octree order, colours all 0, and [N] int64 which splat of ``model`` each is, on its device.
    """
    device, coefficients = model.device, model.sh_ac.shape[1] + 1
    model, footprint = replace(model, sh_ac=model.sh_ac[:, :0]).to("cpu"), footprint.cpu()
    origin, extent, fine_cells = _cells(model.means)
    depths_wanted = required_depths(model, config.position_gamma, footprint, extent)
    raised = torch.maximum(model.log_scales, _least_log_scales(footprint))
    scale_origin, scale_step = _scale_levels(raised, config.scale_step)
    rotation_step = 2.0 / (config.rotation_levels - 1)
    table = opacity_table(config.opacity_levels)
    opacity = nearest_opacity(model.opacities, table)

    order, depths = order_leaves(fine_cells, depths_wanted, MAX_DEPTH)
    index = torch.from_numpy(order)
    quats, log_scales = canonical_axes(model.quats[index], raised[index])
    scales = torch.round((log_scales - scale_origin) / scale_step).clamp(0, MAX_SCALE_INDEX)
    quantized = QuantizedModel(
        origin=origin,
        extent=extent,
        cells=fine_cells[order] >> (MAX_DEPTH - depths.astype(np.uint32))[:, None],
        depths=depths,
        opacity=opacity[order],
        opacity_table=table,
        log_scales=scales.numpy().astype(np.uint16),
        scale_origin=float(np.float32(scale_origin)),
        scale_step=float(np.float32(scale_step)),
        rotation=torch.round(quats[:, 1:] / rotation_step).numpy().astype(np.int16),
        rotation_step=float(np.float32(rotation_step)),
        sh=np.zeros((len(order), coefficients, 3), np.int32),
        sh_steps=sh_steps(coefficients, config).numpy(),
    )
    return quantized, index.to(device)


def _least_log_scales(footprint: Tensor) -> Tensor:
    """[N, 1] 4 % of the variance that the projection's dilation adds: what is thinner nobody sees."""
    thinnest: Tensor = ((DILATION / 25) ** 0.5 * footprint).clamp_min(1e-30)
    return thinnest.log()[:, None]


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


def sh_steps(coefficients: int, config: QuantizeConfig) -> Tensor:
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
    gain = max(3**0.5, 4 / 6**0.5 / config.chroma_step_ratio)  # rows of the opponent transform, over channels' steps
    for name, sh in (("dc_multiplier", model.sh_dc), ("ac_multiplier", model.sh_ac)):
        peak = float(sh.abs().max()) if sh.numel() else 0.0
        most = MAX_SH / (REFIT_ROOM * gain * peak) if peak else float("inf")
        if getattr(config, name) > most:
            raise ConfigError(
                f"QuantizeConfig.{name}: expected at most {most:.6g} for SH coefficients of up to {peak:.6g}, "
                f"whose levels must stay below 2^24, got {getattr(config, name):g}"
            )
