# SPDX-License-Identifier: Apache-2.0
"""What a codec that POTR is compared with has to offer: bytes from a model, and the model back from the bytes."""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

import potr
from potr.encoder.encode import StageReport
from potr.errors import ConfigError
from potr.model.cameras import View
from potr.model.check import check_model
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class PeerEncoded:
    """What a peer made of a model.

    Attributes:
        data: everything its decoder needs, as one string of bytes; its length is the size that is compared.
        stages: what was done, with seconds; stage names are the peer's own.
        parameters: what quality and the options resolved to; JSON-able.
        sections: payload bytes by part, where the peer can tell; what they leave of ``data`` is its container.
        resumed: whether an interrupted encode went on; no peer's does.
    """

    data: bytes
    stages: tuple[StageReport, ...]
    parameters: dict[str, Any]
    sections: dict[str, int] = field(default_factory=dict)
    resumed: bool = False


@dataclass(frozen=True)
class Option:
    """One option of a peer; None as default means "from quality", or ``unset``.

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

    def checked(self, name: str, value: Any) -> Any:
        """The value, of the option's type; ConfigError if it has another type or is out of range."""
        if value is None and self.default is None:
            return self.unset
        if self.type is bool:
            fits = isinstance(value, bool)
        else:
            fits = isinstance(value, (int, self.type)) and not isinstance(value, bool)
            fits = fits and math.isfinite(value) and self.low <= value <= self.high
        if not fits:
            raise ConfigError(f"{name}: expected {self}, got {value!r}")
        return self.type(value)


SEED = Option(None, 0, 1 << 31, int, unset=0)  # a run gives its own where none is given


def checked(codec: str, table: Mapping[str, Option], given: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a codec with its value.

    Raises:
        ConfigError: an unknown option, or a value of another type or out of its range.
    """
    for name in given:
        if name not in table:
            raise ConfigError(f"codec={codec}: unknown option '{name}'; there are {', '.join(table)}")
    return {name: o.checked(f"codec.options.{name}", given.get(name, o.default)) for name, o in table.items()}


def checked_quality(quality: float) -> float:
    """Raises ConfigError outside (0, 1]."""
    if not (math.isfinite(quality) and 0 < quality <= 1):
        raise ConfigError(f"quality: expected a number in (0, 1], got {quality}")
    return quality


class Stages:
    """Times stages, one after the other, and counts the splats before and after each."""

    def __init__(self, num_splats: int) -> None:
        self.reports: list[StageReport] = []
        self.num_splats = num_splats

    @contextmanager
    def stage(self, name: str) -> Iterator[dict[str, Any]]:
        """Yields the report's details; ``num_splats`` is set in the block where the stage changes it."""
        details: dict[str, Any] = {}
        before, start = self.num_splats, time.perf_counter()
        yield details
        seconds = time.perf_counter() - start
        self.reports.append(StageReport(name, seconds, before, self.num_splats, details))
        log.info("%s done after %.1f s: %s splats", name, seconds, f"{self.num_splats:,}")


class PeerCodec(ABC):
    """A codec under comparison, made from options: ``Spz({"spz_version": 3})``.

    A subclass says how a model is encoded and decoded, what quality is turned into, and what it is the version of.

    Attributes:
        name: as in ``codec=NAME``.
        suffix: of the file that holds ``PeerEncoded.data``, with the dot.
        options: what there is to set.
        quality_sets: what quality in (0, 1] is turned into ("share of splats kept"), or None for a codec with a single
            operating point, of which a sweep over quality then makes one run.
        in_child_process: whether another program does the work.
        settings: every option with its value.

    Raises:
        ConfigError: an unknown option, or a value of another type or out of its range.
        BackendUnavailable: a package or program is missing; says the command that installs it.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    options: ClassVar[Mapping[str, Option]] = {}
    quality_sets: ClassVar[str | None] = None
    in_child_process: ClassVar[bool] = False

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.settings = self.check(options)

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its value; ConfigError as the constructor, but nothing need be installed."""
        return checked(cls.name, cls.options, options)

    @property
    def version(self) -> str:
        """Of what does the work: "gaussforge 0.6.0", or "potr 0.1.0" for those written here."""
        return f"potr {potr.__version__}"

    def parameters(self, quality: float) -> dict[str, Any]:
        """The options, those that are None filled in from quality; ConfigError if it is outside (0, 1]."""
        from_quality = self._from_quality(checked_quality(quality))
        return {name: from_quality[name] if value is None else value for name, value in self.settings.items()}

    def encode(
        self,
        model: SplatModel,
        views: Sequence[View],
        quality: float,
        rasterizer: Rasterizer,
        progress: Progress = silent,
    ) -> PeerEncoded:
        """Compress a model. Views are the training views; of those no peer looks at the photographs.

        Raises:
            ConfigError: quality is not in (0, 1].
            ModelError: the model has unusable values, or some that the format cannot hold.
            SceneError: the codec needs views, and there are none, or none sees a splat.
            PotrError: another program failed; says what it said.
        """
        parameters = self.parameters(quality)
        model = model.detach().to("cpu")
        check_model(model)
        stages = Stages(model.num_splats)
        data, sections = self._encode(model, views, parameters, rasterizer, stages, progress)
        return PeerEncoded(data, tuple(stages.reports), parameters, sections)

    @abstractmethod
    def decode(self, data: bytes) -> SplatModel:
        """The model that ``data`` holds, as exact as its format; BitstreamError if it is damaged."""

    @abstractmethod
    def _encode(
        self,
        model: SplatModel,
        views: Sequence[View],
        parameters: Mapping[str, Any],
        rasterizer: Rasterizer,
        stages: Stages,
        progress: Progress,
    ) -> tuple[bytes, dict[str, int]]:
        """The bytes, and those of each section."""

    def _from_quality(self, quality: float) -> dict[str, Any]:
        """What quality sets, of the options that are None."""
        return {}
