# SPDX-License-Identifier: Apache-2.0
"""experiments/paper: complete, read as numbers, and what the shared reference says."""

from pathlib import Path

import pytest

from potr.errors import PotrError
from potr.experiment.scenes.suites import SUITES
from potr.experiment.tables.published import POST_TRAINING, paper_folder, published

REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference"


def test_every_suite_and_scene_is_there() -> None:
    known = published()
    assert [len(known.scenes_of[suite]) for suite in SUITES] == [9, 2, 2, 8]
    assert {row.suite for row in known.suites} == set(SUITES)
    (mesongs,) = [row for row in known.of_scene("MipNeRF360", "bicycle") if row.method == "MesonGS-c3"]
    assert (mesongs.psnr, mesongs.bytes, mesongs.splats) == (24.54, 42_000_000, 3_161_000)
    assert mesongs.starts_from == POST_TRAINING
    authors = [row for row in known.scenes if row.method.startswith("POTR")]
    assert [(row.scene, row.bytes) for row in authors][:2] == [("bicycle", 11_570_000), ("truck", 4_500_000)]
    assert all(row.psnr is None for row in authors)
    assert known.of_scene(None, "bicycle") == ()


def test_what_was_not_published_is_none() -> None:
    row = next(row for row in published().suites if (row.suite, row.method) == ("SyntheticNeRF", "3DGS"))
    assert (row.psnr, row.ssim, row.bytes) == (33.31, None, None)


def test_a_missing_or_damaged_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PotrError, match=r"methods\.csv: cannot read"):
        published(tmp_path)


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no ../shared/reference beside the checkout")
def test_the_copies_are_exact() -> None:
    for path in sorted(REFERENCE.rglob("*.csv")):
        assert (paper_folder() / path.relative_to(REFERENCE)).read_bytes() == path.read_bytes()
