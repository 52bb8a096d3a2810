# SPDX-License-Identifier: Apache-2.0
"""The end of a sweep on the screen: one line a run, with a column for whatever the sweep varied."""

from __future__ import annotations

from collections.abc import Sequence

from potr.experiment.result import RunResult

_MISSING = "—"
_DATASET = ("dataset", "dataset.path", "dataset.name")  # the first column tells them
_FIGURES = ("splats", "bytes", "smaller", "PSNR", "change", "SSIM", "FPS", "seconds")


def sweep_table(runs: Sequence[tuple[Sequence[str], RunResult]]) -> str:
    """Markdown, padded so that it reads as a table on a terminal too.

    PSNR (dB), its change, and SSIM are of the decoded model on the test views; FPS is after over before; seconds are
    the encoder's. Smaller: than the file that was compressed.

    Args:
        runs: each with what only it, or only some of the sweep, were asked for: ("quality=0.2", "prune=paper").
    """
    asked = [dict(_pair(override) for override in overrides) for overrides, _ in runs]
    varied = ["dataset", *dict.fromkeys(key for keys in asked for key in keys if key not in _DATASET)]
    named = [
        ([_value(result, keys, name) for name in varied], result) for keys, (_, result) in zip(asked, runs, strict=True)
    ]
    rows = [[*varied, *_FIGURES]]
    rows += [[*names, *_figures(result)] for names, result in sorted(named, key=lambda row: [*map(_order, row[0])])]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    texts = len(varied)
    rule = ["-" * width if column < texts else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    lines = [
        [_padded(cell, width, column < texts) for column, (cell, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]])


def hole_table(holes: Sequence[tuple[str, str]]) -> str:
    """The runs without a result and why, Markdown; the reason on one line."""
    rows = [f"| {run} | {' '.join(why.split()).replace('|', '/')} |" for run, why in holes]
    return "\n".join(["| no result | because |", "| --- | --- |", *rows])


def _pair(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _value(result: RunResult, asked: dict[str, str], name: str) -> str:
    if name in ("dataset", "codec", "quality"):  # as it came out: quality means nothing to some codecs
        value = getattr(result, name)
        return _MISSING if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return asked.get(name, _MISSING)


def _order(text: str) -> tuple[int, float, str]:
    """Numbers by size, then text."""
    try:
        return 0, float(text), ""
    except ValueError:
        return 1, 0.0, text


def _padded(cell: str, width: int, left: bool) -> str:
    return cell.ljust(width) if left else cell.rjust(width)


def _figures(r: RunResult) -> list[str]:
    before, after = r.before, r.after
    change = None if before.psnr is None or after.psnr is None else after.psnr - before.psnr
    faster = None if not before.fps or after.fps is None else after.fps / before.fps
    return [
        f"{100 * r.splats_after / r.splats_before:.1f} %" if r.splats_before else _MISSING,
        f"{r.bytes:,}",
        f"{r.smaller:.1f}x",
        _MISSING if after.psnr is None else f"{after.psnr:.2f}",
        _MISSING if change is None else f"{change:+.2f}",
        _MISSING if after.ssim is None else f"{after.ssim:.4f}",
        _MISSING if faster is None else f"{faster:.2f}x",
        f"{sum(r.encode_seconds.values()):.1f}",
    ]
