# SPDX-License-Identifier: Apache-2.0
"""The slow truth: 3DGS image formation (Kerbl et al. 2023) in plain torch, tile by tile, differentiable by autograd.

Written from the formulas, independent of the native code, and in float64 where asked: the other backends are tested
against it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from potr.errors import ConfigError
from potr.model.cameras import RGB, Camera, View
from potr.model.constants import ALPHA_MAX, ALPHA_MIN, DILATION, MARGIN, NEAR, TRANSMITTANCE_MIN
from potr.model.rotation import quats_to_matrices
from potr.model.sh import sh_basis, sh_color
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import GEOMETRY_PARAMETERS, ColorStatistics, GeometryStatistics, RemovalCost
from potr.render.blocks import sum_of_blocks
from potr.threads import checked_threads

TILE = 16
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Footprints:
    """The visible splats in one view, near to far."""

    index: Tensor  # [V] int64, into the model
    centers: Tensor  # [V, 2] pixel-index coordinates: the first pixel's centre is (0, 0)
    conics: Tensor  # [V, 2, 2] inverse of the dilated covariance
    opacities: Tensor  # [V]
    colors: Tensor  # [V, 3] clamped at 0
    clamped: Tensor  # [V, 3] bool
    directions: Tensor  # [V, 3] unit vectors, camera to splat
    projected_axes: Tensor  # [V, 2, 3] J W M: pixels moved on a move by one deviation along each axis
    nearer: Tensor  # [V, 3] the same move's share of the depth, towards the camera
    first_tile: Tensor  # [V, 2] int64, x and y
    last_tile: Tensor  # [V, 2] int64, exclusive


@dataclass(frozen=True, eq=False)
class _Tile:
    """One tile's pixels and the splats over it, near to far."""

    rows: slice
    columns: slice
    splats: Tensor  # [M] int64, into the footprints
    alphas: Tensor  # [M, P], 0 where a splat is not blended; P pixels row by row
    weights: Tensor  # [M, P] T * alpha
    background_weight: Tensor  # [P] final transmittance


def _on_own_threads(
    method: Callable[Concatenate[ReferenceRasterizer, Parameters], Result],
) -> Callable[Concatenate[ReferenceRasterizer, Parameters], Result]:
    """The method on the rasteriser's number of torch's threads; afterwards the process has the number it had."""

    @functools.wraps(method)
    def run(self: ReferenceRasterizer, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads or before)
        try:
            return method(self, *args, **kwargs)
        finally:
            torch.set_num_threads(before)

    return run


