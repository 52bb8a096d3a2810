# SPDX-License-Identifier: Apache-2.0
"""The sections of format version 3: every attribute coded by context (docs/format.md, sections 12 to 15).

The models need what was decoded before: opacity, scales and DC the octree, rotation the scales, AC opacity and scales,
the chroma's AC the luma's, splat by splat. So two threads share the work; each section has
its own coder and statistics.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potr.errors import BitstreamError
from potr.format.container import Bitstream, CodedSection, ModelledSection, SectionId
from potr.format.octree import OctreeStreams, decode_octree, encode_octree
from potr.format.parameters import Parameters
from potr.format.quantized import QuantizedModel

_OCTREE_BYTES, _OPACITY_BYTES, _TRIPLE_BYTES, _SH_BYTES = 13, 2, 6, 12  # of a splat's integers, in memory
_CHANNEL_BYTES = 4  # of one SH coefficient of one channel


def modelled_sections(model: QuantizedModel) -> tuple[ModelledSection, ...]:
    """All sections but the model's.

    Args:
        model: valid.

    Raises:
        ModelError: the cells are not in depth-first order.
    """
    from potr import _format

    octree = encode_octree(model.cells, model.depths)
    neighbors = _format.Neighbors(np.ascontiguousarray(model.cells), np.ascontiguousarray(model.depths))
    opacity, scales = np.ascontiguousarray(model.opacity), np.ascontiguousarray(model.log_scales)
    rotation, sh = np.ascontiguousarray(model.rotation), np.ascontiguousarray(model.sh)
    work: list[tuple[SectionId, int, Callable[[], bytes]]] = [
        (SectionId.OCTREE, _OCTREE_BYTES, lambda: _format.encode_octree_streams(*octree)),
        (SectionId.OPACITY, _OPACITY_BYTES, lambda: _format.encode_opacity(neighbors, opacity)),
        (SectionId.LOG_SCALES, _TRIPLE_BYTES, lambda: _format.encode_scales(neighbors, scales)),
        (SectionId.ROTATION, _TRIPLE_BYTES, lambda: _format.encode_rotation(neighbors, scales, rotation)),
        (SectionId.SH_DC, _SH_BYTES, lambda: _format.encode_sh_dc(neighbors, sh)),
    ]
    if sh.shape[1] > 1:
        given, ac_bytes = (neighbors, opacity, scales, sh), _CHANNEL_BYTES * (sh.shape[1] - 1)
        work.append((SectionId.SH_AC_LUMA, ac_bytes, lambda: _format.encode_sh_ac_luma(*given)))
        work.append((SectionId.SH_AC_CHROMA, 2 * ac_bytes, lambda: _format.encode_sh_ac_chroma(*given)))
    with ThreadPoolExecutor(2) as pool:
        coded = list(pool.map(lambda item: item[2](), work))
    return tuple(
        ModelledSection(number, data, size * model.num_splats)
        for (number, size, _), data in zip(work, coded, strict=True)
    )


def read_modelled(bitstream: Bitstream, parameters: Parameters) -> dict[str, NDArray[Any]]:
    """The arrays of a QuantizedModel, by field, not yet validated.

    Raises:
        BitstreamError: naming section and offset.
    """
    from potr import _format

    n, k = parameters.num_splats, parameters.num_coefficients
    raw_sizes = {
        SectionId.OCTREE: _OCTREE_BYTES,
        SectionId.OPACITY: _OPACITY_BYTES,
        SectionId.LOG_SCALES: _TRIPLE_BYTES,
        SectionId.ROTATION: _TRIPLE_BYTES,
        SectionId.SH_DC: _SH_BYTES,
    }
    if k > 1:
        ac_bytes = _CHANNEL_BYTES * (k - 1)
        raw_sizes |= {SectionId.SH_AC_LUMA: ac_bytes, SectionId.SH_AC_CHROMA: 2 * ac_bytes}
    for coded in bitstream.sections:
        if coded.id is not SectionId.MODEL and coded.id not in raw_sizes:
            raise coded.error("a model of SH degree 0 has no such section")
    sections = {i: _checked(bitstream.find(i), n * size) for i, size in raw_sizes.items()}

    cells, depths = _read_octree(sections[SectionId.OCTREE], n)
    neighbors = _format.Neighbors(cells, depths)
    opacity, scales = np.empty(n, np.uint16), np.empty((n, 3), np.uint16)
    rotation, sh = np.empty((n, 3), np.int16), np.zeros((n, k, 3), np.int32)
    ac, luma = (neighbors, opacity, scales, sh), _format.AcLuma(n)
    with ThreadPoolExecutor(1) as pool:
        try:
            first = pool.submit(_run, sections[SectionId.OPACITY], _format.decode_opacity, neighbors, opacity)
            others = [pool.submit(_run, sections[SectionId.SH_DC], _format.decode_sh_dc, neighbors, sh)]
            if k > 1:
                chroma = (sections[SectionId.SH_AC_CHROMA], _format.decode_sh_ac_chroma, *ac, luma)
                others.append(pool.submit(_run, *chroma))
            _run(sections[SectionId.LOG_SCALES], _format.decode_scales, neighbors, scales)
            first.result()
            if k > 1:
                _run(sections[SectionId.SH_AC_LUMA], _format.decode_sh_ac_luma, *ac, luma)
            _run(sections[SectionId.ROTATION], _format.decode_rotation, neighbors, scales, rotation)
        finally:
            luma.close()  # nobody waits for what will not come
        for other in others:
            other.result()
    return {
        "cells": cells, "depths": depths, "opacity": opacity, "log_scales": scales, "rotation": rotation, "sh": sh
    }  # fmt: skip


def _checked(coded: CodedSection, raw_size: int) -> CodedSection:
    if coded.raw_size != raw_size:
        raise coded.error(f"expected a raw size of {raw_size} bytes, got {coded.raw_size}")
    return coded


def _run(section: CodedSection, decode: Callable[..., Any], *arguments: Any) -> Any:
    from potr import _format

    try:
        return decode(bytes(section.coded), *arguments)
    except _format.StreamError as error:
        offset, reason = error.args
        raise section.error_within(offset, reason) from None


def _read_octree(section: CodedSection, n: int) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    from potr import _format

    streams = OctreeStreams(*_run(section, _format.decode_octree_streams, n))
    try:
        return decode_octree(streams, n)
    except BitstreamError as error:
        raise section.error(f"{error.section}: {error.reason} (byte {error.offset} of the stream)") from None
