# SPDX-License-Identifier: Apache-2.0
"""The facts about the paper's scenes: complete, consistent, and as the reference table has them."""

import csv
from pathlib import Path

import pytest

from potr.errors import ConfigError
from potr.experiment.scenes.suites import ARCHIVES, MAX_WIDTH, SCENES, SUITE_FOLDERS, SUITES, scenes_of, suite_scene

REFERENCE = Path(__file__).parents[4] / "shared" / "reference" / "3dgs_scenes.csv"


def test_every_scene_of_the_paper_is_there() -> None:
    assert {suite: len(scenes_of(suite)) for suite in SUITES} == {
        "MipNeRF360": 9,
        "TanksAndTemples": 2,
        "DeepBlending": 2,
        "SyntheticNeRF": 8,
    }
    assert len(SCENES) == 21
    assert SUITE_FOLDERS.keys() == set(SUITES)


def test_image_folders_are_those_of_3dgs() -> None:
    by_folder: dict[str | None, set[str]] = {}
    for scene in SCENES.values():
        by_folder.setdefault(scene.images, set()).add(scene.name)
    assert by_folder["images_4"] == {"bicycle", "flowers", "garden", "stump", "treehill"}
    assert by_folder["images_2"] == {"room", "counter", "kitchen", "bonsai"}
    assert by_folder["images"] == {"truck", "train", "drjohnson", "playroom"}
    assert by_folder[None] == {scene.name for scene in scenes_of("SyntheticNeRF")}
    assert all(scene.width <= MAX_WIDTH for scene in SCENES.values())  # so 3DGS shrinks none of them


def test_splits() -> None:
    assert SCENES["garden"].test_views == 24  # 185 photographs, as published
    assert SCENES["bonsai"].test_views == 37
    assert SCENES["room"].test_views == 39
    assert (SCENES["chair"].photographs, SCENES["chair"].test_views) == (300, 200)


@pytest.mark.skipif(not REFERENCE.is_file(), reason=f"no {REFERENCE}")
def test_splats_and_metrics_are_the_reference_s() -> None:
    with open(REFERENCE) as file:
        rows = list(csv.DictReader(file))
    assert {row["Scene"] for row in rows} == SCENES.keys()
    for row in rows:
        scene = SCENES[row["Scene"]]
        known = (scene.splats, scene.psnr, scene.ssim, scene.lpips)
        wanted = (row["#Gaussians"], row["PSNR"], row["SSIM"], row["LPIPS"])
        assert known == tuple(float(value) if value else None for value in wanted)
        assert scene.suite == row["Suite"]


def test_archives_have_names_and_checksums_of_the_right_form() -> None:
    for archive in ARCHIVES.values():
        assert archive.url.startswith("https://")
        assert archive.file.endswith(".zip")
        assert archive.sha256 is None or (len(archive.sha256) == 64 and int(archive.sha256, 16))
    assert {scene.archive.file for scene in scenes_of("MipNeRF360")} == {"360_v2.zip", "360_extra_scenes.zip"}


def test_an_unknown_scene_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"expected a scene of the paper \(bicycle, .*, ship\), got 'gardn'"):
        suite_scene("gardn")
