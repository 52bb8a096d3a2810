# SPDX-License-Identifier: Apache-2.0
"""Finding the paper's scenes in the layouts people have, and the one message where they are not."""

import shutil
from pathlib import Path

import pytest
import torch

from potr.errors import SceneError
from potr.experiment.scenes.places import Place, Roots, demand, locate
from potr.experiment.scenes.suites import MAX_WIDTH, SCENES
from potr.io.cameras_json import read_cameras_json
from potr.io.folder import load_scene
from tests.helpers.released import FACTOR, PHOTOGRAPHS, SPLATS

GARDEN, LEGO = SCENES["garden"], SCENES["lego"]


def colmap_folder(folder: Path, images: str = "images_4") -> Path:
    (folder / images).mkdir(parents=True)
    (folder / "sparse" / "0").mkdir(parents=True)
    (folder / "sparse" / "0" / "images.bin").write_bytes(b"")
    return folder


def model_file(folder: Path) -> Path:
    file = folder / "point_cloud" / "iteration_30000" / "point_cloud.ply"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    return file


@pytest.mark.parametrize("below", ["garden", "360_v2/garden", "mipnerf360/garden", "360/garden", "MipNeRF360/garden"])
def test_data_with_and_without_a_suite_folder(tmp_path: Path, below: str) -> None:
    folder = colmap_folder(tmp_path / "data" / below)
    model = model_file(tmp_path / "models" / below)
    roots = Roots(tmp_path / "data", tmp_path / "models")
    assert locate(GARDEN, roots) == Place(folder, model)
    assert demand(GARDEN, roots) == (folder, model)


@pytest.mark.parametrize(
    ("scene", "below"),
    [
        ("truck", "tandt/truck"),
        ("train", "tandt_db/tandt/train"),
        ("playroom", "db/playroom"),
        ("drjohnson", "drjohnson"),
    ],
)
def test_tanks_and_temples_and_deep_blending_as_they_unpack(tmp_path: Path, scene: str, below: str) -> None:
    folder = colmap_folder(tmp_path / (below or scene), "images")
    assert locate(SCENES[scene], Roots(tmp_path, tmp_path)).folder == folder


def test_nerf_synthetic_as_it_unpacks(tmp_path: Path) -> None:
    folder = tmp_path / "nerf_synthetic" / "lego"
    folder.mkdir(parents=True)
    for file in ("transforms_train.json", "transforms_test.json"):
        assert locate(LEGO, Roots(tmp_path, tmp_path)).folder is None
        (folder / file).write_text("{}")
    assert locate(LEGO, Roots(tmp_path, tmp_path)).folder == folder


def test_the_data_folder_may_be_the_scene_s(tmp_path: Path) -> None:
    folder = colmap_folder(tmp_path / "garden")
    assert locate(GARDEN, Roots(folder, tmp_path)).folder == folder


def test_a_model_in_the_scene_s_own_folder_comes_last(tmp_path: Path) -> None:
    own = model_file(colmap_folder(tmp_path / "data" / "garden"))
    roots = Roots(tmp_path / "data", tmp_path / "models")
    assert locate(GARDEN, roots).model == own
    released = model_file(tmp_path / "models" / "garden")
    assert locate(GARDEN, roots).model == released
    assert locate(GARDEN, roots, path="elsewhere", model="a.ply") == Place(Path("elsewhere"), Path("a.ply"))


