# SPDX-License-Identifier: Apache-2.0
"""The ablation's ladder in tables and figures, from made-up results; what else its runs must leave alone."""

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest

from potr.encoder.quality import RUNG_NAMES
from potr.errors import PotrError
from potr.evaluate.bd_rate import bd_psnr, bd_rate
from potr.experiment.result import RunResult, write_result
from potr.experiment.summary import Collected
from potr.experiment.tables import ablation, ladder, rate_distortion
from potr.experiment.tables.choose import plain_curves
from potr.experiment.tables.curves import STYLES, curves
from potr.experiment.tables.document import Document, Figure, Marked, Table
from potr.experiment.tables.formats import markdown
from potr.experiment.tables.published import published
from tests.helpers.results import a_result

REASONS = a_result().reasons | {"quality": "a single point"}
SECTIONS = {
    "model": 100,
    "octree.nodes": 200,
    "octree.counts": 50,
    "sh_ac.values": 150,
    "sh_ac.luma": 150,
    "sh_ac.chroma": 100,
    "rotation.x": 50,
    "container": 7,
}
PSNRS = (26.0, 28.0, 30.0, 31.0)


def rung(name: str, share: float, points: int = 4, **changes: Any) -> list[RunResult]:
    """A rung's runs: at every quality this share of the paper's bytes."""
    codec = name if name in ("paper", "default") else "default"
    settings = {} if name in ("paper", "default") else {"rung": name}
    return [
        made(
            size * share,
            psnr,
            codec=codec,
            quality=q,
            **{"settings": {**settings, "evaluate.lpips": "none"}, **changes},
        )
        for q, size, psnr in zip((0.1, 0.3, 0.5, 0.8), (10e3, 20e3, 40e3, 80e3), PSNRS, strict=True)
    ][:points]


def made(size: float, psnr: float, **changes: Any) -> RunResult:
    after = dataclasses.replace(a_result().after, psnr=psnr)
    name = f"{changes.get('dataset')}{changes['codec']}{changes['settings']}{size}"
    given = {"bytes": round(size), "bytes_per_section": SECTIONS, "after": after, "bitstream_sha256": name}
    return a_result(**{"reasons": REASONS, "inputs_sha256": changes.get("dataset", "garden"), **given, **changes})


def document(*results: RunResult) -> Document:
    return ablation.document(Collected(results, (), ()), published())


def table(found: Document, name: str) -> Table:
    return next(table for table in found.tables if table.name == name)


def row(of: Table, *words: str) -> dict[str, Any]:
    heads = [column.head for column in of.columns]
    chosen = [line for line in of.rows if line[: len(words)] == words]
    return dict(zip(heads, chosen[0], strict=True))


def drawn(figure: Figure) -> list[list[str]]:
    return [[series.label for series in panel.series] for panel in figure.panels]


THREE = (*rung("paper", 1.0), *rung("ans", 0.9), *rung("colour_refit", 0.72), *rung("default", 0.4))


def test_every_rung_is_held_against_the_paper_and_against_the_rung_before() -> None:
    worth = table(document(*THREE), "worth")
    assert [line[1] for line in worth.rows] == ["paper", "ans", "colour_refit", "default"]
    refit = row(worth, "garden", "colour_refit")
    assert refit["BD-rate to paper [%]"] == pytest.approx(-28)
    assert refit["BD-rate to the rung before [%]"] == pytest.approx(-20)
    anchor, test = ([(r.bytes, r.after.psnr) for r in rung(*of)] for of in (("paper", 1.0), ("colour_refit", 0.72)))
    assert (refit["BD-rate to paper [%]"], refit["BD-PSNR to paper [dB]"]) == (
        *(bd_rate(anchor, test), bd_psnr(anchor, test)),  # type: ignore[arg-type]
    )
    assert row(worth, "garden", "paper")["BD-rate to paper [%]"] == ""
    last = row(worth, "garden", "default")
    assert last["BD-rate to paper [%]"] == pytest.approx(-60)
    assert last["BD-rate to the rung before [%]"] == Marked(None, f"rung {RUNG_NAMES[-2]} was not run on this scene")


def test_a_scene_s_table_has_bits_and_bytes_of_every_section() -> None:
    found = document(*THREE)
    runs = table(found, "ladder_garden")
    assert [line[0] for line in runs.rows] == [n for n in ("paper", "ans", "colour_refit", "default") for _ in range(4)]
    first = row(runs, "ans", 0.1)
    assert (first["splats"], first["bytes"], first["bits/splat"]) == (2000, 9000, 36.0)
    assert (first["octree"], first["rotation"], first["sh_ac"], first["other"]) == (1.0, 0.2, 1.6, 0.428)
    assert first["opacity"] == 0.0
    assert (first["PSNR [dB]"], first["change [dB]"]) == (26.0, -4.0)
    assert first["BD-rate to paper [%]"] == pytest.approx(-10)
    assert row(runs, "ans", 0.3)["BD-rate to paper [%]"] == ""
    sizes = row(table(found, "sections_garden"), "ans", 0.1)
    assert sum(sizes[name] for name in (*ladder.SECTIONS, ladder.OTHER)) == sum(SECTIONS.values())


