# SPDX-License-Identifier: Apache-2.0
"""A small stand-in for a released scene: Mip-NeRF 360's and 3DGS's folders as they unpack, made from a real scene."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from potr.evaluate.measure import evenly_spaced
from potr.evaluate.metrics import to_8bit
from potr.io.demo import demo_folder
from potr.io.folder import load_scene
from potr.io.ply import save_ply
from potr.model.cameras import Camera, View
from potr.model.scene import Scene
from potr.model.splats import SplatModel

SCENES = Path(os.environ.get("POTR_SCENES", Path(__file__).parents[3] / "shared" / "scenes"))
PHOTOGRAPHS, SPLATS = 16, 6000
FACTOR = 4  # images_4


def source_scene(cache: Path) -> Scene:
    """The real bonsai at a quarter of its size; where the real scenes are missing, the built-in demo."""
    if (SCENES / "bonsai").is_dir():
        return load_scene(SCENES / "bonsai", downscale=4)
    return load_scene(demo_folder(cache), downscale=2)


def make_released(root: Path, source: Scene, name: str = "garden") -> tuple[Path, Path]:
    """Write ``root``/data/NAME and ``root``/models/NAME.

    The cameras describe photographs four times as large as those in images_4, less or more one pixel, as garden's do
    (5187 x 3361 and 1297 x 840).

    Returns:
        The folders of all data and of all models.
    """
    data, models = root / "data", root / "models"
    views = sorted([*source.train_views, *source.test_views], key=lambda view: view.name)
    views = [views[index] for index in sorted(evenly_spaced(len(views), PHOTOGRAPHS))]
    shots = []
    (data / name / "images_4").mkdir(parents=True)
    for index, view in enumerate(views):
        photograph = f"DSC{7956 + index:05d}.JPG"
        Image.fromarray(to_8bit(view.read()).numpy()).save(data / name / "images_4" / photograph, quality=95)
        shots.append((photograph, _full_size(view)))
    write_colmap(data / name / "sparse" / "0", shots)
    _write_model(models / name, source.model, shots)
    return data, models


def write_colmap(folder: Path, shots: list[tuple[str, Camera]]) -> None:
    """cameras.bin, images.bin and points3D.bin as COLMAP writes them: one PINHOLE camera, images in any order."""
    folder.mkdir(parents=True)
    camera = shots[0][1]
    lens = struct.pack("<iiQQ4d", 1, 1, camera.width, camera.height, camera.fx, camera.fy, camera.cx, camera.cy)
    (folder / "cameras.bin").write_bytes(struct.pack("<Q", 1) + lens)
    images = [struct.pack("<Q", len(shots))]
    for index in reversed(range(len(shots))):
        name, camera = shots[index]
        viewmat = camera.viewmat.double().numpy()
        pose = struct.pack("<I7di", index + 1, *_quaternion(viewmat[:3, :3]), *viewmat[:3, 3], 1)
        points = struct.pack("<Q", 2) + 2 * struct.pack("<ddq", 10.0, 20.0, -1)
        images.append(pose + name.encode() + b"\0" + points)
    (folder / "images.bin").write_bytes(b"".join(images))
    (folder / "points3D.bin").write_bytes(struct.pack("<Q", 0))


def _write_model(folder: Path, model: SplatModel, shots: list[tuple[str, Camera]]) -> None:
    """What train.py of 3DGS leaves: two iterations, the initial points, cameras.json (test views first), cfg_args."""
    kept = torch.argsort(model.opacity_logits + model.log_scales.sum(1), descending=True)[:SPLATS]
    few = SplatModel(**{name: value[kept] for name, value in vars(model).items()})
    for iteration, count in ((7000, 100), (30000, SPLATS)):
        part = SplatModel(**{name: value[:count] for name, value in vars(few).items()})
        save_ply(part, folder / f"point_cloud/iteration_{iteration}/point_cloud.ply")
    (folder / "input.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 0\nproperty float x\nend_header\n")
    (folder / "cfg_args").write_text("Namespace(eval=True, images='images_4', resolution=1, sh_degree=3)")
    test, train = shots[::8], [shot for index, shot in enumerate(shots) if index % 8]
    entries = [_json_entry(index, *shot) for index, shot in enumerate([*test, *train])]
    (folder / "cameras.json").write_text(json.dumps(entries))


def _json_entry(index: int, name: str, camera: Camera) -> dict[str, object]:
    to_world = torch.linalg.inv(camera.viewmat.double())
    return {
        "id": index,
        "img_name": Path(name).stem,
        "width": camera.width,
        "height": camera.height,
        "position": to_world[:3, 3].tolist(),
        "rotation": to_world[:3, :3].tolist(),
        "fy": camera.fy,
        "fx": camera.fx,
    }


def _full_size(view: View) -> Camera:
    camera = view.camera
    width, height = FACTOR * camera.width - 1, FACTOR * camera.height + 1
    fx, fy = camera.fx * width / camera.width, camera.fy * height / camera.height
    return Camera(width, height, fx, fy, width / 2, height / 2, camera.viewmat)


def _quaternion(rotation: np.ndarray) -> list[float]:
    """wxyz: the eigenvector of the largest eigenvalue of Bar-Itzhack's matrix."""
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = rotation
    k = np.array(
        [
            [xx + yy + zz, zy - yz, xz - zx, yx - xy],
            [zy - yz, xx - yy - zz, xy + yx, xz + zx],
            [xz - zx, xy + yx, yy - xx - zz, yz + zy],
            [yx - xy, xz + zx, yz + zy, zz - xx - yy],
        ]
    )
    return np.linalg.eigh(k)[1][:, -1].tolist()
