# SPDX-License-Identifier: Apache-2.0
"""Rate, quality, time and memory on real scenes: the table of docs/benchmarks.md.

    python experiments/bench_scenes.py ../shared/scenes/{chair,bonsai,fern} [--quality 0.1 0.8] [--codec paper]

Runs `python -m potr.run` on each scene and quality (finished runs are skipped), then prints Markdown from the
result.json files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def run(scene: Path, qualities: Sequence[float], codec: str, outputs: Path, overrides: Sequence[str]) -> None:
    """One process a quality, so that each has its own peak memory."""
    for quality in qualities:
        command = [sys.executable, "-m", "potr.run", "dataset=folder", f"dataset.path={scene}", f"codec={codec}"]
        subprocess.run([*command, f"quality={quality}", f"outputs={outputs}", *overrides], check=True)


def line(result: dict[str, Any]) -> str:
    """One run as a row."""
    before, after, stages = result["before"], result["after"], {s["name"]: s for s in result["stages"]}
    zeros = stages["quantize"]["details"]["ac_zero_share"]
    seconds = result["encode_seconds"]
    peak = "-" if result["peak_memory"] is None else f"{result['peak_memory'] / 1e9:.2f}"
    kept = result["splats_after"] / result["splats_before"]
    return (
        f"| {result['dataset']} | {result['quality']:g} | {result['splats_after']:,} ({kept:.0%}) "
        f"| {result['bytes']:,} | {result['ratio']:.1f} | {8 * result['bytes'] / max(1, result['splats_after']):.1f} "
        f"| {zeros:.1%} | {before['psnr']:.2f} | {after['psnr']:.2f} ({after['psnr'] - before['psnr']:+.2f}) "
        f"| {before['ssim']:.4f} | {after['ssim']:.4f} | {after['fps'] / before['fps']:.2f}x "
        f"| {seconds['prune_early'] + seconds['prune_late']:.0f} / {seconds['compact']:.0f} "
        f"/ {seconds['quantize']:.0f} / {seconds['pack']:.1f} | {result['decode_seconds']:.2f} | {peak} |"
    )


def table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown, one line a run."""
    head = (
        "| scene | q | splats kept | bytes | ratio | bits/splat | AC zeros | PSNR before | PSNR after | SSIM before "
        "| SSIM after | FPS | prune / compact / quantize / pack s | decode s | peak GB |"
    )
    return "\n".join([head, "| --- " + "| ---: " * 14 + "|", *(line(r) for r in results)])


def main() -> None:
    """Run what is not there yet and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--quality", type=float, nargs="+", default=[0.1, 0.3, 0.5, 0.8])
    parser.add_argument("--codec", default="default")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"))
    parser.add_argument("--set", nargs="*", default=[], help="further overrides for potr.run")
    arguments = parser.parse_args()
    for scene in arguments.scenes:
        run(scene, arguments.quality, arguments.codec, arguments.outputs, arguments.set)
    results = [json.loads(path.read_text()) for path in sorted(arguments.outputs.glob("*/*/result.json"))]
    names = {scene.resolve().name for scene in arguments.scenes}
    chosen = [r for r in results if r["codec"] == arguments.codec and r["dataset"] in names]
    print(table(sorted(chosen, key=lambda r: (r["dataset"], r["quality"]))))


if __name__ == "__main__":
    main()