class ReferenceRasterizer:
    """The `reference` backend.

    Args:
        threads: of torch while a method runs; None leaves torch's setting alone.
        dtype: float32 or float64, of all arithmetic and of the rendered image.
        statistics_transmittance_min: as in the cpu backend.

    Raises:
        ConfigError: another dtype, or statistics_transmittance_min outside [0, 1).
    """

    name = "reference"
    device = torch.device("cpu")  # it works wherever the model is, at no speed to speak of

    def __init__(
        self,
        threads: int | None = None,
        *,
        dtype: torch.dtype = torch.float32,
        statistics_transmittance_min: float = 0.0,
    ) -> None:
        if dtype not in (torch.float32, torch.float64):
            raise ConfigError(f"dtype: expected float32 or float64, got {dtype}")
        if not 0 <= statistics_transmittance_min < 1:
            raise ConfigError(f"statistics_transmittance_min: expected [0, 1), got {statistics_transmittance_min}")
        self._threads = None if threads is None else checked_threads(threads)
        self.dtype = dtype
        self.statistics_transmittance_min = statistics_transmittance_min

    @_on_own_threads
    def render(self, model: SplatModel, camera: Camera, background: RGB) -> Tensor:
        footprints = _project(model, camera, self.dtype)
        tiles = list(_blend(footprints, camera, TRANSMITTANCE_MIN))
        return _assemble([_tile_colors(t, footprints, background) for t in tiles], tiles, camera)

    @_on_own_threads
    @torch.no_grad()
    def removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> RemovalCost:
        return sum_of_blocks(
            lambda block, report: self._block_removal_cost(model, block, background, report), views, progress
        )

    def _block_removal_cost(
        self, model: SplatModel, views: Sequence[View], background: RGB | None, progress: Progress
    ) -> RemovalCost:
        n, device = model.num_splats, model.device
        delta_sse, render_sse, contribution = (torch.zeros(n, dtype=torch.float64, device=device) for _ in range(3))
        peak = torch.zeros(n, dtype=torch.float32, device=device)
        pixels = torch.zeros(n, dtype=torch.int64, device=device)
        sse, samples = 0.0, 0
        for done, view in enumerate(views, 1):
            behind = view.background if background is None else background
            photo = view.read().to(device, self.dtype)
            footprints = _project(model, view.camera, self.dtype)
            for tile in _blend(footprints, view.camera, self.statistics_transmittance_min):
                error = _tile_colors(tile, footprints, behind) - photo[tile.rows, tile.columns].reshape(-1, 3)
                sse += float(error.double().square().sum())
                change = _removal_change(tile, footprints, behind)
                index = footprints.index[tile.splats]
                delta_sse.index_add_(0, index, (change * (change + 2 * error)).double().sum((1, 2)))
                render_sse.index_add_(0, index, change.double().square().sum((1, 2)))
                contribution.index_add_(0, index, tile.weights.double().sum(1))
                peak[index] = peak[index].maximum(tile.weights.amax(1).float())
                pixels.index_add_(0, index, (tile.weights > 0).sum(1))
            samples += photo.numel()
            progress(done, len(views))
        return RemovalCost(delta_sse, render_sse, contribution, peak, pixels, sse, samples)

    @_on_own_threads
    @torch.no_grad()
    def color_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> ColorStatistics:
        return sum_of_blocks(
            lambda block, report: self._block_color_statistics(model, block, background, report), views, progress
        )

    def _block_color_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None, progress: Progress
    ) -> ColorStatistics:
        n, device, degree = model.num_splats, model.device, model.sh_degree
        k = (degree + 1) ** 2
        hessian = torch.zeros(n, k, k, dtype=torch.float64, device=device)
        gradient = torch.zeros(n, k, 3, dtype=torch.float64, device=device)
        weight, contribution = (torch.zeros(n, dtype=torch.float64, device=device) for _ in range(2))
        seen_views = torch.zeros(n, dtype=torch.int32, device=device)
        sse, samples = 0.0, 0
        for done, view in enumerate(views, 1):
            behind = view.background if background is None else background
            photo = view.read().to(device, self.dtype)
            footprints = _project(model, view.camera, self.dtype)
            view_weight, view_contribution = (torch.zeros(n, dtype=torch.float64, device=device) for _ in range(2))
            view_gradient = torch.zeros(n, 3, dtype=torch.float64, device=device)
            for tile in _blend(footprints, view.camera, self.statistics_transmittance_min):
                error = _tile_colors(tile, footprints, behind) - photo[tile.rows, tile.columns].reshape(-1, 3)
                sse += float(error.double().square().sum())
                index = footprints.index[tile.splats]
                view_weight.index_add_(0, index, tile.weights.double().square().sum(1))
                view_contribution.index_add_(0, index, tile.weights.double().sum(1))
                view_gradient.index_add_(0, index, tile.weights.double() @ error.double())
            basis = torch.zeros(n, k, dtype=torch.float64, device=device)
            basis[footprints.index] = sh_basis(footprints.directions, degree).double()
            clamped = torch.zeros(n, 3, dtype=torch.bool, device=device)
            clamped[footprints.index] = footprints.clamped
            view_weight[clamped.all(1)] = 0
            view_contribution[clamped.all(1)] = 0
            hessian += view_weight[:, None, None] * basis[:, :, None] * basis[:, None, :]
            gradient += basis[:, :, None] * view_gradient.masked_fill(clamped, 0)[:, None, :]
            weight += view_weight
            contribution += view_contribution
            seen_views += view_weight > 0
            samples += photo.numel()
            progress(done, len(views))
        row, column = torch.tril_indices(k, k, device=device)
        return ColorStatistics(
            hessian[:, row, column].float(), weight, contribution, gradient.float(), seen_views, sse, samples
        )

    @_on_own_threads
    @torch.no_grad()
    def geometry_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None = None, *, progress: Progress = silent
    ) -> GeometryStatistics:
        return sum_of_blocks(
            lambda block, report: self._block_geometry_statistics(model, block, background, report), views, progress
        )

    def _block_geometry_statistics(
        self, model: SplatModel, views: Sequence[View], background: RGB | None, progress: Progress
    ) -> GeometryStatistics:
        n, k, device = model.num_splats, GEOMETRY_PARAMETERS, model.device
        hessian = torch.zeros(n, k, k, dtype=torch.float64, device=device)
        gradient = torch.zeros(n, k, dtype=torch.float64, device=device)
        sse, samples = 0.0, 0
        for done, view in enumerate(views, 1):
            behind = view.background if background is None else background
            photo = view.read().to(device, self.dtype)
            footprints = _project(model, view.camera, self.dtype)
            for tile in _blend(footprints, view.camera, self.statistics_transmittance_min):
                error = _tile_colors(tile, footprints, behind) - photo[tile.rows, tile.columns].reshape(-1, 3)
                sse += float(error.double().square().sum())
                change = _removal_change(tile, footprints, behind)  # [M, P, 3]
                responds = (tile.weights > 0) & (tile.alphas < ALPHA_MAX)
                curvature = torch.where(responds, change.square().sum(-1) / tile.weights, 0.0).double()
                slope = torch.where(responds, -(change * error).sum(-1), 0.0).double()
                response = _alpha_responses(tile, footprints).double()
                index = footprints.index[tile.splats]
                hessian.index_add_(0, index, torch.einsum("mp,mpa,mpb->mab", curvature, response, response))
                gradient.index_add_(0, index, torch.einsum("mp,mpa->ma", slope, response))
            samples += photo.numel()
            progress(done, len(views))
        row, column = torch.tril_indices(k, k, device=device)
        return GeometryStatistics(hessian[:, row, column].float(), gradient.float(), sse, samples)


