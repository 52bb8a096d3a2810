# SPDX-License-Identifier: Apache-2.0
"""How encode and decode time and memory grow with splats and views: a scene tiled, each size in a process of its own.

    python experiments/bench_scaling.py ../shared/scenes/chair [--copies 0.25 1 4 12] [--views 12 25 50 100]

Copies of the scene stand on a grid and are photographed (rendered) from cameras drawn back as the grid grows; a share
below 1 keeps one splat in so many. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import potr
from potr.encoder.encode import encode
from potr.evaluate.machine import describe_machine, peak_memory_bytes, reset_peak_memory
from potr.format.decode import decode
from potr.model.cameras import Camera, View
from potr.model.scene import Scene
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer
from potr.render.select import select


def tiled(model: SplatModel, copies: float) -> tuple[SplatModel, float]:
    """A grid of copies with a gap between them, and how many times wider than one it is."""
    if copies < 1:
        return model.select(torch.arange(0, model.num_splats, round(1 / copies))), 1.0
    columns = math.ceil(math.sqrt(copies))
    size = model.means.quantile(0.99, dim=0) - model.means.quantile(0.01, dim=0)
    index = torch.arange(int(copies))
    offsets = torch.stack([index % columns - (columns - 1) / 2, index // columns - (columns - 1) / 2], dim=1)
    shift = torch.zeros(len(index), 1, 3)
    shift[:, 0, :2] = offsets * 1.3 * size[:2]
    n = len(index)
    return SplatModel(
        means=(model.means + shift).reshape(-1, 3),
        log_scales=model.log_scales.repeat(n, 1),
        quats=model.quats.repeat(n, 1),
        opacity_logits=model.opacity_logits.repeat(n),
        sh_dc=model.sh_dc.repeat(n, 1),
        sh_ac=model.sh_ac.repeat(n, 1, 1),
    ), float(columns)


def drawn_back(camera: Camera, factor: float) -> Camera:
    """The camera ``factor`` times as far from the origin."""
    viewmat = camera.viewmat.clone()
    viewmat[:3, 3] *= factor
    return replace(camera, viewmat=viewmat)


def photographed(model: SplatModel, views: Sequence[View], factor: float, rasterizer: Rasterizer) -> list[View]:
    """Views whose photographs are the model's own renders, to 8 bits."""
    result = []
    for view in views:
        camera = drawn_back(view.camera, factor)
        image = rasterizer.render(model, camera, view.background).clamp(0, 1)
        result.append(View(view.name, camera, torch.round(255 * image) / 255, view.background))
    return result


def measure(folder: Path, copies: float, num_views: int, quality: float) -> dict[str, Any]:
    """One size, in this process."""
    scene: Scene = potr.load_scene(folder)
    rasterizer = select("auto")
    model, factor = tiled(scene.model, copies)
    every = max(1, len(scene.train_views) // num_views)
    views: Sequence[View] = scene.train_views[: every * num_views : every]
    if copies != 1:
        views = photographed(model, views, factor, rasterizer)
    resident = reset_peak_memory()
    begin = time.perf_counter()
    encoded = encode(model, views, quality=quality, rasterizer=rasterizer)
    encode_seconds = time.perf_counter() - begin
    encode_peak = peak_memory_bytes()
    begin = time.perf_counter()
    decoded = decode(encoded.data)
    return {
        "splats": model.num_splats,
        "views": len(views),
        "kept": decoded.num_splats,
        "bytes": len(encoded.data),
        "encode_seconds": encode_seconds,
        "stages": {stage.name: stage.seconds for stage in encoded.stages},
        "decode_seconds": time.perf_counter() - begin,
        "peak_bytes": encode_peak if resident else None,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown, one line a size."""
    lines = [
        "| splats | views | kept | MB | encode s | prune | compact | quantize | pack | decode s | peak GB |",
        "| ---: " * 11 + "|",
    ]
    for r in rows:
        stages = r["stages"]
        prune = stages["prune_early"] + stages["prune_late"]
        peak = "-" if r["peak_bytes"] is None else f"{r['peak_bytes'] / 1e9:.2f}"
        lines.append(
            f"| {r['splats']:,} | {r['views']} | {r['kept']:,} | {r['bytes'] / 1e6:.2f} | {r['encode_seconds']:.1f} "
            f"| {prune:.1f} | {stages['compact']:.1f} | {stages['quantize']:.1f} | {stages['pack']:.1f} "
            f"| {r['decode_seconds']:.2f} | {peak} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--copies", type=float, nargs="+", default=[0.25, 1, 4, 12])
    parser.add_argument("--views", type=int, nargs="+", default=[12, 25, 50, 100])
    parser.add_argument("--quality", type=float, default=0.3)
    parser.add_argument("--json", type=Path, help="also write the figures there")
    parser.add_argument("--one", nargs=2, type=float, metavar=("COPIES", "VIEWS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        copies, views = arguments.one
        print(json.dumps(measure(arguments.scene, copies, int(views), arguments.quality)))
        return
    sizes = [(copies, arguments.views[0]) for copies in arguments.copies]
    sizes += [(1.0, views) for views in arguments.views[1:]]
    rows = []
    for copies, views in sizes:
        command = [sys.executable, __file__, str(arguments.scene), "--quality", str(arguments.quality), "--one"]
        print(f"{copies:g} copies, {views} views", file=sys.stderr)
        done = subprocess.run([*command, str(copies), str(views)], check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    print(f"{arguments.scene.name}, quality {arguments.quality}; {describe_machine()}\n")
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
