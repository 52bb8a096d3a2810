# SPDX-License-Identifier: Apache-2.0
"""What a run found out, and its file: result.json. Every number in it is finite; a null has a reason."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from potr.errors import PotrError
from potr.files import write_atomic

SCHEMA_VERSION = 2
RESULT_FILE, CONFIG_FILE = "result.json", "config.yaml"
# Two measures, called wherever a person reads them by the range of the images that the network is given.
LPIPS_NAMES = {"lpips_3dgs": "LPIPS 0..1", "lpips": "LPIPS -1..1"}


@dataclass(frozen=True)
class Measured:
    """A model measured on the test views.

    Attributes:
        psnr: mean of the views' PSNR, dB, renders and photographs rounded to 8 bits.
        ssim: mean of the views' SSIM.
        lpips: mean over the views it was computed on, input -1..1; lpips_3dgs the same with input 0..1.
        fps: frames per second, median over the test cameras; slowest_fps of the slowest camera.
        views: name, psnr, ssim, lpips, lpips_3dgs of every view.
    """

    psnr: float | None
    ssim: float | None
    lpips: float | None
    lpips_3dgs: float | None
    fps: float | None
    slowest_fps: float | None
    views: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class RunResult:
    """One run.

    Attributes:
        suite: of the scene ("MipNeRF360"), where it belongs to one.
        quality: None for a codec with a single operating point.
        settings: what else differs from the defaults and shapes the result, as dotted names to values: together with
            codec it tells the curves of one scene apart.
        parameters: what quality and settings came to, by stage.
        codec_version: package and version of what did the compression.
        sweep: the experiment or sweep that the run was made for first.
        file: the name of the compressed scene in ``folder``.
        bytes: of ``file``, which is everything the decoder needs; ratio is uncompressed_bytes (248 a splat) over it,
            the field's unit for tables; ``smaller`` is what a person is told of a run.
        bytes_per_section: payload bytes; "container" is what no section accounts for.
        encode_seconds: stage to seconds that this run spent; saved_seconds: what an earlier one had spent on what was
            found and not made again.
        peak_memory: bytes, the largest resident memory of the process while encoding.
        stages: the encoder's reports, in order: name, seconds, splats_before, splats_after, details.
        resumed: whether it went on from an interrupted run.
        reasons: dotted path of a null to why it is null; "*" stands for every entry of a list.
        config_sha256, inputs_sha256, bitstream_sha256: of the settings and resolved codec parameters, of the model and
            its views, of ``file``. code_sha256: of the code that made all this.
        target: where the quality was searched for: what was asked and reached, each trial's quality, bytes, splats and
            seconds; for a loss also the trials' psnr_drop and the PSNR on the training views before and after, dB.
        input_bytes: of the file that the model was read from; None in results from before it was kept.
        folder: where the run lies; not stored.
    """

    dataset: str
    suite: str | None
    quality: float | None
    codec: str
    codec_version: str
    settings: dict[str, Any]
    parameters: dict[str, Any]
    sweep: str | None
    file: str
    backend: str
    seed: int
    git_commit: str | None
    bytes: int
    bytes_per_section: dict[str, int]
    uncompressed_bytes: int
    ratio: float
    splats_before: int
    splats_after: int
    train_views: int
    before: Measured
    after: Measured
    encode_seconds: dict[str, float]
    decode_seconds: float
    peak_memory: int | None
    machine: dict[str, Any]
    stages: tuple[dict[str, Any], ...]
    resumed: bool
    reasons: dict[str, str]
    config_sha256: str
    inputs_sha256: str
    bitstream_sha256: str
    target: dict[str, Any] | None = None
    input_bytes: int | None = None
    code_sha256: str = ""
    saved_seconds: dict[str, float] = field(default_factory=dict)
    folder: Path = field(default=Path("."), compare=False)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        for path, value in _leaves(_stored(self), ""):
            if isinstance(value, float) and not math.isfinite(value):
                raise PotrError(f"result: {path} is {value}; expected a finite number, or null with a reason")
            if (
                value is None
                and not path.startswith(("stages.", "settings.", "parameters.", "target", "input_bytes"))
                and _pattern(path) not in self.reasons
            ):
                raise PotrError(f"result: {path} is null without a reason")

    @property
    def smaller(self) -> float:
        """How many times smaller than the file that was compressed; than 248 bytes a splat where that is not known."""
        return (self.input_bytes or self.uncompressed_bytes) / self.bytes


def without_idle_reasons(result: RunResult) -> RunResult:
    """The result with only those reasons that explain a null of its own."""
    nulls = {_pattern(path) for path, value in _leaves(_stored(result), "") if value is None}
    return replace(result, reasons={path: why for path, why in result.reasons.items() if path in nulls})


def write_result(result: RunResult, folder: Path) -> None:
    """Write result.json, replacing an earlier one."""
    text = json.dumps(_stored(result), indent=2, allow_nan=False)
    write_atomic(folder / RESULT_FILE, (text + "\n").encode(), overwrite=True)


def read_result(folder: Path) -> RunResult:
    """Read result.json of a run folder.

    Raises:
        PotrError: there is none, or it is not one of this schema.
    """
    path = folder / RESULT_FILE
    try:
        stored = json.loads(path.read_text())
        version = stored.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise PotrError(f"{path}: expected schema_version {SCHEMA_VERSION}, got {version}")
        for side in ("before", "after"):
            stored[side] = Measured(**{**stored[side], "views": tuple(stored[side]["views"])})
        return RunResult(**{**stored, "stages": tuple(stored["stages"])}, folder=folder)
    except OSError as error:
        raise PotrError(f"{path}: cannot read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PotrError(f"{path}: not a run's result: {error}") from None


def _stored(result: RunResult) -> dict[str, Any]:
    names = ["schema_version", *(f.name for f in fields(result) if f.name not in ("schema_version", "folder"))]
    everything = asdict(result)
    return {name: everything[name] for name in names}


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(node, dict):
        items = node.items()
    elif isinstance(node, list | tuple):
        items = enumerate(node)
    else:
        yield path, node
    for key, value in items:
        yield from _leaves(value, f"{path}.{key}" if path else str(key))


def _pattern(path: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in path.split("."))
