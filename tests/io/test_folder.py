# SPDX-License-Identifier: Apache-2.0
import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from potr.errors import ConfigError, ModelError, SceneError
from potr.io.cameras_json import write_cameras_json
from potr.io.folder import find_model, load_scene
from potr.io.ply import save_ply
from potr.io.posed_images import Shot, Split, divide
from potr.model.cameras import BLACK, WHITE, Camera
from potr.model.splats import SplatModel

NAMES = [f"photo_{i:02}.png" for i in range(10)]


def model(z: float = 4.0, n: int = 5) -> SplatModel:
    means = torch.tensor([[0.1 * i, 0.0, z] for i in range(n)])
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(n, 1)
    return SplatModel(means, torch.zeros(n, 3), quats, torch.zeros(n), torch.zeros(n, 3), torch.zeros(n, 0, 3))


def shots(split: str | None = None, size: tuple[int, int] = (16, 12)) -> list[Shot]:
    camera = Camera(*size, 16.0, 16.0, size[0] / 2, size[1] / 2, torch.eye(4))
    return [Shot(name, camera, split) for name in NAMES]


def save_photos(folder: Path, names: list[str] = NAMES, size: tuple[int, int] = (16, 12)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGBA", size, (255, 0, 0, 0)).save(folder / name)


def save_colmap_text(folder: Path, names: list[str] = NAMES) -> None:
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text("1 PINHOLE 16 12 16 16 8 6\n")
    (folder / "images.txt").write_text("".join(f"{i} 1 0 0 0 0 0 0 1 {name}\n\n" for i, name in enumerate(names)))


def save_transforms(path: Path, names: list[str]) -> None:
    looking_at_plus_z = [[1, 0, 0, 0], [0, -1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1]]
    frames = [{"file_path": f"./images/{name[:-4]}", "transform_matrix": looking_at_plus_z} for name in names]
    path.write_text(json.dumps({"camera_angle_x": 1.0, "frames": frames}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with cameras.json, photographs and a model."""
    save_ply(model(), tmp_path / "point_cloud.ply")
    write_cameras_json(tmp_path / "cameras.json", shots())
    save_photos(tmp_path / "images")
    return tmp_path


def names(views: tuple) -> list[str]:
    return [view.name for view in views]


def test_every_8th_by_sorted_name_is_a_test_view(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "potr"):
        scene = load_scene(folder)
    assert names(scene.test_views) == [NAMES[0], NAMES[8]]
    assert names(scene.train_views) == [name for name in NAMES if name not in (NAMES[0], NAMES[8])]
    assert (scene.name, scene.background, scene.model.num_splats) == (folder.name, BLACK, 5)
    torch.testing.assert_close(scene.test_views[0].read(), torch.zeros(12, 16, 3))
    assert f"model {folder / 'point_cloud.ply'}, cameras {folder / 'cameras.json'}" in caplog.text
    assert "8 training and 2 test views" in caplog.text


def test_split_depends_on_names_not_on_order() -> None:
    train, test = divide(shots()[::-1])
    assert sorted(shot.name for shot in test) == [NAMES[0], NAMES[8]]
    assert [shot.name for shot in train] == [n for n in reversed(NAMES) if n not in (NAMES[0], NAMES[8])]


def test_the_split_of_cameras_json_wins_unless_told(folder: Path) -> None:
    own = [Shot(s.name, s.camera, "test" if i == 3 else "train") for i, s in enumerate(shots())]
    write_cameras_json(folder / "cameras.json", own, overwrite=True)
    assert names(load_scene(folder).test_views) == [NAMES[3]]
    assert names(load_scene(folder, split=Split.EVERY_8TH).test_views) == [NAMES[0], NAMES[8]]
    assert load_scene(folder, split=Split.NONE).test_views == ()
    assert len(load_scene(folder, split=Split.NONE).train_views) == 10


def test_split_refusals() -> None:
    mixed = [*shots("train")[:3], *shots()[3:]]
    with pytest.raises(SceneError, match=r"expected a split for every photograph or none; 7 lack it: photo_03\.png"):
        divide(mixed)
    with pytest.raises(SceneError, match="all 10 photographs are marked 'test'"):
        divide(shots("test"))
    with pytest.raises(SceneError, match=r"names must be unique; 1 occur more than once: photo_02\.png"):
        divide([*shots(), shots()[2]])
    with pytest.raises(SceneError, match="expected at least one photograph"):
        divide([])


def test_a_single_photograph_is_for_training(caplog: pytest.LogCaptureFixture) -> None:
    train, test = divide(shots()[:1])
    assert (len(train), len(test)) == (1, 0)
    assert "a single photograph" in caplog.text


@pytest.mark.parametrize("place", ["sparse/0", "sparse"])
def test_colmap_layout(folder: Path, place: str) -> None:
    (folder / "cameras.json").unlink()
    save_colmap_text(folder / place)
    scene = load_scene(folder)
    assert (len(scene.train_views), len(scene.test_views)) == (8, 2)


def test_nerf_synthetic_has_its_own_split_and_a_white_background(folder: Path) -> None:
    save_transforms(folder / "transforms_train.json", NAMES[:7])
    save_transforms(folder / "transforms_test.json", NAMES[7:])
    scene = load_scene(folder)  # although cameras.json is there as well
    assert (len(scene.train_views), len(scene.test_views)) == (7, 3)
    assert scene.background == WHITE
    torch.testing.assert_close(scene.test_views[0].read(), torch.ones(12, 16, 3))
    assert load_scene(folder, background=(0.5, 0.5, 0.5)).test_views[0].background == (0.5, 0.5, 0.5)


def test_single_transforms_file(folder: Path) -> None:
    (folder / "cameras.json").unlink()
    save_transforms(folder / "transforms.json", NAMES)
    scene = load_scene(folder)
    assert (len(scene.test_views), scene.background) == (2, BLACK)


def test_model_elsewhere_with_its_cameras(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    output = tmp_path_factory.mktemp("output")
    for iteration, n in (("7000", 1), ("30000", 2)):
        save_ply(model(n=n), output / "point_cloud" / f"iteration_{iteration}" / "point_cloud.ply")
    shutil.move(folder / "cameras.json", output / "cameras.json")
    (folder / "point_cloud.ply").unlink()
    scene = load_scene(folder, model=output)
    assert scene.model.num_splats == 2
    assert len(scene.train_views) == 8


def test_newest_iteration_wins_by_number(folder: Path) -> None:
    for iteration in ("iteration_7000", "iteration_30000", "iteration_best"):
        save_ply(model(), folder / "point_cloud" / iteration / "point_cloud.ply")
    (folder / "point_cloud" / "iteration_99999").mkdir()
    assert find_model(folder) == folder / "point_cloud" / "iteration_30000" / "point_cloud.ply"


def test_any_single_ply(folder: Path) -> None:
    (folder / "point_cloud.ply").rename(folder / "garden.ply")
    assert find_model(folder) == folder / "garden.ply"
    with pytest.raises(SceneError, match=r"nowhere\.ply: expected a model's \.ply .* found nothing"):
        find_model(folder / "nowhere.ply")
    save_ply(model(), folder / "other.ply")
    with pytest.raises(SceneError, match=r"expected a model as .* found 2 others: garden\.ply, other\.ply"):
        load_scene(folder)


def test_images_folder(folder: Path) -> None:
    (folder / "images").rename(folder / "images_4")
    save_photos(folder / "images_8", size=(8, 6))
    assert load_scene(folder).train_views[0].camera.width == 16
    scene = load_scene(folder, images="images_8", downscale=2)
    camera = scene.train_views[0].camera
    assert (camera.width, camera.height, camera.fx, camera.cx) == (4, 3, 4.0, 2.0)
    assert tuple(scene.train_views[0].read().shape) == (3, 4, 3)
    with pytest.raises(SceneError, match=r"images_2: expected a folder of photographs, found none"):
        load_scene(folder, images="images_2")


def test_missing_photographs_make_one_message(folder: Path) -> None:
    for name in NAMES[2:7]:
        (folder / "images" / name).unlink()
    message = (
        r"5 of 10 photographs are missing \(photo_02\.png, photo_03\.png, photo_04\.png, \.\.\.\); "
        r"looked in .*images and "
    )
    with pytest.raises(SceneError, match=message):
        load_scene(folder)


def test_model_behind_every_camera_is_refused(folder: Path) -> None:
    save_ply(model(z=-4.0), folder / "point_cloud.ply", overwrite=True)
    with pytest.raises(SceneError, match=r"do not belong together: none of the 5 splats of .* any of the 10 cameras"):
        load_scene(folder)


def test_folder_refusals(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.raises(SceneError, match=r"nowhere: expected a scene folder, found nothing"):
        load_scene(folder / "nowhere")
    with pytest.raises(SceneError, match=r"point_cloud\.ply: expected a scene folder, found a file"):
        load_scene(folder / "point_cloud.ply")
    with pytest.raises(ConfigError, match=r"downscale: expected a factor of at least 1, got 0\.5"):
        load_scene(folder, downscale=0.5)
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(SceneError, match=r"expected a model as .* found no \.ply"):
        load_scene(empty)
    save_ply(model(), empty / "point_cloud.ply")
    with pytest.raises(
        SceneError, match=r"no cameras found; expected one of transforms_train\.json, cameras\.json, sp"
    ):
        load_scene(empty)
    (empty / "cameras.json").write_text("[]")
    with pytest.raises(SceneError, match=r"cameras\.json: expected at least one camera, found none"):
        load_scene(empty)


def test_clean_reaches_the_model(folder: Path) -> None:
    damaged = model()
    damaged.means[0, 0] = float("nan")
    save_ply(damaged, folder / "point_cloud.ply", overwrite=True)
    with pytest.raises(ModelError, match="1 of 5 splats are unusable"):
        load_scene(folder)
    assert load_scene(folder, clean=True).model.num_splats == 4
