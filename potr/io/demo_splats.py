# SPDX-License-Identifier: Apache-2.0
"""The demo's model: flat splats on the world's surfaces, with the redundancy that training leaves behind.

No training and no rendering: positions and shapes come from the surfaces, colours from their shading, by linear least
squares. What a trained model has too much of is added on purpose: clones, haze, floaters, and splats nobody sees.
"""

from __future__ import annotations

import numpy as np
import torch

from potr.io.demo_textures import Array
from potr.io.demo_world import Ellipsoid, World, fibonacci
from potr.model.sh import C0, sh_basis
from potr.model.splats import SplatModel

SPACING = 0.030  # world units between neighbours on a surface
_WIDTH = 0.60  # standard deviation in the surface, over the spacing
_FLATNESS = 0.08  # standard deviation across the surface, over that in it
_INSET = 0.020  # world units that outlines lie further in, since the projected splats are a pixel wider
_SHARPEN = 0.4  # how much of the blur by the neighbours is taken back beforehand
_CLONES = 0.25  # of the surface splats have a copy beside them
_HAZE, _HIDDEN, _FLOATERS = 2000, 5000, 150
_DIRECTIONS = 96  # sampled on the sphere for the least squares
_PRIOR = 0.002  # weight of the noise that coefficients fall back to where no viewer looks
_NOISE = 0.08  # its standard deviation


def demo_splats(world: World, seed: int = 0) -> SplatModel:
    """The model: SH degree 3, splats in random order."""
    rng = np.random.default_rng(seed)
    groups = [_surface_splats(world, index, rng) for index in range(len(world.surfaces))]
    surface = tuple(np.concatenate(parts) for parts in zip(*groups, strict=True))
    everything = [surface, _clones(surface, rng), _haze(rng), _hidden(world, rng), _floaters(rng)]
    means, log_scales, quats, logits, sh = (np.concatenate(parts) for parts in zip(*everything, strict=True))
    order = rng.permutation(len(means))
    parts = (means, log_scales, quats, logits, sh[:, 0], sh[:, 1:])
    return SplatModel(*(torch.from_numpy(part[order].astype(np.float32)) for part in parts))


Splats = tuple[Array, ...]  # means, log_scales, quats, opacity logits, SH coefficients


def _surface_splats(world: World, index: int, rng: np.random.Generator) -> Splats:
    """Flat splats, their shortest axis along the normal, turned at random around it."""
    points = world.surfaces[index].sample(SPACING, rng)
    normals = world.surfaces[index].normals(points)
    n = len(points)
    width = SPACING * _WIDTH * np.exp(rng.normal(0, 0.12, (n, 2)))
    log_scales = np.log(np.column_stack([width, _FLATNESS * width.mean(1)]))
    logits = rng.normal(3, 1, n)
    means = world.surfaces[index].shrink(points, _INSET)
    return means, log_scales, _quats_toward(normals, rng), logits, _fit_sh(world, index, points, normals, rng)


def _fit_sh(world: World, index: int, points: Array, normals: Array, rng: np.random.Generator) -> Array:
    """[n, 16, 3] coefficients closest to the shading over the directions it is seen from.

    minimise  sum_m w_m (0.5 + Y(d_m) f - shading(d_m))^2 + prior |f - noise|^2,  w_m = max(0, cosine to the normal)
    """
    toward = fibonacci(_DIRECTIONS).astype(np.float32)  # from the splat to the viewer
    toward = toward[toward[:, 2] > -0.1]  # nobody looks from below the table
    basis = sh_basis(torch.from_numpy(-toward), 3).numpy()
    weights = np.maximum(normals @ toward.T, 0) / len(toward)
    hessian = np.einsum("nm,mk,ml->nkl", weights, basis, basis, optimize=True) + _PRIOR * np.eye(16, dtype=np.float32)
    color, mirrored, strength = world.shade(index, points, normals)
    shine = strength[:, None] * world.highlight_toward(index, mirrored @ toward.T)
    diffuse = _sharpened(world, index, points, normals, color) - np.float32(0.5)
    noise = rng.normal(0, _NOISE, (len(points), 16, 3)).astype(np.float32)
    noise[:, 0] = diffuse / C0
    right = np.einsum("nm,mk->nk", weights, basis)[:, :, None] * diffuse[:, None, :]
    right += np.einsum("nm,mk->nk", weights * shine, basis)[:, :, None] + _PRIOR * noise
    coefficients: Array = np.linalg.solve(hessian, right).astype(np.float32)
    return coefficients


