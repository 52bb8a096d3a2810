# SPDX-License-Identifier: Apache-2.0
"""How many threads there are to work with, by what the environment and the system say."""

import os
from pathlib import Path

import pytest

from potr import threads
from potr.errors import ConfigError
from potr.render.cpu import CpuRasterizer
from potr.render.reference import ReferenceRasterizer
from potr.threads import MAX_THREADS, available_cores, available_threads, cgroup_cores, checked_threads


def machine(root: Path, groups: str, files: dict[str, str]) -> Path:
    """A folder with what a system says of a process's control groups."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "cores"),
    [
        pytest.param("0::/\n", {"cpu.max": "max 100000\n"}, None, id="version 2 without a limit"),
        pytest.param("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5, id="version 2 in a container"),
        pytest.param(
            "0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000"}, 0.5, id="the one above"
        ),
        pytest.param("0::/of/the/host\n", {"cpu.max": "300000 100000"}, 3.0, id="a path that is not mounted here"),
        pytest.param("0::/../../x\n", {"cpu.max": "300000 100000"}, 3.0, id="a path that leads out of what is mounted"),
        pytest.param(
            "4:cpu,cpuacct:/docker/1\n1:name=systemd:/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "150000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1.5,
            id="version 1",
        ),
        pytest.param(
            "2:cpuacct:/\n1:cpu:/\n0::/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
            id="version 1 without a limit",
        ),
        pytest.param("0::/\n", {"cpu.max": "what\n"}, None, id="something else"),
        pytest.param("0::/\n", {}, None, id="no files"),
    ],
)
def test_a_container_s_share_of_cores(tmp_path: Path, groups: str, files: dict[str, str], cores: float | None) -> None:
    assert cgroup_cores(machine(tmp_path, groups, files)) == cores


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup_cores(tmp_path) is None


@pytest.mark.parametrize(("share", "cores"), [(None, 8), (0.5, 1), (2.5, 3), (64.0, 8)])
def test_the_lesser_of_affinity_and_share(monkeypatch: pytest.MonkeyPatch, share: float | None, cores: int) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(threads, "cgroup_cores", lambda: share)
    assert available_cores() == cores


@pytest.mark.parametrize(
    ("said", "expected"), [("3", 3), ("5,2", 5), (" 4 ", 4), ("100000", MAX_THREADS), ("0", 8), ("many", 8), ("", 8)]
)
def test_omp_num_threads_is_respected(monkeypatch: pytest.MonkeyPatch, said: str, expected: int) -> None:
    monkeypatch.setattr(threads, "available_cores", lambda: 8)
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert available_threads() == expected
    assert CpuRasterizer().threads == expected


@pytest.mark.parametrize("count", [-1, 0, MAX_THREADS + 1, 100_000])
def test_numbers_out_of_range_are_refused(count: int) -> None:
    for refuses in (checked_threads, CpuRasterizer, ReferenceRasterizer):
        with pytest.raises(ConfigError, match=f"threads: expected 1 to 1024, got {count}"):
            refuses(count)
