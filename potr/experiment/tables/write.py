# SPDX-License-Identifier: Apache-2.0
"""The files of the experiments: <name>.md, .tex, .csv, and a folder <name>/ with figures and further tables as CSV."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from potr.experiment.summary import Collected, collect
from potr.experiment.tables import ablation, figures, fps, main_table, peers, rate_distortion, stages
from potr.experiment.tables.choose import as_the_paper, plain_curves
from potr.experiment.tables.document import Document, Table, holes_table
from potr.experiment.tables.formats import latex, markdown, table_csv, table_text
from potr.experiment.tables.published import Published, published
from potr.experiment.tables.survey import survey_files
from potr.files import write_atomic

TABLES = "tables"  # folder below outputs
SURVEY = "results"  # folder that the 3DGS.zip survey asks for

# Experiment (conf/experiment/<name>.yaml) to what it has to say.
DOCUMENTS: dict[str, Callable[[Collected, Published], Document]] = {
    "main_table": main_table.document,
    "rate_distortion": rate_distortion.document,
    "peers": peers.document,
    "pruning": stages.pruning,
    "sh_sparsity": stages.sh_sparsity,
    "fps": fps.document,
    "ablation": ablation.document,
}

WITH_GAPS = ("rate_distortion", "peers", "ablation")  # their own tables have BD-rates


def write_tables(outputs: Path, to: Path, names: Sequence[str] = tuple(DOCUMENTS)) -> dict[str, Document]:
    """Write the documents of these experiments from every run under ``outputs``, and the survey's files.

    The same runs give the same files, byte for byte. Without matplotlib there are no figures.

    Raises:
        PotrError: a file cannot be written, or experiments/paper cannot be read.
    """
    collected = as_the_paper(collect(outputs))
    documents = {name: DOCUMENTS[name](collected, published()) for name in names}
    for name, document in documents.items():
        _replace(to / name, _own_files(document))
        for ending, text in (("md", markdown(document)), ("tex", latex(document))):
            write_atomic(to / f"{name}.{ending}", text.encode(), overwrite=True)
        write_atomic(to / f"{name}.csv", table_csv(document.tables[0]).encode(), overwrite=True)
    survey = survey_files(plain_curves(collected.results))
    _replace(to / SURVEY, {path: text.encode() for path, text in survey.items()})
    return documents


def finish(experiment: str | None, outputs: Path, asked: Sequence[Path]) -> str:
    """Write an experiment's files at the end of its sweep; what the screen shows, "" for no experiment.

    The files are of every run under ``outputs``, the table on the screen of those in the folders ``asked``.
    """
    if experiment not in DOCUMENTS:
        return ""
    to = outputs / TABLES
    document = write_tables(outputs, to, [experiment])[experiment]
    ours = DOCUMENTS[experiment](as_the_paper(_only(collect(outputs), asked)), published())
    return told(document, to, ours.tables[0])


def told(document: Document, to: Path, table: Table) -> str:
    """A document on the screen: a table, how many holes the document has, where its files lie."""
    holes = f"\n{len(document.holes)} without a result: see {to / document.name}.md" if document.holes else ""
    drawn = f", {len(document.figures)} figures in {to / document.name}/" if document.figures else ""
    where = f"of all runs in {to.parent}: {to / document.name}.md, .tex, .csv{drawn if figures.available() else ''}"
    missing = f"\n{figures.HOW_TO_GET}" if document.figures and not figures.available() else ""
    return f"{table.title}\n\n{table_text(table)}\n{holes}\n{where}{missing}"


def _only(collected: Collected, asked: Sequence[Path]) -> Collected:
    folders = {folder.resolve() for folder in asked}
    return Collected(
        tuple(result for result in collected.results if result.folder.resolve() in folders),
        tuple(failure for failure in collected.failures if failure.folder.resolve() in folders),
        (),
    )


def _own_files(document: Document) -> dict[str, bytes]:
    """The figures, and all tables but the first as CSV."""
    files = {f"{table.name}.csv": table_csv(table).encode() for table in document.tables[1:]}
    if document.holes:
        files["holes.csv"] = table_csv(holes_table(document)).encode()
    if figures.available():
        for figure in document.figures:
            files |= {f"{figure.name}.{ending}": data for ending, data in figures.draw(figure).items()}
    return files


def _replace(folder: Path, files: dict[str, bytes]) -> None:
    """Make a folder hold these files; what an earlier call wrote and this one did not goes."""
    stale = [path for ending in ("csv", *figures.FORMATS) for path in sorted(folder.rglob(f"*.{ending}"))]
    for name, data in files.items():
        write_atomic(folder / name, data, overwrite=True)
    for path in stale:
        if path.relative_to(folder).as_posix() not in files:
            path.unlink()
