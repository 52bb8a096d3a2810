# SPDX-License-Identifier: Apache-2.0
"""Where the runs of a sweep are done, as a frozen dataclass; ``potr.experiment.sweep.plan.launchers`` does it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field, fields
from typing import Any

from potr.encoder.quality import unknown
from potr.errors import BackendUnavailable, ConfigError, install_command
from potr.threads import MAX_THREADS

# Launcher to the settings it takes.
LAUNCHERS: dict[str, tuple[str, ...]] = {
    "local": (),
    "joblib": ("jobs",),
    "submitit_local": ("jobs", "cpus", "minutes"),
    "slurm": (
        *("jobs", "cpus", "gpus", "memory_gb", "minutes", "requeues"),
        *("partition", "account", "qos", "setup", "options"),
    ),
    "ray": ("cpus", "gpus", "memory_gb", "address"),
}
# Launcher to its package and the extra of ours that brings it.
PACKAGES = {
    "joblib": ("joblib", "launchers"),
    "submitit_local": ("submitit", "launchers"),
    "slurm": ("submitit", "launchers"),
    "ray": ("ray", "ray"),
}


@dataclass(frozen=True)
class LauncherConfig:
    """``name`` and the settings of that launcher; those of the others are None, which conf/launcher explains.

    Raises:
        ConfigError: unknown launcher, a setting it does not take, or a value out of its range.
    """

    name: str = "local"
    jobs: int | None = None
    cpus: int | None = None
    gpus: int | None = None
    memory_gb: int | None = None
    minutes: int | None = None
    requeues: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    setup: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    address: str | None = None

    def __post_init__(self) -> None:
        if self.name not in LAUNCHERS:
            raise ConfigError(unknown("value of launcher.name:", self.name, LAUNCHERS))
        taken = LAUNCHERS[self.name]
        for f in fields(self):
            value = getattr(self, f.name)
            if f.name == "name" or value is None or value in ({}, []):
                continue
            if f.name not in taken:
                settings = ", ".join(f"launcher.{name}" for name in taken) or "nothing"
                raise ConfigError(f"launcher={self.name} takes {settings}; got launcher.{f.name}={value}")
            low = 0 if f.name in ("gpus", "requeues") else 1
            if isinstance(value, int) and value < low:
                raise ConfigError(f"launcher.{f.name}: expected a whole number of at least {low}, got {value}")
            if f.name == "cpus" and value > MAX_THREADS:
                raise ConfigError(f"launcher.cpus: expected at most {MAX_THREADS}, got {value}")


def require(launcher: LauncherConfig) -> None:
    """Refuse a launcher whose package is missing.

    Raises:
        BackendUnavailable: with the command that installs it.
    """
    package, extra = PACKAGES.get(launcher.name, (None, None))
    if package is not None and extra is not None and not installed(package):
        raise BackendUnavailable(
            f"launcher={launcher.name} needs the {package} package, which is not installed: {install_command(extra)}"
        )


def installed(package: str) -> bool:
    """Whether a package can be imported; it is not."""
    return importlib.util.find_spec(package) is not None
