# SPDX-License-Identifier: Apache-2.0
"""result.json and what is told from it: whole, finite, and honest about what is missing."""

import dataclasses
import json
import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from potr.errors import PotrError
from potr.experiment.failure import Failure, write_failure
from potr.experiment.result import SCHEMA_VERSION, Measured, RunResult, read_result, without_idle_reasons, write_result
from potr.experiment.summary import collect, summary, table
from tests.helpers.results import a_result


def test_written_and_read_again_it_is_the_same(tmp_path: Path) -> None:
    result = a_result(folder=tmp_path)
    write_result(result, tmp_path)
    assert read_result(tmp_path) == result
    stored = json.loads((tmp_path / "result.json").read_text())
    assert next(iter(stored)) == "schema_version"
    assert stored["schema_version"] == SCHEMA_VERSION
    assert "folder" not in stored


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_refused(value: float) -> None:
    with pytest.raises(PotrError, match=r"result: after\.psnr is (nan|inf); expected a finite number"):
        a_result(after=dataclasses.replace(a_result().after, psnr=value))
    with pytest.raises(PotrError, match=r"stages\.0\.details\.passes\.0\.removed"):
        a_result(stages=({"name": "prune", "details": {"passes": [{"removed": value}]}},))


def test_a_null_needs_a_reason() -> None:
    blind = Measured(None, None, None, None, None, None)
    with pytest.raises(PotrError, match=r"result: after\.psnr is null without a reason"):
        a_result(after=blind)
    with pytest.raises(PotrError, match="result: git_commit is null without a reason"):
        a_result(git_commit=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 99}, "expected schema_version 2, got 99"),
        ({"bytes": None}, "bytes is null without a reason"),
        ({"surprise": 1}, "surprise"),
        ({"before": []}, "not a run's result"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    write_result(a_result(), tmp_path)
    path = tmp_path / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(PotrError, match=message):
        read_result(tmp_path)


def test_damage_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PotrError, match="cannot read: No such file"):
        read_result(tmp_path)
    for text in ("", "[]", "{}", '{"schema_version": 1'):
        (tmp_path / "result.json").write_text(text)
        with pytest.raises(PotrError, match="not a run's result"):
            read_result(tmp_path)


def test_the_summary_is_one_screen_that_says_what_happened(tmp_path: Path) -> None:
    for name in ("scene.potr", "result.json", "before_after.png"):
        (tmp_path / name).touch()
    text = summary(a_result(folder=tmp_path))
    lines = text.splitlines()
    assert len(lines) <= 24
    for said in (
        "garden at quality 0.5: paper codec, cpu rasteriser, judged on 2 test views",
        "2,480,000  20,000",
        "124.0x smaller than 248 bytes a splat, 80.0 bits a splat",
        "20.0 % kept",
        "-0.50",
        "1.50x",
        "95.1 % of the SH coefficients",
        "prune 12.0, compact 3.0; decode 0.10",
        "500 MB at most while encoding",
        f"{tmp_path / 'before_after.png'}  before and after",
    ):
        assert said in text, text
    assert "LPIPS" not in text


def test_a_run_is_so_many_times_smaller_than_the_file_that_was_compressed() -> None:
    text = summary(a_result(input_bytes=560_000))  # 56 bytes a splat: no SH but the DC
    assert re.search(r"bytes +560,000 +20,000 +28\.0x smaller, 80\.0 bits a splat", text)


def test_a_result_of_before_the_file_s_size_was_kept_is_read(tmp_path: Path) -> None:
    write_result(a_result(), tmp_path)
    stored = json.loads((tmp_path / "result.json").read_text())
    del stored["input_bytes"]
    (tmp_path / "result.json").write_text(json.dumps(stored))
    assert read_result(tmp_path).input_bytes is None
    assert "124.0x smaller than 248 bytes a splat" in summary(read_result(tmp_path))


def test_the_two_measures_called_lpips_have_two_names() -> None:
    sides = [dataclasses.replace(a_result().after, lpips=x, lpips_3dgs=y) for x, y in ((0.18, 0.15), (0.2, 0.16))]
    text = summary(a_result(before=sides[0], after=sides[1]))
    assert re.search(r"LPIPS 0\.\.1 +0\.1500 +0\.1600 +\+0\.0100", text)
    assert re.search(r"LPIPS -1\.\.1 +0\.1800 +0\.2000 +\+0\.0200", text)
    assert all(line.split()[1] in ("0..1", "-1..1") for line in text.splitlines() if "LPIPS" in line)


