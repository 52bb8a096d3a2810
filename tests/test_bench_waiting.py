# SPDX-License-Identifier: Apache-2.0
"""The benchmark of waiting loads the machine itself and compares what it says it compares."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import bench_waiting


def test_busy_processes_are_there_meanwhile_only(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[subprocess.Popen[str]] = []
    start = subprocess.Popen

    def noted(*arguments: object, **options: object) -> object:
        begun.append(start(*arguments, **options))  # type: ignore[call-overload]
        return begun[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    with bench_waiting.busy(2):
        assert [process.poll() for process in begun] == [None, None]
    assert all(process.returncode is not None for process in begun)


def test_the_rows_are_ratios_to_the_first_of_their_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[int] = []
    seconds = {("other", 1): 8.0, ("other", 2): 4.0, (sys.executable, 1): 10.0, (sys.executable, 2): 6.0}

    class Load:
        def __init__(self, count: int) -> None:
            loaded.append(count)

        def __enter__(self) -> None: ...

        def __exit__(self, *_: object) -> None: ...

    arguments = argparse.Namespace(busy=3, threads=2, repeats=1, before="other")
    monkeypatch.setattr(bench_waiting, "busy", Load)
    monkeypatch.setattr(bench_waiting, "idle_share", lambda: 0.98)
    monkeypatch.setattr(bench_waiting, "encode", lambda p, s, t, a: (seconds[p, t], "hash"))
    lines = bench_waiting.measure(Path("scene"), arguments).splitlines()
    assert loaded == [3]
    assert lines[2:] == [
        "| beside 3 busy processes, 1 thread | 10.0 | 1.00 |",
        "| beside 3 busy processes, 2 threads | 6.0 | 0.60 |",
        "| quiet, 1 thread, before | 8.0 | 1.00 |",
        "| quiet, 2 threads, before | 4.0 | 1.00 |",
        "| quiet, 1 thread, now | 10.0 | 1.25 |",
        "| quiet, 2 threads, now | 6.0 | 1.50 |",
        "",
        "A busy loop got 0.98 of a core before the quiet rows.",
    ]


def test_different_files_from_the_same_input_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_waiting, "encode", lambda p, s, t, a: (1.0, str(t)))
    with pytest.raises(SystemExit, match="2 different files from the same input"):
        bench_waiting.alternating([("p", 1), ("p", 2)], Path("scene"), argparse.Namespace(repeats=1))


def test_the_median_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([9.0, 1.0, 2.0])
    monkeypatch.setattr(bench_waiting, "encode", lambda p, s, t, a: (next(seconds), ""))
    assert bench_waiting.alternating([("p", 1)], Path("scene"), argparse.Namespace(repeats=3)) == [2.0]
