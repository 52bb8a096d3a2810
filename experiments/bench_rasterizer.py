# SPDX-License-Identifier: Apache-2.0
"""How fast the cpu rasteriser is: render, removal cost and colour statistics, by step, on 1 and 2 threads.

Against a plain auto-vectorised row loop (row_loop.cpp, compiled here) and the torch reference, all in the same run.

    python experiments/bench_rasterizer.py [--scene FOLDER] [--instruction-sets] [--json FILE]
    python experiments/bench_rasterizer.py --backend cuda [--help]

The second is bench_cuda.py.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

import potr
from potr.model.cameras import BLACK, Camera, View
from potr.model.splats import SplatModel
from potr.render.reference import ReferenceRasterizer

STEPS = ("project", "sort", "bin", "blend", "gather")
NATIVE = Path(__file__).resolve().parents[1] / "potr" / "native"


def random_scene(num_splats: int = 200_000) -> tuple[SplatModel, View]:
    """The "random" scene: centres uniform over a 960x540 image at f = 800 and z in 2..10, 0.5 to 6 px large."""
    g = torch.Generator().manual_seed(0)
    width, height, focal = 960, 540, 800.0
    z = 2 + 8 * torch.rand(num_splats, generator=g)
    x = (torch.rand(num_splats, generator=g) - 0.5) * width * z / focal
    y = (torch.rand(num_splats, generator=g) - 0.5) * height * z / focal
    pixels = 0.5 + 5.5 * torch.rand(num_splats, 3, generator=g)
    model = SplatModel(
        means=torch.stack([x, y, z], -1),
        log_scales=(pixels * z[:, None] / focal).log(),
        quats=torch.randn(num_splats, 4, generator=g),
        opacity_logits=2 * torch.randn(num_splats, generator=g),
        sh_dc=0.1 * torch.randn(num_splats, 3, generator=g),
        sh_ac=0.1 * torch.randn(num_splats, 15, 3, generator=g),
    )
    camera = Camera(width, height, focal, focal, width / 2, height / 2, torch.eye(4))
    return model, View("random", camera, torch.rand(height, width, 3, generator=g))


def real_scene(folder: Path) -> tuple[SplatModel, View]:
    """A scene folder's model and its first test view."""
    scene = potr.load_scene(folder)
    view = scene.test_views[0]
    return scene.model, View(view.name, view.camera, view.read(), view.background)


def timed(
    call: Callable[[], object], repeats: int, split: Callable[[], dict[str, float]] | None = None
) -> dict[str, Any]:
    """Milliseconds, best and median; with `split`, of the steps it names (the view alone), and those of the best."""
    call()
    runs: list[tuple[float, dict[str, float]]] = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        elapsed = 1e3 * (time.perf_counter() - start)
        steps = {name: 1e3 * seconds for name, seconds in split().items()} if split else {}
        runs.append((sum(steps.values()) if steps else elapsed, steps))
    best = min(runs, key=lambda run: run[0])
    return {"best_ms": best[0], "median_ms": median(run[0] for run in runs), "steps_ms": best[1]}


class _NativeCamera(ctypes.Structure):
    """potr::Camera of splat_math.h."""

    _fields_ = [
        ("viewmat", ctypes.c_float * 12),
        ("center", ctypes.c_float * 3),
        *((name, ctypes.c_float) for name in ("fx", "fy", "cx", "cy")),
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
    ]


def row_loop(model: SplatModel, camera: Camera, folder: Path) -> Callable[[int], torch.Tensor]:
    """Compiles the baseline; returns a function of the thread count that renders on black."""
    library = folder / "row_loop.so"
    flags = ["-O3", "-march=native", "-std=c++20", "-fno-signed-zeros", "-ffinite-math-only", "-fno-trapping-math"]
    source = Path(__file__).with_name("row_loop.cpp")
    command = ["g++", *flags, "-fno-math-errno", "-fopenmp", "-shared", "-fPIC", f"-I{NATIVE}", str(source)]
    subprocess.run([*command, "-o", str(library)], check=True)
    function = ctypes.CDLL(str(library)).render_rows
    native = _NativeCamera(
        (ctypes.c_float * 12)(*camera.viewmat[:3].flatten().tolist()),
        (ctypes.c_float * 3)(*camera.center.tolist()),
        *(camera.fx, camera.fy, camera.cx, camera.cy, camera.width, camera.height),
    )
    image = torch.empty(camera.height, camera.width, 3)
    sh = torch.zeros(model.num_splats, 16, 3)
    sh[:, : model.sh.shape[1]] = model.sh
    tensors = [t.contiguous() for t in (model.means, model.scales, model.quats, model.opacities, sh)]

    def render(threads: int) -> torch.Tensor:
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in tensors]
        destination = ctypes.c_void_p(image.data_ptr())
        function(ctypes.c_int64(model.num_splats), *pointers, ctypes.byref(native), ctypes.c_int(threads), destination)
        return image

    return render


