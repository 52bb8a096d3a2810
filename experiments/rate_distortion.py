# SPDX-License-Identifier: Apache-2.0
"""Put the ablation's tables and figures into docs/rate_distortion.md, below the line that says so, and beside it.

python experiments/rate_distortion.py [outputs] [--doc docs/rate_distortion.md]

What stands above the line is written by hand and stays. ``python -m potr.run experiment=ablation`` makes the runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from potr.errors import PotrError
from potr.experiment.tables import figures
from potr.experiment.tables.write import TABLES, write_tables
from potr.files import write_atomic

NAME = "ablation"
DOC = Path(__file__).resolve().parent.parent / "docs" / "rate_distortion.md"
LINE = "<!-- From here on by experiments/rate_distortion.py: edits are lost. -->"


def main() -> int:
    """2 where there is nothing to write, or nowhere."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"), help="folder of the runs")
    parser.add_argument("--doc", type=Path, default=DOC, help="the document")
    arguments = parser.parse_args()
    try:
        print(update(arguments.outputs, arguments.doc))
    except PotrError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def update(outputs: Path, doc: Path) -> str:
    """Write the tables under ``outputs`` and copy them to the document; what was done.

    Raises:
        PotrError: there is no ladder among the runs, no matplotlib, or the document has not the line.
    """
    try:
        written, line, _ = doc.read_text().partition(LINE)
    except OSError as error:
        raise PotrError(f"{doc}: cannot read: {error.strerror}") from None
    if not line:
        raise PotrError(f"{doc}: expected the line {LINE}, found none")
    if not figures.available():
        raise PotrError(figures.HOW_TO_GET)
    document = write_tables(outputs, outputs / TABLES, [NAME])[NAME]
    if not document.figures:
        raise PotrError(f"{outputs}: no scene has two rungs; python -m potr.run experiment=ablation makes them")
    made, folder = outputs / TABLES, doc.with_suffix("")
    text = (made / f"{NAME}.md").read_text().partition("\n")[2]  # the document has a title of its own
    write_atomic(doc, f"{written}{LINE}\n{text.replace(f']({NAME}/', f']({folder.name}/')}".encode(), overwrite=True)
    keep = [path for ending in ("csv", "svg") for path in sorted((made / NAME).glob(f"*.{ending}"))]
    keep.append(made / f"{NAME}.csv")
    stale = [path for path in folder.glob("*.*") if path.suffix in (".csv", ".svg")]
    for path in keep:
        name = f"{document.tables[0].name}.csv" if path.stem == NAME and path.suffix == ".csv" else path.name
        write_atomic(folder / name, path.read_bytes(), overwrite=True)
        stale = [old for old in stale if old.name != name]
    for old in stale:
        old.unlink()
    return f"{doc}, and {len(keep)} files in {folder}/"


if __name__ == "__main__":
    sys.exit(main())
