# SPDX-License-Identifier: Apache-2.0
"""Verifying a scene: what is as known passes, and every kind of difference and damage is found."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from potr.experiment.scenes.places import Place, Roots, locate
from potr.experiment.scenes.suites import SCENES, SuiteScene
from potr.experiment.scenes.verify import Check, verify
from potr.progress import Progress
from tests.helpers.released import PHOTOGRAPHS, SPLATS


@pytest.fixture
def copy(released: Path, tmp_path: Path) -> Place:
    """A released scene that a test may damage."""
    for folder in ("data", "models"):
        shutil.copytree(released / folder, tmp_path / folder)
    return locate(SCENES["garden"], Roots(tmp_path / "data", tmp_path / "models"))


@pytest.fixture
def facts(released: Path) -> SuiteScene:
    """Garden's facts as they would be if the stand-in were garden."""
    with Image.open(next((released / "data" / "garden" / "images_4").iterdir())) as image:
        size = {"width": image.width, "height": image.height}
    return dataclasses.replace(SCENES["garden"], photographs=PHOTOGRAPHS, test_views=2, splats=SPLATS, **size)


def wrong(checks: tuple[Check, ...]) -> dict[str, str]:
    return {check.what: check.found for check in checks if not check.ok}


def test_all_is_as_known(copy: Place, facts: SuiteScene) -> None:
    told: list[tuple[int, int]] = []
    checks = verify(facts, copy, progress=Progress(lambda _, done, total: told.append((done, total))))
    assert wrong(checks) == {}
    assert told == [(done, PHOTOGRAPHS) for done in range(1, PHOTOGRAPHS + 1)]
    assert {check.what: check.found for check in checks} == {
        "photographs": f"{PHOTOGRAPHS}",
        "training, test views": f"{PHOTOGRAPHS - 2}, 2",
        "size": f"{facts.width} x {facts.height}",
        "damaged photographs": "none",
        "splats": f"{SPLATS:,}",
        "principal point": "centre",
        "cameras.json": f"{PHOTOGRAPHS} of {PHOTOGRAPHS} agree",
    }
    assert wrong(verify(facts, copy, quick=True)) == {}


def test_the_stand_in_is_not_garden(copy: Place) -> None:
    assert set(wrong(verify(SCENES["garden"], copy))) == {"photographs", "training, test views", "size", "splats"}


def test_a_missing_photograph(copy: Place, facts: SuiteScene) -> None:
    assert copy.folder is not None
    next((copy.folder / "images_4").iterdir()).unlink()
    found = wrong(verify(facts, copy))
    assert found == {"photographs": f"{PHOTOGRAPHS - 1}", "cameras without photograph": "1"}


def test_damaged_photographs(copy: Place, facts: SuiteScene) -> None:
    assert copy.folder is not None
    first, second, third, *_ = sorted((copy.folder / "images_4").iterdir())
    first.write_bytes(first.read_bytes()[: first.stat().st_size // 2])  # the header is whole
    second.write_bytes(b"no image")
    Image.new("RGB", (10, 7)).save(third)
    full = wrong(verify(facts, copy))
    assert full["damaged photographs"].startswith("2: ")
    assert first.name in full["damaged photographs"]
    assert "10 x 7 (1 of them)" in full["size"]
    quick = wrong(verify(facts, copy, quick=True))
    assert quick["damaged photographs (headers only)"].startswith("1: ")


def test_damaged_cameras(copy: Place, facts: SuiteScene) -> None:
    assert copy.folder is not None
    images = copy.folder / "sparse" / "0" / "images.bin"
    images.write_bytes(images.read_bytes()[:-30])
    assert "images.bin: claims 2 items" in wrong(verify(facts, copy))["cameras"]


def test_a_damaged_model(copy: Place, facts: SuiteScene) -> None:
    assert copy.model is not None
    content = bytearray(copy.model.read_bytes())
    content[-4:] = b"\xff\xff\xff\xff"  # the last quaternion's last component: NaN
    copy.model.write_bytes(content)
    assert wrong(verify(facts, copy, quick=True)) == {}
    assert "NaN" in wrong(verify(facts, copy))["splats"]
    copy.model.write_bytes(content[:-100])
    assert "ends early" in wrong(verify(facts, copy, quick=True))["splats"]


def test_a_model_of_other_cameras(copy: Place, facts: SuiteScene) -> None:
    assert copy.model is not None
    file = copy.model.parent.parent.parent / "cameras.json"
    cameras = json.loads(file.read_text())
    cameras[0]["position"][0] += 0.5
    cameras[1]["fx"] *= 1.01
    cameras[2]["img_name"] = "another"
    file.write_text(json.dumps(cameras))
    agree = wrong(verify(facts, copy))["cameras.json"]
    assert agree.startswith(f"{PHOTOGRAPHS - 3} of {PHOTOGRAPHS} agree, not DSC")
    file.write_text("[")
    assert "not valid JSON" in wrong(verify(facts, copy))["cameras of the model"]
    file.unlink()
    assert wrong(verify(facts, copy)) == {}


def test_a_principal_point_that_3dgs_would_move(copy: Place, facts: SuiteScene) -> None:
    assert copy.folder is not None
    cameras = copy.folder / "sparse" / "0" / "cameras.bin"
    content = bytearray(cameras.read_bytes())
    content[-16:-8] = b"\0" * 8  # cx = 0
    cameras.write_bytes(content)
    assert wrong(verify(facts, copy))["principal point"] == f"off the centre in {PHOTOGRAPHS}"


def test_what_is_not_known_is_said(copy: Place, facts: SuiteScene) -> None:
    checks = verify(dataclasses.replace(facts, splats=None), Place(None, copy.model))
    assert checks == (Check("splats", f"{SPLATS:,}", None, True),)
