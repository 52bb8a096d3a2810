# SPDX-License-Identifier: Apache-2.0
"""Reads what W&B's client wrote offline: a .wandb file is a LevelDB log of the client's own protobuf records."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, HEAD = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


@dataclass
class WandbLog:
    """One W&B run as recorded. ``history`` are the logged rows, ``summary`` the last value of every key."""

    run: Any = None
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)
    exit_code: int | None = None


def read_wandb_logs(folder: Path) -> list[WandbLog]:
    """The W&B runs of a folder, in the order of their start."""
    return [read_wandb_log(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]


def read_wandb_log(path: Path) -> WandbLog:
    from wandb.proto.wandb_internal_pb2 import Record

    log = WandbLog()
    for data in _records(path.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        value = getattr(record, str(kind), None)
        if kind == "run":
            log.run = value
            log.config |= _items(value.config.update)
        elif kind == "config":
            log.config |= _items(value.update)
        elif kind == "history":
            log.history.append({k: v for k, v in _items(value.item).items() if not k.startswith("_")})
        elif kind == "summary":
            log.summary |= _items(value.update)
        elif kind == "metric":
            log.steps[value.name or value.glob_name] = value.step_metric
        elif kind == "artifact":
            log.artifacts[value.type] = value
        elif kind == "files":
            log.files |= {file.path for file in value.files}
        elif kind == "exit":
            log.exit_code = value.exit_code
    return log


def _items(items: Any) -> dict[str, Any]:
    return {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    at, parts = HEAD, b""
    while at + HEAD <= len(data):
        room = BLOCK - at % BLOCK
        if room < HEAD:  # a block ends with zeros where no record's head has room
            at += room
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + HEAD : at + HEAD + length]
        assert len(part) == length
        parts = part if kind in (FULL, FIRST) else parts + part
        if kind in (FULL, LAST):
            yield parts
        at += HEAD + length
