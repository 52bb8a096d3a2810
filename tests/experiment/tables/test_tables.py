# SPDX-License-Identifier: Apache-2.0
"""The experiments' tables from made-up results: means, holes, marks, BD figures, the survey's layout, their files."""

import csv
import dataclasses
import io
import re
from pathlib import Path
from typing import Any

import pytest

from potr.evaluate.bd_rate import bd_psnr, bd_rate
from potr.experiment.failure import Failure
from potr.experiment.result import Measured, RunResult, write_result
from potr.experiment.scenes.suites import SCENES, SUITES
from potr.experiment.summary import Collected
from potr.experiment.tables import figures, fps, main_table, peers, rate_distortion, stages, survey, write
from potr.experiment.tables.choose import as_the_paper, plain_curves
from potr.experiment.tables.document import PUBLISHED_NOTE, Column, Document, Marked, Table
from potr.experiment.tables.formats import escape, latex, markdown, table_csv
from potr.experiment.tables.published import published
from tests.helpers.results import a_result

REASONS = a_result().reasons | {"suite": "not one of the paper's", "quality": "a single point"}


def made(size: int, psnr: float, **changes: Any) -> RunResult:
    """A result of so many bytes and dB; its bitstream's hash is its own."""
    name = "-".join(str(changes.get(key, "")) for key in ("dataset", "codec", "quality", "settings"))
    after = dataclasses.replace(a_result().after, psnr=psnr, ssim=psnr / 40)
    given = {"bitstream_sha256": f"{name}{size}", "reasons": REASONS, "after": after, "bytes": size}
    return a_result(**{**given, "inputs_sha256": changes.get("dataset", "garden"), **changes})


def curve_of(codec: str, sizes: tuple[int, ...], psnrs: tuple[float, ...], **changes: Any) -> list[RunResult]:
    qualities = (0.1, 0.3, 0.5, 0.8, 1.0)
    return [
        made(size, psnr, codec=codec, quality=q, **{"dataset": "garden", **changes})
        for q, size, psnr in zip(qualities, sizes, psnrs, strict=False)
    ]


PAPER = ((1000, 2000, 4000, 8000), (26.0, 28.0, 30.0, 31.0))
DEFAULT = ((500, 1100, 2100, 4500), (26.5, 28.2, 30.1, 31.2))


def runs(*results: RunResult, failures: tuple[Failure, ...] = (), problems: tuple[str, ...] = ()) -> Collected:
    return Collected(results, failures, problems)


def cells(table: Table, **wanted: str) -> dict[str, Any]:
    """The first row that has these words, by column."""
    heads = [column.head for column in table.columns]
    for row in table.rows:
        words = [str(cell.value if isinstance(cell, Marked) else cell) for cell in row]
        if all(value in words for value in wanted.values()):
            return dict(zip(heads, row, strict=True))
    raise AssertionError(f"{table.name}: no row with {wanted}")


def test_bjontegaard_figures_are_evaluate_s() -> None:
    both = [*curve_of("paper", *PAPER), *curve_of("default", *DEFAULT)]
    table = rate_distortion.document(runs(*both), published()).tables[0]
    row = cells(table, scene="garden", codec="default (ours)")
    anchor, test = list(zip(*PAPER, strict=True)), list(zip(*DEFAULT, strict=True))
    assert row["BD-rate, PSNR [%]"] == bd_rate(anchor, test) < 0
    assert row["BD-PSNR [dB]"] == bd_psnr(anchor, test) > 0


@pytest.mark.parametrize(
    ("sizes", "psnrs", "reason"),
    [
        ((500, 900, 1500), (26.5, 28.2, 30.1), "curve has 3 of the 4 points needed"),
        ((500, 900, 1500, 2500), (36.5, 38.2, 40.1, 41.0), "no common range"),
        ((500, 900, 1500, 2500), (26.5, 29.0, 28.0, 30.0), "does not rise with the rate"),
    ],
)
def test_a_bjontegaard_figure_that_means_nothing_is_refused_with_its_reason(
    sizes: tuple[int, ...], psnrs: tuple[float, ...], reason: str
) -> None:
    results = [*curve_of("paper", *PAPER), *curve_of("default", sizes, psnrs)]
    row = cells(rate_distortion.document(runs(*results), published()).tables[0], codec="default (ours)")
    cell = row["BD-rate, PSNR [%]"]
    assert cell.value is None
    assert reason in cell.note
    alone = rate_distortion.document(runs(*curve_of("default", *DEFAULT)), published())
    assert "the anchor was not run" in markdown(alone)


