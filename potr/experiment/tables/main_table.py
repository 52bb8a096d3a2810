# SPDX-License-Identifier: Apache-2.0
"""experiment=main_table: the paper's scenes at its quality beside what others published, and our own scenes apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from potr.encoder.quality import PRESETS
from potr.experiment.failure import Failure
from potr.experiment.result import LPIPS_NAMES, RunResult
from potr.experiment.scenes.suites import SCENES, SUITES
from potr.experiment.summary import Collected
from potr.experiment.tables.choose import failed, has_only, lpips_of, number_of, plain_curves, quotient
from potr.experiment.tables.curves import Curve
from potr.experiment.tables.document import PUBLISHED_NOTE, Cell, Column, Document, Marked, Table, mean
from potr.experiment.tables.published import POST_TRAINING, TABLE_I, UNCOMPRESSED, Published, PublishedRow

QUALITY = 0.1  # of the paper's examples
MEASURED = "measured"
_NAMESAKE = "shares a name with a scene of the paper, but not its released model, its views or their size"
_FIGURES = (
    *(Column("PSNR", "dB", ".2f"), Column("SSIM", spec=".3f"), Column(LPIPS_NAMES["lpips_3dgs"], spec=".3f")),
    *(Column("size", "MB", ",.2f", 1e-6, "size [bytes]"), Column("splats", spec=",.0f")),
    *(Column("ratio", spec=".1f"), Column("FPS", "x", ".2f", raw="FPS after / before")),
)
_LPIPS = "LPIPS 0..1: VGG, images in 0..1, as 3DGS's evaluation has it"
_RATIO = (
    "Ratio: of 248 bytes a splat of the model that was compressed to the file's size; FPS: after over before, same "
    "machine and views"
)


def document(collected: Collected, published: Published) -> Document:
    """Means per suite, then every scene; the scenes that are not the paper's have a table of their own."""
    at_quality = [r for r in collected.results if r.quality is None or abs(r.quality - QUALITY) < 1e-9]
    chosen = plain_curves(at_quality)
    papers = [c for c in chosen if c.suite in SUITES]
    others = [c for c in chosen if c not in papers]
    suites = [suite_table(suite, papers, published) for suite in SUITES]
    scenes = [scenes_table(suite, papers, published) for suite in SUITES]
    return Document(
        name="main_table",
        title=f"The paper's scenes at quality {QUALITY:g}",
        intro="Means over the scenes of each suite, then scene by scene. Rows marked with a dagger were published by "
        "others and not measured here; the rest was measured on the test views after decoding the file. Sizes are of "
        "everything the decoder needs; MB = 10^6 bytes. Nothing is fine-tuned.",
        tables=(summary_table(papers, others, published), *suites, own_table(others), *scenes),
        holes=(*failed(collected, _concerns), *_not_run(papers, collected.failures, published)),
    )


def summary_table(papers: Sequence[Curve], others: Sequence[Curve], published: Published) -> Table:
    """What was measured, in one look: a row for each suite and codec, and for each scene of ours."""
    rows: list[tuple[Cell, ...]] = []
    for suite in SUITES:
        for label, of_codec in _by_label([c for c in papers if c.suite == suite]):
            rows.append((suite, label, *_means(of_codec, published)))
        if not any(c.suite == suite for c in papers):
            rows.append((suite, MEASURED, f"0 of {len(published.scenes_of[suite])}", *[None] * 8))
    rows += [(c.scene, c.label, "1", _before(c.points[0]), *_figures(c.points[0])) for c in others]
    columns = (*(Column("suite or scene"), Column("codec"), Column("scenes")), Column("before", "dB", ".2f"), *_FIGURES)
    return Table("summary", f"Measured at quality {QUALITY:g}", columns, tuple(rows), (_LPIPS, _RATIO))


def suite_table(suite: str, papers: Sequence[Curve], published: Published) -> Table:
    """Published means of the suite, and ours over the scenes that were run."""
    ours = _by_label([c for c in papers if c.suite == suite])
    total = len(published.scenes_of[suite])
    rows: list[tuple[Cell, ...]] = []
    for kind in (UNCOMPRESSED, POST_TRAINING, "training"):
        of_kind = sorted((r for r in published.suites if (r.suite, r.starts_from) == (suite, kind)), key=_by_method)
        rows += [(Marked(r.method, PUBLISHED_NOTE), _kind(r), str(total), *_published_figures(r)) for r in of_kind]
        if kind != UNCOMPRESSED:
            continue
        for label, of_codec in ours:
            scenes, _, *figures = _means(of_codec, published)
            rows.append((label, f"{POST_TRAINING}, {MEASURED}", scenes, *figures))
        if not ours:
            rows.append(("ours", f"{POST_TRAINING}, {MEASURED}", f"0 of {total}", *[None] * 7))
    notes = (_LPIPS, f"{_RATIO}. A method that starts from training spends what post-training methods do not")
    columns = (Column("method"), Column("starts from"), Column("scenes"), *_FIGURES)
    return Table(suite, f"{suite}: means", columns, tuple(rows), notes)


