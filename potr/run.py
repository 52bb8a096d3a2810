# SPDX-License-Identifier: Apache-2.0
"""``python -m potr.run``: Hydra composes conf/ and the command line into a RunConfig; the pipeline does the rest."""

from __future__ import annotations

import logging
import os
import signal
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from potr import screen
from potr.encoder.quality import refuse_options, unknown
from potr.errors import ConfigError, PotrError, SceneError
from potr.experiment import pipeline, ranks, schema, summary
from potr.experiment.result import read_result
from potr.experiment.scenes.present import look
from potr.experiment.sweep import plan
from potr.experiment.sweep.job import Job, Outcome
from potr.experiment.sweep.sweep_table import gap_table, hole_table, sweep_table, without_gaps
from potr.experiment.tables import write
from potr.experiment.tracking.tracker import track_sweep
from potr.progress import Progress

log = logging.getLogger("potr.run")  # __name__ is __main__ under python -m, which no handler of ours hears

# Whatever else begins with a dash is meant as KEY=VALUE.
HYDRA_OPTIONS = (
    *("-h", "--help", "--hydra-help", "--version", "-c", "--cfg", "--resolve", "-p", "--package", "-r", "--run"),
    *("-m", "--multirun", "-sc", "--shell-completion", "-cp", "--config-path", "-cn", "--config-name"),
    *("-cd", "--config-dir", "--experimental-rerun", "-i", "--info"),
)


def main() -> None:
    """Run once or sweep. Exit codes: 0 done, 1 a bug, 2 something was refused, 130 interrupted.

    Under torchrun rank 0 does that, and the other ranks help it.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # potr/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    ranks.lead(_main)


def _main() -> None:
    schema.register()
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing several lines
    name = plan.name_of(sys.argv[1:])
    if name:
        os.environ.setdefault(plan.NAME_VARIABLE, name)
    plan.composed.clear()
    with screen.screen() as progress:
        try:
            refuse_options(sys.argv[1:], schema.setting_names(), HYDRA_OPTIONS)
            hydra.main(version_base="1.3", config_path=str(schema.conf_folder()), config_name="run")(plan.compose)()
            code, shown = _run(plan.composed, progress)
        except HydraException as error:
            if traceback_wanted:
                raise
            log.error("%s", explain(error))
            sys.exit(2)
        except PotrError as error:
            log.error("%s", error)
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)
    if shown:
        screen.show(shown)
    sys.exit(code)


def _run(jobs: list[Job], progress: Progress) -> tuple[int, str]:
    """Do what Hydra composed; the exit code and what to show."""
    if not jobs:  # --cfg
        return 0, ""
    if jobs[0].sweeping:
        return _sweep(plan.planned(jobs))
    (job,) = jobs
    if job.config is None:
        raise ConfigError(str(job.refusal))
    return 0, summary.summary(pipeline.run(job.config, progress=progress))


def _sweep(asked: list[Job]) -> tuple[int, str]:
    """Do the runs whose scenes are here; the exit code and what to show."""
    looked = look(asked)
    for message in looked.messages:
        log.warning("%s", message)
    if looked.left_out and all(job.config is None for job in looked.jobs):
        for job in looked.jobs:
            log.error("%s: %s", job.asked, job.refusal)
        plan.forget(asked)
        raise SceneError(f"none of the {len(asked)} runs can be done: their scenes are not here; nothing was written")
    if looked.left_out:
        log.warning("%d of %d runs are left out, their scenes are not here", looked.left_out, len(asked))
    if because := without_gaps([job.config for job in looked.jobs if job.config is not None]):
        log.info("%s", because)
    done = plan.run(looked.jobs)
    configs = [job.config for job, _ in done if job.config is not None]
    if configs:
        track_sweep(configs[0], [Path(outcome.folder) for _, outcome in done if outcome.folder])
    code, shown = _told(done)
    if looked.left_out:
        rest = (
            f"{looked.left_out} of {len(asked)} runs were left out, for their scenes are not here: see the log's start"
        )
        return code or 2, f"{shown}\n\n{rest}"
    return code, shown


def _told(done: list[tuple[Job, Outcome]]) -> tuple[int, str]:
    """A sweep's exit code, its table and its holes."""
    results = [(job.overrides, read_result(Path(str(o.folder)))) for job, o in done if o.reason is None]
    holes = [(job.asked, outcome.reason) for job, outcome in done if outcome.reason is not None]
    shown = [*([sweep_table(results)] if results else []), *([hole_table(holes)] if holes else [])]
    asked = [job.config for job, _ in done if job.config is not None]
    folders = [Path(outcome.folder) for _, outcome in done if outcome.folder]
    sweep_name, outputs = (asked[0].sweep, Path(asked[0].outputs)) if asked else (None, Path())
    if sweep_name not in write.WITH_GAPS and not without_gaps(asked):
        shown.append(gap_table([result for _, result in results]))
    shown.append(_written(sweep_name, outputs, folders))
    code = 1 if any(outcome.bug for _, outcome in done) else 2 if holes else 0
    return code, "\n\n".join(part for part in shown if part)


def _written(experiment: str | None, outputs: Path, asked: list[Path]) -> str:
    """An experiment's tables and figures, written; the first of them. The runs are told even where this is refused."""
    try:
        return write.finish(experiment, outputs, asked)
    except PotrError as error:
        return f"no tables: {error}"


def explain(error: HydraException) -> str:
    """Hydra's and OmegaConf's message as one line that says what would have been right."""
    cause = error.__cause__
    parent, key = getattr(cause, "parent_node", None), getattr(cause, "key", None)
    path = getattr(cause, "full_key", None)
    if isinstance(error, MissingConfigException) and error.options:
        group, _, option = str(error.missing_cfg_file).partition("/")
        return unknown(f"{group}:", option, error.options)
    if isinstance(error, OverrideParseException):
        return f"cannot read '{error.override}' as KEY=VALUE: {str(error).splitlines()[0]}"
    if parent is not None and hasattr(parent, "keys") and key not in parent:
        prefix = str(path)[: -len(str(key))]
        return unknown("key", str(path), [f"{prefix}{name}" for name in parent if name != "hydra"])
    if path:
        return f"{path}: {str(cause).splitlines()[0]}"
    return " ".join(str(error).split())


if __name__ == "__main__":
    main()
