# SPDX-License-Identifier: Apache-2.0
"""The 3DGS .ply: one vertex element with a scalar property per attribute, before activation."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import plyfile
import torch
from numpy.typing import NDArray

from potr.errors import ModelError, PotrError
from potr.files import refuse_existing, write_atomic
from potr.model.check import MAX_OPACITY_LOGIT, check_model, clean_model
from potr.model.splats import SH_COEFFICIENTS, SplatModel

log = logging.getLogger(__name__)

MEANS = ("x", "y", "z")
NORMALS = ("nx", "ny", "nz")  # 3DGS writes them as zeros and nothing reads them
SH_DC = ("f_dc_0", "f_dc_1", "f_dc_2")
SCALES = ("scale_0", "scale_1", "scale_2")
QUATS = ("rot_0", "rot_1", "rot_2", "rot_3")  # wxyz
_ROWS = 8192  # rows converted at once: 2 MB of a 62-property file, which stays in the cache


def load_ply(path: Path | str, *, clean: bool = False, saturate: bool = False) -> SplatModel:
    """Read a 3DGS .ply.

    Any SH degree 0..3, ascii or binary of either endianness, scalar properties of any type in any order; properties
    that 3DGS does not know are ignored. Binary files are memory-mapped.

    Args:
        path: the file.
        clean: remove unusable splats (potr.model.check) and log how many, instead of refusing the model.
        saturate: opacity logits beyond +-MAX_OPACITY_LOGIT, infinite ones too, are brought to it: other codecs'
            decoders write them for the lowest and the highest of 256 opacities, and mean 0 and 1.

    Raises:
        ModelError: the file is missing, truncated, not a .ply, lacks a property, has no splat or, without ``clean``,
            has NaN, infinite, zero-norm or absurd values.
    """
    path = Path(path)
    vertices = _read_vertices(path)
    model = _to_model(path, vertices)
    if saturate:
        model = replace(model, opacity_logits=model.opacity_logits.clamp(-MAX_OPACITY_LOGIT, MAX_OPACITY_LOGIT))
    try:
        if clean:
            model, _ = clean_model(model)
        else:
            check_model(model)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from None
    log.info("%s: %d splats, SH degree %d", path, model.num_splats, model.sh_degree)
    return model


def count_splats(path: Path | str) -> int:
    """The number of splats of a .ply that is as long as its header says; the values are not read.

    Raises:
        ModelError: the file is missing, truncated or not a .ply.
    """
    return len(_read_vertices(Path(path)))


def save_ply(model: SplatModel, path: Path | str, *, overwrite: bool = False) -> None:
    """Write a 3DGS .ply: binary little endian, 62 float properties at SH degree 3, fewer f_rest below; normals 0.

    Raises:
        PotrError: the arguments are swapped, the file exists and ``overwrite`` is False, or it cannot be written.
    """
    _check_order(model, path)
    refuse_existing(path, overwrite)
    model = model.detach()
    rest = 3 * int(model.sh_ac.shape[1])
    names = (*MEANS, *NORMALS, *SH_DC, *(f"f_rest_{i}" for i in range(rest)), "opacity", *SCALES, *QUATS)
    columns = (
        model.means,
        torch.zeros_like(model.means),
        model.sh_dc,
        model.sh_ac.transpose(1, 2).reshape(model.num_splats, rest),  # channel-major, as 3DGS flattens it
        model.opacity_logits[:, None],
        model.log_scales,
        model.quats,
    )
    rows = torch.cat([column.cpu() for column in columns], dim=1).numpy().astype("<f4", copy=False)
    vertices = rows.view([(name, "<f4") for name in names])[:, 0]
    content = plyfile.PlyData([plyfile.PlyElement.describe(vertices, "vertex")], byte_order="<")

    def write(file: BinaryIO) -> None:
        content.write(file)

    write_atomic(path, write, overwrite=overwrite)


def _check_order(model: object, path: object) -> None:
    """PotrError if the two are not what their places ask for."""
    if isinstance(model, SplatModel) and isinstance(path, str | os.PathLike):
        return
    swapped = isinstance(path, SplatModel) and isinstance(model, str | os.PathLike)
    found = f"save_ply({type(model).__name__}, {type(path).__name__})"
    raise PotrError(f"expected save_ply(model, path), found {found}{': swapped' if swapped else ''}")


def _read_vertices(path: Path) -> NDArray[Any]:
    """[N] structured array of the vertex element, memory-mapped where possible."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
            if head[:3] != b"ply" or head[3:4] not in (b"\n", b"\r"):
                raise ModelError(f"{path}: expected a .ply file starting with 'ply', found {head[:4]!r}")
            file.seek(0)
            if re.search(rb"^format ascii", head, re.MULTILINE):
                with open(path, encoding="ascii") as lines:
                    content = plyfile.PlyData.read(lines)
            else:
                content = plyfile.PlyData.read(file, mmap="r")
    except OSError as error:
        raise ModelError(f"{path}: cannot read the model: {error.strerror or error}") from error
    except plyfile.PlyElementParseError as error:
        raise ModelError(f"{path}: the file ends early or is damaged: {error}") from error
    except (plyfile.PlyParseError, ValueError, OverflowError, MemoryError) as error:
        raise ModelError(
            f"{path}: not a readable .ply: {error or 'the header claims more than memory holds'}"
        ) from error
    names = [element.name for element in content.elements]
    if "vertex" not in names:
        raise ModelError(f"{path}: expected an element 'vertex', found {', '.join(names) or 'no element'}")
    vertices: NDArray[Any] = content["vertex"].data
    return vertices


