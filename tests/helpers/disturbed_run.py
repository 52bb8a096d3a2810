# SPDX-License-Identifier: Apache-2.0
"""``python -m potr.run`` whose runs of quality 0.6 meet something in their second pruning pass.

``python tests/helpers/disturbed_run.py die ARGUMENT...`` kills the process that does them, as the system does for want
of memory; any other first argument is a file that they wait for.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from potr import run
from potr.experiment import pipeline
from potr.experiment.result import RunResult
from potr.experiment.schema import RunConfig
from potr.experiment.sweep import launchers
from potr.experiment.sweep.job import Job, Outcome, attempt_elsewhere
from potr.progress import Progress

DISTURBED = 0.6
what = sys.argv.pop(1)
undisturbed = pipeline.run


def disturbed(config: RunConfig, *, progress: Progress, **options: Any) -> RunResult:
    def told(stage: str, done: int, total: int) -> None:
        if config.quality == DISTURBED and stage.startswith("early pruning pass 2/"):
            if what == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            while not Path(what).exists():
                time.sleep(0.02)
        progress.report(stage, done, total)

    return undisturbed(config, progress=Progress(told), **options)


def elsewhere(job: Job) -> tuple[Job, Outcome]:
    """What joblib's processes do; of this file, so that it is sent whole instead of by name."""
    pipeline.run = disturbed
    return job, attempt_elsewhere(job)


if __name__ == "__main__":
    pipeline.run = disturbed
    launchers._named_attempt = elsewhere
    run.main()
