# SPDX-License-Identifier: Apache-2.0
"""Frames per second of a backend: warm, repeated, stated with the machine; on CUDA by the GPU's own clock."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from potr.errors import ConfigError
from potr.evaluate.machine import describe_device
from potr.model.cameras import RGB, Camera
from potr.model.splats import SplatModel
from potr.render.base import Rasterizer


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


class Event(Protocol):
    """A point in a stream's work, as torch.cuda.Event has it."""

    def record(self) -> Any: ...

    def synchronize(self) -> Any: ...

    def elapsed_time(self, end_event: Any) -> float: ...  # milliseconds


def frames_per_second(
    model: SplatModel,
    cameras: Sequence[Camera],
    background: RGB,
    rasterizer: Rasterizer,
    *,
    seconds: float = 3.0,
    clock: Callable[[], float] = time.perf_counter,
    event: Callable[[], Event] | None = None,
) -> SpeedReport:
    """Render the cameras in turn, again and again, until ``seconds`` are over; at least one whole round.

    On the CPU the first camera is rendered once beforehand, untimed (memory, caches), and each frame is timed by the
    clock. On CUDA a whole round goes before (first-use compilation too); then whole rounds are queued, each frame
    between two events of its own, and only the end of a round is waited for. A frame's time is so the GPU's, and the
    host's where the GPU has to wait for it within a frame.

    Args:
        model: moved to the backend's device beforehand, where it has one of its own.
        cameras: the test cameras.
        background: the colour behind everything.
        rasterizer: the backend.
        seconds: of timed rendering.
        clock: seconds from any origin, monotone.
        event: makes an event of the device's current stream; by default CUDA's where the model is on CUDA.

    Raises:
        ConfigError: there are no cameras.
    """
    if not cameras:
        raise ConfigError("frames_per_second: expected at least one camera, got none")
    model = model.to(getattr(rasterizer, "device", model.device))
    on_cuda = model.device.type == "cuda"
    if on_cuda and event is None:
        event = partial(torch.cuda.Event, enable_timing=True)

    def render(camera: Camera) -> None:
        rasterizer.render(model, camera, background)

    with torch.cuda.device(model.device) if on_cuda else nullcontext():  # events go to the current device's stream
        if event is None:
            repetitions = _by_clock(render, cameras, seconds, clock)
        else:
            repetitions = _by_events(render, cameras, seconds, clock, event)
    per_camera = tuple(statistics.median(times) for times in repetitions)
    return SpeedReport(
        fps=1.0 / statistics.median(per_camera),
        slowest_fps=1.0 / max(per_camera),
        frame_seconds=per_camera,
        frames=sum(len(times) for times in repetitions),
        width=cameras[0].width,
        height=cameras[0].height,
        rasterizer=rasterizer.name,
        device=describe_device(model.device),
        threads=getattr(rasterizer, "threads", torch.get_num_threads()),
    )


def _by_clock(
    render: Callable[[Camera], None], cameras: Sequence[Camera], seconds: float, clock: Callable[[], float]
) -> list[list[float]]:
    """Seconds of every repetition of each camera, where a frame is done when ``render`` returns."""
    render(cameras[0])
    repetitions: list[list[float]] = [[] for _ in cameras]
    start = before = clock()
    frames = 0
    while frames < len(cameras) or before - start < seconds:
        index = frames % len(cameras)
        render(cameras[index])
        after = clock()
        repetitions[index].append(after - before)
        frames, before = frames + 1, after
    return repetitions


def _by_events(
    render: Callable[[Camera], None],
    cameras: Sequence[Camera],
    seconds: float,
    clock: Callable[[], float],
    event: Callable[[], Event],
) -> list[list[float]]:
    """The same where ``render`` only queues the work; the clock decides when to stop, the events tell the times."""

    def round_of_frames() -> list[float]:
        spans = []
        for camera in cameras:
            begin, end = event(), event()
            begin.record()
            render(camera)
            end.record()
            spans.append((begin, end))
        spans[-1][1].synchronize()
        return [begin.elapsed_time(end) / 1e3 for begin, end in spans]

    round_of_frames()
    start = clock()
    rounds = [round_of_frames()]
    while clock() - start < seconds:
        rounds.append(round_of_frames())
    return [list(times) for times in zip(*rounds, strict=True)]
