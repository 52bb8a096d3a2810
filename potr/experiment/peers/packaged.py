# SPDX-License-Identifier: Apache-2.0
"""The peers that are other projects' programs: a .ply goes in, their file comes out, and back."""

from __future__ import annotations

import io
import tempfile
import zipfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from potr.errors import BitstreamError, ModelError
from potr.experiment.peers.base import Option, PeerCodec, Stages
from potr.experiment.peers.layouts import compressed_ply_sections, spz_sections
from potr.experiment.peers.programs import (
    ProgramRefused,
    gaussforge,
    gaussforge_version,
    splat_transform,
    splat_transform_version,
)
from potr.io.ply import load_ply, save_ply
from potr.model.cameras import View
from potr.model.splats import SplatModel
from potr.progress import Progress
from potr.render.base import Rasterizer


class Packaged(PeerCodec):
    """What they have in common: none looks at the views. A subclass says what its program is called with."""

    in_child_process: ClassVar[bool] = True

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self._version = self._find()

    @property
    def version(self) -> str:
        """Of the programs that do the work."""
        return self._version

    def decode(self, data: bytes) -> SplatModel:
        """The model as the program decodes it.

        Raises:
            BitstreamError: the program refuses the bytes, or makes no usable model of them.
            PotrError: the program cannot be started, was killed or ran out of time.
        """
        with tempfile.TemporaryDirectory(prefix="potr-") as folder:
            source, target = Path(folder, f"coded{self.suffix}"), Path(folder, "model.ply")
            source.write_bytes(data)
            try:
                self._to_ply(source, target)
                return load_ply(target, saturate=True)
            except (ProgramRefused, ModelError) as error:
                raise BitstreamError(self.name, 0, str(error).replace(folder, "")) from None

    def _encode(
        self,
        model: SplatModel,
        views: Sequence[View],
        parameters: Mapping[str, Any],
        rasterizer: Rasterizer,
        stages: Stages,
        progress: Progress,
    ) -> tuple[bytes, dict[str, int]]:
        if not model.num_splats:
            raise ModelError(f"codec={self.name}: expected at least one splat, got an empty model")
        with tempfile.TemporaryDirectory(prefix="potr-") as folder:
            source, target = Path(folder, "model.ply"), Path(folder, f"coded{self.suffix}")
            with stages.stage("hand_over"):
                save_ply(model, source)
            source = self._prepared(source, parameters, stages, progress)
            with progress.step(self.program), stages.stage(self.program) as details:
                self._from_ply(source, target, parameters)
                details["bytes"] = target.stat().st_size
            data = target.read_bytes()
        return data, self._sections(data)

    @property
    def program(self) -> str:
        """The stage in which the file is written."""
        return self.name

    @abstractmethod
    def _find(self) -> str:
        """The programs' version; BackendUnavailable if one is missing."""

    def _prepared(self, source: Path, parameters: Mapping[str, Any], stages: Stages, progress: Progress) -> Path:
        """What is done to the .ply first; the path of the result."""
        return source

    @abstractmethod
    def _from_ply(self, source: Path, target: Path, parameters: Mapping[str, Any]) -> None: ...

    @abstractmethod
    def _to_ply(self, source: Path, target: Path) -> None: ...

    @abstractmethod
    def _sections(self, data: bytes) -> dict[str, int]: ...


class Spz(Packaged):
    """Niantic's SPZ, written by gaussforge, which carries Niantic's library.

    Positions in 24-bit fixed point, 8 bits for log-scales, opacity and colour, 10 for each of three components of the
    rotation (version 2: 8), SH of degree 1 in 5 bits and above in 4; gzip over all (versions 2 and 3) or zstd by
    attribute (version 4). There is nothing to choose but the version: one operating point.
    """

    name: ClassVar[str] = "spz"
    suffix: ClassVar[str] = ".spz"
    options: ClassVar[Mapping[str, Option]] = {"spz_version": Option(4, 2, 4)}

    @property
    def program(self) -> str:
        return "spz"

    def _find(self) -> str:
        return f"gaussforge {gaussforge_version(self.name)}"

    def _from_ply(self, source: Path, target: Path, parameters: Mapping[str, Any]) -> None:
        gaussforge(source, "ply", target, "spz", spz_version=parameters["spz_version"])

    def _to_ply(self, source: Path, target: Path) -> None:
        gaussforge(source, "spz", target, "ply")

    def _sections(self, data: bytes) -> dict[str, int]:
        return spz_sections(data)


class DecimateSpz(Spz):
    """Fewer splats by splat-transform, which merges neighbours into one, then SPZ as in ``codec=spz``.

    Quality is the share of the splats that are kept, so that quality 1 is plain SPZ.
    """

    name: ClassVar[str] = "decimate_spz"
    quality_sets: ClassVar[str | None] = "share of splats kept"
    options: ClassVar[Mapping[str, Option]] = {
        **Spz.options,
        "share": Option(None, 1e-6, 1.0, float),
        "adaptive": Option(False),
    }

    def _find(self) -> str:
        return f"splat-transform {splat_transform_version(self.name)}, {super()._find()}"

    def _from_quality(self, quality: float) -> dict[str, Any]:
        return {"share": quality}

    def _prepared(self, source: Path, parameters: Mapping[str, Any], stages: Stages, progress: Progress) -> Path:
        kept = max(1, round(parameters["share"] * stages.num_splats))
        if kept >= stages.num_splats:
            return source
        fewer = source.with_name("fewer.ply")
        action = "--decimate-adaptive" if parameters["adaptive"] else "--decimate"
        with progress.step("decimate"), stages.stage("decimate"):
            splat_transform(source, fewer, "--gpu", "cpu", actions=(action, str(kept)))
            stages.num_splats = load_ply(fewer, saturate=True).num_splats
        return fewer


class CompressedPly(Packaged):
    """PlayCanvas's compressed .ply, written by splat-transform.

    Splats in Morton order and chunks of 256, each with its ranges of position, size and colour; 32 bits each for
    position, rotation, size, and colour with opacity; 8 bits for every SH coefficient; no entropy coding. Nothing to
    choose: one operating point. (gaussforge writes this format without the Morton order: same size, 8 dB worse.)
    """

    name: ClassVar[str] = "compressed_ply"
    suffix: ClassVar[str] = ".compressed.ply"

    def _find(self) -> str:
        return f"splat-transform {splat_transform_version(self.name)}"

    def _from_ply(self, source: Path, target: Path, parameters: Mapping[str, Any]) -> None:
        splat_transform(source, target)

    def _to_ply(self, source: Path, target: Path) -> None:
        splat_transform(source, target)

    def _sections(self, data: bytes) -> dict[str, int]:
        return compressed_ply_sections(data)


class Sog(CompressedPly):
    """PlayCanvas's SOG, written by splat-transform on the CPU: very slow (docs/peers.md).

    Splats in Morton order as the pixels of lossless WebP images: 16-bit positions after a logarithm, codebooks of 256
    entries for sizes and colours, rotations in 3 x 8 bits, and SH as a palette of up to 65,536 entries found by
    k-means. One operating point.
    """

    name: ClassVar[str] = "sog"
    suffix: ClassVar[str] = ".sog"
    options: ClassVar[Mapping[str, Option]] = {"iterations": Option(10, 1, 1000)}

    def _from_ply(self, source: Path, target: Path, parameters: Mapping[str, Any]) -> None:
        splat_transform(source, target, "--gpu", "cpu", "--sh-iterations", str(parameters["iterations"]))

    def _sections(self, data: bytes) -> dict[str, int]:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return {Path(entry.filename).stem: entry.compress_size for entry in archive.infolist()}