def _to_model(path: Path, vertices: NDArray[Any]) -> SplatModel:
    """Gather the attributes in one pass over the rows."""
    n = len(vertices)
    found = vertices.dtype.names or ()
    coefficients = _sh_coefficients(path, found)
    rest = [f"f_rest_{i}" for i in range(3 * (coefficients - 1))]
    required = (*MEANS, *SH_DC, *rest, "opacity", *SCALES, *QUATS)
    missing = [name for name in required if name not in found]
    if missing:
        raise ModelError(
            f"{path}: not a 3DGS model: {len(missing)} properties are missing ({_shorten(missing)}); "
            f"found {_shorten(list(found))}"
        )
    lists = [name for name in required if vertices.dtype[name].hasobject]
    if lists:
        raise ModelError(f"{path}: expected scalar properties, found lists: {_shorten(lists)}")
    if n == 0:
        raise ModelError(f"{path}: expected at least one splat, found 0 vertices")

    rows = {
        MEANS: np.empty((n, 3), np.float32),
        SCALES: np.empty((n, 3), np.float32),
        QUATS: np.empty((n, 4), np.float32),
        ("opacity",): np.empty((n, 1), np.float32),
        SH_DC: np.empty((n, 3), np.float32),
    }
    sh_ac = np.empty((n, coefficients - 1, 3), np.float32)
    # f_rest is channel-major: all of R's coefficients, then G's, then B's.
    places = [(name, i % (coefficients - 1), i // (coefficients - 1)) for i, name in enumerate(rest)]
    with np.errstate(over="ignore", invalid="ignore"):  # a double beyond float32 becomes infinite and is counted later
        for start in range(0, n, _ROWS):
            part = slice(start, min(start + _ROWS, n))
            block = np.array(vertices[part])  # one read of the file
            for names, target in rows.items():
                for column, name in enumerate(names):
                    target[part, column] = block[name]
            for name, coefficient, channel in places:
                sh_ac[part, coefficient, channel] = block[name]
    means, log_scales, quats, opacity_logits, sh_dc = (torch.from_numpy(target) for target in rows.values())
    return SplatModel(means, log_scales, quats, opacity_logits[:, 0], sh_dc, torch.from_numpy(sh_ac))


def _sh_coefficients(path: Path, found: tuple[str, ...]) -> int:
    """Coefficients per channel, from the number of f_rest properties."""
    rest = sum(name.startswith("f_rest_") for name in found)
    counts = [3 * (k - 1) for k in SH_COEFFICIENTS]
    if rest not in counts:
        raise ModelError(f"{path}: expected {counts} f_rest properties (SH degree 0 to 3), found {rest}")
    return SH_COEFFICIENTS[counts.index(rest)]


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
