# SPDX-License-Identifier: Apache-2.0
"""The demo's world: ellipsoids and a box on a round table, procedural textures, Phong shading, and a ray tracer.

Everything is analytic, float32 and deterministic. z is up; the table's top is z = 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from potr.io.demo_textures import Array, Texture, copper, dot, dots, leaves, marble, parquet, stripes, tiles, unit

KEY_LIGHT = np.array([0.45, -0.35, 0.82], np.float32) / np.float32(np.sqrt(0.45**2 + 0.35**2 + 0.82**2))
FILL_LIGHT = np.array([-0.70, 0.30, 0.65], np.float32) / np.float32(np.sqrt(0.70**2 + 0.30**2 + 0.65**2))
KEY, FILL, SKY, BOUNCE = 0.62, 0.18, 0.30, 0.10  # strengths of the lights and of the light from above and below
_SOFTNESS = np.float32(0.18)  # width of a shadow's edge over the distance that casts it
_FAR = np.float32(1e6)


class Surface(Protocol):
    """A shape with its material."""

    @property
    def texture(self) -> Texture: ...

    @property
    def gloss(self) -> float:
        """Strength of the highlight."""
        ...

    @property
    def shininess(self) -> float:
        """Phong's exponent."""
        ...

    def hit(self, origin: Array, directions: Array) -> Array:
        """[n] distance along each ray (3 x [n] components) to the first hit; _FAR where there is none."""
        ...

    def normals(self, points: Array) -> Array:
        """[n, 3] outward unit normals at points on the surface."""
        ...

    def local(self, points: Array) -> Array:
        """[n, 3] the texture's coordinates."""
        ...

    def shadow(self, points: Array) -> Array:
        """[n] share of the key light that passes this surface on its way to the points."""
        ...

    def sample(self, spacing: float, rng: np.random.Generator) -> Array:
        """[n, 3] points spread evenly over the part that can be seen, about ``spacing`` apart."""
        ...

    def shrink(self, points: Array, amount: float) -> Array:
        """[n, 3] the points on the same shape with every outline so much further in."""
        ...


@dataclass(frozen=True, eq=False)
class Ellipsoid:
    center: Array  # [3]
    radii: Array  # [3]
    texture: Texture
    gloss: float
    shininess: float

    def hit(self, origin: Array, directions: Array) -> Array:
        o = (origin - self.center) / self.radii
        dx, dy, dz = directions / self.radii[:, None]  # in the space where the ellipsoid is the unit sphere
        a = dx * dx + dy * dy + dz * dz
        b = dx * o[0] + dy * o[1] + dz * o[2]
        root = b * b - a * np.float32(o @ o - 1)
        t = (-b - np.sqrt(np.maximum(root, 0))) / a
        return np.where((root > 0) & (t > 0), t, _FAR)

    def normals(self, points: Array) -> Array:
        return unit((points - self.center) / (self.radii * self.radii))

    def local(self, points: Array) -> Array:
        return (points - self.center) / self.radii

    def shadow(self, points: Array) -> Array:
        start = (points - self.center) / self.radii
        toward = KEY_LIGHT / self.radii
        length = np.float32(np.linalg.norm(toward))
        along = -dot(start, toward) / length  # distance to the ray's point nearest the centre
        nearest = np.sqrt(np.maximum(dot(start, start) - along * along, 0))
        edge = np.maximum(_SOFTNESS * along, np.float32(0.02))
        passed = smoothstep((nearest - 1) / edge * np.float32(0.5) + np.float32(0.5))
        return np.where(along > 0, passed, np.float32(1))

    def sample(self, spacing: float, rng: np.random.Generator) -> Array:
        # The ellipsoid's area by Thomsen's formula; a Fibonacci lattice stretched to it, each point with its share.
        p = 1.6075
        a, b, c = (float(r) for r in self.radii)
        area = 4 * np.pi * (((a * b) ** p + (a * c) ** p + (b * c) ** p) / 3) ** (1 / p)
        n = int(area / spacing**2)
        points = self.center + self.radii * unit(fibonacci(n) + rng.normal(0, 0.25 / n**0.5, (n, 3)))
        above: Array = points.astype(np.float32)[points[:, 2] > 0.01]
        return above

    def shrink(self, points: Array, amount: float) -> Array:
        return self.center + (points - self.center) * (1 - np.float32(amount) / self.radii)


