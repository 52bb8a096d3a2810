# SPDX-License-Identifier: Apache-2.0
"""Where results go beside the files: nowhere, or to Weights & Biases.

Nothing here raises or waits without end: result.json is written before a tracker hears of a result, and whatever goes
wrong afterwards costs one warning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from potr.errors import PotrError
from potr.experiment import wandb_process
from potr.experiment.result import RunResult
from potr.experiment.schema import RunConfig, TrackerConfig, with_codec_resolved
from potr.experiment.tracked import STEPS, failed_content, run_content
from potr.files import write_atomic

log = logging.getLogger(__name__)

MARKER = Path("wandb", "tracked.json")  # in a run's folder: what of it W&B has
_START_SECONDS = 30  # for importing wandb on a busy machine
_INTERRUPTED = 255  # the exit code by which W&B tells an interrupted run from a failed one
_LONGEST_TAG, _LONGEST_GROUP = 64, 128


class Tracker(Protocol):
    def record(self, result: RunResult, pictures: dict[str, Path]) -> None: ...


class NoTracker:
    def record(self, result: RunResult, pictures: dict[str, Path]) -> None:
        """Nothing: the files are enough."""


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
            (self._folder / MARKER).parent.mkdir(parents=True, exist_ok=True)
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

    def end(self, content: dict[str, Any]) -> bool:
        """Record this and close the W&B run; whether W&B has everything."""
        process, self._process = self._process, None
        if process is None:
            return False
        try:
            line = json.dumps(content, default=str) + "\n"
            said, _ = process.communicate(line, timeout=_START_SECONDS + 2 * self._settings.timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            warn(f"not done after {_START_SECONDS + 2 * self._settings.timeout:g} s (tracker.timeout)", self._folder)
            return False
        except (OSError, ValueError) as error:
            process.kill()
            warn(error, self._folder)
            return False
        return self._tell(said, process.returncode)

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

    def _tell(self, said: str, exit_code: int) -> bool:
        """One line about how it went."""
        replies = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
        told: dict[str, Any] = {key: value for reply in replies for key, value in reply.items()}
        if not told.get("done"):
            where = f"; wandb sync {told['folder']} sends what it has" if "folder" in told else ""
            warn(told.get("error", f"its process ended with {exit_code}") + where, self._folder)
            return False
        if told["mode"] == "online":
            log.info("W&B: %s", told["url"])
        elif told["mode"] == "offline":
            level = logging.WARNING if self._settings.mode == "online" else logging.INFO
            because = f" ({told['because']})" if told["because"] else ""
            log.log(level, "W&B is offline%s; to send this run: wandb sync %s", because, told["folder"])
        return True


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
    """Record a run that finished earlier, unless W&B has this very result."""
    if config.tracker.name == "none" or _marked(result.folder) == _mark(config.tracker, result):
        return
    with tracker(config, result.folder, (result.config_sha256, result.inputs_sha256)) as track:
        track.record(result, pictures)


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
            shown = pictures if self.settings.images else {}
            if self.wandb.end(run_content(result, shown, artifact=self.settings.artifact)):
                mark(result.folder, _mark(self.settings, result))
        except Exception as error:
            warn(error, result.folder)
            self.wandb.end(failed_content(f"not recorded: {error}"))


def group(scene: str, sweep: str | None) -> str:
    """Under which W&B shows the runs of a scene and a sweep together."""
    return (f"{scene}/{sweep}" if sweep else scene)[:_LONGEST_GROUP]


def warn(what: object, folder: Path) -> None:
    """Say what went wrong with a tracker, and that nothing else did."""
    log.warning("W&B: %s; the results in %s are not touched by this", " ".join(str(what).split()), folder)


def mark(folder: Path, what: dict[str, Any]) -> None:
    """Note what W&B has of a folder."""
    with suppress(PotrError):  # without the note it is only recorded once more
        write_atomic(folder / MARKER, (json.dumps(what, indent=2) + "\n").encode(), overwrite=True)


def _mark(settings: TrackerConfig, result: RunResult) -> dict[str, Any]:
    return {"entity": settings.entity, "project": settings.project, "bitstream_sha256": result.bitstream_sha256}


def _marked(folder: Path) -> Any:
    try:
        return json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None


def _environment(folder: Path) -> dict[str, str]:
    """W&B's own files stay in the run's folder too, unless the user has said where they go."""
    usual = {"WANDB_DATA_DIR": folder / "wandb" / "data", "WANDB_CACHE_DIR": folder / "wandb" / "cache"}
    return {**{name: str(path) for name, path in usual.items()}, **os.environ}
