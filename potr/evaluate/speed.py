# SPDX-License-Identifier: Apache-2.0
"""Frames per second of a backend: warm, repeated, synchronised, stated with the machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from potr.cameras import RGB, Camera
from potr.errors import ConfigError
from potr.evaluate.machine import describe_device
from potr.rasterizer.base import Rasterizer
from potr.splats import SplatModel


@dataclass(frozen=True)
class SpeedReport:
    """How fast a model renders.

    Attributes:
        fps: one over the median frame time; a camera's frame time is the median of its repetitions.
        slowest_fps: of the slowest camera.
        frame_seconds: per camera, in the order given.
        frames: timed in all.
        width, height: of the first camera, in pixels.
        rasterizer, device: the backend's name, the processor's name.
        threads: of the backend where it has a number of its own (``rasterizer.threads``), else of torch.
    """

    fps: float
    slowest_fps: float
    frame_seconds: tuple[float, ...]
    frames: int
    width: int
    height: int
    rasterizer: str
    device: str
    threads: int


def frames_per_second(
    model: SplatModel,
    cameras: Sequence[Camera],
    background: RGB,
    rasterizer: Rasterizer,
    *,
    seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
) -> SpeedReport:
    """Render the cameras in turn, again and again, until ``seconds`` are over; at least one whole round.

    The first camera is rendered once beforehand, untimed (first-use compilation, memory, caches). On CUDA the device
    is synchronised before every reading of the clock.

    Args:
        model: on the device the backend is to run on.
        cameras: the test cameras.
        background: the colour behind everything.
        rasterizer: the backend.
        seconds: of timed rendering.
        clock: seconds from any origin, monotone.

    Raises:
        ConfigError: there are no cameras.
    """
    if not cameras:
        raise ConfigError("frames_per_second: expected at least one camera, got none")

    def now() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return clock()

    rasterizer.render(model, cameras[0], background)
    repetitions: list[list[float]] = [[] for _ in cameras]
    start = before = now()
    frames = 0
    while frames < len(cameras) or before - start < seconds:
        index = frames % len(cameras)
        rasterizer.render(model, cameras[index], background)
        after = now()
        repetitions[index].append(after - before)
        frames, before = frames + 1, after
    per_camera = tuple(statistics.median(times) for times in repetitions)
    return SpeedReport(
        fps=1.0 / statistics.median(per_camera),
        slowest_fps=1.0 / max(per_camera),
        frame_seconds=per_camera,
        frames=frames,
        width=cameras[0].width,
        height=cameras[0].height,
        rasterizer=rasterizer.name,
        device=describe_device(model.device),
        threads=getattr(rasterizer, "threads", torch.get_num_threads()),
    )