def test_the_message_says_what_is_missing_where_it_comes_from_and_what_fetches_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("POTR_DATA", raising=False)
    monkeypatch.delenv("POTR_MODELS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SceneError) as refused:
        demand(GARDEN, Roots.from_environment())
    message = str(refused.value)
    for said in (
        "garden (MipNeRF360): no photographs and no model found",
        "photographs: expected images_4/ and sparse/0/ in data/garden (or data/360_v2/garden, ",
        "https://storage.googleapis.com/gresearch/refraw360/360_v2.zip (about 12.5 GB)",
        "model: expected point_cloud/iteration_30000/point_cloud.ply in models/garden (or ",
        "datasets/pretrained/models.zip (14.7 GB)",
        "fetch what is missing: python -m potr.datasets download garden\n",
        "(with --partial only this scene's files out of the archives, a fraction of their size)",
        "POTR_DATA=DIR and POTR_MODELS=DIR (or paths.data=DIR paths.models=DIR)",
        "dataset.path=DIR dataset.model=FILE_OR_DIR",
    ):
        assert said in message
    with pytest.raises(SceneError, match=r"download garden --data elsewhere\n"):
        demand(GARDEN, Roots(Path("elsewhere"), Path("models")))


def test_the_message_names_only_what_is_missing(tmp_path: Path) -> None:
    colmap_folder(tmp_path / "data" / "garden")
    with pytest.raises(SceneError, match=r"garden \(MipNeRF360\): no model found") as refused:
        demand(GARDEN, Roots(tmp_path / "data", tmp_path / "models"))
    assert "photographs:" not in str(refused.value)


def test_a_folder_with_other_photographs_is_named(tmp_path: Path) -> None:
    folder = colmap_folder(tmp_path / "garden", "images_8")
    with pytest.raises(SceneError, match=f"{folder} is there, but lacks images_4/"):
        demand(GARDEN, Roots(tmp_path, tmp_path))
    assert locate(GARDEN, Roots(tmp_path, tmp_path), images="images_8").folder == folder


def test_nerf_synthetic_has_no_released_models(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match=r"models\.zip of 3DGS has no models of SyntheticNeRF: train one"):
        demand(LEGO, Roots(tmp_path, tmp_path))
    folder = tmp_path / "lego"
    folder.mkdir()
    for file in ("transforms_train.json", "transforms_test.json"):
        (folder / file).write_text("{}")
    with pytest.raises(SceneError) as refused:
        demand(LEGO, Roots(tmp_path, tmp_path))
    assert "download" not in str(refused.value)  # nothing there to download


def test_the_released_layout_is_read_as_3dgs_reads_it(released: Path, tmp_path: Path) -> None:
    """COLMAP's cameras at full size are scaled to images_4's; they are the ones of the model's cameras.json."""
    folder, ply = demand(GARDEN, Roots(released / "data", released / "models"))
    assert ply.parent.name == "iteration_30000"
    scene = load_scene(folder, model=ply, images=GARDEN.images, max_width=MAX_WIDTH)
    assert scene.model.num_splats == SPLATS
    names = sorted(path.name for path in (folder / "images_4").iterdir())
    assert [view.name for view in scene.test_views] == names[::8]
    assert len(scene.train_views) == PHOTOGRAPHS - len(names[::8])
    known = {shot.name: shot.camera for shot in read_cameras_json(released / "models" / "garden" / "cameras.json")}
    for view in (*scene.train_views, *scene.test_views):
        camera, full = view.camera, known[Path(view.name).stem]
        assert view.read().shape == (camera.height, camera.width, 3)
        assert (full.width, full.height) == (FACTOR * camera.width - 1, FACTOR * camera.height + 1)
        assert camera.fx / camera.width == pytest.approx(full.fx / full.width)  # the field of view stays
        assert camera.fy / camera.height == pytest.approx(full.fy / full.height)
        assert (camera.cx, camera.cy) == pytest.approx((camera.width / 2, camera.height / 2))
        torch.testing.assert_close(camera.viewmat, full.viewmat, atol=1e-5, rtol=1e-5)


def test_without_the_model_s_cameras_and_with_the_model_beside_the_photographs(released: Path, tmp_path: Path) -> None:
    folder = tmp_path / "garden"
    shutil.copytree(released / "data" / "garden", folder)
    shutil.copytree(released / "models" / "garden" / "point_cloud", folder / "point_cloud")
    place = locate(GARDEN, Roots(tmp_path, tmp_path / "none"))
    assert place.folder is not None
    scene = load_scene(place.folder, model=place.model, images="images_4")
    assert len(scene.test_views) == PHOTOGRAPHS // 8


def test_wider_photographs_are_shrunk_as_3dgs_does(released: Path) -> None:
    data, models = released / "data", released / "models"
    whole = load_scene(data / "garden", model=models / "garden", images="images_4")
    camera = whole.test_views[0].camera
    narrow = load_scene(data / "garden", model=models / "garden", images="images_4", max_width=camera.width - 50)
    small = narrow.test_views[0].camera
    assert (small.width, small.height) == (camera.width - 50, int(camera.height / (camera.width / (camera.width - 50))))
    assert narrow.test_views[0].read().shape == (small.height, small.width, 3)
    same = load_scene(data / "garden", model=models / "garden", images="images_4", max_width=camera.width)
    assert same.test_views[0].camera.width == camera.width
    downscaled = load_scene(data / "garden", model=models / "garden", images="images_4", downscale=2, max_width=10)
    assert downscaled.test_views[0].camera.width == round(camera.width / 2)  # an explicit factor wins, as in 3DGS
