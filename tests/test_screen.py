# SPDX-License-Identifier: Apache-2.0
"""What the screen shows of long work, on a terminal and into a file."""

import io
import logging
import re
from pathlib import Path

import pytest
from rich.console import Console

from potr import screen


def test_without_a_terminal_a_long_stage_says_where_it_is_every_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    seconds = 0.0
    progress = screen.LogProgress(clock=lambda: seconds)
    with caplog.at_level(logging.INFO, logger="potr"):
        for done in range(31):
            progress("early pruning pass 1/8", done, 30)
            seconds += 1.0
    assert [record.getMessage() for record in caplog.records] == [
        "early pruning pass 1/8: 10 of 30 after 10 s, 20 s left",
        "early pruning pass 1/8: 20 of 30 after 20 s, 10 s left",
    ]


def test_without_a_terminal_many_short_stages_say_where_they_are_too(caplog: pytest.LogCaptureFixture) -> None:
    seconds = 0.0
    progress = screen.LogProgress(clock=lambda: seconds)
    with caplog.at_level(logging.INFO, logger="potr"):
        for step in range(1, 6):
            for done in range(7):
                progress(f"refit, step {step}/5", done, 6)
                seconds += 1.0
    assert [record.getMessage() for record in caplog.records] == [
        "refit, step 2/5: 3 of 6 after 3 s, 3 s left",
        "refit, step 4/5: 0 of 6 after 0 s",
        "refit, step 5/5: 3 of 6 after 3 s, 3 s left",
    ]


def test_without_a_terminal_quick_stages_say_nothing(caplog: pytest.LogCaptureFixture) -> None:
    progress = screen.LogProgress()
    with caplog.at_level(logging.DEBUG, logger="potr"):
        for done in range(100):
            progress("quick", done, 99)
    assert not caplog.records


def test_on_a_terminal_a_stage_is_a_bar_with_count_rate_and_time_left() -> None:
    shown = io.StringIO()
    with screen._bars(Console(file=shown, force_terminal=True, width=100)) as bars:
        progress = screen.TerminalProgress(bars)
        progress("compact", 0, 40)
        progress("compact", 10, 40)
        bars.refresh()
        assert [task.description for task in bars.tasks] == ["compact"]
        progress("compact", 40, 40)
        assert not bars.tasks
    assert "compact" in shown.getvalue()
    assert "10/40" in shown.getvalue()


def test_the_screen_logs_to_stderr_and_leaves_logging_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("potr")
    before = list(logger.handlers), logger.level, logger.propagate
    with screen.screen():
        logging.getLogger("potr.encoder").info("seen")
        logging.getLogger("potr.encoder").debug("not seen")
    with screen.screen(verbosity=-1):
        logging.getLogger("potr.encoder").info("quiet")
    screen.show("a result")
    out, err = capsys.readouterr()
    assert err.endswith(" seen\n")
    assert "quiet" not in err
    assert out == "a result\n"
    assert (list(logger.handlers), logger.level, logger.propagate) == before


def test_the_log_file_takes_everything_and_is_appended_to(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with screen.screen(verbosity=-1), screen.log_file(tmp_path / "run.log"):
            logging.getLogger("potr.encoder").debug(text)
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert [line.split()[-1] for line in lines] == ["first", "second"]


def test_a_long_line_stays_one_so_that_a_command_in_it_can_be_copied() -> None:
    shown = io.StringIO()
    handler = screen._UnbrokenLines(Console(file=shown, force_terminal=True, width=40))
    command = "wandb sync " + "/a/long/folder" * 20
    handler.emit(logging.LogRecord("potr", logging.INFO, __file__, 1, "to send this run: %s", (command,), None))
    (line,) = shown.getvalue().splitlines()
    assert command in re.sub(r"\x1b\[[\d;]*m", "", line)
