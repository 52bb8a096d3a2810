# SPDX-License-Identifier: Apache-2.0
"""Typed reading of JSON somebody else wrote: every refusal names the file, the place and what was found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potr.errors import SceneError

MAX_SIDE = 1 << 16  # pixels; larger image sizes are damage, not photographs


def read_json(path: Path) -> Any:
    """The parsed file; SceneError if it is missing or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SceneError(f"{path}: cannot read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SceneError(f"{path}: not valid JSON: {error}") from error


def is_number(value: Any) -> bool:
    """A finite JSON number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def number(entry: dict[str, Any], key: str, where: str) -> float:
    """A finite number; SceneError otherwise."""
    value = entry.get(key)
    if not is_number(value):
        raise SceneError(f"{where}: expected a finite number '{key}', found {_excerpt(value)}")
    return float(entry[key])


def side(entry: dict[str, Any], key: str, where: str) -> int:
    """An image side in pixels, 1..MAX_SIDE."""
    value = number(entry, key, where)
    if value != round(value) or not 1 <= value <= MAX_SIDE:
        raise SceneError(f"{where}: expected '{key}' to be whole pixels in 1..{MAX_SIDE}, found {value:g}")
    return int(value)


def text(entry: dict[str, Any], key: str, where: str) -> str:
    """A non-empty string."""
    value = entry.get(key)
    if not isinstance(value, str) or not value or "\0" in value:
        raise SceneError(f"{where}: expected a non-empty string '{key}', found {_excerpt(value)}")
    return value


def array(entry: dict[str, Any], key: str, shape: tuple[int, ...], where: str) -> NDArray[np.float64]:
    """Nested lists of finite numbers as a float64 array of exactly this shape."""
    flat: list[Any] = [entry.get(key)]
    for size in shape:
        if not all(isinstance(part, list) and len(part) == size for part in flat):
            raise SceneError(f"{where}: expected '{key}' of shape {list(shape)}, found {_excerpt(entry.get(key))}")
        flat = [value for part in flat for value in part]
    if not all(is_number(value) for value in flat):
        raise SceneError(f"{where}: expected finite numbers in '{key}', found {_excerpt(entry.get(key))}")
    return np.array(flat, np.float64).reshape(shape)


def _excerpt(value: Any) -> str:
    shown = "nothing" if value is None else repr(value)
    return shown if len(shown) <= 80 else shown[:77] + "..."
