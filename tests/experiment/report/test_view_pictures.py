# SPDX-License-Identifier: Apache-2.0
"""The pictures that a run leaves for the report: which, where, and that an index leads nowhere else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from potr.errors import PotrError
from potr.experiment.report.view_pictures import MAX_SIDE, pictured, read_views, write_views
from tests.helpers.report_outputs import HEIGHT, WIDTH, pictures


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "garden" / "q0.5"
    write_views(folder, [("a", *pictures(0, "garden", 40)), ("b", *pictures(1, "garden", 40))])
    return folder


def test_the_typical_view_comes_first_then_the_extremes() -> None:
    psnrs = [30.0, 20.0, 25.0, 40.0, 35.0]
    assert pictured(psnrs, 3) == [0, 1, 3]  # median, worst, best
    assert pictured(psnrs, 9) == [0, 1, 3, 2, 4]
    assert pictured(psnrs, 0) == pictured([], 3) == []
    assert pictured([30.0], 3) == [0]


def test_written_and_read_again(run: Path) -> None:
    first, second = read_views(run)
    assert (first.view, first.width, first.height) == ("a", WIDTH, HEIGHT)
    left, top, width, height = first.detail
    assert left <= 180 < 220 <= left + width + 1
    assert top <= 100 < 130 <= top + height
    with Image.open(first.after) as image:
        stored = np.asarray(image.convert("RGB")).astype(int)
    rms = np.sqrt(((stored - pictures(0, "garden", 40)[2]) ** 2).mean())
    assert first.stored_rms == pytest.approx(rms, abs=1e-3)
    assert rms < 3
    assert second.view == "b"


def test_runs_of_a_scene_share_what_they_are_compared_with(run: Path) -> None:
    other = run.with_name("q0.1")
    write_views(other, [("a", *pictures(0, "garden", 20))])
    assert read_views(other)[0].photo == read_views(run)[0].photo
    assert read_views(other)[0].before == read_views(run)[0].before
    assert read_views(other)[0].after != read_views(run)[0].after
    assert len(list((run.parent / ".views").iterdir())) == 4  # two views, photograph and before


def test_an_earlier_run_s_pictures_go(run: Path) -> None:
    write_views(run, [("a", *pictures(0, "garden", 20))])
    assert {path.name for path in (run / "views").iterdir()} == {"0.webp", "views.json"}
    write_views(run, [])
    assert read_views(run) == ()
    assert not (run / "views").exists()


def test_large_views_are_reduced(tmp_path: Path) -> None:
    from potr.experiment.report.view_pictures import _reduced

    assert _reduced(np.zeros((1000, 2 * MAX_SIDE, 3), np.uint8)).shape == (500, MAX_SIDE, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"photo": "../../secret.webp"}, "unexpected name"),
        ({"after": "/etc/passwd"}, "unexpected name"),
        ({"before": "0123456789abcdef.webp"}, "expected a WebP picture"),
        ({"detail": [0, 0, WIDTH + 1, 1]}, "detail"),
        ({"detail": [0, 0]}, "not an index"),
        ({"width": "240"}, "whole numbers"),
        ({"after": None}, "not an index"),
    ],
)
def test_an_index_that_is_not_ours_is_refused(run: Path, change: dict[str, Any], message: str) -> None:
    index = run / "views" / "views.json"
    entries = json.loads(index.read_text())
    index.write_text(json.dumps([entries[0] | change]))
    with pytest.raises(PotrError, match=message):
        read_views(run)


def test_a_picture_that_is_something_else_is_refused(run: Path) -> None:
    (run / "views" / "0.webp").write_text("<svg onload=alert(1)>")
    with pytest.raises(PotrError, match="expected a WebP picture"):
        read_views(run)
