# SPDX-License-Identifier: Apache-2.0
"""The end of a sweep on the screen: one line a run, with a column for whatever the sweep varied."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from potr.experiment.result import RunResult

_MISSING = "—"
_FIGURES = ("splats", "bytes", "ratio", "PSNR", "change", "SSIM", "FPS", "seconds")


def sweep_table(results: Sequence[RunResult]) -> str:
    """Markdown, padded so that it reads as a table on a terminal too.

    dataset, codec and quality show where they differ between runs or alone tell what was run; of the settings those
    that differ. PSNR (dB), its change, and SSIM are of the decoded model on the test views; FPS is after over before;
    seconds are the encoder's.
    """
    varied = _varied(results)
    rows = [[*varied, *_FIGURES]]
    for r in sorted(results, key=lambda r: [_order(_value(r, name)) for name in varied]):
        rows.append([*(_text(_value(r, name)) for name in varied), *_figures(r)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    names = len(varied)
    rule = ["-" * width if column < names else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    lines = [
        [
            cell.ljust(width) if column < names else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def hole_table(holes: Sequence[tuple[str, str]]) -> str:
    """The runs without a result and why, Markdown; the reason on one line."""
    rows = [f"| {run} | {' '.join(why.split()).replace('|', '/')} |" for run, why in holes]
    return "\n".join(["| no result | because |", "| --- | --- |", *rows])


def _varied(results: Sequence[RunResult]) -> list[str]:
    names = ["dataset", "codec", "quality", *sorted({key for result in results for key in result.settings})]
    differing = [name for name in names if len({_text(_value(result, name)) for result in results}) > 1]
    return ["dataset", *[name for name in differing if name != "dataset"]]


def _value(result: RunResult, name: str) -> Any:
    return getattr(result, name) if name in ("dataset", "codec", "quality") else result.settings.get(name)


def _order(value: Any) -> tuple[int, float, str]:
    """None first, then numbers by size, then text."""
    if value is None:
        return 0, 0.0, ""
    return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, str(value))


def _text(value: Any) -> str:
    return _MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _figures(r: RunResult) -> list[str]:
    before, after = r.before, r.after
    change = None if before.psnr is None or after.psnr is None else after.psnr - before.psnr
    faster = None if not before.fps or after.fps is None else after.fps / before.fps
    return [
        f"{100 * r.splats_after / r.splats_before:.1f} %" if r.splats_before else _MISSING,
        f"{r.bytes:,}",
        f"{r.ratio:.1f}x",
        _MISSING if after.psnr is None else f"{after.psnr:.2f}",
        _MISSING if change is None else f"{change:+.2f}",
        _MISSING if after.ssim is None else f"{after.ssim:.4f}",
        _MISSING if faster is None else f"{faster:.2f}x",
        f"{sum(r.encode_seconds.values()):.1f}",
    ]
