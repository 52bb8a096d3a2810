# SPDX-License-Identifier: Apache-2.0
"""How fast the cuda rasteriser is: the four passes by step, gsplat in the same run, and the goals of a whole encode.

    python experiments/bench_rasterizer.py --backend cuda [--scene FOLDER] [--sizes N ...] [--only passes] [--to FOLDER]

Models are synthetic but load a rasteriser as trained scenes do (scene_like.py); the photographs are renders plus noise.
bench_cuda.json and bench_cuda.md in the folder --to are written anew after every row, so that a run that is cut short
leaves what it has measured.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import potr
from experiments.bench_goals import goals, goals_markdown
from experiments.gpu_timing import STEPS, StepTimer, environment, median_ms, peak_bytes, reset_peak
from experiments.gsplat_peer import compare
from experiments.scene_like import photographed, ring_cameras, scene_like
from potr.errors import PotrError
from potr.evaluate.speed import frames_per_second
from potr.model.cameras import Camera, View
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer

SIZES = (200_000, 1_000_000, 3_000_000, 6_000_000)
IMAGES = ((1920, 1080), (3840, 2160))
VIEWS = 8  # of a pass: one block
PASSES = ("render", "removal cost", "color statistics", "geometry statistics")

Make = Callable[[StepTimer | None], Rasterizer]  # a backend that tells a timer of its steps, or nobody


def measure(
    model: SplatModel, views: Sequence[View], make: Make, *, seconds: float = 1.0, repeats: int = 5
) -> dict[str, Any]:
    """One model and image size: every pass, then its steps in a second instance.

    Args:
        model: on the device.
        views: with photographs; render times are of their cameras.
        make: creates the backend.
        seconds: of rendering.
        repeats: of the other passes, each over all views.

    Returns:
        ``splats``, ``width``, ``height``, ``views``; ``entries`` and ``touched``: (tile, splat) pairs, and splats with
        a weight there, both per pixel; ``passes``: for each its ``ms`` per view, ``peak_bytes`` and
        ``steps_ms``; ``removal_over_render``.
    """
    device, cameras, background = model.device, [view.camera for view in views], views[0].background
    rasterizer = make(None)
    passes: dict[str, dict[str, Any]] = {}
    statistics: dict[str, Callable[..., object]] = {
        "removal cost": rasterizer.removal_cost,
        "color statistics": rasterizer.color_statistics,
        "geometry statistics": rasterizer.geometry_statistics,
    }
    reset_peak(device)
    report = frames_per_second(model, cameras, background, rasterizer, seconds=seconds)
    passes["render"] = {"ms": 1e3 / report.fps, "peak_bytes": peak_bytes(device)}
    for name, statistic in statistics.items():
        reset_peak(device)
        ms = median_ms(partial(statistic, model, views), device, repeats) / len(views)
        passes[name] = {"ms": ms, "peak_bytes": peak_bytes(device)}
    pixels = sum(camera.width * camera.height for camera in cameras)
    touched = int(rasterizer.removal_cost(model, views).pixels.sum()) / pixels
    entries = entries_of(rasterizer, model, views)
    for name, steps in step_times(model, views, make).items():
        passes[name]["steps_ms"] = steps
    return {
        "splats": model.num_splats,
        "width": cameras[0].width,
        "height": cameras[0].height,
        "views": len(views),
        "entries": None if entries is None else entries / pixels,
        "touched": touched,
        "passes": passes,
        "removal_over_render": passes["removal cost"]["ms"] / passes["render"]["ms"],
    }


def step_times(model: SplatModel, views: Sequence[View], make: Make) -> dict[str, dict[str, float]]:
    """Milliseconds of the steps of each pass, by events that stand between the steps (which costs a little itself)."""
    timer = StepTimer()
    rasterizer = make(timer)
    calls: tuple[Callable[[], object], ...] = (
        lambda: [rasterizer.render(model, view.camera, view.background) for view in views],
        lambda: rasterizer.removal_cost(model, views),
        lambda: rasterizer.color_statistics(model, views),
        lambda: rasterizer.geometry_statistics(model, views),
    )
    found = {}
    for name, call in zip(PASSES, calls, strict=True):
        call()
        timer.milliseconds()  # of the cold call: forgotten
        call()
        found[name] = timer.milliseconds()
    return found


def entries_of(rasterizer: Rasterizer, model: SplatModel, views: Sequence[View]) -> int | None:
    """(tile, splat) pairs of all the views; None where the backend is not the cuda one."""
    if rasterizer.name != "cuda":
        return None
    from potr.render.tile_lists import project, row_totals, view_vector

    total = 0
    for view in views:
        vector = view_vector(view.camera, view.background).to(model.device)
        launcher = rasterizer.launcher  # type: ignore[attr-defined]  # not of the Protocol
        total += sum(row_totals(launcher, project(launcher, model, vector, view.camera, lambda step: None)))
    return total


def passes_markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Two tables, of the passes and of their steps, and a line for everything that could not be measured."""
    lines = [
        "| splats | image | entries/px | splats/px | render ms | removal ms | color ms | geometry ms "
        "| removal/render | peak GB render, removal, color, geometry | gsplat ms | gsplat/render |",
        "| ---: " * 12 + "|",
    ]
    steps = ["| splats | image | pass | " + " | ".join(f"{step} ms" for step in STEPS) + " |", "| ---: " * 9 + "|"]
    notes = []
    for row in rows:
        where = f"| {row['splats']:,} | {row['width']}x{row['height']} "
        if "failed" in row:
            notes.append(f"- {row['splats']:,} splats at {row['width']}x{row['height']}: {row['failed']}")
            continue
        passes, gsplat = row["passes"], row["gsplat"]
        times = " | ".join(f"{passes[name]['ms']:.2f}" for name in PASSES)
        peaks = ", ".join(_number(passes[name]["peak_bytes"], 1e9) for name in PASSES)
        ratio = gsplat["ms"] / passes["render"]["ms"] if "ms" in gsplat else None
        lines.append(
            f"{where}| {_number(row['entries'])} | {row['touched']:.1f} | {times} | {row['removal_over_render']:.2f} "
            f"| {peaks} | {_number(gsplat.get('ms'))} | {_number(ratio)} |"
        )
        for name in PASSES:
            ms = passes[name].get("steps_ms", {})
            steps.append(f"{where}| {name} | " + " | ".join(_number(ms.get(step)) for step in STEPS) + " |")
        if "ms" in gsplat:
            notes.append(
                f"- gsplat {gsplat['version']} at {row['splats']:,} splats, {row['width']}x{row['height']}: "
                f"{gsplat['way']} was the faster way; its image against ours {gsplat['psnr']:.1f} dB"
            )
        else:
            notes.append(f"- no gsplat figure: {gsplat['reason']}")
    return "\n".join([*lines, "", *steps, "", *dict.fromkeys(notes)])


