# SPDX-License-Identifier: Apache-2.0
"""The built-in scene: made on first use, in seconds, from nothing but this code; then an ordinary scene folder.

The photographs are ray traced and the model is built from the surfaces, so neither is made from the other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from potr.errors import SceneError
from potr.io.blender import PAIR
from potr.io.demo_splats import demo_splats
from potr.io.demo_textures import Array
from potr.io.demo_world import World, demo_world
from potr.io.folder import load_scene
from potr.io.ply import save_ply
from potr.model.scene import Scene
from potr.progress import Progress, silent

log = logging.getLogger(__name__)

WIDTH, HEIGHT, FOCAL = 256, 192, 290.0  # pixels
TRAIN_VIEWS, TEST_VIEWS = 30, 6
_SAMPLES = 3  # rays along each side of a pixel
_TARGET = np.array([0.0, 0.0, 0.3])
_RECIPE = ("demo.py", "demo_splats.py", "demo_textures.py", "demo_world.py")


def load_demo(cache: Path | str, *, downscale: float = 1.0, progress: Progress = silent) -> Scene:
    """The demo scene, read from its folder in ``cache``; made there first if it is not.

    Raises:
        SceneError: the folder cannot be written.
    """
    return replace(load_scene(demo_folder(cache, progress=progress), downscale=downscale), name="demo")


def demo_folder(cache: Path | str, *, progress: Progress = silent) -> Path:
    """The scene's folder in ``cache``, in nerf_synthetic's layout; complete or not there at all.

    Its name holds a hash of the code that makes it, so that a changed demo is made anew.

    Raises:
        SceneError: the folder cannot be written.
    """
    folder = Path(cache) / f"demo-{_recipe_hash()}"
    if folder.is_dir():
        return folder
    log.info("making the demo scene in %s", folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".demo-", dir=folder.parent) as temporary:
            work = Path(temporary) / folder.name  # a folder of its own, since the temporary one is private to the user
            work.mkdir()
            _make(work, progress)
            work.rename(folder)
    except OSError as error:
        if not folder.is_dir():  # another process may have been first, which is as good
            raise SceneError(f"{folder}: cannot make the demo scene: {error.strerror or error}") from error
    return folder


def _recipe_hash() -> str:
    digest = hashlib.sha256()
    for name in _RECIPE:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:10]


def _make(folder: Path, progress: Progress) -> None:
    world = demo_world()
    poses = _poses()
    names = [f"train/r_{i}" for i in range(TRAIN_VIEWS)] + [f"test/r_{i}" for i in range(TEST_VIEWS)]
    for (file, split), part in zip(PAIR, (slice(TRAIN_VIEWS), slice(TRAIN_VIEWS, None)), strict=True):
        (folder / split).mkdir()
        (folder / file).write_text(_transforms(names[part], poses[part]))
    with ThreadPoolExecutor(2) as pool:
        photographs = pool.map(partial(_photograph, world), poses)
        for done, (name, photograph) in enumerate(zip(names, photographs, strict=True)):
            photograph.save(folder / f"{name}.png")
            progress.stage("demo photographs")(done + 1, len(poses))
    save_ply(demo_splats(world), folder / "point_cloud.ply")


def _poses() -> list[Array]:
    """[4, 4] float64 camera to world (OpenGL axes), training views first, then test views.

    Once around the table at three heights in turn; every sixth or so is a test view, at all three heights.
    """
    rng = np.random.default_rng(1)
    count = TRAIN_VIEWS + TEST_VIEWS
    poses = []
    for i in range(count):
        azimuth = 2 * math.pi * i / count + rng.uniform(-0.05, 0.05)
        elevation = (0.35, 0.62, 0.95)[i % 3] + rng.uniform(-0.08, 0.08)
        poses.append(_look_at(azimuth, elevation, rng.uniform(4.7, 5.3), _TARGET + rng.uniform(-0.1, 0.1, 3)))
    every = count // TEST_VIEWS
    test = [every * j + 1 + j % 3 for j in range(TEST_VIEWS)]
    return [poses[i] for i in range(count) if i not in test] + [poses[i] for i in test]


def _look_at(azimuth: float, elevation: float, distance: float, target: Array) -> Array:
    flat = math.cos(elevation)
    back = np.array([flat * math.cos(azimuth), flat * math.sin(azimuth), math.sin(elevation)])
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.column_stack([right, np.cross(back, right), back, target + distance * back])
    return pose


def _transforms(names: list[str], poses: list[Array]) -> str:
    frames = [
        {"file_path": f"./{name}", "transform_matrix": pose.tolist()} for name, pose in zip(names, poses, strict=True)
    ]
    return json.dumps({"camera_angle_x": 2 * math.atan(WIDTH / (2 * FOCAL)), "frames": frames}, indent=1)


def _photograph(world: World, pose: Array) -> Image.Image:
    """RGBA, straight alpha, the mean of _SAMPLES^2 rays a pixel."""
    x = (np.arange(WIDTH * _SAMPLES) + 0.5) / _SAMPLES - WIDTH / 2
    y = HEIGHT / 2 - (np.arange(HEIGHT * _SAMPLES) + 0.5) / _SAMPLES
    across, up = np.meshgrid(x / FOCAL, y / FOCAL)
    rays = np.stack([across.ravel(), up.ravel(), np.full(across.size, -1.0)])
    rays = np.einsum("ik,kn->in", pose[:3, :3], rays)
    rays = (rays / np.sqrt((rays * rays).sum(0))).astype(np.float32)
    samples = world.trace(pose[:3, 3].astype(np.float32), rays)
    pixels = samples.reshape(HEIGHT, _SAMPLES, WIDTH, _SAMPLES, 4).mean((1, 3))
    pixels[:, :, :3] /= np.maximum(pixels[:, :, 3:], 1e-6)
    return Image.fromarray(np.round(np.clip(pixels, 0, 1) * 255).astype(np.uint8))
