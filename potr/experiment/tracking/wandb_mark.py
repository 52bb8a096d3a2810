# SPDX-License-Identifier: Apache-2.0
"""A note in a run's folder of what W&B has of it: a finished run is recorded again only when there is more to say.

What is offline lies on this disk, which is enough until it can be sent.
"""

from __future__ import annotations

import json
import logging
import netrc
import os
import shlex
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from potr.errors import PotrError
from potr.experiment.schema import TrackerConfig
from potr.experiment.tracking.wandb_run import Recorded
from potr.files import write_atomic

log = logging.getLogger(__name__)

MARKER = Path("wandb", "tracked.json")  # in a run's folder
_HOST = "https://api.wandb.ai"


@dataclass(frozen=True)
class Asked:
    """What W&B should have: where, of which bytes, and whether with pictures and files."""

    entity: str | None
    project: str | None
    sha256: str
    images: bool = False
    artifact: bool = False


def mark(folder: Path, asked: Asked, recorded: Recorded) -> None:
    """Note what W&B has of a folder, and how it got it."""
    what = {**asdict(asked), **asdict(recorded)}
    with suppress(PotrError):  # without the note it is only recorded once more
        write_atomic(folder / MARKER, (json.dumps(what, indent=2) + "\n").encode(), overwrite=True)


def is_enough(folder: Path, asked: Asked, settings: TrackerConfig) -> bool:
    """Whether W&B has all of it as far as it can have it; says how to send what stays offline."""
    found = _marked(folder)
    same = all(found.get(name) == getattr(asked, name) for name in ("entity", "project", "sha256"))
    less = any(getattr(asked, name) and not found.get(name) for name in ("images", "artifact"))
    if not same or less:
        return False
    offline = Path(str(found.get("folder")))
    if found.get("mode") == "online" or any(offline.glob("*.synced")):
        return True
    if found.get("mode") != "offline" or not offline.is_dir() or _may_be_online(settings):
        return False
    log.info("W&B: %s was recorded earlier, offline: wandb sync %s", folder, shlex.quote(str(offline)))
    return True


def _may_be_online(settings: TrackerConfig) -> bool:
    """Whether the mode allows it and, unless it was asked for by name, W&B would find a login."""
    mode = os.environ.get("WANDB_MODE", "online") if settings.mode == "auto" else settings.mode
    return mode == "online" and (settings.mode == "online" or _logged_in())


def _logged_in() -> bool:
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", _HOST)).netloc
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path("~/.netrc"), Path("~/_netrc")]:
        with suppress(OSError, RuntimeError, netrc.NetrcParseError):
            if netrc.netrc(str(path.expanduser())).authenticators(host):
                return True
    return False


def _marked(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
