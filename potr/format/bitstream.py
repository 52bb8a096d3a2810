# SPDX-License-Identifier: Apache-2.0
"""QuantizedModel to sections and back, bit for bit. docs/format.md specifies every stream."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potr.errors import BitstreamError
from potr.format.coder import Entropy
from potr.format.container import Bitstream, CodedSection, Section, SectionId, pack, pack_modelled, unpack
from potr.format.contexts import modelled_sections, read_modelled
from potr.format.octree import OctreeStreams, decode_octree, encode_octree, level_ends
from potr.format.parameters import Parameters, parameters_from_bytes, parameters_to_bytes
from potr.format.quantized import MAX_DEPTH, MAX_SH, QuantizedModel, QuantizedModelError, validate
from potr.format.sparse_sh import GapError, dense_from_values, significance_from_gaps, sparse_from_dense
from potr.format.symbols import predicted_section, read_predicted, read_symbols, symbol_section, unzigzag, zigzag

FREE_SPLATS = 1 << 16  # a file has at least as many bytes as splats beyond these: what bounds a decoder's memory

_OCTREE = (SectionId.OCTREE_NODES, SectionId.OCTREE_TAIL_DEPTHS, SectionId.OCTREE_TAIL_BITS, SectionId.OCTREE_COUNTS)
_LOG_SCALES = (SectionId.LOG_SCALES_0, SectionId.LOG_SCALES_1, SectionId.LOG_SCALES_2)
_ROTATION = (SectionId.ROTATION_X, SectionId.ROTATION_Y, SectionId.ROTATION_Z)
_SH_DC = (SectionId.SH_DC_LUMA, SectionId.SH_DC_RED_BLUE, SectionId.SH_DC_GREEN)
_SH_AC = (SectionId.SH_AC_COUNTS, SectionId.SH_AC_GAPS, SectionId.SH_AC_VALUES)
_ALWAYS = (SectionId.MODEL, *_OCTREE, SectionId.OPACITY, *_LOG_SCALES, *_ROTATION, *_SH_DC)
_PLAIN = {"opacity": SectionId.OPACITY, "rotation": SectionId.ROTATION_X, "sh": SectionId.SH_DC_LUMA}
_MODELLED = {"opacity": SectionId.OPACITY, "rotation": SectionId.ROTATION, "sh": SectionId.SH_DC}


def pack_model(model: QuantizedModel, zstd_level: int, entropy: Entropy = Entropy.ZSTD) -> bytes:
    """The whole file. The same arguments give the same bytes (with one version of zstandard).

    Args:
        model: valid.
        zstd_level: 1 to 22; of the model section alone where ``entropy`` is not zstd.
        entropy: which coder, and with it the format version. A model that would come out with improbably few bytes a
            splat is written with zstd, which can store.

    Raises:
        ModelError: the model breaks the contract of QuantizedModel.
    """
    smallest = model.num_splats - FREE_SPLATS
    if entropy is Entropy.ANS:
        validate(model)
        parameters = Section(SectionId.MODEL, parameters_to_bytes(Parameters.of(model)))
        data = pack_modelled(parameters, modelled_sections(model), zstd_level)
        if len(data) >= smallest:
            return data
    return pack(serialize(model), zstd_level, smallest_size=smallest)


def unpack_model(data: bytes) -> QuantizedModel:
    """The inverse of ``pack_model``, for bytes from anywhere.

    Raises:
        BitstreamError: naming section and offset.
    """
    return deserialize(unpack(data))


def serialize(model: QuantizedModel) -> tuple[Section, ...]:
    """The model's streams in format version 1, in file order.

    Raises:
        ModelError: the model breaks the contract of QuantizedModel.
    """
    validate(model)
    octree = encode_octree(model.cells, model.depths)
    sections = [Section(SectionId.MODEL, parameters_to_bytes(Parameters.of(model)))]
    splits = (*level_ends(octree), (), ())
    sections += [Section(i, stream, 0, ends) for i, stream, ends in zip(_OCTREE, octree, splits, strict=True)]
    sections.append(symbol_section(SectionId.OPACITY, model.opacity))
    slopes = (0.0, math.log(2) / model.scale_step)  # unrelated, or a splat's size and its cell's halve together
    sections += [
        predicted_section(i, model.log_scales[:, axis], model.depths, slopes) for axis, i in enumerate(_LOG_SCALES)
    ]
    sections += [symbol_section(i, zigzag(model.rotation[:, axis])) for axis, i in enumerate(_ROTATION)]
    sections += [symbol_section(i, zigzag(model.sh[:, 0, channel])) for channel, i in enumerate(_SH_DC)]
    if model.sh_degree > 0:
        counts, gaps, values = sparse_from_dense(model.sh[:, 1:])
        symbols = 2 * (np.abs(values).astype(np.uint32) - 1) + (values < 0)
        sections += [
            Section(SectionId.SH_AC_COUNTS, counts.tobytes()),
            Section(SectionId.SH_AC_GAPS, gaps.tobytes()),
            symbol_section(SectionId.SH_AC_VALUES, symbols),
        ]
    return tuple(sections)


def deserialize(bitstream: Bitstream) -> QuantizedModel:
    """The inverse of ``serialize``. Every section's size is checked against the model's before it is decompressed.

    Raises:
        BitstreamError: naming section and offset.
    """
    parameters = read_parameters(bitstream)
    read, section_of = (_read_arrays, _PLAIN) if bitstream.version == 1 else (read_modelled, _MODELLED)
    arrays = read(bitstream, parameters)
    model = QuantizedModel(
        origin=parameters.origin,
        extent=parameters.extent,
        opacity_table=parameters.opacity_table,
        scale_origin=parameters.scale_origin,
        scale_step=parameters.scale_step,
        rotation_step=parameters.rotation_step,
        sh_steps=parameters.sh_steps,
        **arrays,
    )
    try:
        validate(model)
    except QuantizedModelError as error:
        raise bitstream.find(section_of.get(error.field, SectionId.MODEL)).error(str(error)) from None
    return model


def _read_arrays(bitstream: Bitstream, parameters: Parameters) -> dict[str, NDArray[Any]]:
    """The arrays of a version 1 file, by field."""
    n, k = parameters.num_splats, parameters.num_coefficients
    expected = _ALWAYS + (_SH_AC if k > 1 else ())
    for coded in bitstream.sections:
        if coded.id not in expected:
            raise coded.error("a model of SH degree 0 has no such section")
    cells, depths = _read_octree(bitstream, n)
    sh = np.empty((n, k, 3), np.int32)
    for channel, i in enumerate(_SH_DC):
        sh[:, 0, channel] = unzigzag(read_symbols(bitstream.find(i), n, 4))
    if k > 1:
        sh[:, 1:] = _read_sh_ac(bitstream, n, 3 * (k - 1))
    rotation = [unzigzag(read_symbols(bitstream.find(i), n, 2)).astype(np.int16) for i in _ROTATION]
    return {
        "cells": cells,
        "depths": depths,
        "opacity": read_symbols(bitstream.find(SectionId.OPACITY), n, 2).astype(np.uint16),
        "log_scales": np.stack([read_predicted(bitstream.find(i), depths) for i in _LOG_SCALES], axis=1),
        "rotation": np.stack(rotation, axis=1),
        "sh": sh,
    }


def read_parameters(bitstream: Bitstream) -> Parameters:
    """The model section alone.

    Raises:
        BitstreamError: it is malformed, or the file is too small for so many splats.
    """
    coded = bitstream.find(SectionId.MODEL)
    parameters = parameters_from_bytes(coded)
    if parameters.num_splats > bitstream.size + FREE_SPLATS:
        raise coded.error(f"{parameters.num_splats} splats in a file of {bitstream.size} bytes")
    return parameters


def _read_octree(bitstream: Bitstream, n: int) -> tuple[NDArray[np.uint32], NDArray[np.uint8]]:
    # A node above the tails holds two leaves or more, so there are at most n / 2 of them on each of 21 levels.
    largest = {
        "nodes": n + MAX_DEPTH * (n // 2),
        "tail_depths": n,
        "tail_bits": (3 * MAX_DEPTH * n + 7) // 8,
        "counts": n,
    }
    coded = dict(zip(OctreeStreams._fields, (bitstream.find(i) for i in _OCTREE), strict=True))
    streams = OctreeStreams(**{name: _read_bytes(coded[name], 0, largest[name]) for name in OctreeStreams._fields})
    try:
        return decode_octree(streams, n)
    except BitstreamError as error:
        raise coded[error.section].error(f"{error.reason} (byte {error.offset} of the raw section)") from None


def _read_sh_ac(bitstream: Bitstream, n: int, num_coefficients: int) -> NDArray[np.int32]:
    counts_section, gaps_section, values_section = (bitstream.find(i) for i in _SH_AC)
    counts = np.frombuffer(_read_bytes(counts_section, n, n), np.uint8)
    if n and counts.max() > num_coefficients:
        raise counts_section.error(f"expected counts up to {num_coefficients}, got {counts.max()}")
    total = int(counts.sum(dtype=np.int64))
    gaps = np.frombuffer(_read_bytes(gaps_section, total, total), np.uint8)
    try:
        significant = significance_from_gaps(counts, gaps, num_coefficients)
    except GapError as error:
        raise gaps_section.error(str(error)) from None
    symbols = read_symbols(values_section, total, 4)
    if total and symbols.max() >= 2 * MAX_SH:
        raise values_section.error(f"expected magnitudes up to {MAX_SH}")
    magnitudes = (symbols >> 1).astype(np.int32) + 1
    return dense_from_values(significant, np.where(symbols & 1, -magnitudes, magnitudes))


def _read_bytes(coded: CodedSection, smallest: int, largest: int) -> bytes:
    if coded.layout != 0:
        raise coded.error(f"expected layout 0, got {coded.layout}")
    return coded.decode(smallest, largest).raw