@dataclass(frozen=True, eq=False)
class Disk:
    radius: float
    texture: Texture
    gloss: float
    shininess: float

    def hit(self, origin: Array, directions: Array) -> Array:
        dx, dy, dz = directions
        t = -origin[2] / np.where(dz < 0, dz, np.float32(-1e-9))
        x, y = origin[0] + t * dx, origin[1] + t * dy
        return np.where((dz < 0) & (x * x + y * y < np.float32(self.radius**2)), t, _FAR)

    def normals(self, points: Array) -> Array:
        return np.broadcast_to(np.array([0, 0, 1], np.float32), points.shape)

    def local(self, points: Array) -> Array:
        return points

    def shadow(self, points: Array) -> Array:
        return np.ones(len(points), np.float32)

    def sample(self, spacing: float, rng: np.random.Generator) -> Array:
        n = int(np.pi * self.radius**2 / spacing**2)
        r = self.radius * np.sqrt((np.arange(n) + 0.5) / n)
        angle = np.arange(n) * np.pi * (3 - 5**0.5)
        points = np.stack([r * np.cos(angle), r * np.sin(angle), np.zeros(n)], 1)
        points[:, :2] += rng.normal(0, 0.12 * spacing, (n, 2))
        around = np.arange(0, 2 * np.pi, 0.7 * spacing / self.radius)  # a ring that makes a clean rim
        rim = self.radius * np.stack([np.cos(around), np.sin(around), np.zeros(len(around))], 1)
        return np.concatenate([points[r < self.radius - 0.7 * spacing], rim]).astype(np.float32)

    def shrink(self, points: Array, amount: float) -> Array:
        radius = np.sqrt(dot(points, points))[:, None]
        # More than elsewhere: at the rim of a flat shape splats reach over it with their width, not their thickness.
        return points * (np.minimum(radius, np.float32(self.radius - 2.1 * amount)) / np.maximum(radius, 1e-6))


@dataclass(frozen=True, eq=False)
class Box:
    center: Array  # [3]
    half: Array  # [3] half of each side
    turn: float  # about z, radians
    texture: Texture
    gloss: float
    shininess: float

    def _axes(self) -> Array:
        """[3, 3] world to box."""
        c, s = np.cos(self.turn), np.sin(self.turn)
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)

    def hit(self, origin: Array, directions: Array) -> Array:
        o = self._axes() @ (origin - self.center)
        d = _product(self._axes(), directions)
        inverse = 1 / np.where(np.abs(d) < 1e-9, np.float32(1e-9), d)
        a, b = (-self.half - o)[:, None] * inverse, (self.half - o)[:, None] * inverse
        enter, leave = np.minimum(a, b).max(0), np.maximum(a, b).min(0)
        return np.where((enter < leave) & (enter > 0), enter, _FAR)

    def normals(self, points: Array) -> Array:
        q = self.local(points)
        axis = np.abs(q).argmax(1)
        rows = np.arange(len(q))
        facing = np.zeros_like(q)
        facing[rows, axis] = np.sign(q[rows, axis])
        return _product(facing, self._axes())

    def local(self, points: Array) -> Array:
        return _product(points - self.center, self._axes().T) / self.half

    def shadow(self, points: Array) -> Array:
        # How far inside the slabs the ray to the light runs, softened over a distance that grows with it.
        o = _product(self._axes(), (points - self.center).T)
        d = (self._axes() @ KEY_LIGHT)[:, None]
        a, b = (-self.half[:, None] - o) / d, (self.half[:, None] - o) / d
        enter, leave = np.minimum(a, b).max(0), np.maximum(a, b).min(0)
        edge = np.maximum(2 * _SOFTNESS * np.maximum(leave, 0), np.float32(0.06))
        return np.where(leave > 0.02, smoothstep((enter - leave) / edge + np.float32(1)), np.float32(1))

    def sample(self, spacing: float, rng: np.random.Generator) -> Array:
        faces = []
        for axis, sign in ((0, -1), (0, 1), (1, -1), (1, 1), (2, 1)):  # nothing sees the bottom
            u, v = (i for i in range(3) if i != axis)
            steps = [max(2, round(2 * float(self.half[i]) / spacing)) for i in (u, v)]
            grid = np.stack(np.meshgrid(*[(np.arange(k) + 0.5) / k * 2 - 1 for k in steps], indexing="ij"), -1)
            face = np.empty((grid[..., 0].size, 3), np.float32)
            face[:, [u, v]] = grid.reshape(-1, 2) * self.half[[u, v]]
            face[:, [u, v]] += rng.normal(0, 0.12 * spacing, (len(face), 2))
            face[:, axis] = sign * self.half[axis]
            faces.append(face)
        placed: Array = np.concatenate(faces) @ self._axes() + self.center
        return placed.astype(np.float32)

    def shrink(self, points: Array, amount: float) -> Array:
        inner = self.half - np.float32(amount)
        inside: Array = np.clip(self.local(points) * self.half, -inner, inner)
        return inside @ self._axes() + self.center


