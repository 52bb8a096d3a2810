# SPDX-License-Identifier: Apache-2.0
"""Rate-distortion choice of the geometry's integers: opacity, log-scales and rotation, splat by splat."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from potr.encoder.chunks import CHUNK, map_chunks
from potr.format.quantized import QuantizedModel
from potr.model.cameras import View
from potr.model.rotation import quats_to_matrices
from potr.model.splats import SplatModel
from potr.progress import SILENT, Progress
from potr.render.base import GEOMETRY_PARAMETERS, Rasterizer

# Added to A's diagonal, as a share of A_00 and absolutely: a splat that few views see has directions without any
# curvature, and the ridge keeps its levels from going anywhere at all for a fraction of a bit.
RELATIVE_RIDGE = 1e-4
ABSOLUTE_RIDGE = 1e-4
_LONGEST = 0.98  # of x^2 + y^2 + z^2 in a chosen rotation: far enough below 1 for any rounding
MAX_SCALE_INDEX = (1 << 16) - 1
_CPU_CHUNK, _GPU_CHUNK = CHUNK, 1 << 18  # splats at once: some 40 MB; on a GPU so many that it is busy, some 600 MB
_MAX_TABLE = 1 << 22  # entries of one rate table
_REACH = 4  # levels beyond those in use that a table has room for
_STRAINS = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))  # xx, yy, zz, xy, xz, yz
_ORDER = (3, 2, 1, 0, 6, 5, 4)  # of the coordinates within a sweep
_TURNED = {4: (2, 3), 5: (1, 3), 6: (1, 2)}  # the scales of the axes that a rotation component turns


def choose_levels(
    quantized: QuantizedModel, model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, price: float,
    progress: Progress = SILENT,
) -> QuantizedModel:  # fmt: skip
    """The geometry's integers, chosen by rate and distortion over the training views.

    Args:
        quantized: N splats, their geometry rounded.
        model: the same splats unquantised, in the same order.
        views: the training views.
        rasterizer: a backend.
        price: rise of the MSE per bit.
        progress: called after each view.
    """
    found = rasterizer.geometry_statistics(model, views, progress=progress.stage("geometry statistics"))
    with progress.step("choice of geometry's levels"):
        return best_levels(quantized, model, found.hessian, found.gradient, price * found.samples)


def best_levels(
    quantized: QuantizedModel, model: SplatModel, hessian: Tensor, gradient: Tensor, price: float, sweeps: int = 3
) -> QuantizedModel:
    """The geometry's integers, chosen by rate and distortion.

    Each splat's opacity, three log-scales and rotation go, one coordinate after the other, to the level of least
    x^T A x + 2 x^T b + price * bits. x is the splat's change as ``GeometryStatistics`` has it: the difference of log
    opacity; the shift of the centre, which stays, but whose error the others can make up for; the strain
    E = (M^-1 Sigma' M^-T - I) / 2, exactly linear in the covariance Sigma'. Bits are -log2 of smoothed histograms:
    of the opacity; of a scale given half the lesser of the other two; of a rotation component given how far apart the
    scales of the two axes that it turns are. They are estimated anew before each sweep. They stand for the coder, whose
    contexts are others, and what a level does to the contexts of other coordinates is not charged. Splats that no view
    sees keep their levels.

    Args:
        quantized: N splats, their geometry rounded.
        model: the same splats unquantised, in the same order.
        hessian: [N, 55], A of ``GeometryStatistics`` in the axes of ``model``.
        gradient: [N, 10], b of ``GeometryStatistics`` likewise.
        price: squared error per bit, in the units of A; 0: the levels of least distortion.
        sweeps: over all coordinates.

    Returns:
        ``quantized`` with other levels. Work is done on the device of ``hessian``, in float64, and the result does
        not depend on the number of threads.
    """
    if quantized.num_splats == 0:
        return quantized
    columns = [quantized.opacity[None], quantized.log_scales.T, quantized.rotation.T]
    levels = torch.from_numpy(np.concatenate([c.astype(np.int32) for c in columns])).to(hessian.device)
    log_opacity = logsigmoid(torch.from_numpy(quantized.opacity_table.astype(np.float64))).to(hessian.device)
    chunk = _CPU_CHUNK if hessian.device.type == "cpu" else _GPU_CHUNK
    for _ in range(sweeps):
        rates = [_rate(levels, column, len(log_opacity)) for column in range(7)]

        def sweep(part: slice, rates: list[_Rate] = rates) -> None:
            splats = _splats(quantized, model, hessian, gradient, part)
            swept = _sweep(splats, levels[:, part].long(), rates, log_opacity, price).int()
            # Of a splat that no view sees nothing is known to be free.
            levels[:, part] = torch.where(hessian[part, 0] > 0, swept, levels[:, part])

        map_chunks(sweep, quantized.num_splats, hessian.device, size=chunk)
    chosen = levels.cpu().numpy()
    return replace(
        quantized,
        opacity=chosen[0].astype(np.uint16),
        log_scales=np.ascontiguousarray(chosen[1:4].T.astype(np.uint16)),
        rotation=np.ascontiguousarray(chosen[4:].T.astype(np.int16)),
    )


@dataclass(frozen=True)
class _Rate:
    """Bits of the levels lowest, lowest + 1, ... of one coordinate in each context: [contexts, levels] float64."""

    column: int
    bits: Tensor
    common: Tensor  # [contexts] int64, the commonest level
    lowest: int
    shift: int  # of the lesser scale, where that is the context

    def contexts(self, levels: Tensor) -> Tensor:
        """[n] int64 of [7, n] levels."""
        return _contexts(levels, self.column, self.shift).clamp_max(self.bits.shape[0] - 1)

    def clamp(self, level: Tensor) -> Tensor:
        return level.clamp(self.lowest, self.lowest + self.bits.shape[1] - 1)


def _contexts(levels: Tensor, column: int, shift: int) -> Tensor:
    if column == 0:
        return torch.zeros_like(levels[0])
    if column < 4:
        a, b = (k for k in (1, 2, 3) if k != column)
        return torch.minimum(levels[a], levels[b]) >> shift
    a, b = _TURNED[column]
    return (levels[a] - levels[b]).abs().clamp_max(15)


def _rate(levels: Tensor, column: int, opacities: int) -> _Rate:
    """The smoothed histograms of a coordinate's levels [7, N]; a context of few splats leans on all of them."""
    allowed = (0, opacities - 1) if column == 0 else (0, MAX_SCALE_INDEX) if column < 4 else (-(1 << 15), (1 << 15) - 1)
    lowest = max(int(levels[column].min()) - _REACH, allowed[0])
    highest = min(int(levels[column].max()) + _REACH, allowed[1])
    size, shift, contexts = highest - lowest + 1, 1, 1 if column == 0 else 16
    if 0 < column < 4:
        most = int(levels[1:4].max())
        while ((most >> shift) + 1) * size > _MAX_TABLE:
            shift += 1
        contexts = (most >> shift) + 1
    cells = _contexts(levels, column, shift) * size + (levels[column] - lowest)
    counts = torch.bincount(cells, minlength=contexts * size)
    table = counts.reshape(contexts, size)
    overall = table.sum(0).double() + 0.05
    overall = overall / (int(table.sum()) + 0.05 * size)
    share = (table + 8 * overall) / (table.sum(1, keepdim=True) + 8)
    return _Rate(column, -share.log2(), share.argmax(1) + lowest, lowest, shift)


@dataclass(frozen=True)
class _Splats:
    """What stays of n splats while their levels move; splats last, so that all is elementwise along them."""

    hessian: Tensor  # [10, 10, n] A with its ridge
    gradient: Tensor  # [10, n] b
    log_opacity: Tensor  # [n]
    shift: Tensor  # [3, n]
    inverse: Tensor  # [3, 3, n] M^-1
    scale: tuple[float, float]  # origin and step of the log-scales
    rotation_step: float


def _splats(quantized: QuantizedModel, model: SplatModel, hessian: Tensor, gradient: Tensor, part: slice) -> _Splats:
    k, device = GEOMETRY_PARAMETERS, hessian.device
    packed = hessian[part].double().T.contiguous()
    place = torch.tensor([max(i, j) * (max(i, j) + 1) // 2 + min(i, j) for i in range(k) for j in range(k)])
    full = packed.index_select(0, place.to(device)).reshape(k, k, -1)
    full.diagonal().T.add_(RELATIVE_RIDGE * packed[0] + ABSOLUTE_RIDGE)
    rotation = quats_to_matrices(model.quats[part].to(device).double()).permute(2, 1, 0)  # transposed
    inverse = rotation * (-model.log_scales[part].to(device).double().T).exp()[:, None]
    side = quantized.extent / np.exp2(quantized.depths[part].astype(np.float64))
    centre = torch.from_numpy((quantized.cells[part] + 0.5) * side[:, None] + quantized.origin).to(device)
    offset = (centre - model.means[part].to(device).double()).T
    return _Splats(
        full,
        gradient[part].double().T.contiguous(),
        logsigmoid(model.opacity_logits[part].to(device).double()),
        _product(inverse, offset),
        inverse,
        (quantized.scale_origin, quantized.scale_step),
        quantized.rotation_step,
    )


def _product(matrix: Tensor, vector: Tensor) -> Tensor:
    """[m, n] of [m, k, n] and [k, n]; always summed in the same order, whatever the number of threads."""
    total = matrix[:, 0] * vector[0]
    for j in range(1, len(vector)):
        total.addcmul_(matrix[:, j], vector[j])
    return total


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """[n] of two [k, n]."""
    return _product(a[None], b)[0]


def _scaled_axes(splats: _Splats, levels: Tensor) -> tuple[Tensor, Tensor]:
    """[3, 3, n] L = M^-1 R' diag(s'), and [n] x^2 + y^2 + z^2 of the rotation; as the decoder dequantises."""
    x, y, z = (levels[4:].float() * splats.rotation_step).double()
    squares = x * x + y * y + z * z
    w = (1 - squares).clamp_min(0).sqrt()
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    origin, step = splats.scale
    scales = (origin + levels[1:4].double() * step).exp()
    turned = torch.stack(rows).reshape(3, 3, -1)
    return torch.stack([_product(splats.inverse, turned[:, k] * scales[k]) for k in range(3)], 1), squares


def _strain(scaled: Tensor) -> Tensor:
    """[6, n] E = (L L^T - I) / 2 of [3, 3, n] L."""
    strain = torch.stack([_dot(scaled[i], scaled[j]) for i, j in _STRAINS]) * 0.5
    strain[:3] -= 0.5
    return strain


def _sweep(splats: _Splats, levels: Tensor, rates: list[_Rate], log_opacity: Tensor, price: float) -> Tensor:
    """[7, n] int64 levels after every coordinate took its best candidate."""
    levels = levels.clone()
    for column in _ORDER:
        rate, current = rates[column], levels[column].clone()
        context, bits = rate.contexts(levels), rate.bits.flatten()
        start, common = context * rate.bits.shape[1] - rate.lowest, rate.common[context]
        distortion, further = _STEPS[column](splats, levels, log_opacity)
        best, least = current, distortion(current) + price * bits[start + current]
        for candidate in (current - 1, current + 1, current - 2, current + 2, common, *further):
            level = rate.clamp(candidate)
            cost = distortion(level) + price * bits[start + level]
            better = cost < least
            best, least = torch.where(better, level, best), torch.where(better, cost, least)
        levels[column] = best
    return levels


_Distortion = Callable[[Tensor], Tensor]  # of [n] levels of one coordinate: [n], but for what does not depend on them


def _opacity_step(splats: _Splats, levels: Tensor, log_opacity: Tensor) -> tuple[_Distortion, list[Tensor]]:
    """A parabola in the change of log opacity."""
    others = torch.cat([splats.shift, _strain(_scaled_axes(splats, levels)[0])])
    slope, curvature = _dot(splats.hessian[0, 1:], others) + splats.gradient[0], splats.hessian[0, 0]

    def distortion(level: Tensor) -> Tensor:
        change = log_opacity[level] - splats.log_opacity
        return change * (curvature * change + 2 * slope)

    return distortion, []


def _scale_step(axis: int, splats: _Splats, levels: Tensor, log_opacity: Tensor) -> tuple[_Distortion, list[Tensor]]:
    """The strain is linear in the variance along one axis of the new ellipsoid, so the error is a parabola in that."""
    scaled, _ = _scaled_axes(splats, levels)
    own = torch.stack([scaled[i, axis] * scaled[j, axis] for i, j in _STRAINS]) * 0.5
    response = _product(splats.hessian[4:, 4:], own)
    curvature = _dot(own, response)
    slope = _dot(response, _strain(scaled) - own) + _dot(own, _half_gradient(splats, levels, log_opacity))
    current, step = levels[axis + 1], splats.scale[1]

    def distortion(level: Tensor) -> Tensor:
        ratio = (2 * step * (level - current)).exp()
        return ratio * (curvature * ratio + 2 * slope)

    lowest = (-slope / curvature).nan_to_num(1.0).clamp(1e-6, 1e6)  # the ratio of variances at the parabola's foot
    return distortion, [current + (lowest.log() / (2 * step)).round().long()]


def _rotation_step(axis: int, splats: _Splats, levels: Tensor, log_opacity: Tensor) -> tuple[_Distortion, list[Tensor]]:
    pull, levels = _half_gradient(splats, levels, log_opacity), levels.clone()

    def distortion(level: Tensor) -> Tensor:
        levels[axis + 4] = level
        scaled, squares = _scaled_axes(splats, levels)
        strain = _strain(scaled)
        error = _dot(strain, _product(splats.hessian[4:, 4:], strain) + 2 * pull)
        return torch.where(squares < _LONGEST, error, torch.inf)

    current = levels[axis + 4]
    return distortion, [torch.zeros_like(current), current - 3 * current.sign()]


def _half_gradient(splats: _Splats, levels: Tensor, log_opacity: Tensor) -> Tensor:
    """[6, n] half the slope along the strains, at none: their own and what the errors of opacity and place add."""
    change = log_opacity[levels[0]] - splats.log_opacity
    return splats.gradient[4:] + _product(splats.hessian[4:, :4], torch.cat([change[None], splats.shift]))


_STEPS: list[Callable[[_Splats, Tensor, Tensor], tuple[_Distortion, list[Tensor]]]] = [
    _opacity_step,
    *(partial(_scale_step, k) for k in range(3)),
    *(partial(_rotation_step, k) for k in range(3)),
]
