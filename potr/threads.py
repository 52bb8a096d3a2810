# SPDX-License-Identifier: Apache-2.0
"""How many threads to work with: what was asked for, else what the environment and the system grant this process."""

from __future__ import annotations

import os
from pathlib import Path

from potr.errors import ConfigError

MAX_THREADS = 1024  # more than the cores of any machine; systems begin to refuse threads beyond
THREADS_VARIABLE = "OMP_NUM_THREADS"


def checked_threads(threads: int) -> int:
    """``threads``, where it is a number of threads to work with.

    Raises:
        ConfigError: it is not in [1, MAX_THREADS].
    """
    if not 1 <= threads <= MAX_THREADS:
        raise ConfigError(f"threads: expected 1 to {MAX_THREADS}, got {threads}")
    return threads


def available_threads() -> int:
    """The threads to use where nobody says how many: OMP_NUM_THREADS (its first number), else ``available_cores``."""
    first = os.environ.get(THREADS_VARIABLE, "").split(",")[0].strip()
    return min(int(first), MAX_THREADS) if first.isdecimal() and int(first) > 0 else available_cores()


def available_cores() -> int:
    """The cores this process may run on: those of its affinity, or its container's share of time, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cgroup_cores()
    return max(1, min(cores, MAX_THREADS) if share is None else min(cores, MAX_THREADS, int(-(-share // 1))))


def cgroup_cores(root: Path = Path("/")) -> float | None:
    """The cores' worth of time that the process's control groups grant it; None without a limit.

    The least of its own group and those above it counts. Inside a container the paths of /proc/self/cgroup may be
    those of the machine outside: then the mounted root is the container's own group.

    Args:
        root: where proc and sys are.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    mounted, shares = root / "sys/fs/cgroup", []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            bases, read = [mounted, mounted / "unified"], _version_2
        elif "cpu" in controllers.split(","):
            bases, read = [mounted / controllers, mounted / "cpu"], _version_1
        else:
            continue
        for base in bases:
            own = base / path.strip("/")
            while own != base.parent:
                shares.append(read(own))
                own = own.parent
    limited = [share for share in shares if share is not None]
    return min(limited, default=None)


def _version_2(group: Path) -> float | None:
    words = _words(group / "cpu.max")  # "max 100000" without a limit
    return _share(words[0], words[1]) if len(words) == 2 else None


def _version_1(group: Path) -> float | None:
    quota, period = _words(group / "cpu.cfs_quota_us"), _words(group / "cpu.cfs_period_us")  # -1 without a limit
    return _share(quota[0], period[0]) if len(quota) == len(period) == 1 else None


def _share(quota: str, period: str) -> float | None:
    return int(quota) / int(period) if quota.isdecimal() and period.isdecimal() and int(period) > 0 else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
