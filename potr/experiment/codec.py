# SPDX-License-Identifier: Apache-2.0
"""The codec of a run behind one shape, whether ours or a peer's: bytes from a scene, and the model back."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from potr.encoder.config import CodecConfig
from potr.encoder.encode import encode
from potr.encoder.resume import Resume
from potr.encoder.target import Target, encode_to_target
from potr.experiment.peers import peer
from potr.experiment.peers.base import PeerCodec, PeerEncoded
from potr.experiment.schema import RunConfig
from potr.format.decode import decode, describe
from potr.model.scene import Scene
from potr.model.splats import SplatModel
from potr.progress import Progress
from potr.render.base import Rasterizer


@dataclass(frozen=True, eq=False)
class Searched(PeerEncoded):
    """What a search for a target found: the quality, and what was asked and tried (RunResult.target)."""

    quality: float = 0.0
    target: dict[str, Any] | None = None


class Coder(Protocol):
    """What a run needs of a codec.

    ``file`` is the name under which a run keeps the bytes; ``version`` is of what does the work; ``in_child_process``
    where that is another program, whose memory is not this process's; ``resumes`` where an interrupted encode goes on.
    """

    @property
    def file(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def in_child_process(self) -> bool: ...

    @property
    def resumes(self) -> bool: ...

    def encode(self, scene: Scene, rasterizer: Rasterizer, resume: Resume, progress: Progress) -> PeerEncoded: ...

    def decode(self, data: bytes) -> SplatModel: ...


def coder(config: RunConfig) -> Coder:
    """The codec that a run's settings name.

    Raises:
        ConfigError: a parameter is out of its range.
        BackendUnavailable: a peer's package is not installed; says how to get it.
    """
    own, target = config.codec_config(), config.target.chosen()
    if target is not None:
        return TargetCoder(config, target)
    return PotrCoder(own) if own is not None else PeerCoder(config)


class PotrCoder:
    """potr.encode and potr.decode."""

    file = "scene.potr"
    in_child_process = False
    resumes = True

    def __init__(self, config: CodecConfig) -> None:
        self.config = config
        self.version = f"potr {importlib.metadata.version('potr')}"

    def encode(self, scene: Scene, rasterizer: Rasterizer, resume: Resume, progress: Progress) -> PeerEncoded:
        """Compress, with what ``resume`` has of this scene."""
        encoded = encode(
            scene.model,
            scene.train_views,
            config=self.config,
            rasterizer=rasterizer,
            resume=resume,
            progress=progress,
        )
        sections = _sections(encoded.data)
        return PeerEncoded(encoded.data, encoded.stages, asdict(encoded.config), sections, encoded.resumed)

    def decode(self, data: bytes) -> SplatModel:
        """The model that the bytes hold."""
        return decode(data)


class TargetCoder(PotrCoder):
    """potr.encode_to_target and potr.decode."""

    def __init__(self, config: RunConfig, target: Target) -> None:
        self.config_at, self.target = config.codec_config_at, target
        super().__init__(config.codec_config_at(config.quality))

    def encode(self, scene: Scene, rasterizer: Rasterizer, resume: Resume, progress: Progress) -> Searched:
        """Search, with what ``resume`` has of this scene."""
        found = encode_to_target(
            scene.model,
            scene.train_views,
            self.target,
            config_at=self.config_at,
            rasterizer=rasterizer,
            resume=resume,
            progress=progress,
        )
        encoded = found.encoded
        return Searched(
            encoded.data,
            encoded.stages,
            asdict(encoded.config),
            _sections(encoded.data),
            found.resumed,
            quality=found.quality,
            target=found.to_dict(),
        )


class PeerCoder:
    """A codec of potr.experiment.peers."""

    resumes = False

    def __init__(self, config: RunConfig) -> None:
        self.quality = config.quality
        self.peer: PeerCodec = peer(config.codec.name, config.peer_options())
        self.file = f"scene{self.peer.suffix}"
        self.version = self.peer.version
        self.in_child_process = self.peer.in_child_process

    def encode(self, scene: Scene, rasterizer: Rasterizer, resume: Resume, progress: Progress) -> PeerEncoded:
        """Compress; from the beginning, whatever there is."""
        return self.peer.encode(scene.model, scene.train_views, self.quality, rasterizer, progress)

    def decode(self, data: bytes) -> SplatModel:
        """The model that the bytes hold."""
        return self.peer.decode(data)


def _sections(data: bytes) -> dict[str, int]:
    return {section["name"]: section["coded_bytes"] for section in describe(data)["sections"]}
