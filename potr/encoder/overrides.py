# SPDX-License-Identifier: Apache-2.0
"""Single codec parameters given as text or loosely typed values, turned into the stage configs' own types."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from enum import Enum
from typing import Any

from potr.encoder.config import CompactConfig, PruneConfig, QuantizeConfig
from potr.errors import ConfigError

STAGES: Mapping[str, type] = {"prune": PruneConfig, "compact": CompactConfig, "quantize": QuantizeConfig}
_SWITCHES = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False}

Overrides = dict[str, dict[str, Any]]


def parse_overrides(texts: Sequence[str]) -> Overrides:
    """``["prune.cap=1e-8", ...]`` as stage to field to value.

    Raises:
        ConfigError: not of the form STAGE.FIELD=VALUE, an unknown stage or field, or a value of another type.
    """
    overrides: Overrides = {}
    for text in texts:
        path, equals, value = text.partition("=")
        stage, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            raise ConfigError(f"'{text}': expected STAGE.FIELD=VALUE, for example prune.cap=1e-8")
        overrides.setdefault(stage, {})[key] = coerce(stage, key, value.strip())
    return overrides


def coerce(stage: str, key: str, value: Any) -> Any:
    """A value as the type of a stage config's field; text is read, None (or "null") means "from quality".

    Raises:
        ConfigError: unknown stage or field (the allowed ones are listed), or a value of another type.
    """
    if stage not in STAGES:
        raise ConfigError(unknown("stage", stage, STAGES))
    expected = field_types(STAGES[stage])
    if key not in expected:
        raise ConfigError(unknown("parameter", f"{stage}.{key}", [f"{stage}.{name}" for name in expected]))
    if value is None or value == "null":
        return None
    kind = expected[key]
    try:
        return _read(kind, value)
    except (ValueError, KeyError):
        wanted = "one of " + ", ".join(m.value for m in kind) if issubclass(kind, Enum) else _WANTED[kind]
        raise ConfigError(f"{stage}.{key}: expected {wanted}, got {value!r}") from None


_WANTED = {bool: "true or false", int: "a whole number", float: "a number"}


def _read(kind: type, value: Any) -> Any:
    if issubclass(kind, Enum):
        return value if isinstance(value, kind) else kind(str(value).lower())
    if kind is bool:
        return value if isinstance(value, bool) else _SWITCHES[str(value).lower()]
    if isinstance(value, bool) or (kind is int and isinstance(value, float) and not value.is_integer()):
        raise ValueError
    read: Any = kind
    return read(value)


def field_types(config: type) -> dict[str, type]:
    """Field to type, without the ``| None`` of optional fields."""
    hints = typing.get_type_hints(config)
    return {f.name: _without_none(hints[f.name]) for f in fields(config)}


def _without_none(hint: Any) -> type:
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    return typing.cast(type, hint)


def refuse_options(arguments: Sequence[str], names: Iterable[str], options: Iterable[str]) -> None:
    """ConfigError for ``--quality 0.3`` where quality=0.3 is meant.

    Args:
        arguments: of the command line.
        names: the keys that there are.
        options: those with dashes that are allowed; beginnings of long ones are.
    """
    names, options = list(names), tuple(options)
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, value = argument.partition("=")
        wanted = option.strip("-").replace("-", "_")
        shortened = len(option) > 3 and wanted not in names and any(known.startswith(option) for known in options)
        if option in options or shortened or not option.startswith("-") or not option.strip("-")[:1].isalpha():
            continue
        if not equals and following and "=" not in following and not following.startswith("--"):
            argument, value = f"{argument} {following}", following
        found = [name for name in names if name == wanted] or [n for n in names if n.split(".")[-1] == wanted]
        near = found or difflib.get_close_matches(wanted, names, n=1)
        hint = " or ".join(f"{name}={value or 'VALUE'}" for name in near)
        hint = f"did you mean {hint}? " if hint else ""
        raise ConfigError(f"{argument}: {hint}settings are KEY=VALUE, without dashes; --help lists them")


def unknown(what: str, name: str, allowed: Iterable[str]) -> str:
    """The message for a name that does not exist: the nearest one first, then all of them."""
    allowed = list(allowed)
    near = difflib.get_close_matches(name, allowed, n=1)
    hint = f"did you mean '{near[0]}'? " if near else ""
    return f"unknown {what} '{name}'; {hint}allowed: {', '.join(allowed)}"
