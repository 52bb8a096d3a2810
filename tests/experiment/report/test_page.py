# SPDX-License-Identifier: Apache-2.0
"""The report's page as text: whole, self-contained, repeatable, and deaf to what folders are called."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from potr import cli
from potr.errors import PotrError
from potr.experiment.report.data import report_data
from potr.experiment.report.page import ASSETS, SCRIPTS, TITLE, write_report
from potr.experiment.summary import collect
from tests.helpers.report_outputs import HOSTILE, add_run, make_outputs

RUNS = 10


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_outputs(tmp_path_factory.mktemp("report") / "outputs")


@pytest.fixture(scope="module")
def text(outputs: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "report.html"
    written = write_report(outputs, path, made="2026-11-22")
    assert (written.bytes, written.runs, written.holes) == (path.stat().st_size, RUNS, 2)
    return path.read_text()


def data_in(text: str) -> Any:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert found
    return json.loads(found[1])


def test_the_page_asks_for_nothing(text: str) -> None:
    addresses = set(re.findall(r"""[a-z]+://[^\s"'<>`)]*""", text))
    assert addresses == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert set(re.findall(r'(?:src|href)="([^"]*)"', text)) == {"data:,", "#viewer"}
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in text
    assert not re.search(r"@import|url\(|\bfetch\(|XMLHttpRequest|innerHTML|\beval\(", text)


def test_every_asset_is_in_it(text: str) -> None:
    assert {path.name for path in ASSETS.iterdir()} == {"page.html", "page.css", *SCRIPTS}
    for name in ("page.css", *SCRIPTS):
        assert (ASSETS / name).read_text() in text
    assert not re.search(r"\{\{\w+\}\}", text.replace(json.dumps(HOSTILE)[1:-1], "").replace("{{data}}", ""))


def test_names_stay_data(text: str) -> None:
    assert HOSTILE not in text
    assert "<img" not in text
    pictures = data_in(text)["pictures"]["count"]
    assert text.count("<script") == text.count("</script>") == 2 + pictures
    assert HOSTILE in data_in(text)["holes"][0]["reason"]


def test_the_data_say_what_the_runs_said(text: str, outputs: Path) -> None:
    data = data_in(text)
    assert [scene["name"] for scene in data["scenes"]] == ["garden", "stump"]
    assert [(curve["scene"], curve["label"], curve["runs"]) for curve in data["curves"]] == [
        (0, "default (ours)", [0, 1]),
        (0, "paper (ours)", [2, 3, 4]),
        (1, "default (ours)", [5, 6]),
        (1, "paper (ours)", [7, 8, 9]),
    ]
    run = data["runs"][3]
    assert (run["name"], run["bytes"], run["quality"]) == ("garden/paper,q0.5", 20_000, 0.5)
    assert run["after"]["psnr"] == 29.75
    assert run["after"]["lpips"] is None
    assert run["view_psnr"] == {"a": 30.0, "b": 30.0}
    assert [hole["run"] for hole in data["holes"]] == ["garden/q0.9", ""]
    assert "interrupted" in data["holes"][1]["reason"]
    assert [(view["scene"], view["name"], len(view["shown"])) for view in data["views"]] == [
        (0, "a", 5),
        (0, "b", 5),
        (1, "a", 5),
        (1, "b", 5),
    ]
    assert data["commits"] == [["0123abc", RUNS]]


def test_curves_are_compared_with_the_anchor(text: str) -> None:
    compared = data_in(text)["compared"]
    assert compared["title"] == "Bjontegaard differences to codec=paper"
    assert [row[0]["text"] for row in compared["rows"][:2]] == ["garden", "stump"]
    reason = "curve has 2 of the 4 points needed"
    assert (compared["rows"][0][3], compared["notes"][-1]) == (
        {"text": "—", "value": None, "mark": "a"},
        f"a: {reason}",
    )


def test_the_same_runs_give_the_same_bytes(text: str, outputs: Path, tmp_path: Path) -> None:
    write_report(outputs, tmp_path / "again.html", made="2026-11-22")
    assert (tmp_path / "again.html").read_text() == text


def test_pictures_are_left_out_by_importance(outputs: Path) -> None:
    found = collect(outputs)
    everything = report_data(found, outputs, 10**9)
    sizes = sum(path.stat().st_size for path in everything.pictures)
    assert (len(everything.pictures), everything.data["pictures"]["left_out"]) == (8 + 2 * RUNS, 0)
    none = report_data(found, outputs, 0)
    assert (none.pictures, none.data["views"], none.data["pictures"]["left_out"]) == ((), [], 2 * RUNS)
    some = report_data(found, outputs, sizes // 2)
    assert sum(path.stat().st_size for path in some.pictures) <= sizes // 2
    shown = {(view["scene"], view["name"]): [one["run"] for one in view["shown"]] for view in some.data["views"]}
    assert {0, 2} <= set(shown[0, "a"])  # both codecs' lowest rate, in the typical view
    assert {5, 7} <= set(shown[1, "a"])
    assert set(shown[0, "a"]) > set(shown.get((0, "b"), []))
    assert all(place < len(some.pictures) for view in some.data["views"] for place in (view["photo"], view["before"]))


def test_damaged_pictures_are_a_hole_and_no_error(tmp_path: Path) -> None:
    add_run(tmp_path / "a" / "q0.5", "a", "paper", 0.5, 20_000)
    (tmp_path / "a" / "q0.5" / "views" / "0.webp").unlink()
    data = report_data(collect(tmp_path), tmp_path, 10**9).data
    assert data["views"] == []
    assert data["holes"][0]["reason"].startswith("no pictures of this run: ")


def test_only_a_report_is_replaced(outputs: Path, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("<!doctype html><title>mine</title>")
    with pytest.raises(PotrError, match="exists already"):
        write_report(outputs, path, made="today")
    assert "mine" in path.read_text()
    write_report(outputs, path, made="today", overwrite=True)
    write_report(outputs, path, made="today", title="<b>another</b>")
    assert "<title>&lt;b&gt;another&lt;/b&gt;</title>" in path.read_text()


def test_the_command(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "page.html"
    assert cli.main(["report", str(outputs), "-o", str(path), "--pictures-mb", "0", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "output": str(path),
        "bytes": path.stat().st_size,
        "runs": RUNS,
        "holes": 2,
        "pictures": 0,
        "pictures_left_out": 2 * RUNS,
    }
    assert f"<h1>{TITLE}</h1>" in path.read_text()
    assert cli.main(["report", str(outputs)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"{outputs / 'report.html'}: ")
    assert f"{RUNS} runs, 2 without a result or pictures, 28 pictures" in said
    (outputs / "report.html").unlink()


@pytest.mark.parametrize("name", ["empty", "absent"])
def test_nothing_to_report_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.main(["report", str(tmp_path / name)]) == cli.REFUSED
    message = {
        "empty": f"no finished run; python -m potr.run outputs={tmp_path / 'empty'} makes one",
        "absent": "expected a folder of runs, found none",
    }[name]
    assert capsys.readouterr().err == f"potr report: {tmp_path / name}: {message}\n"
    assert not (tmp_path / name / "report.html").exists()
