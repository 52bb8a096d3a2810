# SPDX-License-Identifier: Apache-2.0
"""What an encode has found out, kept in a folder under the hash of what it was made from.

One way to skip work that was done before: an interrupted encode goes on from its last pass, encodes that prune alike
share the pruning, all qualities of a model share the removal costs of the first pass, and a search for a target finds
the trials that it has made. Whatever is in the folder may be deleted at any time.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
import sysconfig
import time
import types
import typing
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from potr.errors import PotrError
from potr.files import has_room, write_atomic
from potr.model.cameras import View
from potr.model.splats import SplatModel

log = logging.getLogger(__name__)

EVERY = 60.0  # seconds between two savings of unfinished work: a model of 6 M splats takes seconds to write
_PACKAGE = Path(__file__).resolve().parents[1]
ROOMS = ("model", "io", "render", "format", "evaluate", "encoder", "native")
T = TypeVar("T")


@dataclass(frozen=True)
class Resume:
    """Where values are kept.

    Attributes:
        folder: None keeps nothing.
        every: seconds between two savings of one piece of unfinished work.
    """

    folder: Path | None = None
    every: float = EVERY

    def of(self, model: SplatModel, views: Sequence[View], backend: str) -> Kept:
        """The values made from a model and its views by a backend and this version of the code."""
        return Kept(self, fingerprint(model, views, backend) if self.folder is not None else "", model.device)

    def clear(self) -> None:
        """Remove the folder."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


NO_RESUME = Resume()


@dataclass(frozen=True)
class Kept:
    """The values of one model, views and backend.

    ``with kept:`` writes what is pending where the block is left by an exception, Ctrl-C included; where it ends,
    what serves an interrupted encode alone is removed.
    """

    resume: Resume
    key: str
    device: torch.device
    entries: list[Entry[Any]] = field(default_factory=list)

    def entry(self, kind: type[T], name: str, *settings: object, lasting: bool = False) -> Entry[T]:
        """A value.

        Args:
            kind: its class, a frozen dataclass.
            name: of what it is.
            settings: all else that it depends on, by their ``repr``: the upstream ones, too.
            lasting: whether others than this encode, interrupted, have a use for it.
        """
        digest = hashlib.sha256(repr((self.key, name, settings)).encode()).hexdigest()
        folder = self.resume.folder
        path = None if folder is None else folder / f"{name}-{digest[:20]}.npz"
        self.entries.append(Entry(kind, path, self.resume.every, self.device, lasting))
        return self.entries[-1]

    @property
    def resumed(self) -> bool:
        """Whether anything was found that an interrupted encode had left."""
        return any(entry.found and not (entry.lasting and entry.finished) for entry in self.entries)

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        for entry in self.entries:
            if raised is not None:
                entry.flush()
            elif not entry.lasting:
                entry.drop()


@dataclass(eq=False)
class Entry(Generic[T]):
    """One value: a frozen dataclass of numbers, strings, dicts, bytes, tensors, enums left out, and such dataclasses.

    Attributes:
        kind: its class.
        path: where it lies; None keeps nothing.
        every: seconds between two savings of unfinished work.
        device: where its tensors come to.
        lasting: whether it stays when the encode has ended.
        found: whether there was one.
        finished: whether the one found was more than an interrupted part.
        seconds: that the one found took to make; 0 where there was none.
    """

    kind: type[T]
    path: Path | None = None
    every: float = EVERY
    device: torch.device | str = "cpu"
    lasting: bool = False
    found: bool = False
    finished: bool = False
    seconds: float = 0.0
    _begin: float = field(default_factory=time.perf_counter)
    _written: float = -float("inf")
    _pending: tuple[T, bool] | None = None

    def load(self) -> T | None:
        """The value; None if there is none, or it is damaged, which a warning says."""
        self._begin = time.perf_counter()
        if self.path is None or not self.path.exists():
            return None
        try:
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            stored = json.loads(arrays["json"].tobytes())
            value: T = _unpack(self.kind, stored["value"], arrays, self.device)
            self.seconds, self.finished, self.found = float(stored["seconds"]), bool(stored["finished"]), True
        except Exception as error:  # of a damaged archive numpy and zipfile raise almost anything
            log.warning("%s: unreadable (%s: %s); it is made again", self.path, type(error).__name__, error)
            return None
        return value

    def save(self, value: T, *, finished: bool = True) -> T:
        """Keep the value in place of the last one, an unfinished one if that is long enough ago; returns it."""
        if self.path is not None:
            self._pending = value, finished
            if finished or time.perf_counter() - self._written >= self.every:
                self.flush()
        return value

    def flush(self) -> None:
        """Write what is pending. Where that cannot be, the work is done again some day: no error."""
        if self.path is None or self._pending is None:
            return
        (value, finished), self._pending = self._pending, None
        arrays: dict[str, Any] = {}
        seconds = self.seconds + time.perf_counter() - self._begin
        stored = {"value": _pack(value, arrays), "seconds": seconds, "finished": finished}
        arrays["json"] = np.frombuffer(json.dumps(stored).encode(), np.uint8)
        try:
            if has_room(self.path, sum(array.nbytes for array in arrays.values())):
                write_atomic(self.path, lambda file: np.savez(file, **arrays), overwrite=True)
            else:
                log.debug("%s: not kept, the disk is nearly full", self.path)
        except PotrError as error:
            log.debug("not kept: %s", error)
        self._written = time.perf_counter()

    def drop(self) -> None:
        """Nobody needs the value any more."""
        self._pending = None
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink()


