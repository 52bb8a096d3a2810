# SPDX-License-Identifier: Apache-2.0
"""What Hydra calls: one job, or the jobs of a sweep, in this process or in the launcher's.

A job that fails does not stop the others. Each leaves an entry under ``<outputs>/.sweeps/<sweep>``, whatever process
or machine it ran in, from which the end of the sweep is told.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode

from potr.errors import PotrError
from potr.experiment import console, pipeline, schema
from potr.experiment.result import RunResult, read_result
from potr.files import write_atomic

log = logging.getLogger(__name__)

SWEEPS = ".sweeps"
NAME_VARIABLE = "POTR_SWEEP"  # tells a sweep's processes its name (conf/run.yaml reads it)
_LONGEST_NAME = 80


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: its overrides, as Hydra tells them.
        folder: of its run, where the settings were good enough to know it.
        reason: why there is no result; None where there is one.
        bug: whether the reason is ours rather than the user's.
    """

    job: str
    folder: str | None = None
    reason: str | None = None
    bug: bool = False


single: list[RunResult | Outcome] = []  # what job() did in this process outside a sweep
swept: list[Path] = []  # folders of entries of the sweeps that ended in this process


def job(composed: Any) -> None:
    """One run. In a sweep nothing but an interruption gets past it."""
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    with console.screen() as progress:
        if not sweeping:
            single.append(_refusable(composed, progress))
            return
        outcome = _attempt(composed, progress, ",".join(HydraConfig.get().overrides.task))
        number = int(HydraConfig.get().job.num)
        entry = json.dumps(asdict(outcome), indent=2) + "\n"
        write_atomic(_entries(composed) / f"{number:05d}.json", entry.encode(), overwrite=True)


class SweepCallback(Callback):
    """Hydra tells it when a sweep begins and ends, in the process that was started."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        """Forget the entries of an earlier sweep of this name."""
        shutil.rmtree(_entries(config), ignore_errors=True)

    def on_multirun_end(self, config: Any, **_: Any) -> None:
        """Remember where the entries are."""
        swept.append(_entries(config))


def outcomes(entries: Path) -> list[tuple[Outcome, RunResult | None]]:
    """The jobs of a sweep, in their order, with the results of those that have one."""
    found: list[tuple[Outcome, RunResult | None]] = []
    for path in sorted(entries.glob("*.json")):
        outcome = Outcome(**json.loads(path.read_text()))
        result = read_result(Path(outcome.folder)) if outcome.reason is None and outcome.folder else None
        found.append((outcome, result))
    return found


def name_of(arguments: Sequence[str]) -> str | None:
    """The name of the sweep that a command line asks for, the same for the same command; None if it is a single run."""
    if not {"-m", "--multirun"} & set(arguments):
        return None
    words = [word for word in arguments if not word.startswith(("-", "outputs=", "hydra", "launcher=", "force="))]
    return re.sub(r"[^\w=.,@+-]+", "_", ",".join(sorted(words)))[:_LONGEST_NAME] or "sweep"


def _entries(config: Any) -> Path:
    return Path(config.outputs) / SWEEPS / str(config.sweep or "sweep")


def _refusable(composed: Any, progress: Any) -> RunResult | Outcome:
    try:
        return pipeline.run(schema.resolve(composed), progress=progress)
    except PotrError as error:
        log.error("%s", error)
        return Outcome("", reason=str(error))


def _attempt(composed: Any, progress: Any, overrides: str) -> Outcome:
    """Run a job of a sweep; what goes wrong is written where its result would have been."""
    log.info("%s", overrides)
    config = None
    try:
        config = schema.resolve(composed)
        result = pipeline.run(config, progress=progress)
        return Outcome(overrides, str(result.folder))
    except Exception as error:
        bug = not isinstance(error, PotrError)
        trace = traceback.format_exc() if bug else None
        reason = str(error) if not bug else f"{type(error).__name__}: {error}"
        log.error("%s: %s%s", overrides, reason, f"\n{trace}" if trace else "")
        folder = None if config is None else str(pipeline.record_failure(config, reason, trace).folder)
        return Outcome(overrides, folder, reason, bug)
