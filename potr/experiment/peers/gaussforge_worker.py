# SPDX-License-Identifier: Apache-2.0
"""Run as a program of its own: convert one splat file into another with gaussforge.

    python -P gaussforge_worker.py INPUT INPUT_FORMAT OUTPUT OUTPUT_FORMAT SPZ_VERSION

Its parsers are native code, and damaged bytes must not take the caller down with them. Imports nothing of POTR, so that
it starts at once. A refusal goes to stderr with exit status 1; what the library prints is its own.
"""

import sys
from pathlib import Path


def main(source: str, source_format: str, target: str, target_format: str, spz_version: str) -> int:
    """Returns the exit status."""
    import gaussforge

    data = Path(source).read_bytes()
    result = gaussforge.GaussForge().convert(data, source_format, target_format, False, int(spz_version))
    if result.get("error") or not result.get("data"):
        reason = result.get("error") or f"gaussforge made nothing of {len(data)} bytes of {source_format}"
        sys.stderr.write(f"{reason}\n")
        return 1
    Path(target).write_bytes(result["data"])
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
