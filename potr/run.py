# SPDX-License-Identifier: Apache-2.0
"""``python -m potr.run``: Hydra composes conf/ and the command line into a RunConfig; the pipeline does the rest."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from potr.experiment import console, report, schema, sweep
from potr.experiment.overrides import unknown
from potr.experiment.result import RunResult
from potr.experiment.sweep import Outcome

log = logging.getLogger(__name__)


def main() -> None:
    """Run once or sweep. Exit codes: 0 done, 1 a bug, 2 something was refused, 130 interrupted."""
    schema.register()
    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing several lines
    name = sweep.name_of(sys.argv[1:])
    if name:
        os.environ.setdefault(sweep.NAME_VARIABLE, name)
    sweep.single.clear()
    sweep.swept.clear()
    with console.screen():
        try:
            hydra.main(version_base="1.3", config_path=str(schema.conf_folder()), config_name="run")(sweep.job)()
        except HydraException as error:
            if traceback_wanted:
                raise
            log.error("%s", explain(error))
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)
    sys.exit(max([*map(_tell_single, sweep.single), *map(_tell_sweep, sweep.swept), 0]))


def _tell_single(done: RunResult | Outcome) -> int:
    """Show a run's result; its exit code."""
    if isinstance(done, Outcome):  # told already
        return 2
    console.show(report.summary(done))
    return 0


def _tell_sweep(entries: Path) -> int:
    """Show a sweep's table and its holes; its exit code."""
    done = sweep.outcomes(entries)
    results = [result for _, result in done if result is not None]
    holes = [outcome for outcome, _ in done if outcome.reason is not None]
    if results:
        console.show(report.table(results))
    if holes:
        console.show("\n" + report.holes([(hole.job, str(hole.reason)) for hole in holes]))
    return 1 if any(hole.bug for hole in holes) else 2 if holes else 0


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
