# SPDX-License-Identifier: Apache-2.0
"""The files of gsplat's PNG layout, in one uncompressed .zip: meta.json, an image per attribute, shN.npz."""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from potr.errors import BitstreamError
from potr.splats import SH_COEFFICIENTS

MAX_SIDE = 8192  # of the images; 67 million splats
CHANNELS = {"means": 3, "scales": 3, "quats": 4, "opacities": 1, "sh0": 3}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_MAX_ENTRIES = 1 << 16
_NO_DATE = (1980, 1, 1, 0, 0, 0)  # the same input gives the same bytes
_LARGEST = 1e4  # of any value after its transform, so that a damaged range cannot overflow
# What readers of zip, json, png and npz raise on damaged bytes; PIL has SyntaxError for a broken PNG.
_DAMAGE = (
    OSError, ValueError, TypeError, KeyError, IndexError, EOFError, SyntaxError, RuntimeError, NotImplementedError,
    MemoryError, OverflowError, struct.error, zlib.error, zipfile.BadZipFile,
)  # fmt: skip

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Attribute:
    """``values`` [S * S, C] float32 in the order of the square; ``bits`` 8 or 16 a channel."""

    values: Array
    bits: int


@dataclass(frozen=True, eq=False)
class Palette:
    """``entries`` [K, 3 * (coefficients - 1)] float32, coefficient-major, and ``labels`` [N] of each splat."""

    entries: Array
    labels: Array


