# SPDX-License-Identifier: Apache-2.0
"""What a tracker is told, as plain data: names, numbers, tables. docs/tracking.md lists the names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from potr.experiment.failure import Failure
from potr.experiment.report.view_pictures import read_views
from potr.experiment.result import CONFIG_FILE, LPIPS_NAMES, RESULT_FILE, Measured, RunResult
from potr.experiment.summary import ac_zero_share
from potr.experiment.tables.curves import Curve, curve_label

# What a W&B chart puts on its x axis.
STEPS = {"prune/*": "prune/pass"}
METRICS = ("psnr", "ssim", "lpips", "lpips_3dgs", "fps", "slowest_fps")
CHARTS = {"psnr": "PSNR (dB)", "ssim": "SSIM", **LPIPS_NAMES, "fps": "FPS"}  # of the rate-distortion curves
_POINT_FIGURES = (
    *("bytes", "ratio", "bits_per_splat", "splats/before", "splats/after", "splats/kept_share", "ac_zero_share"),
    *(f"{side}/{metric}" for metric in CHARTS for side in ("before", "after")),
    *("encode_seconds/total", "decode_seconds", "peak_memory_bytes"),
)
_PER_VIEW = ("psnr", "ssim", "lpips", "lpips_3dgs")
_PASS_NAMES = {"left": "splats"}  # a pass's figures under other names than the encoder's


def run_content(result: RunResult, pictures: dict[str, Path], *, images: bool, artifact: bool) -> dict[str, Any]:
    """A finished run, in the words of ``wandb_process``; with its pictures and its files if they are asked for.

    Raises:
        PotrError: the run's pictures of views are damaged.
    """
    content: dict[str, Any] = {
        "exit_code": 0,
        "config": _found_out(result),
        "history": list(pass_rows(result)),
        "numbers": numbers(result),
        "images": _images(result, pictures) if images else {},
        "tables": {"views": view_table(result)} if result.after.views else {},
        "summary": {"failure": None},  # of an earlier attempt
    }
    if artifact:
        content |= {"artifact": _artifact(result), "files": _files(result)}
    return content


def curves_content(found: Sequence[Curve], holes: Sequence[Failure]) -> dict[str, Any]:
    """The curves of one scene and sweep: a table of its runs, and a chart for every metric that was measured."""
    points = [(curve, point) for curve in found for point in curve.points]
    rows = [_point_row(curve.label, point) for curve, point in points]
    names = ["curve", "run", "quality", *_POINT_FIGURES, "no result because"]
    empty = [None] * len(_POINT_FIGURES)
    rows += [[curve_label(hole.codec, {}), hole.folder.name, hole.quality, *empty, hole.reason] for hole in holes]
    return {
        "exit_code": 0,
        "config": {"suite": found[0].suite, "curves": [curve.label for curve in found]},
        "numbers": {"runs": len(points), "holes": len(holes)},
        "tables": {"points": {"columns": names, "data": rows}},
        "charts": {f"rate_distortion/{metric}": chart for metric in CHARTS if (chart := _chart(found, metric))},
    }


def failed_content(reason: str, exit_code: int = 1) -> dict[str, Any]:
    """A run that came to nothing."""
    return {"exit_code": exit_code, "summary": {"failure": reason}}


def numbers(result: RunResult) -> dict[str, float]:
    """Every figure of a run that is one number, as result.json has it; what is null there is missing here."""
    r = result
    found: dict[str, float | None] = {
        "bytes": r.bytes,
        "ratio": r.ratio,
        "bits_per_splat": 8 * r.bytes / r.splats_after if r.splats_after else None,
        "splats/before": r.splats_before,
        "splats/after": r.splats_after,
        "splats/kept_share": r.splats_after / r.splats_before if r.splats_before else None,
        "ac_zero_share": ac_zero_share(r),
        "encode_seconds/total": sum(r.encode_seconds.values()),
        "decode_seconds": r.decode_seconds,
        "peak_memory_bytes": r.peak_memory,
    }
    found |= {f"encode_seconds/{stage}": seconds for stage, seconds in r.encode_seconds.items()}
    found |= {f"section_bytes/{section}": size for section, size in r.bytes_per_section.items()}
    for metric in METRICS:
        before, after = getattr(r.before, metric), getattr(r.after, metric)
        found |= {f"before/{metric}": before, f"after/{metric}": after}
        found[f"change/{metric}"] = None if before is None or after is None else after - before
    for stage in r.stages:
        details = {key: value for key, value in stage["details"].items() if _is_number(value)}
        found |= {f"stage/{stage['name']}/{key}": value for key, value in details.items()}
    return {name: value for name, value in found.items() if value is not None}


def pass_rows(result: RunResult) -> Iterator[dict[str, Any]]:
    """One row a pruning pass, over all phases; ``prune/pass`` counts them from 1."""
    number = 0
    for stage in result.stages:
        for report in stage["details"].get("passes", ()):
            number += 1
            figures = {_PASS_NAMES.get(key, key): value for key, value in report.items() if value is not None}
            yield {"prune/pass": number, **{f"prune/{key}": _plain(value) for key, value in figures.items()}}


def view_table(result: RunResult) -> dict[str, Any]:
    """Columns and rows: the test views, each metric before and after."""
    metrics = [metric for metric in _PER_VIEW if any(view.get(metric) is not None for view in result.after.views)]
    before = _by_name(result.before)
    rows = [
        [view["name"], *(side.get(metric) for metric in metrics for side in (before.get(view["name"], {}), view))]
        for view in result.after.views
    ]
    return {
        "columns": ["view", *(f"{metric} {side}" for metric in metrics for side in ("before", "after"))],
        "data": rows,
    }


def _point_row(label: str, point: RunResult) -> list[Any]:
    figures = numbers(point)
    return [label, point.folder.name, point.quality, *(figures.get(name) for name in _POINT_FIGURES), None]


def _chart(found: Sequence[Curve], metric: str) -> dict[str, Any] | None:
    """Arguments of ``wandb.plot.line_series``; None where nothing was measured."""
    series = {}
    for curve in found:
        measured = [(point.bytes / 1e6, getattr(point.after, metric)) for point in curve.points]
        shown = [(size, value) for size, value in measured if value is not None]
        if shown:
            series[curve.label] = tuple(zip(*shown, strict=True))
    if not series:
        return None
    return {
        "xs": [list(sizes) for sizes, _ in series.values()],
        "ys": [list(values) for _, values in series.values()],
        "keys": list(series),
        "title": f"{found[0].scene}: {CHARTS[metric]} over MB (10^6 bytes)",
        "xname": "MB",
    }


def _found_out(result: RunResult) -> dict[str, Any]:
    """What a run's configuration does not know beforehand."""
    r = result
    return {
        "suite": r.suite,
        "rasterizer": r.backend,
        "codec_version": r.codec_version,
        "parameters": r.parameters,
        "git_commit": r.git_commit,
        "machine": r.machine,
        "train_views": r.train_views,
        "test_views": len(r.after.views),
        "resumed": r.resumed,
        "config_sha256": r.config_sha256,
        "inputs_sha256": r.inputs_sha256,
        "bitstream_sha256": r.bitstream_sha256,
        "missing": [f"{path}: {why}" for path, why in sorted(r.reasons.items())],
    }