def _alpha_responses(tile: _Tile, footprints: _Footprints) -> Tensor:
    """[M, P, 10] how the logarithm of each alpha answers to the ten changes of GeometryStatistics."""
    dtype, device = tile.alphas.dtype, tile.alphas.device
    y, x = torch.meshgrid(
        torch.arange(tile.rows.start, tile.rows.stop, dtype=dtype, device=device),
        torch.arange(tile.columns.start, tile.columns.stop, dtype=dtype, device=device),
        indexing="ij",
    )
    offsets = torch.stack([x.flatten(), y.flatten()], -1) - footprints.centers[tile.splats, None, :]  # [M, P, 2]
    t = torch.einsum(
        "mia,mij,mpj->mpa", footprints.projected_axes[tile.splats], footprints.conics[tile.splats], offsets
    )
    t1, t2, t3 = t.unbind(-1)
    # Nearer by a share, a splat looks larger by it: a strain of all axes.
    shifts = t + footprints.nearer[tile.splats, None, :] * t.square().sum(-1, keepdim=True)
    return torch.stack(
        [torch.ones_like(t1), *shifts.unbind(-1), t1 * t1, t2 * t2, t3 * t3, 2 * t1 * t2, 2 * t1 * t3, 2 * t2 * t3], -1
    )


