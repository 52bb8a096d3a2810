# SPDX-License-Identifier: Apache-2.0
"""What runs share: the same bits as without it, found again, and never mistaken for something else's."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import potr
from potr.experiment import pipeline
from potr.experiment.photo_cache import with_cached_photos
from potr.experiment.scenes import open
from potr.experiment.schema import DatasetConfig, EvaluateConfig, PruneOverrides, RunConfig
from potr.model.scene import Scene
from tests.helpers.scene_folder import make_scene_folder


def a_config(scene: Path, outputs: Path, **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "dataset": DatasetConfig(kind="folder", path=str(scene)),
        "prune": PruneOverrides(early_passes=2, late_passes=1),
        "evaluate": EvaluateConfig(lpips="none", fps_seconds=0.01),
        "outputs": str(outputs),
    }
    return RunConfig(**{**settings, **changes})


@pytest.fixture
def scene(scene_folder: Path) -> Scene:
    return potr.load_scene(scene_folder)


def photo_scene(scene: Scene, path: Path, **changes: Any) -> Scene:
    """A scene of one view whose photograph is the file, at half its size if ``downscale`` says so."""
    from potr.io.images import Photo

    view = scene.train_views[0]
    camera = view.camera
    photo = Photo(path, camera.width, camera.height, (0.2, 0.4, 0.6))
    return dataclasses.replace(scene, train_views=(dataclasses.replace(view, image=photo),), test_views=())


@pytest.mark.parametrize("kind", ["opaque", "transparent", "downscaled"])
def test_cached_photographs_are_the_same_bits(scene: Scene, tmp_path: Path, kind: str) -> None:
    camera = scene.train_views[0].camera
    scale, channels = (2 if kind == "downscaled" else 1), (4 if kind == "transparent" else 3)
    pixels = np.random.default_rng(1).integers(0, 256, (camera.height * scale, camera.width * scale, channels))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "photo.png")
    plain = photo_scene(scene, tmp_path / "photo.png")
    (view,) = with_cached_photos(plain, tmp_path / "cache").train_views
    expected = plain.train_views[0].read()
    assert torch.equal(view.read(), expected)
    (stored,) = (tmp_path / "cache" / "photos").iterdir()
    assert np.load(stored).dtype == (np.uint8 if kind == "opaque" else np.float32)
    (tmp_path / "photo.png").rename(tmp_path / "away.png")  # from here on only the cache can answer
    assert torch.equal(view.read(), expected)
    stored.write_bytes(stored.read_bytes()[:200])
    with pytest.raises(potr.SceneError, match=r"photo\.png"):
        view.read()
    (tmp_path / "away.png").rename(tmp_path / "photo.png")
    assert torch.equal(view.read(), expected)
    assert torch.equal(view.read(), expected)


def test_another_photograph_of_the_same_name_is_read(scene: Scene, tmp_path: Path) -> None:
    camera = scene.train_views[0].camera
    for level in (10, 200):
        Image.new("RGB", (camera.width, camera.height), (level,) * 3).save(tmp_path / "photo.png")
        (view,) = with_cached_photos(photo_scene(scene, tmp_path / "photo.png"), tmp_path / "cache").train_views
        assert float(view.read().mean()) == pytest.approx(level / 255)


def test_runs_share_the_scene_and_give_the_bytes_they_give_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_scene_folder(tmp_path / "scene" / "ball")
    opened: list[str] = []
    open_scene = open.open_scene

    def noting(config: RunConfig, *arguments: Any) -> Scene:
        opened.append(str(config.dataset.path))
        return open_scene(config, *arguments)

    monkeypatch.setattr(open, "open_scene", noting)
    scenes = open.LastScene()
    shared = [pipeline.run(a_config(folder, tmp_path / "shared", quality=q), scenes=scenes) for q in (0.2, 0.8)]
    assert len(opened) == 1
    shared_cache = tmp_path / "shared" / ".cache"
    assert {path.name for path in shared_cache.iterdir()} == {"photos", "encode"}
    names = sorted(path.name.partition("-")[0] for path in (shared_cache / "encode").iterdir())
    assert names == ["before", "costs", "early", "early"]
    alone = [pipeline.run(a_config(folder, tmp_path / "alone", quality=q, cache=False)) for q in (0.2, 0.8)]
    assert len(opened) == 3
    assert not (tmp_path / "alone" / ".cache").exists()
    assert shared[0].saved_seconds == {}
    assert shared[1].saved_seconds.keys() == {"prune_early"}  # the first pass, found
    assert [r.bitstream_sha256 for r in shared] == [r.bitstream_sha256 for r in alone]
    shutil.rmtree(tmp_path / "shared" / ".cache")
    forced = pipeline.run(a_config(folder, tmp_path / "shared", quality=0.2, force=True))
    assert forced.bitstream_sha256 == shared[0].bitstream_sha256


def test_a_changed_photograph_is_another_scene(tmp_path: Path) -> None:
    folder = make_scene_folder(tmp_path / "scene" / "ball")
    config = a_config(folder, tmp_path / "outputs")
    first = pipeline.run(config)
    photo = sorted((folder / "images").iterdir())[3]
    pixels = np.asarray(Image.open(photo)).copy()
    pixels[:5] = 255
    Image.fromarray(pixels).save(photo)
    with pytest.raises(potr.PotrError, match="other model, cameras or photographs"):
        pipeline.run(config)
    assert pipeline.run(dataclasses.replace(config, force=True)).inputs_sha256 != first.inputs_sha256


def test_no_part_of_the_cache_can_fail_a_run(tmp_path: Path) -> None:
    folder = make_scene_folder(tmp_path / "scene" / "ball")
    for part in ("photos", "encode"):
        (tmp_path / "outputs" / ".cache").mkdir(parents=True, exist_ok=True)
        (tmp_path / "outputs" / ".cache" / part).write_text("in the way")
    assert pipeline.run(a_config(folder, tmp_path / "outputs")).bytes > 0
