# SPDX-License-Identifier: Apache-2.0
"""The end of a sweep on the screen: one line a run, with a column for whatever the sweep varied, and BD-rates."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from potr.experiment.result import RunResult
from potr.experiment.schema import RunConfig, changes
from potr.experiment.tables.choose import by_scene
from potr.experiment.tables.curves import Curve, curve_label, curves
from potr.experiment.tables.document import Column, Table
from potr.experiment.tables.formats import aligned, table_text
from potr.experiment.tables.ladder import NEEDED as FEWEST
from potr.experiment.tables.rate_distortion import ANCHOR, NEEDED, anchor_of, gaps

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
    return aligned(rows, [column < len(varied) for column in range(len(rows[0]))])


def gap_table(results: Sequence[RunResult]) -> str:
    """BD-rates of every scene's curves to one of them, "" where no scene has two.

    The anchor is codec=paper where it was run, else codec=default, else the first.
    """
    found = curves(results)
    settings = [set(map(str, curve.settings.items())) for curve in found]
    common = set.intersection(*settings) if settings else set()
    rows = []
    for (_, scene), of_scene in by_scene(found).items():
        anchor = anchor_of(of_scene, ANCHOR) or anchor_of(of_scene, "default") or of_scene[0]
        for curve in of_scene:
            if curve is not anchor:
                names = _without(common, curve), _without(common, anchor)
                rows.append((scene, *names, len(curve.points), *gaps(anchor, curve)))
    if not rows:
        return ""
    columns = (
        *(Column("scene"), Column("codec"), Column("compared with"), Column("points", spec="d")),
        *(Column("BD-rate, PSNR", "%", "+.2f"), Column("BD-PSNR", "dB", "+.3f")),
        Column("BD-rate, SSIM", "%", "+.2f"),
    )
    return table_text(Table("gaps", "Bjontegaard differences", columns, tuple(rows)))


def _without(common: set[str], curve: Curve) -> str:
    """A curve's label without the settings that all curves share."""
    return curve_label(curve.codec, {k: v for k, v in curve.settings.items() if str((k, v)) not in common})


def without_gaps(configs: Sequence[RunConfig]) -> str:
    """Why a sweep will end without a BD-rate, said before it starts; "" where it ends with some."""
    qualities: dict[tuple[str, str], set[float | None]] = {}
    for config in configs:
        curve = config.dataset_name(), str(sorted(changes(config).items()))
        qualities.setdefault(curve, set()).add(config.asked_quality)
    needed = FEWEST if configs and configs[0].sweep == "ablation" else NEEDED
    most = max(map(len, qualities.values()), default=0)
    if most < needed:
        return (
            f"no BD-rate at the end: it takes {needed} qualities of a codec, here {'is' if most == 1 else 'are'} {most}"
        )
    of_scene = Counter(scene for (scene, _), points in qualities.items() if len(points) >= needed)
    if max(of_scene.values()) < 2:
        return "no BD-rate at the end: it takes a second codec at as many qualities, for example codec=default,paper"
    return ""


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