def _images(result: RunResult, pictures: dict[str, Path]) -> dict[str, list[tuple[str, str]]]:
    """Name to files with their captions, for ``views`` side by side."""
    found = {name: [(str(path), name.replace("_", " "))] for name, path in pictures.items()}
    for shown in read_views(result.folder):
        sides = (("photograph", shown.photo), ("before", shown.before), ("after", shown.after))
        found[f"view/{shown.view}"] = [(str(path), f"{shown.view}, {side}") for side, path in sides]
    return found


def _artifact(result: RunResult) -> dict[str, Any]:
    known = (
        "dataset",
        "suite",
        "codec",
        "codec_version",
        "quality",
        "bytes",
        "ratio",
        "splats_after",
        "bitstream_sha256",
    )
    return {
        "name": re.sub(r"[^\w.-]+", "-", f"{result.dataset}-{result.folder.name}")[:128],
        "type": "bitstream",
        "metadata": {name: getattr(result, name) for name in known} | {"psnr": result.after.psnr},
    }


def _files(result: RunResult) -> list[str]:
    return [str(result.folder / name) for name in (result.file, RESULT_FILE, CONFIG_FILE)]


def _by_name(measured: Measured) -> dict[str, dict[str, Any]]:
    return {view["name"]: view for view in measured.views}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else value
