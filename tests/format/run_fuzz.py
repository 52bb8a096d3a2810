# SPDX-License-Identifier: Apache-2.0
"""Builds the fuzz targets under ASan and UBSan and runs them (make fuzz): libFuzzer where there is clang, else g++ with
the target's own mutation loop.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT = 900  # seconds of a build, and of a run beyond what it was given
HERE = Path(__file__).resolve().parent
CORE = HERE.parents[1] / "potr" / "native" / "core"
TARGETS = {
    "fuzz_octree": ("octree.cpp",),
    "fuzz_entropy": (
        "octree.cpp",
        *(f"entropy_{part}.cpp" for part in ("octree", "sh_ac", "streams", "tables")),
    ),
}


def fuzz(name: str, seconds: float, seed: int, *, clang: str | None = None) -> str:
    """Run one of TARGETS for about ``seconds``; its report. CalledProcessError where a sanitizer or check fails."""
    sources = [str(HERE / f"{name}.cpp"), *(str(CORE / source) for source in TARGETS[name])]
    options = ["-std=c++20", "-O1", "-g", "-fno-sanitize-recover=all", f"-I{CORE}"]
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / name
        if clang:
            build = [clang, "-fsanitize=fuzzer,address,undefined", *options]
            run = [str(target), f"-max_total_time={max(1, round(seconds))}", f"-seed={seed}", "-rss_limit_mb=2048"]
        else:
            build = ["g++", "-fsanitize=address,undefined", "-DPOTR_FUZZ_DRIVER", *options]
            run = [str(target), str(seconds), str(seed)]
        subprocess.run([*build, *sources, "-o", str(target)], check=True, timeout=LIMIT)
        return subprocess.run(
            run, check=True, capture_output=True, text=True, cwd=folder, timeout=seconds + LIMIT
        ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", nargs="?", type=float, default=os.environ.get("POTR_FUZZ_SECONDS", "60"))
    parser.add_argument("seed", nargs="?", type=int, default=1)
    arguments = parser.parse_args()
    try:
        for name in TARGETS:
            report = fuzz(name, arguments.seconds / len(TARGETS), arguments.seed, clang=shutil.which("clang++"))
            sys.stdout.write(f"{name}: {report}")
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        sys.exit(f"{error.stderr or ''}\n{error}")


if __name__ == "__main__":
    main()
