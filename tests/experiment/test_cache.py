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
from potr.experiment import cache, pipeline
from potr.experiment.cache import CachedCosts, with_cached_photos
from potr.experiment.scenes import open
from potr.experiment.schema import DatasetConfig, EvaluateConfig, PruneOverrides, RunConfig
from potr.model.scene import Scene
from potr.render.base import Rasterizer, RemovalCost
from tests.helpers.scene_folder import make_scene_folder


class Counting:
    """A rasteriser that counts its removal passes."""

    def __init__(self) -> None:
        self.inner, self.passes = potr.select_rasterizer("cpu"), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def removal_cost(self, *arguments: Any, **options: Any) -> RemovalCost:
        self.passes += 1
        return self.inner.removal_cost(*arguments, **options)


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


def test_costs_of_the_first_model_are_computed_once(scene: Scene, tmp_path: Path) -> None:
    counting: Any = Counting()
    rasterizer: Rasterizer = CachedCosts(counting, scene.model, tmp_path)
    first = rasterizer.removal_cost(scene.model.detach(), scene.train_views)
    again = CachedCosts(counting, scene.model, tmp_path).removal_cost(scene.model, scene.train_views)
    assert counting.passes == 1
    for f in dataclasses.fields(first):
        a, b = getattr(first, f.name), getattr(again, f.name)
        assert torch.equal(a, b) and a.dtype == b.dtype if isinstance(a, torch.Tensor) else a == b
    rasterizer.removal_cost(scene.model, scene.train_views[:3])  # other views
    rasterizer.removal_cost(scene.model.select(torch.arange(5)), scene.train_views)  # another model: never kept
    rasterizer.removal_cost(scene.model.select(torch.arange(5)), scene.train_views)
    assert counting.passes == 4
    assert len(list((tmp_path / "costs").iterdir())) == 2
    for path in (tmp_path / "costs").iterdir():
        path.write_bytes(b"PK not an archive")
    assert torch.equal(rasterizer.removal_cost(scene.model, scene.train_views).delta_sse, first.delta_sse)
    assert counting.passes == 5


def test_another_instruction_set_has_costs_of_its_own(scene: Scene, tmp_path: Path) -> None:
    for name in ("x86-64-v3", "x86-64-v4"):
        counting: Any = Counting()
        counting.instruction_set = name
        CachedCosts(counting, scene.model, tmp_path).removal_cost(scene.model, scene.train_views)
        assert counting.passes == 1


def test_a_cache_that_cannot_be_written_is_no_error(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    costs = CachedCosts(potr.select_rasterizer("cpu"), scene.model, tmp_path / "file")
    assert costs.removal_cost(scene.model, scene.train_views).samples > 0
    monkeypatch.setattr(cache, "_LEFT_FREE", 1 << 60)
    full = CachedCosts(potr.select_rasterizer("cpu"), scene.model, tmp_path / "full")
    assert full.removal_cost(scene.model, scene.train_views).samples > 0
    assert list((tmp_path / "full").rglob("*.npz")) == []


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
    assert {path.name for path in (tmp_path / "shared" / ".cache").iterdir()} == {"photos", "costs", "pruned", "before"}
    alone = [pipeline.run(a_config(folder, tmp_path / "alone", quality=q, cache=False)) for q in (0.2, 0.8)]
    assert len(opened) == 3
    assert not (tmp_path / "alone" / ".cache").exists()
    assert shared[1].encode_seconds["prune_early"] > shared[1].stages[0]["seconds"]  # with the first pass, found
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
    for part in ("photos", "costs", "pruned", "before"):
        (tmp_path / "outputs" / ".cache").mkdir(parents=True, exist_ok=True)
        (tmp_path / "outputs" / ".cache" / part).write_text("in the way")
    assert pipeline.run(a_config(folder, tmp_path / "outputs")).bytes > 0
