# SPDX-License-Identifier: Apache-2.0
"""experiment=pruning and experiment=sh_sparsity: what single stages did, over their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from potr.experiment.result import RunResult
from potr.experiment.summary import Collected, ac_zero_share
from potr.experiment.tables.choose import by_scene, detail, difference, failed, has_only, run_label
from potr.experiment.tables.curves import Curve, Style, curves, style_of
from potr.experiment.tables.document import Cell, Column, Document, Figure, Marked, Panel, Series, Table
from potr.experiment.tables.published import Published
from potr.experiment.tables.rate_distortion import file_name

# From dark to light, for values of a parameter (viridis; its yellow end is not seen on paper).
SHADES = ("#440154", "#46327e", "#365c8d", "#277f8e", "#1fa187", "#4ac16d", "#a0da39")
_MARKERS = "os^vD<>P"


def pruning(collected: Collected, _: Published) -> Document:
    """Splats kept over caps, passes and quality, and how they went pass by pass."""
    chosen = [c for c in curves(collected.results) if has_only(c.settings, "prune.")]
    chosen = [c for c in chosen if _passes(c.points[0]) is not None]
    figures = [figure for (_, scene), found in by_scene(chosen).items() for figure in _pruning_figure(scene, found)]
    return Document(
        name="pruning",
        title="Pruning",
        intro="Splats kept over pruning schedules. Predicted and real change of the MSE are sums over all passes, on "
        "the training views; PSNR is on the test views, of the decoded file, so it has the other stages' losses too.",
        tables=(_pruning_table(chosen),),
        figures=tuple(figures),
        holes=failed(collected, lambda f: has_only(f.settings, "prune.")),
    )


def _pruning_table(chosen: Sequence[Curve]) -> Table:
    columns = (
        *(Column("scene"), Column("run"), Column("cap", spec=".3g"), Column("passes", spec="d")),
        *(Column("taken back", spec="d"), Column("splats before", spec=",d"), Column("kept", spec=",d")),
        *(Column("share", "%", ".1f", 100, "share of splats kept"), Column("MSE predicted", spec="+.2e")),
        *(Column("MSE real", spec="+.2e"), Column("PSNR", "dB", ".2f"), Column("change", "dB", "+.2f")),
        Column("size", "MB", ".3f", 1e-6, "size [bytes]"),
    )
    rows = tuple((c.scene, run_label(r, c), *_pruning_figures(r)) for c in chosen for r in c.points)
    return Table("runs", "Splats kept", columns, rows, ("Cap: of the last early pass, rise of the MSE for one splat",))


def _pruning_figures(r: RunResult) -> tuple[Cell, ...]:
    passes = _passes(r) or []
    kept = [p for p in passes if not p["undone"]]
    real = [p["real_mse_change"] for p in kept]
    there = [value for value in real if value is not None]
    told: Cell = sum(there) if there else None
    if there and len(there) < len(real):
        told = Marked(sum(there), f"of {len(there)} of {len(real)} passes: the others were not checked")
    return (
        *(_cap(r), len(kept), len(passes) - len(kept), r.splats_before, r.splats_after),
        *(r.splats_after / r.splats_before, sum(p["predicted_mse_change"] for p in kept), told),
        *(r.after.psnr, difference(r.after.psnr, r.before.psnr), r.bytes),
    )


def _pruning_figure(scene: str, found: Sequence[Curve]) -> list[Figure]:
    """PSNR over splats kept, and splats left pass by pass; of the runs with own schedules, if there are any."""
    varied = [c for c in found if any(key.startswith("prune.") for key in c.settings)]
    runs = [(c, r) for c in varied or found for r in c.points if r.after.psnr is not None and "prune" in r.parameters]
    if not runs:
        return []
    groups: dict[str, list[RunResult]] = {}
    for curve, r in runs:
        groups.setdefault(f"{curve.codec}, {r.parameters['prune']['early_passes']} early passes", []).append(r)
    kept = []
    seen: dict[str, int] = {}
    for label, several in groups.items():
        number = seen[several[0].codec] = seen.get(several[0].codec, -1) + 1
        pairs = sorted((100 * r.splats_after / r.splats_before, r.after.psnr or 0.0) for r in several)
        usual = style_of(several[0].codec)
        style = Style(usual.color, _MARKERS[number % len(_MARKERS)] if number else usual.marker)
        kept.append(Series(label, style, tuple(x for x, _ in pairs), tuple(y for _, y in pairs), hollow=number > 0))
    caps = sorted({_asked_cap(r) for _, r in runs})
    passes = []
    for _, r in sorted(runs, key=lambda run: _asked_cap(run[1])):
        left = [100.0, *(100 * p["left"] / r.splats_before for p in _passes(r) or [] if not p["undone"])]
        style = Style(_shade(caps.index(_asked_cap(r)), len(caps)), ".")
        passes.append(Series(f"cap {_cap_words(r)}", style, tuple(map(float, range(len(left)))), tuple(left)))
    before = runs[0][1].before.psnr
    levels = () if before is None else (("uncompressed", before),)
    panels = (
        Panel("", "splats kept [%]", "PSNR, mean of the test views [dB]", tuple(kept), levels=levels),
        Panel("", "pass", "splats left [%]", tuple(passes)),
    )
    return [Figure(f"pruning_{file_name(scene)}", f"{scene}: pruning", panels)]


def sh_sparsity(collected: Collected, _: Published) -> Document:
    """AC coefficients that are zero before and after compaction, over regularisation strength and quality."""
    chosen = [c for c in curves(collected.results) if has_only(c.settings, "compact.")]
    chosen = [c for c in chosen if detail(c.points[0], "compact", "ac_zero_share") is not None]
    figures = [figure for (_, scene), found in by_scene(chosen).items() for figure in _sparsity_figure(scene, found)]
    return Document(
        name="sh_sparsity",
        title="Sparsity of the SH coefficients",
        intro="Share of the AC coefficients (degrees 1 to 3) that the quantiser's step makes zero: before compaction, "
        "after it, and in the file. Before compaction means after pruning and the first refit, by plain rounding.",
        tables=(_sparsity_table(chosen),),
        figures=tuple(figures),
        holes=failed(collected, lambda f: has_only(f.settings, "compact.")),
    )


def _sparsity_table(chosen: Sequence[Curve]) -> Table:
    columns = (
        *(Column("scene"), Column("run"), Column("strength", spec=".3g")),
        Column("AC zeros before", "%", ".2f", 100, "share of AC zeros before compaction"),
        Column("after", "%", ".2f", 100, "share of AC zeros after compaction"),
        Column("in the file", "%", ".2f", 100, "share of AC zeros in the file"),
        *(Column("AC L2 norm before", spec=".1f"), Column("after", spec=".1f", raw="AC L2 norm after")),
        *(Column("DC L2 norm before", spec=".1f"), Column("after", spec=".1f", raw="DC L2 norm after")),
        Column("AC bytes", "%", ".1f", 100, "share of the file's bytes in AC sections"),
        *(Column("size", "MB", ".3f", 1e-6, "size [bytes]"), Column("PSNR", "dB", ".2f")),
    )
    rows = tuple((c.scene, run_label(r, c), *_sparsity_figures(r)) for c in chosen for r in c.points)
    note = (
        "L2 norms: of all coefficients of a band together, in luma and chroma; — in runs of before they were kept apart"
    )
    return Table("runs", "AC coefficients that are zero", columns, rows, (note,))


def _sparsity_figures(r: RunResult) -> tuple[Cell, ...]:
    ac_bytes = sum(size for name, size in r.bytes_per_section.items() if name.startswith("sh_ac"))
    return (
        *(_strength(r), detail(r, "compact", "ac_zero_share_before"), detail(r, "compact", "ac_zero_share")),
        ac_zero_share(r),
        *(detail(r, "compact", f"{band}_l2_{when}") for band in ("ac", "dc") for when in ("before", "after")),
        *(ac_bytes / r.bytes, r.bytes, r.after.psnr),
    )


def _sparsity_figure(scene: str, found: Sequence[Curve]) -> list[Figure]:
    """Over quality for the plain curves; over strength where several were run at one quality."""
    panels = []
    plain = [c for c in found if has_only(c.settings) and len(c.points) > 1]
    over_quality = [(c.codec, [(r.quality or 0.0, r) for r in c.points]) for c in plain]
    if over_quality:
        panels.append(Panel("", "quality", "AC coefficients that are zero [%]", _before_after(over_quality)))
    groups: dict[tuple[str, float], list[tuple[float, RunResult]]] = {}
    for curve in found:
        for r in curve.points:
            if set(curve.settings) <= {"compact.strength"} and r.quality is not None and (_strength(r) or 0) > 0:
                groups.setdefault((curve.codec, r.quality), []).append((_strength(r) or 0.0, r))
    over_strength = [(f"{codec}, q={q:g}", pairs) for (codec, q), pairs in groups.items() if len(pairs) > 1]
    if over_strength:
        label = "strength of the energy penalty, log scale"
        panels.append(Panel("", label, "AC coefficients that are zero [%]", _before_after(over_strength), log_x=True))
    return [Figure(f"sparsity_{file_name(scene)}", f"{scene}: SH sparsity", tuple(panels))] if panels else []


def _before_after(groups: Sequence[tuple[str, Sequence[tuple[float, RunResult]]]]) -> tuple[Series, ...]:
    series = []
    for label, pairs in groups:
        told = [(x, r) for x, r in pairs if detail(r, "compact", "ac_zero_share_before") is not None]
        points = sorted(told, key=lambda pair: (pair[0], pair[1].bytes))
        if not points:
            continue
        x = tuple(value for value, _ in points)
        before = tuple(100 * detail(r, "compact", "ac_zero_share_before") for _, r in points)
        after = tuple(100 * (ac_zero_share(r) or 0.0) for _, r in points)
        style = style_of(points[0][1].codec)
        series.append(Series(f"{label}: before compaction", style, x, before, hollow=True, dashed=True))
        series.append(Series(f"{label}: in the file", style, x, after))
    return tuple(series)


def _passes(r: RunResult) -> list[dict[str, Any]] | None:
    """All pruning passes, None for a codec that does not tell them."""
    found = [s["details"]["passes"] for s in r.stages if "passes" in s["details"]]
    return [one for several in found for one in several] if found else None


def _cap(r: RunResult) -> float | None:
    value: float | None = detail(r, "prune_early", "cap")
    return value


def _asked_cap(r: RunResult) -> float:
    prune = r.parameters["prune"]
    return float(prune["cap"] if prune["cap"] is not None else prune["relative_cap"])


def _cap_words(r: RunResult) -> str:
    prune = r.parameters["prune"]
    return f"{prune['cap']:.2g}" if prune["cap"] is not None else f"{prune['relative_cap']:.2g} x MSE/splat"


def _strength(r: RunResult) -> float | None:
    compact = r.parameters.get("compact", {})
    return float(compact["strength"]) if "strength" in compact else None


def _shade(number: int, count: int) -> str:
    return SHADES[round(number * (len(SHADES) - 1) / max(1, count - 1))]
