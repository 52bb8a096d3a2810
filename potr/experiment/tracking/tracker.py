# SPDX-License-Identifier: Apache-2.0
"""Where results go beside the files: nowhere, or to Weights & Biases.

Nothing here raises or waits without end: result.json is written before a tracker hears of a result, and whatever goes
wrong afterwards costs one warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from potr.experiment.failure import FAILURE_FILE, Failure, read_failure
from potr.experiment.result import RESULT_FILE, RunResult, read_result
from potr.experiment.schema import RunConfig, TrackerConfig, with_codec_resolved
from potr.experiment.tables.curves import curves
from potr.experiment.tracking.content import curves_content, failed_content, run_content
from potr.experiment.tracking.wandb_mark import Asked, is_enough, mark
from potr.experiment.tracking.wandb_run import WandbRun, warn

CURVES = ".curves"  # beside the runs of a scene: where the curves of its sweeps have their W&B runs
_INTERRUPTED = 255  # the exit code by which W&B tells an interrupted run from a failed one


class Tracker(Protocol):
    def record(self, result: RunResult, pictures: dict[str, Path]) -> None: ...


class NoTracker:
    def record(self, result: RunResult, pictures: dict[str, Path]) -> None:
        """Nothing: the files are enough."""


@contextmanager
def tracker(config: RunConfig, folder: Path, hashes: tuple[str, str]) -> Iterator[Tracker]:
    """The tracker of ``config.tracker``, for one run; an exception marks the run as failed, with the reason.

    Args:
        config: the run's.
        folder: the run's.
        hashes: of the settings and of the inputs, as in ``RunResult``.
    """
    if config.tracker.name == "none":
        yield NoTracker()
        return
    try:
        run = _RunTracker(config, folder, hashes)
    except Exception as error:
        warn(error, folder)
        yield NoTracker()
        return
    try:
        yield run
    except KeyboardInterrupt:
        run.wandb.end(failed_content("interrupted", _INTERRUPTED))
        raise
    except BaseException as error:
        run.wandb.end(failed_content(str(error) or type(error).__name__))
        raise


def track_finished(config: RunConfig, result: RunResult, pictures: dict[str, Path]) -> None:
    """Record a run that finished earlier, unless W&B has all of this very result that is asked for."""
    if config.tracker.name == "none" or is_enough(result.folder, _asked(config.tracker, result), config.tracker):
        return
    with tracker(config, result.folder, (result.config_sha256, result.inputs_sha256)) as track:
        track.record(result, pictures)


def track_sweep(config: RunConfig, folders: Iterable[Path]) -> None:
    """Record the rate-distortion curves of a sweep that ended: one more W&B run for every scene that has results.

    Args:
        config: of any run of the sweep.
        folders: of its runs, as far as they have one.
    """
    if config.tracker.name == "none":
        return
    try:
        results, failures = _ends(folders)
        sweep = config.sweep or "sweep"
        for scene, of_scene in groupby(curves(results), key=lambda curve: curve.scene):
            found = tuple(of_scene)
            dataset = found[0].points[0].dataset
            holes = [failure for failure in failures if failure.dataset == dataset]
            folder = Path(config.outputs) / dataset / CURVES / re.sub(r"[^\w=.,@+-]+", "_", f"{sweep},{scene}")
            _track_curves(config.tracker, folder, scene, sweep, curves_content(found, holes))
    except Exception as error:
        warn(error, Path(config.outputs))


def _track_curves(settings: TrackerConfig, folder: Path, scene: str, sweep: str, content: dict[str, Any]) -> None:
    text = json.dumps(content, default=str)
    asked = Asked(settings.entity, settings.project, hashlib.sha256(text.encode()).hexdigest())
    if is_enough(folder, asked, settings):
        return
    run = WandbRun(
        settings,
        folder,
        "",
        name=f"{scene}/rate-distortion",
        group=group(scene, sweep),
        job_type="rate-distortion",
        tags=[scene],
        config={"scene": scene, "sweep": sweep},
    )
    if recorded := run.end(content):
        mark(folder, asked, recorded)


def _ends(folders: Iterable[Path]) -> tuple[list[RunResult], list[Failure]]:
    results, failures = [], []
    for folder in folders:
        if (folder / FAILURE_FILE).exists():  # later than a result beside it
            failures.append(read_failure(folder))
        elif (folder / RESULT_FILE).exists():
            results.append(read_result(folder))
    return results, failures


class _RunTracker:
    def __init__(self, config: RunConfig, folder: Path, hashes: tuple[str, str]) -> None:
        scene, suite = config.dataset_name(), config.dataset.suite
        self.settings = config.tracker
        self.wandb = WandbRun(
            config.tracker,
            folder,
            " ".join(hashes),
            name=f"{scene}/{folder.name}",
            group=group(scene, config.sweep),
            job_type="encode",
            tags=[scene, *([suite] if suite else []), config.codec.name],
            config=dataclasses.asdict(with_codec_resolved(config)),
        )

    def record(self, result: RunResult, pictures: dict[str, Path]) -> None:
        """Send everything; mark the folder once W&B has it."""
        try:
            content = run_content(result, pictures, images=self.settings.images, artifact=self.settings.artifact)
            if recorded := self.wandb.end(content):
                mark(result.folder, _asked(self.settings, result), recorded)
        except Exception as error:
            warn(error, result.folder)
            self.wandb.end(failed_content(f"not recorded: {error}"))


def group(scene: str, sweep: str | None) -> str:
    """Under which W&B shows the runs of a scene and a sweep together."""
    return f"{scene}/{sweep}" if sweep else scene


def _asked(settings: TrackerConfig, result: RunResult) -> Asked:
    return Asked(settings.entity, settings.project, result.bitstream_sha256, settings.images, settings.artifact)
