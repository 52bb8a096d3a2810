# SPDX-License-Identifier: Apache-2.0
"""Where results go beside the files: nowhere, or to Weights & Biases. The only module that imports wandb."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from potr.experiment.result import RunResult
from potr.experiment.schema import RunConfig


class Tracker(Protocol):
    def record(self, result: RunResult, pictures: dict[str, Path]) -> None: ...


class NoTracker:
    def record(self, result: RunResult, pictures: dict[str, Path]) -> None:
        """Nothing: the files are enough."""


class WandbTracker:
    """One W&B run; its files lie under the run's folder until ``wandb sync`` uploads them."""

    def __init__(self, config: RunConfig, name: str, folder: Path) -> None:
        import wandb

        self._wandb = wandb
        mode: Any = config.tracker.mode
        self._run = wandb.init(
            project=config.tracker.project,
            name=name,
            dir=str(folder),
            mode=mode,
            config=dataclasses.asdict(config),
            settings=wandb.Settings(silent=True),
        )

    def record(self, result: RunResult, pictures: dict[str, Path]) -> None:
        """Log the result's numbers and the pictures as one step."""
        numbers: dict[str, object] = {
            "bytes": result.bytes,
            "ratio": result.ratio,
            "splats": result.splats_after,
            "decode_seconds": result.decode_seconds,
        }
        for side in ("before", "after"):
            measured = dataclasses.asdict(getattr(result, side))
            numbers |= {f"{side}/{key}": value for key, value in measured.items() if isinstance(value, float)}
        numbers |= {f"encode_seconds/{stage}": seconds for stage, seconds in result.encode_seconds.items()}
        numbers |= {name: self._wandb.Image(str(path)) for name, path in pictures.items()}
        self._run.log(numbers)

    def finish(self, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


@contextmanager
def tracker(config: RunConfig, name: str, folder: Path) -> Iterator[Tracker]:
    """The tracker of ``config.tracker``, for one run; an exception marks the run as failed."""
    if config.tracker.name == "none":
        yield NoTracker()
        return
    wandb_tracker = WandbTracker(config, name, folder)
    failed = True
    try:
        yield wandb_tracker
        failed = False
    finally:
        wandb_tracker.finish(failed)
