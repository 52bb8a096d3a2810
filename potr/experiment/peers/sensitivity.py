# SPDX-License-Identifier: Apache-2.0
"""How much the images answer to each splat's colour and shape, and how much each splat contributes to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from potr.errors import SceneError
from potr.model.cameras import Camera, View
from potr.model.constants import MARGIN, NEAR
from potr.model.rotation import quats_to_matrices
from potr.model.sh import sh_basis
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer

DILATION = 0.3  # px^2 that the projection adds to every splat's variance (Kerbl et al. 2023)


@dataclass(frozen=True, eq=False)
class Sensitivity:
    """Sensitivities in the sense of Niedermayr et al. 2024, equation of S(p).

    S(p) = sum over images of |dE/dp|, over the pixels of all images; E of an image is the sum of its pixels' RGB. A
    vector has the largest sensitivity of its components.

    Attributes:
        color: [N] float32, of the splat's SH coefficients.
        shape: [N] float32, of the entries of its covariance over its squared size (the trace of the covariance).
        contribution: [N] float64, sum over views and pixels of the blend weight T alpha.
    """

    color: Tensor
    shape: Tensor
    contribution: Tensor


def sensitivity(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, progress: Progress = silent
) -> Sensitivity:
    """Measure the sensitivities over all views; photographs are not looked at.

    Colour is exact: dE/df of SH coefficient j in a view is Y_j(d) sum_x T alpha, where the channel is not clamped at 0.

    For the shape, the rasteriser tells what the removal of the splat alone changes E by in a view, exactly:
    -e, e = sum over pixels and channels of T alpha (c - B), B what is seen behind it. To first order e is proportional
    to the footprint's area sqrt(det S), S the projected covariance A M A^T + 0.3 I, M the covariance over its trace;
    so dE/dM = e / 2 A^T S^-1 A. That takes T and B to be even over the footprint, and alpha to be below its cap.

    Raises:
        SceneError: there are no views.
    """
    if not views:
        raise SceneError("sensitivity: expected training views, found none")
    n, k = model.num_splats, (model.sh_degree + 1) ** 2
    size, covariance = unit_covariances(model)
    sh = model.sh
    color, shape = torch.zeros(n, k, 3), torch.zeros(n, 6)
    contribution = torch.zeros(n, dtype=torch.float64)
    pixels = 0
    for number, view in enumerate(views):
        camera = view.camera
        # Against its own render less 1 the squared error of a removal is sum PD^2 + 2 sum PD.
        image = rasterizer.render(model, camera, view.background) - 1.0
        cost = rasterizer.removal_cost(model, [View(view.name, camera, image.float().cpu(), view.background)])
        seen = torch.nonzero(cost.contribution > 0)[:, 0]
        energy = ((cost.delta_sse - cost.render_sse) / 2)[seen].float()
        weight = cost.contribution[seen].float()
        color[seen] += _color_gradient(model.means[seen], sh[seen], camera) * weight[:, None, None]
        rows = _jacobian(model.means[seen], camera) * size[seen, None, None]
        shape[seen] += shape_gradient(rows, covariance[seen]).abs() * energy.abs()[:, None]
        contribution += cost.contribution
        pixels += camera.width * camera.height
        progress.stage("sensitivity")(number + 1, len(views))
    return Sensitivity(color.flatten(1).amax(1) / pixels, shape.amax(1) / pixels, contribution)


def contribution(
    model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, progress: Progress = silent
) -> Tensor:
    """[N] float64, sum over views and pixels of the blend weight T alpha; photographs are not looked at.

    Raises:
        SceneError: there are no views.
    """
    if not views:
        raise SceneError("importance: expected training views, found none")
    grey = model.with_sh(torch.zeros(model.num_splats, 1, 3))  # one coefficient, never clamped: the cheapest statistics
    blank = [replace(view, image=partial(torch.zeros, view.camera.height, view.camera.width, 3)) for view in views]
    return rasterizer.color_statistics(grey, blank, progress=progress.stage("importance")).contribution


def unit_covariances(model: SplatModel) -> tuple[Tensor, Tensor]:
    """Each splat's size |s| [N] in world units and its covariance over its squared size [N, 3, 3]: of trace 1."""
    log_size = torch.logsumexp(2 * model.log_scales.double(), dim=1) / 2
    axes = quats_to_matrices(model.quats.double()) * (model.log_scales.double() - log_size[:, None]).exp()[:, None, :]
    return log_size.exp().float(), (axes @ axes.mT).float()


def shape_gradient(rows: Tensor, covariance: Tensor) -> Tensor:
    """[M, 6] half the derivative of log det S by the entries xx, yy, zz, xy, xz, yz of the covariance.

    Args:
        rows: [M, 2, 3] A, pixels per unit of the covariance's space.
        covariance: [M, 3, 3].
    """
    projected = rows @ covariance @ rows.mT
    a, b, c = projected[:, 0, 0] + DILATION, projected[:, 0, 1], projected[:, 1, 1] + DILATION
    inverse = torch.stack([c, -b, -b, a], dim=1).reshape(-1, 2, 2) / (a * c - b * b).clamp_min(1e-12)[:, None, None]
    full = rows.mT @ inverse @ rows / 2
    diagonal = full.diagonal(dim1=1, dim2=2)
    off_diagonal = 2 * full[:, [0, 0, 1], [1, 2, 2]]  # each entry stands there twice
    return torch.cat([diagonal, off_diagonal], dim=1)


def _color_gradient(means: Tensor, sh: Tensor, camera: Camera) -> Tensor:
    """[M, K, 3] |Y_j(d)| of each splat, 0 where the channel is clamped."""
    directions = torch.nn.functional.normalize(means - camera.center.to(means.device), dim=1)
    basis = sh_basis(directions, round(sh.shape[1] ** 0.5) - 1)
    above = torch.einsum("mk,mkc->mc", basis, sh) + 0.5 > 0
    return basis.abs()[:, :, None] * above[:, None, :]


def _jacobian(means: Tensor, camera: Camera) -> Tensor:
    """[M, 2, 3] pixels per world unit at each mean (EWA), clamped where Kerbl et al. 2023 clamp it."""
    viewmat = camera.viewmat.to(means.device)
    x, y, z = (means @ viewmat[:3, :3].T + viewmat[:3, 3]).unbind(1)
    z = z.clamp_min(NEAR)
    u = (x / z).clamp(*_limits(camera.cx, camera.width, camera.fx))
    v = (y / z).clamp(*_limits(camera.cy, camera.height, camera.fy))
    zero = torch.zeros_like(z)
    rows = [camera.fx / z, zero, -camera.fx * u / z, zero, camera.fy / z, -camera.fy * v / z]
    return torch.stack(rows, dim=1).reshape(-1, 2, 3) @ viewmat[:3, :3]


def _limits(center: float, size: int, focal: float) -> tuple[float, float]:
    return -(center + MARGIN * size) / focal, ((1 + MARGIN) * size - center) / focal
