# SPDX-License-Identifier: Apache-2.0
"""experiment=rate_distortion: curves of every scene, and how far they lie apart (Bjontegaard)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from potr.errors import ConfigError
from potr.evaluate.bd_rate import bd_psnr, bd_rate
from potr.experiment.result import LPIPS_NAMES, Measured, RunResult
from potr.experiment.summary import Collected, ac_zero_share
from potr.experiment.tables.choose import by_scene, difference, failed, has_only, lpips_of, number_of, plain_curves
from potr.experiment.tables.curves import PUBLISHED, Curve, Style
from potr.experiment.tables.document import Cell, Column, Document, Figure, Marked, Panel, Series, Table
from potr.experiment.tables.published import UNCOMPRESSED, Published, PublishedRow

ANCHOR = "paper"
NEEDED = 4  # points of a curve: what VCEG-M33 and JVET's reporting take
_MARKERS = "*^vD<>PXhpd"


@dataclass(frozen=True)
class Gap:
    """How far a curve lies from the anchor's; None with the reason in ``refused``."""

    value: float | None
    refused: str = ""


def points(curve: Curve, metric: str) -> list[tuple[float, float]]:
    """(bytes, metric after) of the results that have it."""
    pairs = [(float(r.bytes), getattr(r.after, metric)) for r in curve.points]
    return [(size, value) for size, value in pairs if value is not None]


def gap(
    measure: Callable[[Sequence[tuple[float, float]], Sequence[tuple[float, float]]], float],
    anchor: Curve,
    curve: Curve,
    metric: str,
    needed: int = NEEDED,
) -> Gap:
    """Bjontegaard's difference, or why there is none: few points, no common range, quality not rising with rate."""
    of_anchor, of_curve = points(anchor, metric), points(curve, metric)
    fewest = min(len(of_anchor), len(of_curve))
    if fewest < needed:
        whose = "anchor" if len(of_anchor) == fewest else "curve"
        return Gap(None, f"{whose} has {fewest} of the {needed} points needed")
    try:
        return Gap(measure(of_anchor, of_curve))
    except ConfigError as error:
        found = "the curves have no common range" if "common range" in str(error) else ""
        return Gap(None, found or f"{metric.upper()} does not rise with the rate in one of the curves")


def document(collected: Collected, published: Published) -> Document:
    """All curves without settings of their own, per scene."""
    chosen = plain_curves(collected.results)
    return Document(
        name="rate_distortion",
        title="Rate and distortion",
        intro="Every codec over quality, measured on the test views of each scene after decoding its file. "
        "Sizes are of everything the decoder needs; MB = 10^6 bytes.",
        tables=(bd_table(chosen, ANCHOR), points_table(chosen)),
        figures=tuple(
            scene_figure(suite, scene, found, published.of_scene(suite, scene))
            for (suite, scene), found in by_scene(chosen).items()
        ),
        holes=failed(collected, lambda f: has_only(f.settings)),
    )


def bd_table(chosen: Sequence[Curve], codec: str) -> Table:
    """Every curve against the anchor of its scene (``codec``'s), then the means over scenes."""
    rows: list[tuple[Cell, ...]] = []
    sums: dict[tuple[str, str], list[tuple[Cell, Cell, Cell]]] = {}
    for (suite, scene), found in by_scene(chosen).items():
        anchor = anchor_of(found, codec)
        for curve in found:
            if curve is anchor:
                continue
            figures = gaps(anchor, curve)
            rows.append((scene, curve.label, len(curve.points), *figures))
            sums.setdefault((suite or "not the paper's", curve.label), []).append(figures)
    for (suite, label), several in sums.items():
        means = [mean_gap([figures[column] for figures in several]) for column in range(3)]
        rows.append((f"mean, {suite} ({len(several)} scene{'s' * (len(several) > 1)})", label, "", *means))
    return Table(
        "bd",
        f"Bjontegaard differences to codec={codec}",
        (
            *(Column("scene"), Column("codec"), Column("points", spec="d")),
            *(Column("BD-rate, PSNR", "%", "+.2f"), Column("BD-PSNR", "dB", "+.3f")),
            Column("BD-rate, SSIM", "%", "+.2f"),
        ),
        tuple(rows),
        (
            f"The anchor is codec={codec} of this project on the same scene. BD-rate below 0 and BD-PSNR above 0 are "
            "better than the anchor. Piecewise cubic interpolation, over the range that both curves cover",
        ),
    )


def anchor_of(found: Sequence[Curve], codec: str) -> Curve | None:
    """The plain curve of a codec on a scene, or its only one."""
    of_codec = [c for c in found if c.codec == codec]
    return next((c for c in of_codec if has_only(c.settings)), of_codec[0] if len(of_codec) == 1 else None)