def scenes_table(suite: str, papers: Sequence[Curve], published: Published) -> Table:
    """Scene by scene: published rows, then the model we compressed and what came of it."""
    rows: list[tuple[Cell, ...]] = []
    for scene in published.scenes_of[suite]:
        for row in published.of_scene(suite, scene):
            rows.append((scene, Marked(row.method, PUBLISHED_NOTE), *_published_figures(row)))
        found = [c for c in papers if (c.suite, c.points[0].dataset) == (suite, scene)]
        if found:
            rows.append((scene, f"the model compressed ({MEASURED})", *_uncompressed(found[0].points[0])))
        rows += [(scene, c.label, *_figures(c.points[0])) for c in found]
        missing = [codec for codec in PRESETS if not any(c.codec == codec for c in found)]
        rows += [(scene, f"{codec} (ours)", *[None] * 7) for codec in missing]
    columns = (Column("scene"), Column("method"), *_FIGURES)
    return Table(f"{suite}_scenes", f"{suite}: scene by scene", columns, tuple(rows), (_LPIPS, _RATIO))


def own_table(others: Sequence[Curve]) -> Table:
    """Scenes of no suite, and what has only its name in common with one of the paper's (``choose.as_the_paper``)."""
    rows: list[tuple[Cell, ...]] = []
    for name, found in groupby(others, key=lambda c: c.scene):
        several = list(found)
        scene: Cell = Marked(name, _NAMESAKE) if several[0].points[0].dataset in SCENES else name
        rows.append((scene, "the model compressed", *_uncompressed(several[0].points[0])))
        rows += [(scene, c.label, *_figures(r)) for c in several for r in c.points]
    columns = (Column("scene"), Column("codec"), *_FIGURES)
    title = "Scenes and models that are not the paper's: comparable with themselves only"
    return Table("own_scenes", title, columns, tuple(rows), (_LPIPS, _RATIO))


def _means(several: Sequence[Curve], published: Published) -> tuple[Cell, ...]:
    """scenes, PSNR before, then _FIGURES; of one suite and codec."""
    results = [c.points[0] for c in several]
    total = len(published.scenes_of[str(several[0].suite)])
    count = f"{len(results)} of {total}"
    incomplete = "mean over the scenes that were run only: not comparable with a mean over the suite"
    scenes: Cell = Marked(count, incomplete) if len(results) < total else count
    columns = zip(*(_figures(r) for r in results), strict=True)
    means = [_mean(cells) for cells in columns]
    return (scenes, mean(r.before.psnr for r in results), *means)


def _mean(cells: Sequence[Cell]) -> Cell:
    """Of one column; a note that one of the cells has stays on the mean."""
    found = mean(number_of(cell) for cell in cells)
    notes = sorted({cell.note for cell in cells if isinstance(cell, Marked)})
    if not notes or found is None:
        return found
    own = [found.note] if isinstance(found, Marked) else []
    return Marked(number_of(found), "; ".join([*own, *notes]))


def _figures(r: RunResult) -> tuple[Cell, ...]:
    fps = quotient(r.after.fps, r.before.fps)
    return r.after.psnr, r.after.ssim, lpips_of(r.after), r.bytes, r.splats_after, r.ratio, fps


def _uncompressed(r: RunResult) -> tuple[Cell, ...]:
    return r.before.psnr, r.before.ssim, lpips_of(r.before), r.uncompressed_bytes, r.splats_before, 1.0, 1.0


def _published_figures(row: PublishedRow) -> tuple[Cell, ...]:
    return row.psnr, row.ssim, row.lpips, row.bytes, row.splats, None, None


def _kind(row: PublishedRow) -> Cell:
    if not row.comment:
        return row.starts_from
    return Marked(row.starts_from, row.comment if row.comment == TABLE_I else f"the survey's comment: {row.comment}")


def _before(r: RunResult) -> Cell:
    return r.before.psnr


def _by_label(several: Sequence[Curve]) -> list[tuple[str, list[Curve]]]:
    labels = list(dict.fromkeys(c.label for c in several))
    return [(label, [c for c in several if c.label == label]) for label in labels]


def _by_method(row: PublishedRow) -> tuple[bool, str, int]:
    """The paper's own table first, next to what was measured."""
    return row.comment != TABLE_I, row.method.lower(), row.bytes or 0


def _concerns(failure: Failure) -> bool:
    at_quality = failure.quality is None or abs(failure.quality - QUALITY) < 1e-9
    return at_quality and has_only(failure.settings)


def _not_run(papers: Sequence[Curve], failures: Sequence[Failure], published: Published) -> list[tuple[str, str]]:
    """The paper's scenes that nothing is known of, a line for each suite and codec."""
    tried = {(c.suite, c.points[0].dataset, c.codec) for c in papers}
    tried |= {(f.suite, f.dataset, f.codec) for f in failures if _concerns(f)}
    holes = []
    for suite in SUITES:
        for codec in PRESETS:
            missing = [scene for scene in published.scenes_of[suite] if (suite, scene, codec) not in tried]
            if missing:
                holes.append((f"{suite}: {codec} (ours), q={QUALITY:g}: {', '.join(missing)}", "not run"))
    return holes
