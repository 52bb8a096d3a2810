# SPDX-License-Identifier: Apache-2.0
"""experiment=fps: frames per second of the model before and after, one right after the other on one machine."""

from __future__ import annotations

from collections.abc import Sequence

from potr.experiment.result import RunResult
from potr.experiment.summary import Collected
from potr.experiment.tables.choose import failed, has_only, plain_curves, quotient, run_label
from potr.experiment.tables.curves import Curve, Style
from potr.experiment.tables.document import Cell, Column, Document, Figure, Panel, Series, Table
from potr.experiment.tables.published import Published

_BEFORE = Style("#555555", "o")
_MOST = 40  # rows of a figure that can still be read


def document(collected: Collected, _: Published) -> Document:
    """All runs without settings of their own that measured speed."""
    chosen = plain_curves(collected.results)
    machines = sorted({_machine(r) for c in chosen for r in c.points if r.after.fps is not None})
    several = "More than one machine: compare speed-ups, not frames per second. " if len(machines) > 1 else ""
    return Document(
        name="fps",
        title="Rendering speed",
        intro="Frames per second over the test cameras: one over the median camera's time, before and after in one "
        f"run. {several}Measured on: {'; '.join(machines) or 'nothing yet'}.",
        tables=(_table(chosen),),
        figures=_figures(chosen),
        holes=failed(collected, lambda f: has_only(f.settings)),
    )


def _table(chosen: Sequence[Curve]) -> Table:
    columns = (
        *(
            Column("scene"),
            Column("run"),
            Column("splats before", spec=",d"),
            Column("after", spec=",d", raw="splats after"),
        ),
        *(
            Column("FPS before", spec=".2f"),
            Column("after", spec=".2f", raw="FPS after"),
            Column("speed-up", "x", ".2f"),
        ),
        *(Column("slowest before", spec=".2f"), Column("after", spec=".2f", raw="slowest after")),
        *(Column("backend"), Column("machine")),
    )
    rows = tuple((c.scene, run_label(r, c), *_row(r)) for c in chosen for r in c.points)
    return Table("runs", "Frames per second", columns, rows, ("Slowest: of the slowest test camera",))


def _row(r: RunResult) -> tuple[Cell, ...]:
    before, after = r.before, r.after
    return (
        *(r.splats_before, r.splats_after, before.fps, after.fps, quotient(after.fps, before.fps)),
        *(before.slowest_fps, after.slowest_fps, r.backend, _machine(r)),
    )


def _machine(r: RunResult) -> str:
    m = r.machine
    return str(m.get("gpu")) if r.backend == "cuda" else f"{m.get('cpu')}, {m.get('threads', m.get('cores'))} threads"


def _figures(chosen: Sequence[Curve]) -> tuple[Figure, ...]:
    """A line for each scene and codec: before hollow, after filled; of each curve the smallest file."""
    smallest = [(c, c.points[0]) for c in chosen]
    rows = [(c, r) for c, r in smallest if r.before.fps is not None and r.after.fps is not None][:_MOST]
    if not rows:
        return ()
    series = []
    for codec in dict.fromkeys(c.codec for c, _ in rows):
        of_codec = [(number, c, r) for number, (c, r) in enumerate(rows) if c.codec == codec]
        y = tuple(float(number) for number, _, _ in of_codec)
        after = tuple(r.after.fps or 0.0 for _, _, r in of_codec)
        series.append(Series(f"{codec}, after", of_codec[0][1].style, after, y, line=False))
    y = tuple(map(float, range(len(rows))))
    series.append(Series("before", _BEFORE, tuple(r.before.fps or 0.0 for _, r in rows), y, hollow=True, line=False))
    categories = tuple(f"{c.scene}: {run_label(r, c)}" for c, r in rows)
    panel = Panel("", "frames per second, log scale", "", tuple(series), log_x=True, categories=categories)
    return (Figure("fps", "Rendering speed before and after, smallest file of each codec", (panel,)),)