def _project(model: SplatModel, camera: Camera, dtype: torch.dtype) -> _Footprints:
    """EWA projection (Zwicker et al. 2001), covariance J W Sigma W^T J^T + dilation; the tiles a splat may touch."""
    viewmat = camera.viewmat.to(model.device, dtype)
    rotation, translation = viewmat[:3, :3], viewmat[:3, 3]
    center = -rotation.T @ translation
    means = model.means.to(dtype)
    x, y, z = (means @ rotation.T + translation).unbind(-1)
    in_front = z > NEAR
    z = torch.where(in_front, z, torch.ones_like(z))  # so that what is culled stays finite

    # The Jacobian is taken no further out than 1.3 x the field of view.
    u = (x / z).clamp(-(camera.cx / camera.width + MARGIN) * camera.width / camera.fx,
                      (1 + MARGIN - camera.cx / camera.width) * camera.width / camera.fx)  # fmt: skip
    v = (y / z).clamp(-(camera.cy / camera.height + MARGIN) * camera.height / camera.fy,
                      (1 + MARGIN - camera.cy / camera.height) * camera.height / camera.fy)  # fmt: skip
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [camera.fx / z, zero, -camera.fx * u / z, zero, camera.fy / z, -camera.fy * v / z], dim=-1
    ).reshape(-1, 2, 3)
    axes = quats_to_matrices(model.quats.to(dtype)) * model.log_scales.to(dtype).exp()[:, None, :]
    projected = jacobian @ rotation @ axes
    covariance = projected @ projected.transpose(1, 2) + DILATION * torch.eye(2, dtype=dtype, device=model.device)
    a, b, c = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    determinant = a * c - b * b

    centers = torch.stack([camera.fx * x / z + camera.cx - 0.5, camera.fy * y / z + camera.cy - 0.5], dim=-1)
    with torch.no_grad():
        largest = (a + c) / 2 + (((a - c) / 2).square() + b * b).clamp_min(0.1).sqrt()  # eigenvalue
        radius = (3 * largest.sqrt()).ceil()[:, None]
        grid = torch.tensor([-(-camera.width // TILE), -(-camera.height // TILE)], device=model.device)
        first = ((centers - radius) / TILE).nan_to_num().clamp_min(0).minimum(grid).long()
        last = ((centers + radius + TILE - 1) / TILE).nan_to_num().clamp_min(0).minimum(grid).long()
        drawable = (determinant > 0) & (determinant < torch.finfo(torch.float32).max)  # false for NaN
        visible = in_front & drawable & (first < last).all(1)
        index = visible.nonzero()[:, 0]
        index = index[z[index].argsort(stable=True)]

    directions = torch.nn.functional.normalize(means[index] - center, dim=-1)
    colors = sh_color(model.sh[index].to(dtype), directions)
    a, b, c, determinant = a[index], b[index], c[index], determinant[index]
    conics = torch.stack([c, -b, -b, a], dim=-1).reshape(-1, 2, 2) / determinant[:, None, None]
    return _Footprints(
        index=index,
        centers=centers[index],
        conics=conics,
        opacities=model.opacity_logits[index].to(dtype).sigmoid(),
        colors=colors.clamp_min(0),
        clamped=colors < 0,
        directions=directions,
        projected_axes=projected[index],
        nearer=-(rotation[2] @ axes[index]) / z[index, None],
        first_tile=first[index],
        last_tile=last[index],
    )


def _blend(footprints: _Footprints, camera: Camera, transmittance_min: float) -> Iterator[_Tile]:
    """Front-to-back blending weights, tile by tile, row by row."""
    dtype, device = footprints.centers.dtype, footprints.centers.device
    for top in range(0, camera.height, TILE):
        for left in range(0, camera.width, TILE):
            tile = torch.tensor([left // TILE, top // TILE], device=device)
            touched = ((footprints.first_tile <= tile) & (tile < footprints.last_tile)).all(1)
            splats = touched.nonzero()[:, 0]
            rows = slice(top, min(top + TILE, camera.height))
            columns = slice(left, min(left + TILE, camera.width))
            y, x = torch.meshgrid(
                torch.arange(rows.start, rows.stop, dtype=dtype, device=device),
                torch.arange(columns.start, columns.stop, dtype=dtype, device=device),
                indexing="ij",
            )
            offsets = torch.stack([x.flatten(), y.flatten()], -1) - footprints.centers[splats, None, :]  # [M, P, 2]
            squared = torch.einsum("mpi,mij,mpj->mp", offsets, footprints.conics[splats], offsets)
            alphas = (footprints.opacities[splats, None] * torch.exp(-0.5 * squared)).clamp_max(ALPHA_MAX)
            alphas = torch.where(alphas >= ALPHA_MIN, alphas, torch.zeros_like(alphas))
            after = torch.cumprod(1 - alphas, dim=0)
            blended = after >= transmittance_min  # once below, below for good: the pixel has stopped
            alphas = torch.where(blended, alphas, torch.zeros_like(alphas))
            after = torch.cumprod(1 - alphas, dim=0)
            before = torch.cat([torch.ones_like(after[:1]), after[:-1]]) if len(splats) else after
            final = after[-1] if len(splats) else torch.ones(x.numel(), dtype=dtype, device=device)
            yield _Tile(rows, columns, splats, alphas, before * alphas, final)


def _tile_colors(tile: _Tile, footprints: _Footprints, background: RGB) -> Tensor:
    """[P, 3]"""
    behind = torch.tensor(background, dtype=tile.weights.dtype, device=tile.weights.device)
    return tile.weights.T @ footprints.colors[tile.splats] + tile.background_weight[:, None] * behind


def _assemble(colors: list[Tensor], tiles: list[_Tile], camera: Camera) -> Tensor:
    """[H, W, 3] from the tiles' [P, 3], in scan order."""
    blocks = [
        c.reshape(t.rows.stop - t.rows.start, t.columns.stop - t.columns.start, 3)
        for c, t in zip(colors, tiles, strict=True)
    ]
    per_row = -(-camera.width // TILE)
    return torch.cat([torch.cat(blocks[i : i + per_row], dim=1) for i in range(0, len(blocks), per_row)], dim=0)


def _removal_change(tile: _Tile, footprints: _Footprints, background: RGB) -> Tensor:
    """[M, P, 3] the pruning difference: what the removal of each splat alone adds to each pixel.

    PD = alpha / (1 - alpha) * S - T alpha c, with S the light that arrives from behind the splat.
    """
    lights = tile.weights[:, :, None] * footprints.colors[tile.splats, None, :]
    behind = torch.tensor(background, dtype=lights.dtype, device=lights.device)
    lights_and_background = torch.cat([lights, (tile.background_weight[:, None] * behind)[None]])
    arriving = lights_and_background.flip(0).cumsum(0).flip(0)[1:]  # summed from the far end: no cancellation
    return (tile.alphas / (1 - tile.alphas))[:, :, None] * arriving - lights