def test_the_mean_of_bjontegaard_figures_says_over_how_many_scenes() -> None:
    few = curve_of("default", (500, 900), (26.5, 28.2), dataset="room")
    results = [*curve_of("paper", *PAPER), *curve_of("default", *DEFAULT), *curve_of("paper", *PAPER, dataset="room")]
    table = rate_distortion.document(runs(*results, *few), published()).tables[0]
    mean = cells(table, scene="mean, MipNeRF360 (2 scenes)")["BD-rate, PSNR [%]"]
    assert mean == Marked(cells(table, scene="garden")["BD-rate, PSNR [%]"], "mean of 1 of 2 scenes")


def test_a_mean_over_some_scenes_of_a_suite_is_marked_and_the_others_are_holes() -> None:
    failure = Failure("train", "TanksAndTemples", 0.1, "paper", {}, "main_table", "no cameras: see docs/datasets.md")
    results = [
        made(1000, 25.0, dataset="truck", suite="TanksAndTemples", quality=0.1, codec="default"),
        made(3000, 27.0, dataset="train", suite="TanksAndTemples", quality=0.1, codec="default"),
        made(2000, 24.0, dataset="truck", suite="TanksAndTemples", quality=0.1),
        made(9000, 29.0, dataset="truck", suite="TanksAndTemples", quality=0.9),  # of another quality
    ]
    document = main_table.document(runs(*results, failures=(failure,)), published())
    summary = document.tables[0]
    whole = cells(summary, suite="TanksAndTemples", codec="default (ours)")
    assert (whole["scenes"], whole["PSNR [dB]"], whole["size [MB]"]) == ("2 of 2", 26.0, 2000)
    part = cells(summary, suite="TanksAndTemples", codec="paper (ours)")
    assert part["scenes"].value == "1 of 2"
    assert "not comparable" in part["scenes"].note
    none = cells(summary, suite="MipNeRF360")
    assert (none["scenes"], none["PSNR [dB]"]) == ("0 of 9", None)
    assert ("train: paper (ours), q=0.1", "no cameras: see docs/datasets.md") in document.holes
    assert ("DeepBlending: paper (ours), q=0.1: drjohnson, playroom", "not run") in document.holes
    assert not any("truck" in what for what, _ in document.holes)
    scene = next(table for table in document.tables if table.name == "TanksAndTemples_scenes")
    assert cells(scene, scene="train", method="paper (ours)")["PSNR [dB]"] is None
    assert "| train | paper (ours) | — |" in markdown(document)


def test_published_rows_are_marked_and_the_measured_are_not() -> None:
    document = main_table.document(runs(made(1000, 25.0, dataset="truck", suite=SUITES[1], quality=0.1)), published())
    for table in document.tables:
        if table.columns[0].title == "method" or table.columns[1].title == "method":
            column = [column.title for column in table.columns].index("method")
            for row in table.rows:
                name = row[column].value if isinstance(row[column], Marked) else str(row[column])
                ours = "ours" in str(name) or "measured" in str(name)
                assert ours != (isinstance(row[column], Marked) and row[column].note == PUBLISHED_NOTE), name
    text = markdown(document)
    assert re.search(r"\| 3DGS † \| uncompressed \| 9 \| 27\.21 \| 0\.815 \| 0\.214 \| 734\.00 \| — \|", text)
    assert r"3DGS\textsuperscript{\dag{}} & uncompressed" in latex(document)
    assert "POTR (authors, fine-tuned, q=0.1) †" in text


