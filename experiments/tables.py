# SPDX-License-Identifier: Apache-2.0
"""Every finished run under a folder as one Markdown table: ``python experiments/tables.py [outputs]``."""

from __future__ import annotations

import sys
from pathlib import Path

from potr.experiment.report import collect, table


def main() -> int:
    """Print the table; 1 if there is nothing to print."""
    outputs = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
    runs = collect(outputs)
    for problem in (*runs.problems, *(f"{failure.folder}: {failure.reason}" for failure in runs.failures)):
        print(f"left out: {problem}", file=sys.stderr)
    if not runs.results:
        print(f"{outputs}: no finished run", file=sys.stderr)
        return 1
    print(table(runs.results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
