# SPDX-License-Identifier: Apache-2.0
"""experiment=ablation: techniques added to codec=paper in turn (the ladder), parts left out of codec=default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from potr.experiment.curves import STYLES, Curve, curves
from potr.experiment.failure import Failure
from potr.experiment.published import Published
from potr.experiment.report import Collected
from potr.experiment.result import RunResult
from potr.experiment.tables import ladder
from potr.experiment.tables.choose import by_scene, difference, failed, has_only, number_of
from potr.experiment.tables.document import Cell, Column, Document, Figure, Marked, Panel, Series, Table
from potr.experiment.tables.rate_distortion import gaps, mean_gap

CODEC = "default"
# Part to the settings that leave it out: what conf/without/<part>.yaml sets.
PARTS: dict[str, dict[str, Any]] = {
    "refit": {"compact.refit_steps": 0, "quantize.color_groups": 1},
    "compaction": {"compact.enabled": False},
    "joint_rounding": {"quantize.joint_rounding": False},
    "bit_cost": {"quantize.bit_cost": 0.0},
    "geometry_refit": {"prune.refit_rounds": 0, "prune.final_refit_rounds": 0},
    "geometry_rdoq": {"quantize.geometry_bit_cost": 0.0},
    "measured_rates": {"quantize.measured_rates": False},
    "color_groups": {"quantize.color_groups": 1},
    "color_rounds": {"quantize.color_rounds": 1},
    "entropy": {"quantize.entropy": "zstd"},
    "many_passes": {"prune.early_passes": 1},
    "render_cost": {"prune.criterion": "photo"},
    "pruning": {"prune.early_passes": 0, "prune.late_passes": 0, "prune.remove_unseen": False},
}


def document(collected: Collected, _: Published) -> Document:
    """The ladder's scenes, then every part's curve against the whole codec's, scene by scene and over scenes."""
    chosen = [c for c in curves(collected.results) if c.codec == CODEC and part_of(c.settings) is not None]
    scenes = {scene: found for (_suite, scene), found in by_scene(chosen).items() if len(found) > 1}
    without = any(_without(found) for found in scenes.values())
    return Document(
        name="ablation",
        title="From the paper's steps to codec=default",
        intro="codec=paper, then one technique more on each rung, up to codec=default. Every file was decoded and "
        "measured on test views that the encoder never saw; they had a say in its constants. No model was fine-tuned.",
        tables=(*ladder.tables(collected.results), *((_bd_table(scenes), _table(scenes)) if without else ())),
        figures=(*ladder.figures(collected.results), *_figure(scenes)),
        holes=failed(collected, _concerns),
    )


def part_of(settings: Mapping[str, Any]) -> str | None:
    """The part that settings leave out, "" for the whole codec, None if they do something else."""
    own = {key: value for key, value in settings.items() if not has_only({key: value})}
    if not own:
        return ""
    return next((part for part, without in PARTS.items() if without == own), None)


def _bd_table(scenes: Mapping[str, Sequence[Curve]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for scene, found in scenes.items():
        whole = _whole(found)
        rows += [(scene, f"without {part}", *gaps(whole, curve)) for part, curve in _without(found)]
    for part in PARTS:
        cells = [gaps(_whole(found), c) for found in scenes.values() for p, c in _without(found) if p == part]
        if len(cells) > 1:
            means = [mean_gap([several[column] for several in cells]) for column in range(3)]
            rows.append((f"mean of {len(cells)} scenes", f"without {part}", *means))
    columns = (
        *(Column("scene"), Column("codec"), Column("BD-rate, PSNR", "%", "+.2f"), Column("BD-PSNR", "dB", "+.3f")),
        Column("BD-rate, SSIM", "%", "+.2f"),
    )
    notes = (f"The anchor is the whole codec={CODEC} on the same scene; BD-rate above 0: the part saves so many bytes",)
    return Table("bd", f"What a part of codec={CODEC} is worth: without it", columns, tuple(rows), notes)


def _table(scenes: Mapping[str, Sequence[Curve]]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for scene, found in scenes.items():
        whole = _whole(found)
        at = {r.quality: r for r in whole.points} if whole else {}
        for r in whole.points if whole else ():
            rows.append((scene, "whole", *_figures(r, r)))
        for part, curve in _without(found):
            rows += [(scene, f"without {part}", *_figures(r, at.get(r.quality))) for r in curve.points]
    columns = (
        *(Column("scene"), Column("codec"), Column("quality", spec="g"), Column("splats", spec=",d")),
        *(Column("size", "MB", ".3f", 1e-6, "size [bytes]"), Column("size change", "%", "+.1f", 100)),
        *(Column("PSNR", "dB", ".2f"), Column("change", "dB", "+.3f", raw="PSNR change [dB]")),
        *(Column("SSIM", spec=".4f"), Column("encode", "s", ".1f")),
    )
    return Table(
        "runs", "Every run without a part", columns, tuple(rows), ("Changes: to the whole codec at the same quality",)
    )


def _figures(r: RunResult, whole: RunResult | None) -> tuple[Cell, ...]:
    nothing = Marked(None, "the whole codec was not run at this quality")
    change: Cell = nothing if whole is None else r.bytes / whole.bytes - 1
    gain: Cell = nothing if whole is None else difference(r.after.psnr, whole.after.psnr)
    seconds = sum(r.encode_seconds.values())
    return r.quality, r.splats_after, r.bytes, change, r.after.psnr, gain, r.after.ssim, seconds


def _figure(scenes: Mapping[str, Sequence[Curve]]) -> tuple[Figure, ...]:
    """BD-rate of each part, a marker for each scene."""
    styles = list(STYLES.values())
    series = []
    parts = tuple(PARTS)
    for number, (scene, found) in enumerate(scenes.items()):
        values = [(part, number_of(gaps(_whole(found), curve)[0])) for part, curve in _without(found)]
        there = [(value, float(parts.index(part))) for part, value in values if value is not None]
        if there:
            x, y = tuple(x for x, _ in there), tuple(y for _, y in there)
            series.append(Series(scene, styles[number % len(styles)], x, y, line=False))
    if not series:
        return ()
    panel = Panel("", "BD-rate to the whole codec [%]", "", tuple(series), categories=parts)
    return (Figure("ablation", "Bytes more at equal PSNR without ...", (panel,)),)


def _whole(found: Sequence[Curve]) -> Curve | None:
    return next((c for c in found if part_of(c.settings) == ""), None)


def _without(found: Sequence[Curve]) -> list[tuple[str, Curve]]:
    named = [(part_of(c.settings), c) for c in found]
    parts = list(PARTS)
    return sorted(((part, c) for part, c in named if part), key=lambda pair: parts.index(pair[0]))


def _concerns(failure: Failure) -> bool:
    left_out = failure.codec == CODEC and part_of(failure.settings) is not None
    return left_out or ladder.rung_of(failure.codec, failure.settings) is not None
