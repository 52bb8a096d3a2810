# SPDX-License-Identifier: Apache-2.0
"""Results as the 3DGS.zip survey asks authors to publish them: <suite>/<scene>.csv, a row for each operating point."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

from potr.experiment.result import RunResult
from potr.experiment.tables.choose import by_scene, lpips_of
from potr.experiment.tables.curves import Curve
from potr.experiment.tables.document import Marked
from potr.experiment.tables.rate_distortion import file_name

HEADER = ("Submethod", "PSNR", "SSIM", "LPIPS", "Size [Bytes]", "#Gaussians")
OWN = "not_in_the_survey"  # folder of scenes that belong to no suite


def survey_files(chosen: Iterable[Curve]) -> dict[str, str]:
    """Path to text. LPIPS is what the field calls so (``lpips_3dgs``), empty where not computed on all test views."""
    files: dict[str, str] = {}
    for (suite, scene), found in by_scene(chosen).items():
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(_row(curve, result) for curve in found for result in curve.points)
        files[f"{suite or OWN}/{file_name(scene)}.csv"] = out.getvalue()
    return files


def _row(curve: Curve, result: RunResult) -> tuple[str, ...]:
    lpips = lpips_of(result.after)
    measured = (result.after.psnr, result.after.ssim, None if isinstance(lpips, Marked) else lpips)
    numbers = ["" if value is None else f"{value:.6g}" for value in measured]
    return _submethod(curve, result), *numbers, str(result.bytes), str(result.splats_after)


def _submethod(curve: Curve, result: RunResult) -> str:
    words = [curve.codec, *(f"{key}={value}" for key, value in curve.settings.items())]
    return "-".join([*words, *([] if result.quality is None else [f"q{result.quality:g}"])])
