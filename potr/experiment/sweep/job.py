# SPDX-License-Identifier: Apache-2.0
"""One run of a sweep, in whatever process or machine it is done. Nothing but an interruption gets past ``attempt``."""

from __future__ import annotations

import logging
import traceback
from dataclasses import dataclass, replace

from potr import screen
from potr.errors import PotrError
from potr.experiment import pipeline
from potr.experiment.identity import run_name
from potr.experiment.lock import Busy
from potr.experiment.scenes.open import LastScene
from potr.experiment.schema import RunConfig

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A run that is asked for.

    Attributes:
        number, of: its place in the sweep, from 1.
        sweeping: whether it is one of a sweep.
        overrides: as Hydra tells them, in a sweep those that its other runs do not share.
        config: None where they are refused.
        refusal: why.
        threads: the most that it may use, where the settings do not say.
        wait: for another process that works on the same run; otherwise that raises Busy.
    """

    number: int
    of: int
    overrides: tuple[str, ...]
    config: RunConfig | None
    refusal: str | None = None
    sweeping: bool = True
    threads: int | None = None
    wait: bool = True

    @property
    def title(self) -> str:
        """Dataset and run, as their folders are called; the overrides where no run comes of them."""
        return self.asked if self.config is None else f"{self.config.dataset_name()}/{run_name(self.config)}"

    @property
    def asked(self) -> str:
        """The overrides; the title where there are none of its own."""
        return ",".join(self.overrides) or ("" if self.config is None else self.title)


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        folder: of its run, where the settings were good enough to know it.
        reason: why there is no result; None where there is one.
        bug: whether the reason is ours rather than the user's.
    """

    folder: str | None = None
    reason: str | None = None
    bug: bool = False


def attempt(job: Job, scenes: LastScene | None = None) -> Outcome:
    """Do a run; what goes wrong is written where its result would have been.

    ``scenes`` is shared by runs of one process.

    Raises:
        Busy: another process works on it, and ``job.wait`` is False.
    """
    if job.config is None:
        return Outcome(reason=job.refusal)
    config = job.config if job.config.threads else replace(job.config, threads=job.threads)
    with screen.screen() as progress:
        try:
            return Outcome(str(pipeline.run(config, progress=progress, wait=job.wait, scenes=scenes).folder))
        except Busy:
            raise
        except Exception as error:
            bug = not isinstance(error, PotrError)
            trace = traceback.format_exc() if bug else None
            reason = str(error) if not bug else f"{type(error).__name__}: {error}"
            log.error("%s: %s%s", job.title, reason, f"\n{trace}" if trace else "")
            return Outcome(_recorded(config, reason, trace), reason, bug)


def attempt_elsewhere(job: Job) -> Outcome:
    """``attempt`` in a process of its own: log lines start with the job's number, and there are no bars."""
    with screen.screen(prefix=f"[{job.number}/{job.of}] "):
        log.info("%s", job.title)
        return attempt(replace(job, wait=True))


def died(job: Job, how: str) -> Outcome:
    """The outcome of a job whose process came to an end without one."""
    assert job.config is not None
    reason = f"its process died ({how}); the same command tries again"
    return Outcome(_recorded(job.config, reason), reason)


def _recorded(config: RunConfig, reason: str, trace: str | None = None) -> str | None:
    """The run's folder with the failure in it; None, and a line in the log, where it cannot be written."""
    try:
        return str(pipeline.record_failure(config, reason, trace).folder)
    except PotrError as error:
        log.error("cannot record it: %s", error)
        return None