def write_files(
    attributes: Mapping[str, Attribute], sh_ac: Palette | None, sh_bits: int
) -> tuple[bytes, dict[str, int]]:
    """The .zip, and the bytes of its files by attribute."""
    files: dict[str, bytes] = {}
    meta: dict[str, Any] = {}
    for name, attribute in attributes.items():
        levels, low, high = _quantize(attribute.values, attribute.bits, axis=0)
        side = math.isqrt(len(levels))
        if attribute.bits == 16:
            files[f"{name}_l.png"] = _png(levels & 0xFF, side)
            files[f"{name}_u.png"] = _png(levels >> 8, side)
        else:
            files[f"{name}.png"] = _png(levels, side)
        meta[name] = {"shape": list(levels.shape), "dtype": "float32", "mins": low.tolist(), "maxs": high.tolist()}
    if sh_ac is not None:
        levels, low, high = _quantize(sh_ac.entries, sh_bits, axis=None)
        stored = io.BytesIO()
        np.savez_compressed(stored, centroids=levels.astype(np.uint8), labels=sh_ac.labels.astype(np.uint16))
        files["shN.npz"] = stored.getvalue()
        meta["shN"] = {
            "shape": [len(sh_ac.labels), sh_ac.entries.shape[1] // 3, 3],
            "dtype": "float32",
            "mins": float(low),
            "maxs": float(high),
            "quantization": sh_bits,
        }
    files["meta.json"] = json.dumps(meta).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
        for file, content in files.items():
            packed.writestr(zipfile.ZipInfo(file, _NO_DATE), content)
    sections: dict[str, int] = {}
    for file, content in files.items():
        name = file.split(".")[0].removesuffix("_l").removesuffix("_u")
        sections[name] = sections.get(name, 0) + len(content)
    return archive.getvalue(), sections


def read_files(data: bytes) -> tuple[dict[str, Attribute], Palette | None]:
    """What ``write_files`` packed, as exact as its bits.

    Raises:
        BitstreamError: a file is missing or damaged, or they do not fit each other.
    """
    part = "archive"
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("expected files without compression")
            part = "meta.json"
            meta = json.loads(archive.read("meta.json"))
            side = _side(meta["means"]["shape"])
            attributes = {}
            for name, channels in CHANNELS.items():
                part = name
                attributes[name] = _read_attribute(archive, name, meta[name], side, channels)
            part = "shN"
            sh_ac = _read_palette(archive, meta["shN"], side) if "shN" in meta else None
    except _DAMAGE as error:
        raise BitstreamError(part, 0, f"damaged: {type(error).__name__}: {error}") from None
    return attributes, sh_ac


def _quantize(values: Array, bits: int, axis: int | None) -> tuple[Array, Array, Array]:
    """Levels (uint16) between smallest and largest, and these two, of each column or of all."""
    low, high = np.asarray(values.min(axis)), np.asarray(values.max(axis))
    span = np.where(high > low, high - low, 1)
    return np.rint((values - low) / span * ((1 << bits) - 1)).astype(np.uint16), low, high


def _dequantize(levels: Array, bits: int, low: Any, high: Any, shape: tuple[int, ...]) -> Array:
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if low.shape != shape or high.shape != shape or not (np.abs(low) <= _LARGEST).all():
        raise ValueError(f"mins and maxs: expected numbers up to {_LARGEST:g} in shape {list(shape)}")
    if not ((low <= high) & (high <= _LARGEST)).all():
        raise ValueError("maxs: expected numbers above mins")
    scaled: Array = (levels / ((1 << bits) - 1) * (high - low) + low).astype(np.float32)
    return scaled


def _side(shape: Any) -> int:
    n = shape[0]
    if not isinstance(n, int) or not 1 <= n <= MAX_SIDE**2 or math.isqrt(n) ** 2 != n:
        raise ValueError(f"expected a square number of splats, got {n!r}")
    return math.isqrt(n)


def _png(levels: Array, side: int) -> bytes:
    """An 8-bit PNG of [side * side, C] levels."""
    pixels = levels.astype(np.uint8).reshape(side, side, -1)
    stored = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(stored, "PNG", compress_level=9)
    return stored.getvalue()


def _read_png(content: bytes, side: int, channels: int) -> Array:
    """[side * side, channels] uint16. The size is checked before anything is unpacked."""
    if struct.unpack_from(">II", content, 16) != (side, side):
        raise ValueError(f"expected an image of {side} x {side} pixels")
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        if image.mode != _MODES[channels] or image.size != (side, side):
            raise ValueError(f"expected {side} x {side} {_MODES[channels]}, got {image.size} {image.mode}")
        return np.asarray(image).reshape(side * side, channels).astype(np.uint16)


def _read_attribute(
    archive: zipfile.ZipFile, name: str, meta: Mapping[str, Any], side: int, channels: int
) -> Attribute:
    if name == "means":
        lower, upper = (_read_png(archive.read(f"{name}_{half}.png"), side, channels) for half in "lu")
        levels, bits = lower | (upper << 8), 16
    else:
        levels, bits = _read_png(archive.read(f"{name}.png"), side, channels), 8
    return Attribute(_dequantize(levels, bits, meta["mins"], meta["maxs"], (channels,)), bits)


def _read_palette(archive: zipfile.ZipFile, meta: Mapping[str, Any], side: int) -> Palette:
    rest = int(meta["shape"][1])
    bits = int(meta["quantization"])
    if rest not in [k - 1 for k in SH_COEFFICIENTS[1:]] or not 1 <= bits <= 8:
        raise ValueError(f"expected SH of degree 1 to 3 in 1 to 8 bits, got {rest} coefficients, {bits} bits")
    with zipfile.ZipFile(io.BytesIO(archive.read("shN.npz"))) as arrays:
        levels = _read_array(arrays, "centroids", _MAX_ENTRIES * 3 * rest, np.uint8)
        labels = _read_array(arrays, "labels", 2 * side * side, np.uint16)
    if labels.shape != (side * side,) or levels.ndim != 2 or levels.shape[1] != 3 * rest:
        raise ValueError(f"arrays of shapes {levels.shape} and {labels.shape} do not fit {side * side} splats")
    if len(levels) <= int(labels.max()) or int(levels.max()) >= 1 << bits:
        raise ValueError("a label or a level is beyond the palette")
    return Palette(_dequantize(levels, bits, meta["mins"], meta["maxs"], ()), labels.astype(np.int64))


def _read_array(arrays: zipfile.ZipFile, name: str, largest: int, dtype: type) -> Array:
    """One array of an .npz, of which the size is checked before it is unpacked."""
    entry = arrays.getinfo(f"{name}.npy")
    if entry.file_size > largest + 4096:  # numpy's header is 128 bytes
        raise ValueError(f"{name}: expected at most {largest} bytes, got {entry.file_size}")
    with arrays.open(entry) as file:
        content = file.read(largest + 4096)
    values: Array = np.load(io.BytesIO(content), allow_pickle=False)
    if values.dtype != dtype:
        raise ValueError(f"{name}: expected {np.dtype(dtype)}, got {values.dtype}")
    return values
