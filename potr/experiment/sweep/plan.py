# SPDX-License-Identifier: Apache-2.0
"""A sweep: Hydra composes every run before the first one starts; then a launcher does them.

Hydra and its configurations stay in this process. What goes to another is a ``Job``, plain frozen data.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from potr.errors import ConfigError
from potr.experiment import pipeline, schema
from potr.experiment.identity import config_sha256
from potr.experiment.schema import RunConfig
from potr.experiment.sweep.job import Job, Outcome
from potr.experiment.sweep.launcher import require
from potr.experiment.sweep.launchers import launch

log = logging.getLogger(__name__)

NAME_VARIABLE = "POTR_SWEEP"  # tells conf/run.yaml the sweep's name
HYDRA_FOLDER = ".hydra"  # below outputs, as conf/run.yaml says
_LONGEST_NAME = 80

composed: list[Job] = []  # what Hydra composed in this process: one run, or those of a sweep


def compose(config: Any) -> None:
    """What Hydra calls for every run: keeps its configuration, or why it is refused."""
    hydra = HydraConfig.get()
    overrides = tuple(hydra.overrides.task)
    sweeping = hydra.mode == RunMode.MULTIRUN
    resolved, refusal = None, None
    try:
        resolved = schema.resolve(config)
        if not sweeping and resolved.launcher.name != "local":
            raise ConfigError(f"launcher={resolved.launcher.name} is for sweeps: add -m")
    except ConfigError as error:
        resolved, refusal = None, str(error)
    composed.append(Job(len(composed) + 1, 1, overrides, resolved, refusal, sweeping))


def planned(jobs: Sequence[Job]) -> list[Job]:
    """The runs of a sweep, each once, numbered, and with the overrides that not all of them share.

    A codec with a single operating point makes one run of a sweep over qualities.
    """
    common = set(jobs[0].overrides).intersection(*(job.overrides for job in jobs))
    unique: dict[Any, Job] = {}
    owners: dict[Path, Job] = {}
    for job in jobs:
        mine = tuple(override for override in job.overrides if override not in common)
        own = job if job.config is None and not mine else replace(job, overrides=mine)
        known = own.overrides if job.config is None else _same_run(job.config)
        if known in unique:
            continue
        if job.config is not None:
            folder = pipeline.run_folder(job.config)
            owner = owners.setdefault(folder, own)
            if owner is not own:
                own = replace(own, config=None, refusal=_clash(folder, owner))
        unique[known] = own
    return [replace(job, number=number, of=len(unique)) for number, job in enumerate(unique.values(), 1)]


def _same_run(config: RunConfig) -> tuple[Any, ...]:
    """What two jobs have in common that are one run: where it lies, what shapes it, what it reads, how it is timed."""
    return pipeline.run_folder(config), config_sha256(config), config.dataset, config.paths, config.threads


def _clash(folder: Path, owner: Job) -> str:
    return (
        f"its result would lie in {folder}, where that of {owner.asked} goes; "
        "give each its own dataset.name, or outputs"
    )


def run(jobs: Sequence[Job]) -> list[tuple[Job, Outcome]]:
    """Do the planned runs; one that fails does not stop the others. In the order of the plan.

    Raises:
        BackendUnavailable: the launcher's package is not installed.
    """
    done = {job.number: (job, Outcome(reason=job.refusal)) for job in jobs if job.config is None}
    for job, _ in done.values():
        log.error("run %d of %d: %s: %s", job.number, job.of, job.title, job.refusal)
    configs = [job.config for job in jobs if job.config is not None]
    if configs:
        require(configs[0].launcher)
        accepted = [job for job in jobs if job.config is not None]
        try:
            for job, outcome in launch(accepted, configs[0].launcher, Path(configs[0].outputs)):
                done[job.number] = job, outcome
                log.info("%d of %d: %s: %s", len(done), job.of, job.title, outcome.reason or "done")
        except KeyboardInterrupt:
            log.warning("interrupted after %d of %d runs; the same command goes on", len(done), len(jobs))
            raise
    lost = Outcome(reason="its launcher came to an end without it; the same command tries again")
    return [done.get(job.number, (job, lost)) for job in jobs]


def forget(jobs: Sequence[Job]) -> None:
    """Remove what Hydra wrote when it composed a sweep that comes to nothing: its list of jobs, and empty folders."""
    outputs = next(Path(job.config.outputs) for job in jobs if job.config is not None)
    (outputs / HYDRA_FOLDER / "multirun.yaml").unlink(missing_ok=True)
    for folder in (outputs / HYDRA_FOLDER, outputs):
        with suppress(OSError):  # there is something else in it
            folder.rmdir()


def name_of(arguments: Sequence[str]) -> str | None:
    """The name of the sweep that a command line asks for, the same for the same command; None if it is a single run."""
    if not {"-m", "--multirun"} & set(arguments):
        return None
    unnamed = ("-", "outputs=", "hydra", "launcher", "tracker", "force=", "threads=")
    words = [word for word in arguments if not word.startswith(unnamed)]
    name = re.sub(r"[^\w=.,@+-]+", "_", ",".join(sorted(words))) or "sweep"
    if len(name) > _LONGEST_NAME:
        name = f"{name[:_LONGEST_NAME]},{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return name