def test_each_scene_has_its_table_and_figure_and_there_are_means() -> None:
    found = document(*THREE, *rung("paper", 1.0, dataset="room"), *rung("default", 0.5, dataset="room"))
    assert [t.name for t in found.tables] == [
        *("worth", "ladder_garden", "sections_garden", "ladder_room", "sections_room", "equal_psnr"),
    ]
    mean = row(table(found, "worth"), "mean of 2 scenes", "default")
    assert mean["BD-rate to paper [%]"] == pytest.approx(-55)
    assert [figure.name for figure in found.figures] == ["ladder_garden", "ladder_room"]
    assert drawn(found.figures[0]) == [["paper", "ans", "colour_refit", "default"]]
    styles = [series.style for series in found.figures[0].panels[0].series]
    assert (styles[0], styles[-1]) == (STYLES["paper"], STYLES["default"])
    assert len(set(styles)) == 4


def test_three_points_give_a_marked_figure_and_two_none() -> None:
    found = table(document(*rung("paper", 1.0), *rung("ans", 0.9, 3), *rung("steps", 0.5, 2)), "worth")
    three = row(found, "garden", "ans")["BD-rate to paper [%]"]
    assert three.value == pytest.approx(-10, abs=1.5)  # slopes at the ends are of other segments
    assert three.note == "from 3 points; 4 are usual"
    two = row(found, "garden", "steps")["BD-rate to paper [%]"]
    assert two == Marked(None, "curve has 2 of the 3 points needed")


def test_runs_that_cost_more_for_no_more_psnr_are_left_out_with_a_mark() -> None:
    worse = made(72e3, 29.9, codec="default", quality=1.0, settings={"rung": "ans"})
    found = table(document(*rung("paper", 1.0), *rung("ans", 0.9, 3), worse), "worth")
    cell = row(found, "garden", "ans")["BD-rate to paper [%]"]
    assert cell.value == pytest.approx(-10, abs=1.5)
    assert cell.note.startswith("from 3 points; 4 are usual; without runs that a smaller file")


def test_other_programs_are_on_the_same_axes_and_at_equal_psnr() -> None:
    point = {"codec": "spz", "quality": None, "settings": {}}
    peers = [made(100e3, 30.0, **point), made(50e3, 20.0, **{**point, "codec": "compressed_ply"})]
    found = document(*THREE, *peers, made(1e5, 32.0, **{**point, "codec": "c3dgs"}))
    assert drawn(found.figures[0])[1] == ["paper", "default", "spz", "compressed_ply"]
    equal = table(found, "equal_psnr")
    assert [line[1] for line in equal.rows] == ["spz", "compressed_ply"]
    spz = row(equal, "garden", "spz")
    assert spz["over default [x]"] == pytest.approx(100 / 16)
    assert spz["over paper [x]"] == pytest.approx(100 / 40)
    bound = row(equal, "garden", "compressed_ply")["over default [x]"]
    assert bound.value == pytest.approx(50 / 4)
    assert bound.note.startswith("at least")


def test_rungs_stay_out_of_everything_else() -> None:
    alone = rung("ans", 0.9)
    assert plain_curves(alone) == ()
    assert [curve.label for curve in plain_curves(THREE)] == ["default (ours)", "paper (ours)"]
    assert [c.label for c in curves(alone)] == ["rung ans (ours)"]
    assert "rung ans" not in markdown(rate_distortion.document(Collected(THREE, (), ()), published()))


def test_the_document_s_tables_are_replaced_and_what_is_written_by_hand_stays(tmp_path: Path) -> None:
    script = runpy.run_path(str(Path(__file__).resolve().parents[3] / "experiments" / "rate_distortion.py"))
    update, line, doc = script["update"], script["LINE"], tmp_path / "doc.md"
    for number, result in enumerate(THREE):
        folder = tmp_path / "runs" / str(number)
        folder.mkdir(parents=True)
        write_result(result, folder)
    doc.write_text("# By hand\n")
    with pytest.raises(PotrError, match="expected the line"):
        update(tmp_path / "runs", doc)
    doc.write_text(f"# By hand\n\n{line}\nstale\n")
    with pytest.raises(PotrError, match="no scene has two rungs"):
        update(tmp_path / "none", doc)
    assert "stale" in doc.read_text()
    (tmp_path / "doc").mkdir()
    (tmp_path / "doc" / "stale.svg").touch()
    update(tmp_path / "runs", doc)
    text = doc.read_text()
    assert text.startswith(f"# By hand\n\n{line}\n\ncodec=paper, then")
    assert "stale" not in text
    assert "](doc/ladder_garden.svg)" in text
    names = ["equal_psnr.csv", "ladder_garden.csv", "ladder_garden.svg", "sections_garden.csv", "worth.csv"]
    assert sorted(path.name for path in (tmp_path / "doc").iterdir()) == names
    update(tmp_path / "runs", doc)
    assert doc.read_text() == text
    assert script["LINE"] in script["DOC"].read_text()


def test_one_rung_alone_is_no_ladder() -> None:
    found = document(*rung("paper", 1.0))
    assert found.figures == ()
    assert "No run yet." in markdown(found)