def test_table_i_of_the_paper_stands_beside_the_measured_rows_with_its_source() -> None:
    document = main_table.document(runs(made(1000, 25.0, dataset="truck", suite=SUITES[1], quality=0.1)), published())
    table = next(table for table in document.tables if table.name == "TanksAndTemples")
    methods = [row[0].value if isinstance(row[0], Marked) else row[0] for row in table.rows]
    place = methods.index("paper (ours)")
    assert sorted(methods[place + 1 : place + 9]) == sorted(m for m in methods[1:] if "Table I" in m)  # beside ours
    assert methods[0] == "3DGS (Table I of POTR)"
    row = next(row for row in table.rows if isinstance(row[0], Marked) and row[0].value == "MesonGS (Table I of POTR)")
    assert row[0].note == PUBLISHED_NOTE
    assert isinstance(row[1], Marked)
    assert "second hand" in row[1].note
    assert row[3:8] == (22.84, 0.820, 0.211, 17_300_000, 1_163_000)
    assert "MesonGS, fine-tuned (Table I of POTR) †" in markdown(document)


def the_paper_s(name: str, **changes: Any) -> RunResult:
    """As if the released model had been compressed and judged on all the views."""
    known = SCENES[name]
    views = tuple({"name": str(number), "psnr": 25.0} for number in range(known.test_views))
    given = {
        **{"dataset": name, "suite": known.suite, "quality": 0.1, "codec": "default", "splats_before": known.splats},
        **{
            "train_views": known.photographs - known.test_views,
            "after": dataclasses.replace(a_result().after, views=views),
        },
    }
    return made(1000, 25.0, **{**given, **changes})


def test_scenes_that_are_not_the_paper_s_stay_apart() -> None:
    own = made(1000, 33.0, dataset="chair", suite=None, quality=0.1)
    others = [
        the_paper_s("truck", settings={"dataset.downscale": 2.0}),
        the_paper_s("train", splats_before=135_317),
        the_paper_s("room", after=a_result().after),
        the_paper_s("kitchen", train_views=3),
    ]
    collected = as_the_paper(runs(own, *others, the_paper_s("garden")))
    document = main_table.document(collected, published())
    counts = [cells(document.tables[0], suite=suite)["scenes"] for suite in SUITES]
    assert [count.value if isinstance(count, Marked) else count for count in counts] == [
        *("1 of 9", "0 of 2", "0 of 2", "0 of 8"),
    ]
    table = next(table for table in document.tables if table.name == "own_scenes")
    assert "not the paper's" in table.title
    names = [row[0].value for row in table.rows if isinstance(row[0], Marked)]
    assert names == [name for name in ("chair", "kitchen", "room", "train", "truck") for _ in range(2)]
    assert all("shares a name" in row[0].note for row in table.rows if isinstance(row[0], Marked))
    assert {path.split("/")[0] for path in survey.survey_files(plain_curves(collected.results))} == {
        *("MipNeRF360", "not_in_the_survey"),
    }
    assert len(rate_distortion.document(collected, published()).figures[0].panels[0].series) > 1  # published points too
    assert all(len(f.panels[0].series) == 1 for f in rate_distortion.document(collected, published()).figures[1:])


def test_lpips_on_a_few_views_says_so() -> None:
    views = tuple(
        {"name": n, "psnr": 30.0, "ssim": 0.9, "lpips": x, "lpips_3dgs": x} for n, x in (("a", 0.2), ("b", None))
    )
    after = Measured(30.0, 0.9, 0.2, 0.2, 10.0, 9.0, views)
    result = made(1000, 30.0, dataset="truck", suite=SUITES[1], quality=0.1, after=after)
    document = main_table.document(runs(result), published())
    cell = cells(document.tables[0], suite=SUITES[1])["LPIPS 0..1"]
    assert cell == Marked(0.2, "LPIPS on 1 of 2 test views only, evenly spaced")
    assert "0.200 (b)" in markdown(document)
    (text,) = survey.survey_files(plain_curves([result])).values()
    assert next(csv.DictReader(io.StringIO(text)))["LPIPS"] == ""


def test_the_survey_s_layout() -> None:
    whole = dataclasses.replace(a_result().after, lpips_3dgs=0.125, views=({"name": "a", "lpips_3dgs": 0.125},))
    paper_s = made(20_000, 29.5, quality=0.1, dataset="garden", after=whole)
    files = survey.survey_files(plain_curves([paper_s, made(9, 1.0, suite=None, dataset="my x")]))
    assert list(files) == ["MipNeRF360/garden.csv", "not_in_the_survey/my_x.csv"]
    header, row = files["MipNeRF360/garden.csv"].splitlines()
    assert header == "Submethod,PSNR,SSIM,LPIPS,Size [Bytes],#Gaussians"
    assert row == "paper-q0.1,29.5,0.89,0.125,20000,2000"


