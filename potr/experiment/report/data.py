# SPDX-License-Identifier: Apache-2.0
"""What the HTML report shows, as plain data: the page's script reads nothing else."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from potr.errors import PotrError
from potr.evaluate.pictures import HEAT
from potr.experiment.report.view_pictures import QUALITY, ViewPictures, read_views
from potr.experiment.result import Measured, RunResult
from potr.experiment.summary import Collected, ac_zero_share
from potr.experiment.tables.curves import Curve, curves
from potr.experiment.tables.document import Marked, Table
from potr.experiment.tables.rate_distortion import ANCHOR, bd_table

FIGURES = ("psnr", "ssim", "lpips", "lpips_3dgs", "fps")


@dataclass(frozen=True)
class ReportData:
    """Attributes: ``data`` is JSON's types only; it names a picture by its place in ``pictures``."""

    data: dict[str, Any]
    pictures: tuple[Path, ...]


@dataclass
class _View:
    """A view of a scene: the pictures that its runs share, and those of each run (by number) that has any."""

    scene: int
    rank: int
    first: ViewPictures
    psnr: float | None
    shown: dict[int, ViewPictures] = field(default_factory=dict)


def report_data(found: Collected, outputs: Path, picture_bytes: int) -> ReportData:
    """Everything the page says, but for its title and date.

    Args:
        found: of ``collect(outputs)``.
        outputs: runs are named by their folders in it.
        picture_bytes: the pictures that go in are at most so large together; views that are typical and each curve's
            lowest, middle and highest rates come first.
    """
    drawn = curves(found.results)
    runs = [run for curve in drawn for run in curve.points]
    scenes = list(dict.fromkeys(curve.scene for curve in drawn))
    scene_of = [scenes.index(curve.scene) for curve in drawn for _ in curve.points]
    machines = list(dict.fromkeys(_machine(run) for run in runs))
    views, damaged = _views(runs, scene_of)
    chosen = _chosen(views, _priorities(drawn), picture_bytes)
    numbers = {path: number for number, path in enumerate(chosen)}
    described = [_view(view, numbers) for view in views]
    holes = [{"run": _name(hole.folder, outputs), "reason": hole.reason} for hole in found.failures]
    data = {
        "scenes": [
            _scene(name, [run for run, scene in zip(runs, scene_of, strict=True) if scene == place])
            for place, name in enumerate(scenes)
        ],
        "curves": list(_curves(drawn, scenes)),
        "runs": [
            _run(run, outputs) | {"scene": scene, "machine": machines.index(_machine(run))}
            for run, scene in zip(runs, scene_of, strict=True)
        ],
        "compared": _table(bd_table(drawn, ANCHOR)) if any(curve.codec == ANCHOR for curve in drawn) else None,
        "holes": holes + [{"run": "", "reason": reason} for reason in (*found.problems, *damaged)],
        "views": [view for view in described if view["shown"]],
        "pictures": {
            "count": len(chosen),
            "left_out": sum(len(view.shown) for view in views) - sum(len(view["shown"]) for view in described),
            "quality": QUALITY,
        },
        "heat": [list(color) for color in HEAT],
        "machines": machines,
        "versions": sorted({run.codec_version for run in runs}),
        "commits": [[commit, count] for commit, count in Counter(run.git_commit or "" for run in runs).most_common()],
        "repeated": len(found.results) - len(runs),
    }
    return ReportData(data, tuple(chosen))


def _scene(name: str, runs: Sequence[RunResult]) -> dict[str, Any]:
    """What holds for the model that went in; its FPS is measured with every run, so the median stands for it."""
    first = runs[0]
    fps = [run.before.fps for run in runs if run.before.fps is not None]
    return {
        "name": name,
        "suite": first.suite,
        "bytes": first.uncompressed_bytes,
        "splats": first.splats_before,
        "views": len(first.before.views),
        "before": _figures(first.before) | {"fps": statistics.median(fps) if fps else None},
    }


def _curves(drawn: Iterable[Curve], scenes: list[str]) -> Iterable[dict[str, Any]]:
    start = 0
    labels: dict[str, list[str]] = {}
    for curve in drawn:
        of_codec = labels.setdefault(curve.codec, [])
        if curve.label not in of_codec:
            of_codec.append(curve.label)
        yield {
            "scene": scenes.index(curve.scene),
            "label": curve.label,
            "variant": of_codec.index(curve.label),  # among those of its codec, which have one color
            "runs": list(range(start, start + len(curve.points))),
            **asdict(curve.style),
        }
        start += len(curve.points)