def gaps(anchor: Curve | None, curve: Curve, needed: int = NEEDED) -> tuple[Cell, Cell, Cell]:
    """BD-rate and BD-PSNR by PSNR, BD-rate by SSIM; of curves of at least ``needed`` points."""
    if anchor is None:
        none = Marked(None, "the anchor was not run on this scene")
        return none, none, none
    wanted = ((bd_rate, "psnr"), (bd_psnr, "psnr"), (bd_rate, "ssim"))
    found = [gap(measure, anchor, curve, metric, needed) for measure, metric in wanted]
    first, second, third = (g.value if g.value is not None else Marked(None, g.refused) for g in found)
    return first, second, third


def mean_gap(cells: Sequence[Cell]) -> Cell:
    """Mean over scenes, marked where some were refused."""
    there = [value for value in map(number_of, cells) if value is not None]
    if not there:
        return None
    value = sum(there) / len(there)
    return value if len(there) == len(cells) else Marked(value, f"mean of {len(there)} of {len(cells)} scenes")


def points_table(chosen: Sequence[Curve]) -> Table:
    """Every point of every curve."""
    return Table(
        "points",
        "Every run",
        (
            *(Column("scene"), Column("codec"), Column("quality", spec="g")),
            *(Column("size", "MB", ".3f", 1e-6, "size [bytes]"), Column("ratio", spec=".1f")),
            *(Column("splats kept", "%", ".1f", 100, "share of splats kept"), Column("bits/splat", spec=".1f")),
            *(Column("PSNR", "dB", ".2f"), Column("change", "dB", "+.2f"), Column("SSIM", spec=".4f")),
            *(Column(LPIPS_NAMES["lpips_3dgs"], spec=".4f"), Column("AC zeros", "%", ".1f", 100, "share of AC zeros")),
        ),
        tuple((curve.scene, curve.label, *_figures(r)) for curve in chosen for r in curve.points),
        (
            "LPIPS 0..1: VGG, images in 0..1, as 3DGS's evaluation has it",
            "Ratio: of 248 bytes a splat to the file's size. Change: of the PSNR, to the model that was compressed",
        ),
    )


def _figures(r: RunResult) -> tuple[Cell, ...]:
    return (
        *(r.quality, r.bytes, r.ratio, r.splats_after / r.splats_before if r.splats_before else None),
        *(8 * r.bytes / r.splats_after if r.splats_after else None, r.after.psnr),
        *(difference(r.after.psnr, r.before.psnr), r.after.ssim, lpips_of(r.after), ac_zero_share(r)),
    )


def scene_figure(
    suite: str | None, scene: str, found: Sequence[Curve], published: Sequence[PublishedRow] = ()
) -> Figure:
    """PSNR and SSIM over size, with what others published for the scene as hollow points."""
    before: Measured = found[0].points[0].before
    wanted = (("psnr", "PSNR, mean of the test views [dB]"), ("ssim", "SSIM, mean of the test views"))
    panels = tuple(
        Panel(
            title="",
            x_label="size [MB], log scale",
            y_label=label,
            series=(*_curve_series(found, metric), *published_series(published, metric)),
            log_x=True,
            levels=() if getattr(before, metric) is None else (("uncompressed", getattr(before, metric)),),
        )
        for metric, label in wanted
    )
    return Figure(f"curve_{file_name(scene)}", f"{scene} ({suite or 'not a scene of the paper'})", panels)


def _curve_series(found: Sequence[Curve], metric: str) -> tuple[Series, ...]:
    seen: dict[str, int] = {}
    series = []
    for curve in found:
        number = seen[curve.codec] = seen.get(curve.codec, -1) + 1
        pairs = points(curve, metric)
        marker = curve.style.marker if number == 0 else _MARKERS[number % len(_MARKERS)]
        sizes, values = tuple(size / 1e6 for size, _ in pairs), tuple(value for _, value in pairs)
        if pairs:
            style = Style(curve.style.color, marker)
            series.append(Series(curve.label, style, sizes, values, dashed=number > 0))
    return tuple(series)


def published_series(rows: Sequence[PublishedRow], metric: str) -> tuple[Series, ...]:
    """Published points that have size and metric: hollow, grey, a marker for each method."""
    series = []
    rows = [row for row in rows if row.starts_from != UNCOMPRESSED]
    for number, row in enumerate(rows):
        value = getattr(row, metric)
        if row.bytes is not None and value is not None:
            style = Style(PUBLISHED.color, _MARKERS[number % len(_MARKERS)])
            series.append(Series(f"{row.method} (published)", style, (row.bytes / 1e6,), (value,), True, False))
    return tuple(series)


def file_name(text: str) -> str:
    """Letters, digits and underscores only."""
    return "_".join("".join(c if c.isalnum() else " " for c in text).split())
