# SPDX-License-Identifier: Apache-2.0
"""What encoding takes beside busy processes and on a quiet machine, on one thread and on several, as Markdown.

    python experiments/bench_waiting.py [--busy 4] [--threads 2] [--every 3] [--scene FOLDER] [--before PYTHON]

The built-in scene, or --scene, by every third of its training views, is encoded by ``potr.encode`` in a process each,
which imports torch first and is told nothing of how threads wait: as a user's own program would do it. The busy
processes are the bench's own. --before is the python of another checkout, measured alike on the quiet machine, where
the two take turns. Each figure is the median of --repeats. The quiet rows mean something only where nothing else runs:
the share of a core that a busy loop gets there is printed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

LIMIT = 3600  # seconds of one encode
UNTOLD = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS", "PYTHONPATH")  # of what is measured
# What is measured knows only the public interface, so that another checkout can run it. Prints seconds and a hash.
ENCODE = """
import hashlib, sys, time
import torch
import potr
scene = potr.load_scene(sys.argv[1])
threads = int(sys.argv[2])
torch.set_num_threads(threads)
rasterizer = potr.select_rasterizer("cpu", threads=threads)
begin = time.perf_counter()
views = scene.train_views[:: int(sys.argv[4])]
data = potr.encode(scene.model, views, quality=float(sys.argv[3]), rasterizer=rasterizer).data
print(time.perf_counter() - begin, hashlib.sha256(data).hexdigest())
"""
BUSY = "while True: pass"


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many processes that never wait, meanwhile; of this session, so that all are given the same share."""
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()


def encode(python: str, scene: Path, threads: int, arguments: argparse.Namespace) -> tuple[float, str]:
    """Seconds by the clock, and the hash of what came of it."""
    environment = {name: value for name, value in os.environ.items() if name not in UNTOLD}
    words = (scene, threads, arguments.quality, arguments.every)
    command = [python, "-c", ENCODE, *map(str, words)]
    # From a folder without a checkout, so that each python finds its own.
    done = subprocess.run(
        command,
        env=environment,
        cwd=tempfile.gettempdir(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    seconds, digest = done.stdout.split()
    return float(seconds), digest


def idle_share(seconds: float = 1.0) -> float:
    """The processor time that a busy loop gets of the clock's: 1 on a quiet machine, less on one that others use."""
    begin, used = time.perf_counter(), time.process_time()
    while time.perf_counter() < begin + seconds:
        pass
    return (time.process_time() - used) / (time.perf_counter() - begin)


def alternating(cases: Sequence[tuple[str, int]], scene: Path, arguments: argparse.Namespace) -> list[float]:
    """The median seconds of each case, a python and a number of threads; the cases take turns.

    Raises:
        SystemExit: the same python gave different bytes.
    """
    seconds: list[list[float]] = [[] for _ in cases]
    hashes: dict[str, set[str]] = {}
    for _ in range(arguments.repeats):
        for (python, threads), taken in zip(cases, seconds, strict=True):
            one, digest = encode(python, scene, threads, arguments)
            taken.append(one)
            hashes.setdefault(python, set()).add(digest)
    for python, found in hashes.items():
        if len(found) > 1:
            sys.exit(f"{python}: {len(found)} different files from the same input")
    return [statistics.median(taken) for taken in seconds]


def table(rows: Sequence[tuple[str, float, float]]) -> str:
    """Markdown of (what, seconds, seconds of what it is compared with)."""
    lines = [f"| {what} | {seconds:.1f} | {seconds / base:.2f} |" for what, seconds, base in rows]
    return "\n".join(["| encode | seconds | ratio to the first of its kind |", "| --- | ---: | ---: |", *lines])


def measure(scene: Path, arguments: argparse.Namespace) -> str:
    """The table."""
    mine, several = sys.executable, arguments.threads
    cases = [(mine, 1), (mine, several)]
    with busy(arguments.busy):
        one, more = alternating(cases, scene, arguments)
    rows = [(f"beside {arguments.busy} busy processes, 1 thread", one, one)]
    rows.append((f"beside {arguments.busy} busy processes, {several} threads", more, one))
    names = ["quiet, 1 thread", f"quiet, {several} threads"]
    if arguments.before:
        cases = [(arguments.before, 1), (arguments.before, several), *cases]
        names = [f"{name}, {when}" for when in ("before", "now") for name in names]
    share = idle_share()
    quiet = alternating(cases, scene, arguments)
    rows += [
        (name, seconds, quiet[i % 2 if arguments.before else 0])
        for i, (name, seconds) in enumerate(zip(names, quiet, strict=True))
    ]
    return f"{table(rows)}\n\nA busy loop got {share:.2f} of a core before the quiet rows."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, help="a scene folder (the built-in scene)")
    parser.add_argument("--busy", type=int, default=4, help="busy processes (4)")
    parser.add_argument("--threads", type=int, default=2, help="compared with one (2)")
    parser.add_argument("--every", type=int, default=3, help="of the training views one in so many (3)")
    parser.add_argument("--quality", type=float, default=0.5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--before", help="python of another checkout")
    arguments = parser.parse_args()
    if arguments.scene is not None:
        print(measure(arguments.scene.resolve(), arguments))
        return
    from potr.io.demo import demo_folder

    with tempfile.TemporaryDirectory() as folder:
        print(measure(demo_folder(folder), arguments))


if __name__ == "__main__":
    main()
