# SPDX-License-Identifier: Apache-2.0
"""``python -m potr.run``: Hydra composes conf/ and the command line into a RunConfig; the pipeline does the rest."""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

import hydra
from hydra.errors import HydraException, MissingConfigException, OverrideParseException

from potr.errors import PotrError
from potr.experiment import console, pipeline, report, schema
from potr.experiment.overrides import unknown
from potr.experiment.result import RunResult

log = logging.getLogger(__name__)


def main() -> None:
    """Run once or sweep. Exit codes: 0 done, 1 a bug, 2 something was refused, 130 interrupted."""
    schema.register()
    results: list[RunResult] = []
    refused: list[PotrError] = []

    def job(composed: Any) -> None:
        try:
            results.append(pipeline.run(schema.resolve(composed), progress=screen))
        except PotrError as error:  # the other jobs of a sweep go on
            log.error("%s", error)
            refused.append(error)

    traceback_wanted = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors instead of printing several lines
    with console.screen() as screen:
        try:
            hydra.main(version_base="1.3", config_path=str(schema.conf_folder()), config_name="run")(job)()
        except HydraException as error:
            if traceback_wanted:
                raise
            log.error("%s", explain(error))
            sys.exit(2)
        except KeyboardInterrupt:
            sys.exit(130)
    if results:
        console.show(report.summary(results[0]) if len(results) == 1 else report.table(results))
    if refused:
        sys.exit(2)


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