def fingerprint(model: SplatModel, views: Sequence[View], *settings: object) -> str:
    """Hex digest of a model, its views, settings and the code that works on them."""
    parts = (model_sha256(model), views_sha256(views), code_sha256(), repr(settings))
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def model_sha256(model: SplatModel) -> str:
    """Hex digest of a model's values."""
    digest = hashlib.sha256()
    for f in fields(model):
        tensor: Tensor = getattr(model, f.name)
        digest.update(f"{f.name} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def views_sha256(views: Sequence[View]) -> str:
    """Hex digest of names, cameras, backgrounds, and photographs as they lie in their files."""
    digest = hashlib.sha256()
    for view in views:
        c = view.camera
        numbers = (view.name, c.width, c.height, c.fx, c.fy, c.cx, c.cy, view.background, c.viewmat.tolist())
        digest.update(repr(numbers).encode() + view.photo_sha256().encode())
    return digest.hexdigest()


@cache
def code_sha256(*rooms: str) -> str:
    """Hex digest of the sources in these folders of the package; by default of all code that decides a result, the
    native modules included.
    """
    digest = hashlib.sha256()
    for room in rooms or ROOMS:
        for path in sorted((_PACKAGE / room).rglob("*")):
            if path.suffix in (".py", ".cpp", ".h", ".cu"):
                digest.update(f"{path.relative_to(_PACKAGE)}".encode() + path.read_bytes())
    # What was compiled lies in the package, or elsewhere where that is installed editable.
    folders = dict.fromkeys((_PACKAGE, Path(sysconfig.get_path("platlib")) / "potr"))
    for path in [path for folder in folders for path in sorted([*folder.glob("_*.so"), *folder.glob("_*.pyd")])]:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _pack(value: Any, arrays: dict[str, Any]) -> Any:
    """JSON of a value; its tensors and bytes go to ``arrays`` and leave their name."""
    if isinstance(value, Tensor | bytes):
        name = f"a{len(arrays)}"
        arrays[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value.detach().cpu().numpy()
        return name
    if dataclasses.is_dataclass(value):
        return {f.name: _pack(getattr(value, f.name), arrays) for f in fields(value)}
    return [_pack(item, arrays) for item in value] if isinstance(value, tuple) else value


def _unpack(kind: Any, stored: Any, arrays: dict[str, Any], device: torch.device | str) -> Any:
    """The inverse of ``_pack``, for a value of this type."""
    if isinstance(kind, types.UnionType):
        if stored is None:
            return None
        (kind,) = (option for option in typing.get_args(kind) if option is not types.NoneType)
    if kind is Tensor:
        return torch.from_numpy(arrays[stored]).to(device)
    if kind is bytes:
        return arrays[stored].tobytes()
    if typing.get_origin(kind) is tuple:
        return tuple(_unpack(typing.get_args(kind)[0], item, arrays, device) for item in stored)
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: _unpack(hints[f.name], stored[f.name], arrays, device) for f in fields(kind)})
    return stored
