# SPDX-License-Identifier: Apache-2.0
"""Tables and figures of all experiments from every run under a folder: Markdown, LaTeX, CSV, SVG and PNG.

python experiments/tables.py [outputs] [--to outputs/tables]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from potr.errors import PotrError
from potr.experiment.summary import collect, table
from potr.experiment.tables import figures
from potr.experiment.tables.write import TABLES, write_tables


def main() -> int:
    """Write the files and print one line for every run; 1 if there is no finished run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("outputs", type=Path, nargs="?", default=Path("outputs"), help="folder of the runs")
    parser.add_argument("--to", type=Path, help="folder of the tables; OUTPUTS/tables by default")
    arguments = parser.parse_args()
    outputs, to = arguments.outputs, arguments.to or arguments.outputs / TABLES
    runs = collect(outputs)
    for problem in (*runs.problems, *(f"{failure.folder}: {failure.reason}" for failure in runs.failures)):
        print(f"left out: {problem}", file=sys.stderr)
    if not runs.results:
        print(f"{outputs}: no finished run", file=sys.stderr)
        return 1
    try:
        documents = write_tables(outputs, to)
    except PotrError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(runs.results))
    print(f"\n{to}: {', '.join(f'{name}.md' for name in documents)}, each with .tex, .csv and a folder of figures")
    if not figures.available():
        print(figures.HOW_TO_GET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