def test_pruning_and_sparsity_read_the_stages() -> None:
    passes = [
        {"left": 80, "removed": 20, "undone": False, "predicted_mse_change": 1e-6, "real_mse_change": 2e-6},
        {"left": 10, "removed": 70, "undone": True, "predicted_mse_change": 1e-2, "real_mse_change": 1e-1},
        {"left": 60, "removed": 20, "undone": False, "predicted_mse_change": 1e-6, "real_mse_change": None},
    ]
    sparse = {
        **{"ac_zero_share_before": 0.7, "ac_zero_share": 0.95},
        **{"ac_l2_before": 5.0, "ac_l2_after": 4.0, "dc_l2_before": 50.0, "dc_l2_after": 51.0},
    }
    steps = (
        {"name": "prune_early", "details": {"passes": passes, "cap": 1e-9}},
        {"name": "compact", "details": sparse},
    )
    parameters = {"prune": {"cap": 1e-9, "early_passes": 3}, "compact": {"strength": 0.5}}
    result = made(100, 29.0, stages=steps, splats_before=100, splats_after=60, parameters=parameters)
    document = stages.pruning(runs(result, a_result(codec="spz", inputs_sha256="garden")), published())
    row = cells(document.tables[0], scene="garden")
    assert (row["passes"], row["taken back"], row["kept"], row["share [%]"]) == (2, 1, 60, 0.6)
    assert row["MSE real"] == Marked(2e-6, "of 1 of 2 passes: the others were not checked")
    assert document.figures[0].panels[1].series[0].y == (100.0, 80.0, 60.0)
    row = cells(stages.sh_sparsity(runs(result), published()).tables[0], scene="garden")
    assert [row[head] for head in ("AC zeros before [%]", "after [%]", "in the file [%]")] == [0.7, 0.95, 0.95]
    assert (row["strength"], row["AC L2 norm before"], row["DC L2 norm before"]) == (0.5, 5.0, 50.0)
    older = {"ac_zero_share_before": 0.7, "ac_zero_share": 0.95, "l2_before": 50.2, "l2_after": 51.2}
    result = dataclasses.replace(result, stages=({"name": "compact", "details": older},))
    row = cells(stages.sh_sparsity(runs(result), published()).tables[0], scene="garden")
    assert (row["AC L2 norm before"], row["DC L2 norm before"]) == (None, None)  # one norm over both is neither


def test_fps_before_and_after() -> None:
    document = fps.document(runs(made(100, 29.0)), published())
    assert cells(document.tables[0], scene="garden")["speed-up [x]"] == 1.5
    assert "some, 2 threads" in document.intro


def test_a_peer_with_one_point_is_held_against_our_curve() -> None:
    peer = made(3000, 29.15, codec="spz", quality=None, dataset="garden")
    better = made(90_000, 50.0, codec="sog", quality=None, dataset="garden")
    document = peers.document(runs(*curve_of("default", *DEFAULT), peer, better), published())
    row = cells(document.tables[0], codec="spz")
    assert row["over default [x]"] == pytest.approx(3000 / (1100 * 2100) ** 0.5)
    assert cells(document.tables[0], codec="sog")["over default [x]"].value is None
    assert "curve has 1 of the 4 points needed" in markdown(document)


def test_failed_and_unreadable_runs_are_listed() -> None:
    failure = Failure("garden", "MipNeRF360", None, "sog", {}, None, "pip install something")
    found = runs(failures=(failure,), problems=("o/x: interrupted before it was measured",))
    for name, make in write.DOCUMENTS.items():
        holes = make(found, published()).holes
        assert ("o/x", "interrupted before it was measured") in holes, name
        assert (("garden: sog", "pip install something") in holes) == (name != "ablation"), name
    assert "No run yet." in markdown(peers.document(found, published()))


def all_kinds() -> list[RunResult]:
    settings = {"compact.refit_steps": 0}
    return [
        *(*curve_of("paper", *PAPER), *curve_of("default", *DEFAULT)),
        *curve_of("default", *PAPER, settings=settings),
        made(3000, 29.15, codec="spz", quality=None, dataset="garden"),
        made(500, 30.0, dataset="50%_&_#1 {a}~b^c\\d|e", suite=None, quality=0.1),
    ]