@dataclass(frozen=True)
class World:
    surfaces: tuple[Surface, ...]

    def shade(self, index: int, points: Array, normals: Array) -> tuple[Array, Array, Array]:
        """Everything but the viewer: diffuse colour [n, 3], the mirrored key light [n, 3] and its strength [n].

        The colour toward a viewer is diffuse + strength * highlight_toward(cosine of mirrored light and viewer).
        """
        surface = self.surfaces[index]
        share = self._key_share(index, points)
        facing = dot(normals, KEY_LIGHT)
        light = KEY * np.maximum(facing, 0) * share + FILL * np.maximum(dot(normals, FILL_LIGHT), 0)
        light += BOUNCE + (SKY - BOUNCE) * (np.float32(0.5) + np.float32(0.5) * normals[:, 2])
        mirrored = 2 * facing[:, None] * normals - KEY_LIGHT
        strength = np.float32(surface.gloss) * smoothstep(facing * 4) * share
        return surface.texture(surface.local(points)) * light[:, None], mirrored, strength

    def highlight_toward(self, index: int, cosines: Array) -> Array:
        """Phong's lobe, of the cosine between the mirrored light and the direction to the viewer."""
        return np.maximum(cosines, 0) ** np.float32(self.surfaces[index].shininess)

    def trace(self, origin: Array, directions: Array) -> Array:
        """[n, 4] colour times alpha, and alpha, along rays from one point; directions [3, n], unit length."""
        distances = np.stack([surface.hit(origin, directions) for surface in self.surfaces])
        nearest = distances.argmin(0)
        distance = distances.min(0)
        result = np.zeros((directions.shape[1], 4), np.float32)
        for index, surface in enumerate(self.surfaces):
            rays = np.flatnonzero((nearest == index) & (distance < _FAR))
            if not len(rays):
                continue
            toward = directions[:, rays].T
            points = origin + distance[rays, None] * toward
            normals = surface.normals(points)
            color, mirrored, strength = self.shade(index, points, normals)
            color += (strength * self.highlight_toward(index, -dot(mirrored, toward)))[:, None]
            result[rays, :3] = np.minimum(color, 1)
            result[rays, 3] = 1
        return result

    def _key_share(self, index: int, points: Array) -> Array:
        share = np.ones(len(points), np.float32)
        for other, surface in enumerate(self.surfaces):
            if other != index:
                share *= surface.shadow(points)
        return share


def demo_world() -> World:
    """Five ellipsoids and a box on a round table."""

    def ellipsoid(
        x: float, y: float, radii: tuple[float, float, float], texture: Texture, gloss: float, shininess: float
    ) -> Ellipsoid:
        return Ellipsoid(np.array([x, y, radii[2]], np.float32), np.array(radii, np.float32), texture, gloss, shininess)

    return World(
        (
            Disk(2.3, parquet, 0.10, 12),
            ellipsoid(0.15, 0.35, (0.72, 0.72, 0.72), marble, 0.35, 14),
            ellipsoid(-1.15, -0.45, (0.50, 0.50, 0.62), stripes, 0.22, 10),
            ellipsoid(0.95, -0.85, (0.48, 0.48, 0.40), dots, 0.30, 16),
            ellipsoid(-0.15, -1.25, (0.30, 0.30, 0.30), copper, 0.45, 18),
            ellipsoid(-0.75, 1.25, (0.55, 0.40, 0.36), leaves, 0.12, 8),
            Box(
                np.array([1.30, 0.55, 0.35], np.float32), np.array([0.30, 0.42, 0.35], np.float32), 0.5, tiles, 0.1, 10
            ),
        )
    )


def _product(a: Array, b: Array) -> Array:
    """The matrix product without BLAS (see dot)."""
    product: Array = np.einsum("ik,kj->ij", a, b)
    return product


def smoothstep(x: Array) -> Array:
    """0 below 0, 1 above 1, smooth between."""
    t = np.clip(x, 0, 1).astype(np.float32)
    steps: Array = t * t * (3 - 2 * t)
    return steps


def fibonacci(n: int) -> Array:
    """[n, 3] float64, points spread evenly over the unit sphere."""
    z = 1 - (2 * np.arange(n) + 1) / n
    angle = np.arange(n) * np.pi * (3 - 5**0.5)
    r = np.sqrt(1 - z * z)
    points: Array = np.stack([r * np.cos(angle), r * np.sin(angle), z], 1)
    return points
