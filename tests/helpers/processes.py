# SPDX-License-Identifier: Apache-2.0
"""Programs that tests start: all end in time, and Ctrl-C reaches them however the tests were started."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

LIMIT = 900  # seconds; some start torch several times, on machines that are busy


@contextmanager
def started(command: Sequence[str], *, limit: float = LIMIT, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program at work, its output in pipes, as text; killed at the end, or after ``limit`` seconds, with its own
    children. Whoever waits for its output or its end therefore does not wait for ever."""
    with _interruptions_not_ignored():
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
            **options,
        )
    watch = threading.Timer(limit, _kill, [process])
    watch.daemon = True
    watch.start()
    try:
        with process:
            try:
                yield process
            finally:
                _kill(process)
    finally:
        watch.cancel()


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


@contextmanager
def _interruptions_not_ignored() -> Iterator[None]:
    """Programs inherit that SIGINT is ignored, as it is in `make test &` and in jobs of some build servers, but not a
    handler: they are started while there is one."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