@pytest.mark.parametrize("name", write.DOCUMENTS)
def test_latex_is_balanced_escaped_and_ascii(name: str) -> None:
    document = write.DOCUMENTS[name](runs(*all_kinds(), problems=("a_b: 5 % of $x$ & more",)), published())
    text = latex(document)
    assert text.isascii()
    bare = re.sub(r"\\[&%$#_{}]|\\\\|^%.*$", "", text, flags=re.MULTILINE)
    for character in "%#~^":
        assert character not in bare.replace("}~", ""), character
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    assert sorted(begun) == sorted(ended)
    assert bare.count("{") == bare.count("}")
    kind = r"\{(?:tabular|longtable)\}"
    for block in re.findall(rf"\\begin{kind}\{{([^\n]*)\}}\n(.*?)\\end{kind}", text, re.DOTALL):
        columns = len(re.sub(r"p\{[^}]*\}+", "p", block[0]).replace("}", ""))
        for line in block[1].splitlines():
            if line.endswith(r" \\") and not line.startswith("\\caption"):
                assert len(re.findall(r"(?<!\\)&", line)) == columns - 1, line
    assert bare.count("$") % 2 == 0


def test_escaping() -> None:
    assert escape("50%_&_#1 {a}~b^c\\d") == (
        r"50\%\_\&\_\#1 \{a\}\textasciitilde{}b\textasciicircum{}c\textbackslash{}d"
    )
    assert escape("— † × 木") == r"-- \dag{} $\times$ ?"


def test_csv_has_numbers_as_they_are_and_notes_beside_them() -> None:
    columns = (Column("scene"), Column("size", "MB", ".2f", 1e-6, "size [bytes]"), Column("PSNR", "dB", ".1f"))
    table = Table("t", "T", columns, (("a,b", 1234567, Marked(None, "refused")), ("c", None, 30.25)))
    assert table_csv(table) == 'scene,size [bytes],PSNR [dB],PSNR [dB] note\n"a,b",1234567,,refused\nc,,30.25,\n'


def test_the_same_runs_give_the_same_files_and_what_is_stale_goes(tmp_path: Path) -> None:
    for number, result in enumerate([*all_kinds()[:-1], the_paper_s("truck")]):
        write_result(result, _made(tmp_path / "runs" / f"r{number}"))
    first, second = tmp_path / "first", tmp_path / "second"
    _made(second / "rate_distortion")
    (second / "rate_distortion" / "stale.svg").touch()
    (second / "rate_distortion" / "mine.txt").touch()
    for to in (first, second):
        write.write_tables(tmp_path / "runs", to, ["rate_distortion", "main_table"])
    files = {path.relative_to(first).as_posix(): path.read_bytes() for path in first.rglob("*") if path.is_file()}
    again = {path.relative_to(second).as_posix(): path.read_bytes() for path in second.rglob("*") if path.is_file()}
    assert again.pop("rate_distortion/mine.txt") == b""
    assert files == again
    for name in ("rate_distortion.md", "main_table.tex", "main_table.csv", "results/TanksAndTemples/truck.csv"):
        assert files[name]
    if figures.available():
        assert files["rate_distortion/curve_garden.png"].startswith(b"\x89PNG")
        assert files["rate_distortion/curve_garden.svg"].startswith(b"<?xml")


def test_without_matplotlib_there_are_tables_and_a_line_on_how_to_get_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "available", lambda: False)
    write_result(made(100, 29.0), _made(tmp_path / "r"))
    said = write.finish("rate_distortion", tmp_path, [tmp_path / "r"])
    assert said.endswith(figures.HOW_TO_GET)
    assert (tmp_path / "tables" / "rate_distortion.md").exists()
    assert not list(tmp_path.rglob("*.svg"))
    assert write.finish("quality=0.1,0.3", tmp_path, []) == write.finish(None, tmp_path, []) == ""


def test_no_file_of_a_document_has_an_unsafe_name() -> None:
    documents: list[Document] = [make(runs(*all_kinds()), published()) for make in write.DOCUMENTS.values()]
    names = [part.name for document in documents for part in (*document.tables, *document.figures)]
    assert all(re.fullmatch(r"\w+", name) for name in names)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
