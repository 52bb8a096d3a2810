# SPDX-License-Identifier: Apache-2.0
"""What the cuda backend is to reach on a whole model: a pruning pass, an encode, the largest model in little memory.

Part of bench_cuda.py. The goals are for an H200: 3 M splats with 200 views at 1.6 megapixels in 4 s a pass and 90 s an
encode, 10 M splats at 4 megapixels in 24 GB.
"""

from __future__ import annotations

import sys
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from experiments.gpu_timing import peak_bytes, reset_peak, seconds_of
from experiments.scene_like import photographed, ring_cameras, scene_like
from potr.encoder.prune import select_removals
from potr.encoder.quality import config_for
from potr.errors import PotrError
from potr.model.cameras import BLACK, View
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer

WHOLE = (3_000_000, 200, 1600, 1000)  # splats, views, pixels
LARGEST = (10_000_000, 2560, 1600)  # splats, pixels
LARGEST_BYTES = 24e9
QUALITY = 0.3

FAILURES = (PotrError, ImportError, torch.cuda.OutOfMemoryError)  # that leave a hole in the table, with the reason
Goal = dict[str, Any]  # what, value, unit, goal, note; value None where it could not be measured


def goals(
    device: torch.device,
    make: Callable[[None], Rasterizer],
    *,
    whole: tuple[int, int, int, int] = WHOLE,
    largest: tuple[int, int, int] = LARGEST,
) -> Iterator[Goal]:
    """Every goal in turn, measured. ``make`` creates the backend."""
    yield from whole_goals(device, make(None), *whole)
    yield from largest_goals(device, make, *largest)


def whole_goals(
    device: torch.device, rasterizer: Rasterizer, splats: int, count: int, width: int, height: int
) -> Iterator[Goal]:
    """Pruning passes and an encode of a model with ``count`` views."""
    load = f"{splats:,} splats, {count} views of {width}x{height}"
    try:
        model = scene_like(splats).to(device)
        views = photographed(model, ring_cameras(count, width, height), rasterizer)
    except FAILURES as error:
        yield {"what": load, "value": None, "unit": "s", "goal": None, "note": _first_line(error)}
        return

    def one_pass() -> tuple[float, str]:
        return pruning_pass(model, views, rasterizer), ""

    yield _measured(f"first pruning pass, photographs read: {load}", "s", 4.0, one_pass)
    yield _measured(f"next pruning pass: {load}", "s", 4.0, one_pass)
    yield from encode_goals(model, views, rasterizer, load)


def pruning_pass(model: SplatModel, views: Sequence[View], rasterizer: Rasterizer) -> float:
    """Seconds of one pass: what every removal costs over all views, the choice, the model without them."""
    config = config_for(QUALITY).prune

    def one_pass() -> None:
        costs = rasterizer.removal_cost(model, views)
        cap = config.final_cap(costs.sse / costs.samples, model.num_splats)
        removed, _ = select_removals(costs, config, cap=cap, share=config.max_share, target=None)
        model.select(~removed)

    return seconds_of(one_pass, model.device)


def encode_goals(model: SplatModel, views: Sequence[View], rasterizer: Rasterizer, load: str) -> Iterator[Goal]:
    """The whole encode, and each of its stages."""
    stages: dict[str, float] = {}

    def whole() -> tuple[float, str]:
        encode, note = encoder()

        def call() -> None:
            encoded = encode(model, views, quality=QUALITY, rasterizer=rasterizer)
            stages.update((stage.name, stage.seconds) for stage in encoded.stages)

        return seconds_of(call, model.device), note

    yield _measured(f"encode at quality {QUALITY}: {load}", "s", 90.0, whole)
    for name, seconds in stages.items():
        if not (name == "pack" and "zstandard" not in sys.modules):
            yield {"what": f"- {name}", "value": seconds, "unit": "s", "goal": None, "note": ""}


def encoder() -> tuple[Callable[..., Any], str]:
    """``encode`` and a note; without zstandard all of it but its last step."""
    try:
        from potr.encoder.encode import encode
    except ModuleNotFoundError as error:
        if error.name != "zstandard":
            raise
    else:
        return encode, ""
    sys.modules["zstandard"] = types.ModuleType("zstandard")  # only while the encoder is imported
    try:
        from potr.encoder import encode as without
    finally:
        del sys.modules["zstandard"]
    without.pack_model = lambda *model_and_options: b""  # everything that it would pack has been computed
    return without.encode, "without packing: zstandard is not installed"


def largest_goals(
    device: torch.device, make: Callable[[None], Rasterizer], splats: int, width: int, height: int
) -> Iterator[Goal]:
    """Peak memory of each pass; on a GPU, torch's allocator may take no more than LARGEST_BYTES."""
    load = f"{splats:,} splats, {width}x{height}"
    if device.type == "cuda":
        torch.cuda.empty_cache()
        share = LARGEST_BYTES / torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)
    try:
        rasterizer = make(None)
        model = scene_like(splats).to(device)
        views = photographed(model, ring_cameras(1, width, height), rasterizer)
        calls: dict[str, Callable[[], object]] = {
            "render": lambda: rasterizer.render(model, views[0].camera, BLACK),
            "removal cost": lambda: rasterizer.removal_cost(model, views),
            "color statistics": lambda: rasterizer.color_statistics(model, views),
            "geometry statistics": lambda: rasterizer.geometry_statistics(model, views),
        }
        for name, call in calls.items():

            def peak(call: Callable[[], object] = call) -> tuple[float | None, str]:
                reset_peak(device)
                seconds_of(call, device)
                found = peak_bytes(device)
                return (None, "no GPU") if found is None else (found / 1e9, "")

            yield _measured(f"peak memory, {name}: {load}", "GB", LARGEST_BYTES / 1e9, peak)
    except FAILURES as error:  # the model itself, or its photograph
        yield {"what": f"peak memory: {load}", "value": None, "unit": "GB", "goal": None, "note": _first_line(error)}
    finally:
        if device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, device)


def goals_markdown(found: Sequence[Goal]) -> str:
    """A table."""
    lines = ["| what | measured | goal | note |", "| --- | ---: | ---: | --- |"]
    for g in found:
        value = "-" if g["value"] is None else f"{g['value']:.2f} {g['unit']}"
        goal = "" if g["goal"] is None else f"{g['goal']:g} {g['unit']}"
        lines.append(f"| {g['what']} | {value} | {goal} | {g['note']} |")
    return "\n".join(lines)


def _measured(what: str, unit: str, goal: float | None, call: Callable[[], tuple[float | None, str]]) -> Goal:
    """A row; where the call fails, with the reason in place of a value."""
    try:
        value, note = call()
    except FAILURES as error:
        value, note = None, _first_line(error)
    return {"what": what, "value": value, "unit": unit, "goal": goal, "note": note}


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
