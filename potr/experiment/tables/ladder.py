# SPDX-License-Identifier: Apache-2.0
"""The ladder from codec=paper to codec=default (potr.encoder.quality): a table and a figure for every scene."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from potr.encoder.quality import RUNG_NAMES, RUNGS
from potr.experiment.result import RunResult
from potr.experiment.tables.choose import by_scene, difference, has_only, number_of, plain_curves
from potr.experiment.tables.curves import STYLES, Curve, Style, curves
from potr.experiment.tables.document import Cell, Column, Figure, Marked, Panel, Series, Table
from potr.experiment.tables.peers import over
from potr.experiment.tables.rate_distortion import file_name, gaps, mean_gap, points
from potr.experiment.tables.stages import SHADES

Ladder = Mapping[str, Curve]  # rung to its curve on a scene, in the ladder's order; those that were run

ADDS = {rung.name: rung.adds for rung in RUNGS}
FIRST, LAST = RUNG_NAMES[0], RUNG_NAMES[-1]
# Programs of others, on the same axes where they were run.
PEERS = ("spz", "compressed_ply", "sog", "decimate_spz")
SECTIONS = ("octree", "opacity", "log_scales", "rotation", "sh_dc", "sh_ac")
OTHER = "other"  # model, container
# Points of a curve. Four are usual; with three (quality 0.1, 0.3 or 0.5, 0.8) the BD-rates of codec=default to
# codec=paper were within 2.4 percentage points of those with four on chair, bonsai and fern; with two, 4 to 9 off.
NEEDED, _USUAL = 3, 4
_MARKERS = "^vD<>PX"


def ladders(results: Sequence[RunResult]) -> dict[str, Ladder]:
    """Scene to its ladder, where more than one rung was run."""
    scenes: dict[str, Ladder] = {}
    for (_, scene), found in by_scene(curves(results)).items():
        rungs = {}
        for name in RUNG_NAMES:
            of_rung = [curve for curve in found if rung_of(curve.codec, curve.settings) == name]
            if of_rung:
                rungs[name] = max(of_rung, key=lambda curve: len(curve.points))
        if len(rungs) > 1:
            scenes[scene] = rungs
    return scenes


def rung_of(codec: str, settings: Mapping[str, Any]) -> str | None:
    """The rung that a codec with these settings is, None for everything else."""
    own = {key: value for key, value in settings.items() if not has_only({key: value})}
    if not own:
        return codec if codec in (FIRST, LAST) else None
    return own["rung"] if own.keys() == {"rung"} and own["rung"] in RUNG_NAMES else None


def tables(results: Sequence[RunResult]) -> tuple[Table, ...]:
    """What each rung is worth on every scene, then every run of each scene, then other programs at equal PSNR."""
    scenes = ladders(results)
    per_scene = [table for scene, ladder in scenes.items() for table in (_runs(scene, ladder), _bytes(scene, ladder))]
    return (_worth(scenes), *per_scene, _equal_psnr(scenes, results))


def figures(results: Sequence[RunResult]) -> tuple[Figure, ...]:
    """PSNR over size for every scene: the ladder, and its ends among other programs."""
    peers = _peers(results)
    return tuple(_figure(scene, ladder, peers.get(scene, [])) for scene, ladder in ladders(results).items())


def _worth(scenes: Mapping[str, Ladder]) -> Table:
    rows: list[tuple[Cell, ...]] = []
    means: dict[str, list[tuple[Cell, ...]]] = {}
    for scene, ladder in scenes.items():
        for name in ladder:
            cells = (*_gap(ladder, FIRST, name), *_gap(ladder, _before(name), name))
            means.setdefault(name, []).append(cells)
            rows.append((scene, name, ADDS[name], len(ladder[name].points), *cells))
    if len(scenes) > 1:
        for name in (name for name in RUNG_NAMES if name in means):
            mean = [mean_gap([cells[column] for cells in means[name]]) if name != FIRST else "" for column in range(4)]
            rows.append((f"mean of {len(means[name])} scenes", name, ADDS[name], "", *mean))
    columns = (
        *(Column("scene"), Column("rung"), Column("adds", share=0.3), Column("points", spec="d")),
        *(Column(f"BD-rate to {FIRST}", "%", "+.1f"), Column(f"BD-PSNR to {FIRST}", "dB", "+.2f")),
        *(Column("BD-rate to the rung before", "%", "+.1f"), Column("BD-PSNR to the rung before", "dB", "+.2f")),
    )
    notes = (
        "Each rung has all that the rungs before it have. BD-rate below 0 and BD-PSNR above 0 are better. "
        "On the PSNR of the test views, over the range that both curves cover, by piecewise cubic interpolation; the "
        "ranges differ from rung to rung, so steps do not add up to the whole",
    )
    return Table("worth", "What each technique is worth", columns, tuple(rows), notes)


def _runs(scene: str, ladder: Ladder) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for name, curve in ladder.items():
        apart = [*_gap(ladder, FIRST, name), _gap(ladder, _before(name), name)[0]]
        for number, r in enumerate(curve.points):
            bits = [8 * size / r.splats_after if r.splats_after else None for size in (r.bytes, *_sizes(r).values())]
            change = difference(r.after.psnr, r.before.psnr)
            rows.append((name, r.quality, r.splats_after, r.bytes, *bits, r.after.psnr, change, *apart))
            if number == 0:
                apart = ["", "", ""]
    columns = (
        *(Column("rung"), Column("quality", spec="g"), Column("splats", spec=",d"), Column("bytes", spec=",d")),
        Column("bits/splat", spec=".1f"),
        *(Column(section, spec=".2f", raw=f"{section} [bits/splat]") for section in (*SECTIONS, OTHER)),
        *(Column("PSNR", "dB", ".2f"), Column("change", "dB", "+.2f", raw="PSNR change [dB]")),
        *(Column(f"BD-rate to {FIRST}", "%", "+.1f"), Column(f"BD-PSNR to {FIRST}", "dB", "+.2f")),
        Column("BD-rate to the rung before", "%", "+.1f"),
    )
    notes = (
        f"Sections in bits per splat that is left; {OTHER}: the model's parameters, header, table and checksums",
        "PSNR: mean of the test views; change: to the model that was compressed",
    )
    return Table(f"ladder_{file_name(scene)}", f"{scene}: from {FIRST} to {LAST}", columns, tuple(rows), notes)


def _bytes(scene: str, ladder: Ladder) -> Table:
    rows = tuple(
        (name, r.quality, r.bytes, *_sizes(r).values()) for name, curve in ladder.items() for r in curve.points
    )
    columns = (
        *(Column("rung"), Column("quality", spec="g"), Column("bytes", spec=",d")),
        *(Column(section, spec=",d", raw=f"{section} [bytes]") for section in (*SECTIONS, OTHER)),
    )
    return Table(f"sections_{file_name(scene)}", f"{scene}: bytes per section", columns, rows)


def _equal_psnr(scenes: Mapping[str, Ladder], results: Sequence[RunResult]) -> Table:
    peers = _peers(results)
    rows = tuple(
        (scene, *_other(r, curve, ladder))
        for scene, ladder in scenes.items()
        for curve in peers.get(scene, [])
        for r in curve.points
    )
    columns = (
        *(Column("scene"), Column("codec"), Column("quality", spec="g"), Column("bytes", spec=",d")),
        *(Column("splats", spec=",d"), Column("PSNR", "dB", ".2f")),
        *(Column(f"over {name}", "x", ".2f", raw=f"bytes over {name} at equal PSNR") for name in (LAST, FIRST)),
    )
    notes = (
        "Over: bytes as a multiple of what our codec takes for the same PSNR on the test views, interpolated between "
        "its runs",
    )
    return Table("equal_psnr", "Other programs: bytes at equal PSNR", columns, rows, notes)


def _other(r: RunResult, curve: Curve, ladder: Ladder) -> tuple[Cell, ...]:
    multiples = (over(r, ladder.get(name), name) for name in (LAST, FIRST))
    return curve.label, r.quality, r.bytes, r.splats_after, r.after.psnr, *multiples


def _gap(ladder: Ladder, anchor: str | None, name: str) -> tuple[Cell, Cell]:
    """BD-rate and BD-PSNR of a rung to another; of the lowest to itself nothing."""
    if anchor is None or name == FIRST:
        return "", ""
    of = ladder.get(anchor)
    if of is None:
        missing = Marked(None, f"rung {anchor} was not run on this scene")
        return missing, missing
    fronts = [_front(curve) for curve in (of, ladder[name])]
    rate, psnr, _ = gaps(fronts[0], fronts[1], NEEDED)
    fewest = min(len(points(curve, "psnr")) for curve in fronts)
    left_out = any(front is not curve for front, curve in zip(fronts, (of, ladder[name]), strict=True))
    return _marked(rate, fewest, left_out), _marked(psnr, fewest, left_out)


def _marked(cell: Cell, fewest: int, left_out: bool) -> Cell:
    value = number_of(cell)
    notes = [f"from {fewest} points; {_USUAL} are usual"] if fewest < _USUAL else []
    notes += ["without runs that a smaller file of the same rung has the PSNR of"] if left_out else []
    return cell if value is None or not notes else Marked(value, "; ".join(notes))


def _front(curve: Curve) -> Curve:
    """The curve without runs that take more bytes for no more PSNR: on a model that its own photographs can mend, PSNR
    comes to an end before the bytes do, and Bjontegaard's figures are not defined there.
    """
    best, kept = -math.inf, []
    for r in curve.points:  # by rising bytes
        if r.after.psnr is not None and r.after.psnr > best:
            best = r.after.psnr
            kept.append(r)
    return curve if len(kept) == len(curve.points) else replace(curve, points=tuple(kept))


def _before(name: str) -> str | None:
    at = RUNG_NAMES.index(name)
    return RUNG_NAMES[at - 1] if at else None


def _sizes(r: RunResult) -> dict[str, int]:
    """Bytes by the first word of the sections' names; everything that is no attribute together."""
    sizes = dict.fromkeys((*SECTIONS, OTHER), 0)
    for section, size in r.bytes_per_section.items():
        group = section.partition(".")[0]
        sizes[group if group in SECTIONS else OTHER] += size
    return sizes