def _table(table: Table) -> dict[str, Any]:
    """A table as it is printed, with the values to sort by."""
    marks = table.marks()
    rows = []
    for row in table.rows:
        cells = []
        for cell, column in zip(row, table.columns, strict=True):
            value, mark = (cell.value, marks[cell.note]) if isinstance(cell, Marked) else (cell, None)
            cells.append({"text": column.text(value), "value": value, "mark": mark})
        rows.append(cells)
    return {
        "title": table.title,
        "columns": [{"name": column.head, "text": not column.spec} for column in table.columns],
        "rows": rows,
        "notes": [*table.notes, *(f"{mark}: {note}" for note, mark in marks.items())],
    }


def _run(run: RunResult, outputs: Path) -> dict[str, Any]:
    return {
        "name": _name(run.folder, outputs),
        "quality": run.quality,
        "settings": {key: str(value) for key, value in sorted(run.settings.items())},
        "bytes": run.bytes,
        "ratio": run.ratio,
        "splats": run.splats_after,
        "before": _figures(run.before),
        "after": _figures(run.after),
        "ac_zeros": ac_zero_share(run),
        "encode_seconds": sum(run.encode_seconds.values()),
        "resumed": run.resumed,
        "decode_seconds": run.decode_seconds,
        "backend": run.backend,
        "view_psnr": {view["name"]: view["psnr"] for view in run.after.views},
    }


def _figures(measured: Measured) -> dict[str, float | None]:
    return {name: getattr(measured, name) for name in FIGURES}


def _name(folder: Path, outputs: Path) -> str:
    return folder.relative_to(outputs).as_posix() if folder.is_relative_to(outputs) else folder.as_posix()


def _machine(run: RunResult) -> str:
    told = run.machine
    parts = [told.get("gpu"), told.get("cpu"), f"{told.get('threads', told.get('cores', '?'))} threads"]
    parts += [told.get("system"), *(f"{name} {told[name]}" for name in ("python", "torch") if name in told)]
    return ", ".join(str(part) for part in parts if part)


def _views(runs: Sequence[RunResult], scene_of: Sequence[int]) -> tuple[list[_View], list[str]]:
    """The pictured views in the order of scenes, typical first, and what is wrong with pictures that are left out."""
    views: dict[tuple[int, str, str, str], _View] = {}
    damaged: list[str] = []
    for number, (run, scene) in enumerate(zip(runs, scene_of, strict=True)):
        try:
            pictures = read_views(run.folder)
        except PotrError as error:
            damaged.append(f"no pictures of this run: {error}")
            continue
        psnr = {view["name"]: view["psnr"] for view in run.before.views}
        for rank, one in enumerate(pictures):
            key = (scene, one.view, one.photo.name, one.before.name)
            view = views.setdefault(key, _View(scene, rank, one, psnr.get(one.view)))
            view.shown[number] = one
    return sorted(views.values(), key=lambda view: (view.scene, view.rank)), damaged


def _priorities(drawn: Iterable[Curve]) -> list[int]:
    """For every run how early its pictures go in: its curve's lowest, middle, highest rate, then the rest."""
    found: list[int] = []
    for curve in drawn:
        count = len(curve.points)
        order = list(dict.fromkeys([0, count // 2, count - 1, *range(count)]))
        found += [order.index(place) for place in range(count)]
    return found


def _chosen(views: Sequence[_View], priorities: Sequence[int], picture_bytes: int) -> list[Path]:
    """The pictures that go in; a run's brings along those it is compared with."""
    wanted = sorted(
        (2 * view.rank + priorities[run], priorities[run], place, run)
        for place, view in enumerate(views)
        for run in view.shown
    )
    chosen: dict[Path, None] = {}
    room = picture_bytes
    for _, _, place, run in wanted:
        view = views[place]
        new = [path for path in (view.first.photo, view.first.before, view.shown[run].after) if path not in chosen]
        room -= sum(path.stat().st_size for path in new)
        if room < 0:
            break
        chosen |= dict.fromkeys(new)
    return list(chosen)


def _view(view: _View, numbers: dict[Path, int]) -> dict[str, Any]:
    first = view.first
    return {
        "scene": view.scene,
        "name": first.view,
        "width": first.width,
        "height": first.height,
        "psnr": view.psnr,
        "photo": numbers.get(first.photo),
        "before": numbers.get(first.before),
        "shown": [
            {"run": run, "picture": numbers[one.after], "detail": list(one.detail), "rms": one.stored_rms}
            for run, one in view.shown.items()
            if one.after in numbers
        ],
    }
