# SPDX-License-Identifier: Apache-2.0
"""The three real scenes, with the counts of their README."""

import os
from pathlib import Path

import pytest
import torch

from potr.io.cameras_json import read_cameras_json
from potr.io.colmap import read_colmap
from potr.io.folder import load_scene
from potr.io.ply import load_ply, save_ply
from potr.model.cameras import BLACK, WHITE

SCENES = Path(os.environ.get("POTR_SCENES", Path(__file__).parents[2].parent / "shared" / "scenes"))

pytestmark = [
    pytest.mark.scenes,
    pytest.mark.skipif(not SCENES.is_dir(), reason=f"no real scenes at {SCENES} (set POTR_SCENES)"),
]


@pytest.mark.parametrize(
    ("name", "splats", "train", "test", "size", "background"),
    [
        ("chair", 179_617, 100, 25, (800, 800), WHITE),
        ("bonsai", 299_790, 255, 37, (800, 533), BLACK),
        ("fern", 135_317, 17, 3, (504, 378), BLACK),
    ],
)
def test_counts(
    name: str, splats: int, train: int, test: int, size: tuple[int, int], background: tuple[float, float, float]
) -> None:
    scene = load_scene(SCENES / name)
    assert (scene.model.num_splats, scene.model.sh_degree) == (splats, 3)
    assert (len(scene.train_views), len(scene.test_views)) == (train, test)
    assert scene.background == background
    views = scene.train_views + scene.test_views
    assert {(view.camera.width, view.camera.height) for view in views} == {size}
    image = scene.test_views[-1].read()
    assert tuple(image.shape) == (size[1], size[0], 3)
    assert 0.1 < float(image.mean()) < 0.95


def test_chair_has_one_truth_in_two_files() -> None:
    from_transforms = load_scene(SCENES / "chair")
    shots = {shot.name: shot for shot in read_cameras_json(SCENES / "chair" / "cameras.json")}
    for split, views in (("train", from_transforms.train_views), ("test", from_transforms.test_views)):
        for view in views:
            shot = shots[view.name]
            assert shot.split == split
            assert (view.camera.fx, view.camera.fy) == pytest.approx((shot.camera.fx, shot.camera.fy))
            torch.testing.assert_close(view.camera.viewmat, shot.camera.viewmat, atol=5e-5, rtol=0)


def test_bonsai_has_one_truth_in_two_files() -> None:
    from_colmap = {shot.name: shot.camera for shot in read_colmap(SCENES / "bonsai" / "sparse" / "0")}
    from_json = {shot.name: shot.camera for shot in read_cameras_json(SCENES / "bonsai" / "cameras.json")}
    assert from_colmap.keys() == from_json.keys()
    for name, camera in from_colmap.items():
        other = from_json[name]
        assert (camera.fx, camera.fy, camera.cx) == pytest.approx((other.fx, other.fy, other.cx))
        torch.testing.assert_close(camera.viewmat, other.viewmat, atol=1e-5, rtol=0)


def test_every_8th_reproduces_the_scenes_own_split() -> None:
    scene = load_scene(SCENES / "bonsai")
    names = sorted(view.name for view in scene.train_views + scene.test_views)
    assert sorted(view.name for view in scene.test_views) == names[::8]


def test_downscaled_photographs() -> None:
    full, half = load_scene(SCENES / "fern"), load_scene(SCENES / "fern", downscale=2)
    expected = full.test_views[0].read().reshape(189, 2, 252, 2, 3).mean((1, 3))
    torch.testing.assert_close(half.test_views[0].read(), expected, atol=1e-6, rtol=0)
    assert half.test_views[0].camera.fx == pytest.approx(full.test_views[0].camera.fx / 2)


def test_a_real_model_survives_saving(tmp_path: Path) -> None:
    source = SCENES / "fern" / "point_cloud.ply"
    save_ply(load_ply(source), tmp_path / "copy.ply")
    assert (tmp_path / "copy.ply").read_bytes() == source.read_bytes()