def reference_milliseconds(model: SplatModel, view: View) -> float:
    """The torch reference on 2 threads: one tile and a middle part of the image, extrapolated to all tiles."""
    torch.set_num_threads(2)
    camera = view.camera

    def render(columns: int, rows: int) -> tuple[int, float]:
        left, top = (camera.width - 16 * columns) // 2, (camera.height - 16 * rows) // 2
        center = (camera.cx - left, camera.cy - top)
        part = Camera(16 * columns, 16 * rows, camera.fx, camera.fy, *center, camera.viewmat)
        start = time.perf_counter()
        with torch.no_grad():
            ReferenceRasterizer().render(model, part, view.background)
        return columns * rows, 1e3 * (time.perf_counter() - start)

    render(1, 1)
    (few, short), (many, long) = render(1, 1), render(12, 7)
    tiles = -(-camera.width // 16) * -(-camera.height // 16)
    return short + (long - short) / (many - few) * (tiles - few)


def bench(
    model: SplatModel, view: View, repeats: int, instruction_sets: list[str], reference: bool
) -> list[dict[str, Any]]:
    """Every way, pass and thread count; the row loop first, whose image must be the backend's."""
    from potr.render.cpu import CpuRasterizer

    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        rows = row_loop(model, view.camera, Path(folder))
        image = CpuRasterizer().render(model, view.camera, BLACK)
        difference = float((rows(2) - image).abs().max())
        if difference > 0.05:
            raise SystemExit(f"the row loop renders another image: they differ by {difference:.3g}")
        for threads in (1, 2):
            timing = timed(lambda threads=threads: rows(threads), max(3, repeats // 4))
            results.append({"way": "row loop", "pass": "render", "threads": threads, **timing})
    for name in instruction_sets:
        for threads in (1, 2):
            raster = CpuRasterizer(threads, instruction_set=name)
            passes: dict[str, Callable[[], object]] = {
                "render": lambda raster=raster: raster.render(model, view.camera, view.background),
                "removal cost": lambda raster=raster: raster.removal_cost(model, [view]),
                "color statistics": lambda raster=raster: raster.color_statistics(model, [view]),
            }
            for name_of_pass, call in passes.items():
                timing = timed(call, repeats, lambda raster=raster: raster.timings)
                results.append({"way": f"cpu {name}", "pass": name_of_pass, "threads": threads, **timing})
    if reference:
        milliseconds = reference_milliseconds(model, view)
        timing = {"best_ms": milliseconds, "median_ms": milliseconds, "steps_ms": {}}
        results.append({"way": "torch reference, extrapolated", "pass": "render", "threads": 2, **timing})
    return results


def markdown(results: list[dict[str, Any]]) -> str:
    """A table; the ratio is to the row loop's render on as many threads."""
    rows = {r["threads"]: r["best_ms"] for r in results if r["way"] == "row loop"}
    lines = [
        "| way | pass | threads | best ms | median ms | " + " | ".join(STEPS) + " | row loop / this |",
        "| --- " * (6 + len(STEPS)) + "|",
    ]
    for r in results:
        steps = " | ".join(f"{r['steps_ms'][s]:.1f}" if s in r["steps_ms"] else "" for s in STEPS)
        ratio = rows[r["threads"]] / r["best_ms"]
        lines.append(
            f"| {r['way']} | {r['pass']} | {r['threads']} | {r['best_ms']:.1f} | {r['median_ms']:.1f} "
            f"| {steps} | {ratio:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Prints the table."""
    if "--backend" in sys.argv:
        sys.exit(_other_backend(sys.argv[1:]))
    from potr import _render

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", type=Path, help="a scene folder instead of the random scene")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--instruction-sets", action="store_true", help="every one this machine has, not the best only")
    parser.add_argument("--no-reference", action="store_true", help="leave out the torch reference")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    arguments = parser.parse_args()

    supported = _render.supported_instruction_sets()
    model, view = real_scene(arguments.scene) if arguments.scene else random_scene()
    chosen = supported if arguments.instruction_sets else supported[:1]
    results = bench(model, view, arguments.repeats, chosen, not arguments.no_reference)
    print(f"{view.name}: {model.num_splats} splats, {view.camera.width}x{view.camera.height}; {_processor()}\n")
    print(markdown(results))
    if arguments.json:
        record = {"scene": view.name, "splats": model.num_splats, "machine": _processor(), "results": results}
        arguments.json.write_text(json.dumps(record, indent=1) + "\n")


def _other_backend(arguments: list[str]) -> int:
    """What ``--backend cuda`` stands for; the cpu's native modules need not be there."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--backend", choices=("cuda",), required=True)
    rest = parser.parse_known_args(arguments)[1]
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from experiments import bench_cuda

    return bench_cuda.main(rest)


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