def _sharpened(world: World, index: int, points: Array, normals: Array, color: Array) -> Array:
    """[n, 3] diffuse colours with contrasts raised by as much as blending with the neighbours will lower them."""
    first = np.cross(normals, np.where(np.abs(normals[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]]))
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    around = np.zeros_like(color)
    for offset in (first, -first, np.cross(normals, first), np.cross(first, normals)):
        around += world.shade(index, (points + SPACING * offset).astype(np.float32), normals)[0] / 4
    return np.maximum(color + np.float32(_SHARPEN) * (color - around), 0)


def _clones(surface: Splats, rng: np.random.Generator) -> Splats:
    """Copies as densification makes them: close by, a little smaller, weaker, with coefficients that drifted apart."""
    chosen = np.flatnonzero(rng.random(len(surface[0])) < _CLONES)
    means, log_scales, quats, logits, sh = (part[chosen] for part in surface)
    n = len(chosen)
    means = means + rng.normal(0, 0.15 * SPACING, (n, 3))
    return (
        means,
        log_scales - np.abs(rng.normal(0.15, 0.15, (n, 1))),
        quats + rng.normal(0, 0.02, (n, 4)),
        logits - np.abs(rng.normal(1.5, 1, n)),
        sh + rng.normal(0, 0.02, sh.shape),
    )


def _haze(rng: np.random.Generator) -> Splats:
    """Faint, larger splats close above the table, which training never quite removes."""
    angle, radius = rng.uniform(0, 2 * np.pi, _HAZE), 2.2 * np.sqrt(rng.random(_HAZE))
    means = np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.exponential(0.25, _HAZE)], 1)
    return _blobs(means, rng, size=0.05, opacity_logit=-4.6)


def _hidden(world: World, rng: np.random.Generator) -> Splats:
    """Splats inside the ellipsoids and under the table, where the initial points were and no view looks."""
    angle, radius = rng.uniform(0, 2 * np.pi, _HIDDEN // 2), 1.3 * np.sqrt(rng.random(_HIDDEN // 2))
    under = [np.stack([radius * np.cos(angle), radius * np.sin(angle), rng.uniform(-0.2, -0.05, len(angle))], 1)]
    solids = [surface for surface in world.surfaces if isinstance(surface, Ellipsoid)]
    inside = [s.center + s.radii * rng.uniform(-0.4, 0.4, (_HIDDEN // 2 // len(solids), 3)) for s in solids]
    return _blobs(np.concatenate(under + inside), rng, size=0.02, opacity_logit=0.0)


def _floaters(rng: np.random.Generator) -> Splats:
    """Small blobs in the air around the scene, some beyond every camera."""
    means = rng.normal(0, [2.0, 2.0, 1.2], (_FLOATERS, 3))
    means[:, 2] += 1.2
    return _blobs(means, rng, size=0.012, opacity_logit=-2.0)


def _blobs(means: Array, rng: np.random.Generator, size: float, opacity_logit: float) -> Splats:
    n = len(means)
    sh = rng.normal(0, 0.05, (n, 16, 3))
    sh[:, 0] = rng.normal(0, 0.5, (n, 3)) + 0.6
    log_scales = np.log(size) + rng.normal(0, 0.4, (n, 3))
    return means, log_scales, rng.normal(size=(n, 4)), rng.normal(opacity_logit, 0.5, n), sh


def _quats_toward(normals: Array, rng: np.random.Generator) -> Array:
    """[n, 4] wxyz rotations that take z to the normal, after a random turn around z."""
    # The shortest rotation from z to n is (1 + n_z, -n_y, n_x, 0), normalised; multiplied by the turn (c, 0, 0, s).
    angle = rng.uniform(0, np.pi, len(normals))
    c, s = np.cos(angle), np.sin(angle)
    w, x, y = np.maximum(1 + normals[:, 2], 1e-4), -normals[:, 1], normals[:, 0]
    quats = np.stack([w * c, x * c + y * s, y * c - x * s, w * s], 1)
    result: Array = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).astype(np.float32)
    return result
