# SPDX-License-Identifier: Apache-2.0
"""The end of a sweep on the screen: BD-rates where the points allow them, and a word at the start where not."""

from pathlib import Path
from typing import Any

import pytest

from potr.experiment.result import RunResult, write_result
from potr.experiment.sweep.sweep_table import gap_table, without_gaps
from potr.experiment.tables import write
from tests.experiment.test_conf import composed
from tests.helpers.results import a_result

QUALITIES = (0.1, 0.3, 0.5, 0.8)


def curve(codec: str, share: float, **changes: Any) -> list[RunResult]:
    """Four runs of a codec that takes a share of the bytes at the same PSNR."""
    found = []
    for number, quality in enumerate(QUALITIES):
        size = round(share * 10_000 * 2**number)
        after = a_result().after
        after = type(after)(**{**vars(after), "psnr": 28.0 + number, "ssim": 0.8 + 0.02 * number})
        more = {"bitstream_sha256": f"{codec}{share}{quality}", "ratio": 2_480_000 / size, **changes}
        found.append(a_result(codec=codec, quality=quality, bytes=size, after=after, **more))
    return found


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]


def test_bd_rate_to_the_paper_s_steps_where_they_were_run() -> None:
    text = gap_table([*curve("default", 0.5), *curve("paper", 1.0), *curve("spz", 2.0)])
    _, _, *found = rows(text)
    assert [row[:5] for row in found] == [
        ["garden", "default (ours)", "paper (ours)", "4", "-50.00"],
        ["garden", "spz", "paper (ours)", "4", "+100.00"],
    ]
    assert len({len(line) for line in text.splitlines() if line.startswith("|")}) == 1  # aligned


def test_settings_are_compared_without_what_they_share() -> None:
    a = curve("default", 1.0, settings={"seed": 1, "prune.refit_rounds": 0})
    b = curve("default", 0.5, settings={"seed": 1, "prune.refit_rounds": 1})
    _, _, row = rows(gap_table([*a, *b]))
    assert row[1:5] == ["default (ours), prune.refit_rounds=1", "default (ours), prune.refit_rounds=0", "4", "-50.00"]


def test_what_came_to_too_few_points_says_so() -> None:
    text = gap_table([*curve("default", 0.5)[:3], *curve("paper", 1.0)])
    assert "curve has 3 of the 4 points needed" in text
    assert gap_table(curve("default", 0.5)) == gap_table([]) == ""


@pytest.mark.parametrize(
    ("codecs", "qualities", "more", "said"),
    [
        (("default", "paper"), QUALITIES, (), ""),
        (("default", "paper"), QUALITIES[:3], (), "it takes 4 qualities of a codec, here are 3"),
        (("default",), (0.1,), (), "it takes 4 qualities of a codec, here is 1"),
        (("default",), QUALITIES, (), "it takes a second codec"),
        (("default", "spz"), QUALITIES, (), "it takes a second codec"),  # spz has a single point
        (("default", "paper"), QUALITIES[:3], ("sweep=ablation",), ""),
    ],
)
def test_a_word_at_the_start(
    codecs: tuple[str, ...], qualities: tuple[float, ...], more: tuple[str, ...], said: str
) -> None:
    configs = [composed(f"codec={codec}", f"quality={quality}", *more) for codec in codecs for quality in qualities]
    word = without_gaps(configs)
    assert word.startswith("no BD-rate at the end: ") if said else word == ""
    assert said in word


def test_an_experiment_s_last_table_has_the_runs_that_were_asked_for_and_its_files_all(tmp_path: Path) -> None:
    for result in [*curve("default", 0.5), *curve("paper", 1.0), *curve("default", 0.5, dataset="room")]:
        folder = tmp_path / result.dataset / f"{result.codec}{result.quality}"
        folder.mkdir(parents=True)
        write_result(result, folder)
    asked = [path for path in (tmp_path / "garden").iterdir() if path.name != "paper0.1"]
    said = write.finish("peers", tmp_path, asked)
    shown = rows(said)
    assert [row[0] for row in shown[2:]] == 7 * ["garden"]
    assert len({len(line) for line in said.splitlines() if line.startswith("|")}) == 1
    assert len((tmp_path / "tables" / "peers.csv").read_text().splitlines()) == 1 + 12