def _number(value: float | None, unit: float = 1.0) -> str:
    return "-" if value is None else f"{value / unit:.2f}"


def cuda_backend(timer: StepTimer | None) -> Rasterizer:
    """The cuda backend on torch's current device."""
    from potr.render.cuda import CudaRasterizer

    return CudaRasterizer(on_step=timer)


def cases(
    sizes: Sequence[int], scene: Path | None, device: torch.device, make: Make
) -> Iterator[tuple[int, int, int, Callable[[], tuple[SplatModel, Sequence[View]]]]]:
    """(splats, width, height, a function that makes the model and its views) of every row, a model made once."""
    if scene is not None:
        loaded = potr.load_scene(scene)
        camera = loaded.test_views[0].camera
        model = loaded.model.to(device)
        views = loaded.test_views[:VIEWS]
        yield model.num_splats, camera.width, camera.height, lambda: (model, views)
        return
    for size in sizes:
        model = scene_like(size).to(device)
        for width, height in IMAGES:
            cameras = ring_cameras(VIEWS, width, height)
            yield size, width, height, partial(_with_views, model, cameras, make)


def _with_views(model: SplatModel, cameras: Sequence[Camera], make: Make) -> tuple[SplatModel, Sequence[View]]:
    return model, photographed(model, cameras, make(None))


def write(to: Path, record: dict[str, Any]) -> None:
    """bench_cuda.json and bench_cuda.md, as far as they go."""
    to.mkdir(parents=True, exist_ok=True)
    (to / "bench_cuda.json").write_text(json.dumps(record, indent=1) + "\n")
    (to / "bench_cuda.md").write_text(markdown(record) + "\n")


def markdown(record: dict[str, Any]) -> str:
    """The whole report."""
    e = record["environment"]
    head = (
        f"{e['date']}: {e['gpu'] or 'no GPU'}, driver {e['driver']}, torch {e['torch']}, NVRTC {e['nvrtc']}, commit "
        f"{e['commit']}; {e['cpu']}, {e['cores']} cores. Scene: {record['scene']}."
    )
    parts = [head]
    if record["passes"]:
        parts += ["", passes_markdown(record["passes"])]
    if record["goals"]:
        parts += ["", goals_markdown(record["goals"])]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write; 1 if the backend does not run here."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scene", type=Path, help="a scene folder instead of the synthetic models")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="splats of the synthetic models")
    parser.add_argument("--only", choices=("passes", "goals"), help="leave out the other part")
    parser.add_argument("--to", type=Path, default=Path("outputs/bench"), help="folder of the reports")
    chosen = parser.parse_args(arguments)
    try:
        device: torch.device = cuda_backend(None).device  # type: ignore[attr-defined]
    except (PotrError, ImportError) as error:
        print(f"nothing measured: {error}", file=sys.stderr)
        return 1
    run(chosen, device, cuda_backend)
    return 0


def run(chosen: argparse.Namespace, device: torch.device, make: Make) -> dict[str, Any]:
    """Every row asked for; what fails is a line of the report."""
    scene = "scene_like.py" if chosen.scene is None else chosen.scene.name
    record: dict[str, Any] = {"environment": environment(), "scene": scene, "passes": [], "goals": []}
    if chosen.only != "goals":
        for splats, width, height, load in cases(chosen.sizes, chosen.scene, device, make):
            try:
                model, views = load()
                row = measure(model, views, make)
                row["gsplat"] = {"reason": "not yet measured"}
                record["passes"].append(row)
                write(chosen.to, record)  # gsplat may have to compile itself first, for minutes
                cameras, background = [view.camera for view in views], views[0].background
                row["gsplat"] = compare(model, cameras, background, make(None), 1.0)
            except (PotrError, torch.cuda.OutOfMemoryError) as error:
                failed = {"splats": splats, "width": width, "height": height, "failed": str(error)}
                record["passes"].append(failed)
            write(chosen.to, record)
    if chosen.only != "passes":
        for goal in goals(device, make):
            record["goals"].append(goal)
            write(chosen.to, record)
    print(markdown(record))
    return record
