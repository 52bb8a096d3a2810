# SPDX-License-Identifier: Apache-2.0
"""The options of the peers that are written here: each has a default, a type and a range."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from potr.errors import ConfigError


@dataclass(frozen=True)
class Option:
    """One option; None as default means "from quality", or ``unset``.

    Attributes:
        default: None, a bool, a whole number or a real number; its type, or ``kind`` where it is None, is the option's.
        low, high: the inclusive range of a number.
        kind: int or float, where the default is None.
        unset: what None becomes where it is not from quality.
    """

    default: Any
    low: float = -math.inf
    high: float = math.inf
    kind: type | None = None
    unset: Any = None

    @property
    def type(self) -> type:
        return self.kind or type(self.default)

    def __str__(self) -> str:
        if self.type is bool:
            return "true or false"
        number = "a whole number" if self.type is int else "a number"
        return f"{number} in [{self.low:g}, {self.high:g}]" + (" or null" if self.default is None else "")


SEED = Option(None, 0, 1 << 31, int, unset=0)  # a run gives its own where none is given


def defaults(table: Mapping[str, Option]) -> dict[str, Any]:
    """Option to default."""
    return {name: option.default for name, option in table.items()}


def checked(codec: str, table: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a codec with its value.

    Raises:
        ConfigError: an unknown option, or a value of another type or out of its range.
    """
    for name in given:
        if name not in table:
            raise ConfigError(f"codec={codec}: unknown option '{name}'; there are {', '.join(table)}")
    return {name: _checked(f"codec.options.{name}", o, given.get(name, o.default)) for name, o in table.items()}


def _checked(name: str, option: Option, value: Any) -> Any:
    if value is None and option.default is None:
        return option.unset
    if option.type is bool:
        fits = isinstance(value, bool)
    else:
        fits = isinstance(value, (int, option.type)) and not isinstance(value, bool)
        fits = fits and math.isfinite(value) and option.low <= value <= option.high
    if not fits:
        raise ConfigError(f"{name}: expected {option}, got {value!r}")
    return option.type(value)


def checked_quality(quality: float) -> float:
    """Raises ConfigError outside (0, 1]."""
    if not (math.isfinite(quality) and 0 < quality <= 1):
        raise ConfigError(f"quality: expected a number in (0, 1], got {quality}")
    return quality