def test_what_is_missing_shows_as_a_dash() -> None:
    missing: Any = {f: None for f in ("psnr", "ssim", "lpips", "lpips_3dgs", "fps", "slowest_fps")}
    reasons = {f"{side}.{name}": "no test views" for side in ("before", "after") for name in missing}
    blind = Measured(**missing)
    text = table([a_result(before=blind, after=blind, reasons=reasons)])
    assert text.count("—") == 6
    assert re.search("PSNR dB +— +—", summary(a_result(before=blind, after=blind, reasons=reasons)))


def test_the_table_has_a_line_for_every_run_in_order() -> None:
    runs = [a_result(quality=quality, folder=Path(f"o/garden/q{quality:g}")) for quality in (0.8, 0.1, 0.3)]
    lines = table(runs).splitlines()
    assert [line.split(" | ")[1] for line in lines[2:]] == ["q0.1", "q0.3", "q0.8"]
    assert len({line.count("|") for line in lines}) == 1


def test_results_are_found_and_damaged_ones_named(tmp_path: Path) -> None:
    for name in ("a/q0.1", "a/q0.5", "b/q0.5"):
        (tmp_path / name).mkdir(parents=True)
        write_result(a_result(folder=tmp_path / name), tmp_path / name)
    (tmp_path / "a/q0.5/result.json").write_text("{")
    (tmp_path / "b/q0.8").mkdir()
    (tmp_path / "b/q0.8/config.yaml").write_text("quality: 0.8\n")
    runs = collect(tmp_path)
    assert [result.folder.relative_to(tmp_path).as_posix() for result in runs.results] == ["a/q0.1", "b/q0.5"]
    assert len(runs.problems) == 2
    assert "a/q0.5/result.json" in runs.problems[0]
    assert "b/q0.8: interrupted" in runs.problems[1]


def test_the_tables_script_prints_what_it_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = Path(__file__).resolve().parents[2] / "experiments" / "tables.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path)])
    main = runpy.run_path(str(script))["main"]
    assert main() == 1
    assert "no finished run" in capsys.readouterr().err
    for name in ("q0.1", "q0.5"):
        (tmp_path / name).mkdir()
        write_result(a_result(folder=tmp_path / name), tmp_path / name)
    (tmp_path / "q0.1" / "result.json").write_text("{}")
    assert main() == 0
    out, err = capsys.readouterr()
    assert out.startswith(table([a_result(folder=tmp_path / "q0.5")]) + "\n")
    assert "| garden | paper (ours) |" in (tmp_path / "tables" / "rate_distortion.md").read_text()
    assert "left out: " in err


def test_every_field_is_documented_in_the_architecture_s_words() -> None:
    names = {f.name for f in dataclasses.fields(RunResult)}
    promised = {"dataset", "quality", "codec", "backend", "seed", "git_commit", "bytes", "bytes_per_section"}
    promised |= {"splats_before", "splats_after", "before", "after", "encode_seconds", "decode_seconds"}
    promised |= {"peak_memory", "machine", "schema_version"}
    assert promised <= names
    measured = {f.name for f in dataclasses.fields(Measured)}
    assert {"psnr", "ssim", "lpips", "fps", "views"} <= measured


def test_a_peer_with_one_operating_point_has_no_quality() -> None:
    one = a_result(quality=None, codec="spz", reasons=a_result().reasons | {"quality": "spz has one"})
    assert summary(one).startswith("garden: spz codec")
    assert table([one, a_result()]).splitlines()[-1].startswith("| garden |")


def test_a_failure_beside_a_result_is_what_was_asked_last(tmp_path: Path) -> None:
    write_result(a_result(folder=tmp_path), tmp_path)
    failure = Failure("garden", "MipNeRF360", 0.5, "paper", {}, None, "holds a result of another model")
    write_failure(failure, tmp_path)
    runs = collect(tmp_path)
    assert (runs.results, [failure.reason for failure in runs.failures]) == ((), ["holds a result of another model"])


def test_reasons_explain_nulls_only() -> None:
    reasons = a_result().reasons | {"suite": "not one of the paper's", "machine.gpu": "none"}
    kept = without_idle_reasons(a_result(reasons=reasons, machine={"gpu": None})).reasons
    assert "suite" not in kept
    assert kept["machine.gpu"] == "none"
    assert "before.views.*.lpips" in kept
