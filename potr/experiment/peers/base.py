# SPDX-License-Identifier: Apache-2.0
"""What a codec that POTR is compared with has to offer: bytes from a model, and the model back from the bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from potr.encoder.encode import StageReport
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import Progress, silent
from potr.render.base import Rasterizer


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


class PeerCodec(Protocol):
    """A codec under comparison, made by its class from options: ``Spz({"sh_bits": 5})``.

    Class attributes:
        name: as in ``codec=NAME``.
        suffix: of the file that holds ``data``, with the dot.
        quality_sets: what quality in (0, 1] is turned into ("share of splats kept"), or None for a codec with a single
            operating point, of which a sweep over quality then makes one run.
        in_child_process: whether another program does the work.
        options: option to default; another key, or a value of another type or range, is a ConfigError of ``check`` and
            of the constructor that lists what is allowed.

    The constructor raises BackendUnavailable when a package or program is missing, with the command that installs it.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    quality_sets: ClassVar[str | None]
    in_child_process: ClassVar[bool]
    options: ClassVar[Mapping[str, Any]]

    def __init__(self, options: Mapping[str, Any]) -> None: ...

    @classmethod
    def check(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Every option with its value; ConfigError as the constructor, but nothing need be installed."""
        ...

    @property
    def version(self) -> str:
        """Of what does the work: "gaussforge 0.6.0", or "potr 0.1.0" for those written here."""
        ...

    def encode(
        self,
        model: SplatModel,
        views: Sequence[View],
        quality: float,
        rasterizer: Rasterizer,
        progress: Progress = silent,
    ) -> PeerEncoded:
        """Compress a model. Views are the training views; most peers do not look at them.

        Raises:
            PotrError: the model cannot be encoded this way.
        """
        ...

    def decode(self, data: bytes) -> SplatModel:
        """The model that ``data`` holds, as exact as its format; BitstreamError if it is damaged."""
        ...