def _peers(results: Sequence[RunResult]) -> dict[str, list[Curve]]:
    """Scene to the curves of other programs."""
    there = [curve for curve in plain_curves(results) if curve.codec in PEERS]
    return {scene: found for (_, scene), found in by_scene(there).items()}


def _figure(scene: str, ladder: Ladder, peers: Sequence[Curve]) -> Figure:
    rungs = [_series(name, style, ladder[name]) for name, style in _styles().items() if name in ladder]
    ends = [series for series in rungs if series.label in (FIRST, LAST)]
    panels = [_panel("", rungs, ladder)]
    if peers and ends:
        others = [_series(curve.label, curve.style, curve) for curve in peers]
        panels.append(_panel("with other programs", [*ends, *others], ladder))
    return Figure(f"ladder_{file_name(scene)}", scene, tuple(panels))


def _panel(title: str, series: Sequence[Series], ladder: Ladder) -> Panel:
    before = next(iter(ladder.values())).points[0].before.psnr
    return Panel(
        title=title,
        x_label="size [MB], log scale",
        y_label="PSNR, mean of the test views [dB]",
        series=tuple(one for one in series if one.x),
        log_x=True,
        levels=() if before is None else (("uncompressed", before),),
    )


def _series(label: str, style: Style, curve: Curve) -> Series:
    pairs = points(curve, "psnr")
    return Series(label, style, tuple(size / 1e6 for size, _ in pairs), tuple(value for _, value in pairs))


def _styles() -> dict[str, Style]:
    """The ends look as everywhere; between them from dark to light."""
    between = RUNG_NAMES[1:-1]
    styles = {}
    for number, name in enumerate(between):
        shade = SHADES[round(number * (len(SHADES) - 1) / max(len(between) - 1, 1))]
        styles[name] = Style(shade, _MARKERS[number % len(_MARKERS)])
    return {FIRST: STYLES[FIRST], **styles, LAST: STYLES[LAST]}
