# SPDX-License-Identifier: Apache-2.0
"""One W&B run, kept by another process. Nothing here raises or waits without end; what goes wrong is one warning."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potr.experiment.schema import TrackerConfig
from potr.experiment.tracking import wandb_process
from potr.experiment.tracking.content import STEPS

log = logging.getLogger(__name__)

_START_SECONDS = 30  # for importing wandb on a busy machine
_LONGEST_TAG, _LONGEST_GROUP = 64, 128


@dataclass(frozen=True)
class Recorded:
    """``mode`` in which W&B has all of a run, online or offline, and the ``folder`` with its own files."""

    mode: str
    folder: str


class WandbRun:
    """One W&B run, kept by a process of its own (``wandb_process``) from now until ``end``.

    Args:
        settings: of the tracker.
        folder: where W&B's files go, under ``wandb``.
        identity: what makes it this W&B run: the same identity in the same folder continues it.
        told: of ``wandb.init``: name, group, job_type, tags, config.
    """

    def __init__(self, settings: TrackerConfig, folder: Path, identity: str, **told: Any) -> None:
        self._settings, self._folder = settings, folder.resolve()
        self.id = hashlib.sha256(f"{self._folder} {identity}".encode()).hexdigest()[:16]
        self._process: subprocess.Popen[str] | None = None
        try:
            (self._folder / "wandb").mkdir(parents=True, exist_ok=True)
            self._process = subprocess.Popen(
                [sys.executable, "-P", wandb_process.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=_environment(self._folder),
                start_new_session=True,  # Ctrl-C is the run's business: it tells W&B how it ended
            )
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(self._start(told), default=str) + "\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            warn(error, self._folder)

    def end(self, content: dict[str, Any]) -> Recorded | None:
        """Record this and close the W&B run; None unless W&B has everything, be it on this disk."""
        process, self._process = self._process, None
        if process is None:
            return None
        limit = _START_SECONDS + 2 * self._settings.timeout
        try:
            said, _ = process.communicate(json.dumps(content, default=str) + "\n", timeout=limit)
            return self._tell(said, process.returncode)
        except subprocess.TimeoutExpired:
            warn(f"not done after {limit:g} s (tracker.timeout)", self._folder)
        except Exception as error:
            warn(error, self._folder)
        process.kill()
        process.communicate()
        return None

    def _start(self, told: dict[str, Any]) -> dict[str, Any]:
        settings, environment = self._settings, os.environ
        tags = [*told.pop("tags"), *settings.tags, *filter(None, environment.get("WANDB_TAGS", "").split(","))]
        init = {
            "id": self.id,
            "resume": "allow",
            "project": settings.project or environment.get("WANDB_PROJECT") or "potr",
            "entity": settings.entity,
            "dir": environment.get("WANDB_DIR") or str(self._folder),
            "tags": list(dict.fromkeys(tag[:_LONGEST_TAG] for tag in tags)),
            **told,
            "group": told["group"][:_LONGEST_GROUP],
        }
        if "WANDB_RUN_GROUP" in environment:
            del init["group"]
        options = {
            "silent": True,
            "console": "off",
            "program": sys.argv[0],
            "x_stats_pid": os.getpid(),  # of this process, not of W&B's
            "init_timeout": settings.timeout,
            "finish_timeout": settings.timeout,
            "finish_timeout_raises": True,
        }
        mode = None if settings.mode == "auto" else settings.mode  # None: WANDB_MODE, or online
        return {"init": init, "mode": mode, "settings": options, "steps": STEPS}

    def _tell(self, said: str, exit_code: int) -> Recorded | None:
        """One line about how it went."""
        replies = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        told: dict[str, Any] = {key: value for reply in replies for key, value in reply.items()}
        if not told.get("done"):
            where = f"; wandb sync {told['folder']} sends what it has" if "folder" in told else ""
            warn(told.get("error", f"its process ended with {exit_code}") + where, self._folder)
            return None
        if told["mode"] == "online":
            log.info("W&B: %s", told["url"])
        elif told["mode"] == "offline":
            level = logging.WARNING if self._settings.mode == "online" else logging.INFO
            because = f" ({told['because']})" if told["because"] else ""
            log.log(level, "W&B is offline%s; to send this run: wandb sync %s", because, shlex.quote(told["folder"]))
        if told["mode"] == "disabled":
            return None
        self._forget_replaced(Path(told["folder"]))
        return Recorded(told["mode"], str(told["folder"]))

    def _forget_replaced(self, newest: Path) -> None:
        """Of what was never sent of this W&B run only the last stays: sent together they would be mixed up."""
        for older in newest.parent.glob(f"offline-run-*-{self.id}*"):
            if older != newest and not any(older.glob("*.synced")):
                shutil.rmtree(older, ignore_errors=True)


def warn(what: object, folder: Path) -> None:
    """Say what went wrong with a tracker, and that nothing else did."""
    log.warning("W&B: %s; the results in %s are not touched by this", " ".join(str(what).split()), folder)


def _environment(folder: Path) -> dict[str, str]:
    """W&B's own files stay in the run's folder too, unless the user has said where they go."""
    usual = {"WANDB_DATA_DIR": folder / "wandb" / "data", "WANDB_CACHE_DIR": folder / "wandb" / "cache"}
    return {**{name: str(path) for name, path in usual.items()}, **os.environ}
