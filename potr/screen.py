# SPDX-License-Identifier: Apache-2.0
"""The screen: progress bars and log lines on stderr, results on stdout. The only module that knows rich."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console
from rich.highlighter import ReprHighlighter
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from potr.progress import Progress

log = logging.getLogger("potr")
SECONDS_BETWEEN_LINES = 10.0
_open: list[Progress] = []  # the screen of this process, if it has one


@contextmanager
def screen(verbosity: int = 0, prefix: str = "") -> Iterator[Progress]:
    """Log lines and progress on stderr while the block runs: bars on a terminal, else a line every ten seconds.

    Inside another screen it is that one.

    Args:
        verbosity: -1 warnings only and no progress, 0 what happens, 1 everything.
        prefix: in front of every line, for one process of several that share a terminal; there are no bars then.
    """
    if _open:
        yield _open[-1]
        return
    console = Console(stderr=True)
    level = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    barred = console.is_terminal and not prefix
    if barred:
        handler: logging.Handler = _UnbrokenLines(console)
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(f"%(asctime)s {prefix}%(message)s", "%H:%M:%S"))
    handler.setLevel(level)
    before = log.level, log.propagate
    log.setLevel(logging.DEBUG)  # the handlers choose; a run's log file takes everything
    log.propagate = False
    log.addHandler(handler)
    try:
        with _bars(console) if barred and verbosity >= 0 else nullcontext() as bars:
            _open.append(Progress(LogProgress() if bars is None else TerminalProgress(bars)))
            yield _open[-1]
    finally:
        _open.clear()
        log.removeHandler(handler)
        handler.close()
        log.setLevel(before[0])
        log.propagate = before[1]


@contextmanager
def log_file(path: Path) -> Iterator[None]:
    """Append everything POTR logs to a file while the block runs."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    level = log.level
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(level)
        handler.close()


def show(text: str) -> None:
    """Write a result to stdout."""
    sys.stdout.write(text.rstrip("\n") + "\n")
    sys.stdout.flush()


class _UnbrokenLines(logging.Handler):
    """Log lines above the bars, each as one line however long it is: a command in it can be copied and run."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console, self._highlight = console, ReprHighlighter()
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            time_of_day = Text(f"{time.strftime('%X', time.localtime(record.created))} ", style="log.time")
            self._console.print(time_of_day + self._highlight(Text(self.format(record))), soft_wrap=True)
        except Exception:
            self.handleError(record)


class TerminalProgress:
    """A bar for every stage; the finished ones go."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total)
        self._bars.update(self._tasks[stage], completed=done, total=total)
        if done >= total:
            self._bars.remove_task(self._tasks.pop(stage))


class LogProgress:
    """A log line every ten seconds, whether one stage takes so long or many short ones do."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._starts: dict[str, float] = {}
        self._last = clock()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = self._clock()
        start = self._starts.setdefault(stage, now)
        if done >= total:
            del self._starts[stage]
        elif now - self._last >= SECONDS_BETWEEN_LINES:
            self._last = now
            left = f", {(now - start) * (total - done) / done:.0f} s left" if done else ""
            log.info("%s: %d of %d after %.0f s%s", stage, done, total, now - start, left)


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f}/s" if task.speed else "")


def _bars(console: Console) -> Bars:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _RateColumn(),
        TimeRemainingColumn(),
    )
    return Bars(*columns, console=console, transient=True)
