# SPDX-License-Identifier: Apache-2.0
"""How fast files decode: M splats/s and MB/s of .potr files, as Markdown.

    python experiments/bench_decode.py outputs/*/*/scene.potr [--repeats 4]

A row a file: M splats/s and MB/s of the file in the fastest of several runs, and the processor time of all threads,
which depends less on what else runs on the machine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from potr.format.decode import decode


def measure(data: bytes, repeats: int) -> tuple[int, float, float, float]:
    """Splats, least seconds of ``repeats`` runs by the clock and by processor time, and threads at work on average."""
    clock, processor, splats = [], [], 0
    for _ in range(repeats):
        begin, used = time.perf_counter(), time.process_time()
        splats = decode(data).num_splats
        clock.append(time.perf_counter() - begin)
        processor.append(time.process_time() - used)
    return splats, min(clock), min(processor), sum(processor) / sum(clock)


def row(name: str, size: int, splats: int, clock: float, processor: float, threads: float) -> str:
    """One file; seconds to rates in millions."""
    return (
        f"| {name} | {splats:,} | {size:,} | {8 * size / max(1, splats):.1f} | {splats / clock / 1e6:.2f} "
        f"| {size / clock / 1e6:.2f} | {1e6 * processor / max(1, splats):.2f} | {threads:.2f} |"
    )


def table(rows: Sequence[str]) -> str:
    """Markdown."""
    head = "| file | splats | bytes | bits/splat | M splats/s | MB/s | processor us/splat | threads at work |"
    return "\n".join([head, "| --- " + "| ---: " * 7 + "|", *rows])


def main() -> None:
    """Decode the files and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    rows = []
    for file in arguments.files:
        data = file.read_bytes()
        rows.append(row(str(file), len(data), *measure(data, arguments.repeats)))
    print(table(rows))


if __name__ == "__main__":
    main()
