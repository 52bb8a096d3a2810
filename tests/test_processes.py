# SPDX-License-Identifier: Apache-2.0
"""Programs started by tests get their signals and come to an end; and no test starts one without a limit."""

import ast
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.processes import LIMIT, started

TESTS = Path(__file__).resolve().parents[0]
STARTS = {"run", "call", "check_call", "check_output"}


@pytest.fixture
def ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ignored")
def test_an_interruption_reaches_a_program_started_where_they_are_ignored() -> None:
    with started([sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGINT
    assert err.endswith("KeyboardInterrupt\n")
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_program_and_its_children_end_at_the_limit() -> None:
    sleep = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    with started([sys.executable, "-c", sleep], limit=0.5) as process:
        assert process.communicate(timeout=LIMIT) == ("", "")  # the child has the pipes too: it is gone
    assert process.returncode == -signal.SIGKILL


def without_limit(source: str) -> list[int]:
    """The lines that start a program, or wait for one, for as long as it likes."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        of_subprocess = isinstance(node.func.value, ast.Name) and node.func.value.id == "subprocess"
        limited = any(keyword.arg == "timeout" for keyword in node.keywords)
        needs_limit = node.func.attr == "communicate" or (of_subprocess and node.func.attr in STARTS)
        if (needs_limit and not limited) or (of_subprocess and node.func.attr == "Popen"):
            lines.append(node.lineno)
    return sorted(lines)


def test_what_counts_as_without_limit() -> None:
    source = "subprocess.run(a)\nsubprocess.run(a, timeout=1)\nsubprocess.Popen(a)\np.communicate()\nthread.start()\n"
    assert without_limit(source) == [1, 3, 4]


def test_every_program_that_a_test_starts_has_a_limit() -> None:
    files = [path for path in TESTS.rglob("*.py") if path.name != "processes.py"]
    assert len(files) > 100
    found = {str(path): lines for path in files if (lines := without_limit(path.read_text()))}
    assert found == {}, "give subprocess.run a timeout; tests.helpers.processes.started instead of subprocess.Popen"
