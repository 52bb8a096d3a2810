# SPDX-License-Identifier: Apache-2.0
"""What others published, read from experiments/paper/*.csv; where each figure comes from is in the README there."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from potr.errors import PotrError
from potr.experiment.scenes.suites import SUITES

POST_TRAINING, UNCOMPRESSED = "a trained model", "uncompressed"
TABLE_I = (
    "Table I of POTR, second hand: a third party's transcription of the arXiv HTML; baselines evaluated anew by the "
    "paper's authors, fine-tuning is 1,000 iterations, the quality factor is not stated"
)
_TABLE_I_SUITES = {"tanks_and_temples": "TanksAndTemples", "mip_nerf360": "MipNeRF360", "deep_blending": "DeepBlending"}
_TABLE_I_NAMES = {
    **{"3dgs": "3DGS", "mesongs": "MesonGS", "c3dgs": "C3DGS", "lightgaussian": "LightGaussian"},
    **{"potr_npz": "POTR, npz", "potr_zstd": "POTR, zstd"},
}


@dataclass(frozen=True)
class PublishedRow:
    """A published figure of a method, of a whole suite (``scene`` None, then means) or of one scene.

    Attributes:
        method: its name with the variant: "HAC -lowrate".
        starts_from: "uncompressed", "a trained model" or "training".
        psnr: dB. lpips: VGG, input 0..1, as 3DGS's evaluation has it. bytes: of the compressed scene. None where it
            was not published.
        splats: of the compressed scene.
        comment: what must be said beside the row: the survey's own words, or where the row is from.
    """

    suite: str
    scene: str | None
    method: str
    starts_from: str
    psnr: float | None
    ssim: float | None
    lpips: float | None
    bytes: int | None
    splats: int | None
    comment: str = ""


@dataclass(frozen=True)
class Published:
    """Rows of suites and of scenes, and the names of the scenes that make a suite."""

    suites: tuple[PublishedRow, ...]
    scenes: tuple[PublishedRow, ...]
    scenes_of: dict[str, tuple[str, ...]]

    def of_scene(self, suite: str | None, scene: str) -> tuple[PublishedRow, ...]:
        """Rows of one scene; none for a scene that is not the paper's."""
        return tuple(row for row in self.scenes if (row.suite, row.scene) == (suite, scene))


def paper_folder() -> Path:
    """experiments/paper: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[2]
    inside = package / "paper"
    return inside if inside.is_dir() else package.parent / "experiments" / "paper"


@cache
def published(folder: Path | None = None) -> Published:
    """Everything in the folder, in the files' order.

    Raises:
        PotrError: a file is missing or a cell is not a number.
    """
    folder = folder or paper_folder()
    names = {row["Key"]: row for row in _rows(folder / "methods.csv")}
    suites = [
        _row(row, suite, None, _named(names[row["Method"]]["Name"], row["Submethod"]), names[row["Method"]])
        for suite in SUITES
        for row in _rows(folder / "survey" / f"{suite}.csv")
    ]
    suites += [_row_of_table_i(row) for row in _rows(folder / "potr_table1.csv")]
    uncompressed, post = {"Starts from": UNCOMPRESSED}, {"Starts from": POST_TRAINING}
    originals = _rows(folder / "3dgs_scenes.csv")
    scenes = [_row(row, row["Suite"], row["Scene"], "3DGS", uncompressed) for row in originals]
    scenes += [
        _row(row, row["Suite"], row["Scene"], row["Method"], post) for row in _rows(folder / "post_training_scenes.csv")
    ]
    scenes += [
        _row(row, row["Suite"], row["Scene"], "POTR (authors, fine-tuned, q=0.1)", post)
        for row in _rows(folder / "potr_page.csv")
    ]
    scenes_of = {suite: tuple(r["Scene"] for r in originals if r["Suite"] == suite) for suite in SUITES}
    return Published(tuple(suites), tuple(scenes), scenes_of)


def _named(name: str, variant: str) -> str:
    variant = variant.strip()
    return name if variant in ("", "Baseline") else f"{name} {variant}"


def _row(row: dict[str, str], suite: str, scene: str | None, method: str, about: dict[str, str]) -> PublishedRow:
    size, splats = _number(row, "Size [Bytes]"), _number(row, "#Gaussians")
    return PublishedRow(
        suite=suite,
        scene=scene,
        method=method,
        starts_from=about["Starts from"],
        psnr=_number(row, "PSNR"),
        ssim=_number(row, "SSIM"),
        lpips=_number(row, "LPIPS"),
        bytes=None if size is None else round(size),
        splats=None if splats is None else round(splats),
        comment=(row.get("Comment") or "").strip(),
    )


def _row_of_table_i(row: dict[str, str]) -> PublishedRow:
    """Sizes and counts are rounded as the paper prints them."""
    try:
        suite, name = _TABLE_I_SUITES[row["suite"]], _TABLE_I_NAMES[row["method"]]
    except KeyError as error:
        raise PotrError(f"experiments/paper: potr_table1.csv: unknown suite or method {error}") from None
    megabytes, thousands = _number(row, "megabytes"), _number(row, "splats_thousand")
    tuned = ", fine-tuned" if row["fine_tuned"] == "yes" else ""
    return PublishedRow(
        suite=suite,
        scene=None,
        method=f"{name}{tuned} (Table I of POTR)",
        starts_from=UNCOMPRESSED if row["method"] == "3dgs" else POST_TRAINING,
        psnr=_number(row, "psnr"),
        ssim=_number(row, "ssim"),
        lpips=_number(row, "lpips"),
        bytes=None if megabytes is None else round(1e6 * megabytes),
        splats=None if thousands is None else round(1e3 * thousands),
        comment=TABLE_I,
    )


def _number(row: dict[str, str], column: str) -> float | None:
    text = row.get(column, "")
    if text in ("", "NaN"):
        return None
    try:
        return float(text)
    except ValueError:
        raise PotrError(f"experiments/paper: {column}: expected a number, got {text!r}") from None


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
    except OSError as error:
        raise PotrError(f"{path}: cannot read: {error.strerror}") from None
