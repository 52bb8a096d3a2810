# SPDX-License-Identifier: Apache-2.0
"""Which results a table is about, and what single figures are read off a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from potr.experiment.failure import Failure
from potr.experiment.result import Measured, RunResult
from potr.experiment.scenes.suites import SCENES
from potr.experiment.summary import Collected
from potr.experiment.tables.curves import Curve, curve_label, curves, suite_rank
from potr.experiment.tables.document import Cell, Marked, Value

# Settings that leave a codec what it is: a peer's options make a variant of the peer, the others change no result.
_HARMLESS = ("codec.options.", "backend.", "seed", "dataset.", "evaluate.")


def as_the_paper(collected: Collected) -> Collected:
    """The same, where a result keeps its suite only if its scene is the paper's: its model, its views, unchanged.

    What has no more than a name in common with a scene never enters a suite's mean or stands beside published points.
    """
    return replace(collected, results=tuple(r if _is_the_papers(r) else _of_no_suite(r) for r in collected.results))


def _is_the_papers(r: RunResult) -> bool:
    known = SCENES.get(r.dataset)
    return (
        known is not None
        and known.suite == r.suite
        and not any(key.startswith("dataset.") for key in r.settings)
        and known.splats in (None, r.splats_before)
        and (r.train_views, len(r.after.views)) == (known.photographs - known.test_views, known.test_views)
    )


def _of_no_suite(r: RunResult) -> RunResult:
    return replace(r, suite=None, reasons={"suite": "not one of the paper's", **r.reasons})


def has_only(settings: Mapping[str, Any], *prefixes: str) -> bool:
    """Whether nothing but settings of these names (and harmless ones) is given."""
    return all(key.startswith((*_HARMLESS, *prefixes)) for key in settings)


def plain_curves(results: Iterable[RunResult]) -> tuple[Curve, ...]:
    """Of every scene and codec the curves without settings of their own; all of them where there is none such.

    Rungs of the ablation's ladder are never among them.
    """
    every = [c for c in curves(results) if "rung" not in c.settings]
    plain = {(c.scene, c.codec) for c in every if has_only(c.settings)}
    return tuple(c for c in every if has_only(c.settings) or (c.scene, c.codec) not in plain)


def by_scene(chosen: Iterable[Curve]) -> dict[tuple[str | None, str], list[Curve]]:
    """(suite, scene) to its curves, in the order given."""
    scenes: dict[tuple[str | None, str], list[Curve]] = {}
    for curve in chosen:
        scenes.setdefault((curve.suite, curve.scene), []).append(curve)
    return scenes


def run_label(result: RunResult, curve: Curve) -> str:
    """The curve's label with the quality."""
    return curve.label if result.quality is None else f"{curve.label}, q={result.quality:g}"


def failed(collected: Collected, concerns: Callable[[Failure], bool]) -> tuple[tuple[str, str], ...]:
    """Failed and unreadable runs as holes."""
    chosen = sorted(
        (failure for failure in collected.failures if concerns(failure)),
        key=lambda f: (suite_rank(f.suite), f.dataset, f.codec, f.quality or 0.0, f.folder.as_posix()),
    )
    holes = [(_failure_label(failure), failure.reason) for failure in chosen]
    for problem in collected.problems:
        what, _, why = problem.partition(": ")
        holes.append((what, why))
    return tuple(holes)


def _failure_label(failure: Failure) -> str:
    told = {k: v for k, v in failure.settings.items() if not k.startswith(("dataset.", "evaluate."))}
    at = "" if failure.quality is None else f", q={failure.quality:g}"
    return f"{failure.dataset}: {curve_label(failure.codec, told)}{at}"


def lpips_of(measured: Measured) -> Cell:
    """LPIPS as 3DGS's evaluation computes it; marked where it was not computed on every view."""
    value = measured.lpips_3dgs
    seen = sum(view.get("lpips_3dgs") is not None for view in measured.views)
    if value is None or seen == len(measured.views):
        return value
    return Marked(value, f"LPIPS on {seen} of {len(measured.views)} test views only, evenly spaced")


def value_of(cell: Cell) -> Value:
    """A cell without its mark."""
    return cell.value if isinstance(cell, Marked) else cell


def number_of(cell: Cell) -> float | None:
    """A cell's number, None if it has none."""
    value = value_of(cell)
    return None if value is None or isinstance(value, str) else float(value)


def difference(after: float | None, before: float | None) -> float | None:
    """After minus before, where both are there."""
    return None if after is None or before is None else after - before


def quotient(after: float | None, before: float | None) -> float | None:
    """After over before, where both are there."""
    return None if after is None or before is None or before == 0 else after / before


def detail(result: RunResult, stage: str, name: str) -> Any:
    """A stage's own figure, None where the codec has no such stage."""
    return next((s["details"].get(name) for s in result.stages if s["name"] == stage), None)
