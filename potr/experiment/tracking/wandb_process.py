# SPDX-License-Identifier: Apache-2.0
"""Weights & Biases in a process of its own; the only module that imports wandb.

``tracking.py`` starts this file and writes two JSON lines to it: how to open the W&B run, and later what to record in
it. What became of that is written back, also as JSON lines. The run that is tracked shares neither hooks, signals,
environment nor memory with W&B, and can go on without it. Nothing of potr is imported here: this starts at once.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Reply = Callable[..., None]

DIED = {"exit_code": 1, "summary": {"failure": "the process ended without a word"}}


def main() -> int:
    """Record what standard input says; exit code 0 if W&B took everything."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever wandb prints is not a reply

    def reply(**message: Any) -> None:
        print(json.dumps(message), file=replies, flush=True)

    try:
        run = _open(json.loads(sys.stdin.readline()), reply)
        line = sys.stdin.readline()
        _close(run, json.loads(line) if line else DIED)
    except Exception as error:
        reply(error=f"{type(error).__name__}: {error}")
        return 1
    reply(done=True)
    return 0


def _open(start: dict[str, Any], reply: Reply) -> Any:
    """Begin the W&B run; offline where it cannot be online, for nobody is there to be asked for a key."""
    import wandb

    settings = wandb.Settings(**start["settings"])
    offline_because = None
    try:
        run = wandb.init(**start["init"], mode=start["mode"], settings=settings)
    except Exception as error:
        if start["mode"] == "offline":
            raise
        offline_because = " ".join(str(error).split())
        wandb.teardown()  # the attempt may have left the id in use
        run = wandb.init(**start["init"], mode="offline", settings=settings)
    for name, step in start["steps"].items():
        run.define_metric(name, step_metric=step)
    url = run.url if run.settings.mode == "online" else None
    reply(mode=run.settings.mode, because=offline_because, url=url, folder=run.settings.sync_dir)
    return run


def _close(run: Any, end: dict[str, Any]) -> None:
    """Record everything and finish the W&B run, as failed if that does not work."""
    try:
        _record(run, end)
    except Exception:
        run.finish(exit_code=1)
        raise
    run.finish(exit_code=end["exit_code"])


def _record(run: Any, end: dict[str, Any]) -> None:
    import wandb

    run.config.update(end.get("config", {}), allow_val_change=True)
    for row in end.get("history", ()):
        run.log(row)
    run.log(end.get("numbers", {}), commit=False)  # first: they are there even if what is drawn is not taken
    shown: dict[str, Any] = {}
    for name, pictures in end.get("images", {}).items():
        shown[name] = [wandb.Image(path, caption=caption) for path, caption in pictures]
    shown |= {name: wandb.Table(**table) for name, table in end.get("tables", {}).items()}
    shown |= {name: wandb.plot.line_series(**chart) for name, chart in end.get("charts", {}).items()}
    run.log(shown)
    run.summary.update(end.get("summary", {}))
    if "artifact" in end:
        artifact = wandb.Artifact(**end["artifact"])
        for path in end["files"]:
            artifact.add_file(path, policy="immutable", skip_cache=True)  # not copied
        run.log_artifact(artifact)


if __name__ == "__main__":
    sys.exit(main())
