# SPDX-License-Identifier: Apache-2.0
"""The native module of the format takes arrays as they are or not at all: a copy would be decoded into and lost."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import potr
from potr import _format
from tests.helpers.quantized_models import random_quantized

MODEL = random_quantized(3, 40, 1)
CELLS, DEPTHS = np.ascontiguousarray(MODEL.cells), np.ascontiguousarray(MODEL.depths)
GIVEN = {
    "cells": CELLS,
    "depths": DEPTHS,
    "required_depths": DEPTHS,
    "opacity": np.ascontiguousarray(MODEL.opacity),
    "scales": np.ascontiguousarray(MODEL.log_scales),
    "sh": np.ascontiguousarray(MODEL.sh),
}
NEIGHBORS = _format.Neighbors(CELLS, DEPTHS)
OCTREE = _format.encode_octree(CELLS, DEPTHS)
VALUES = {
    "opacity": GIVEN["opacity"],
    "scales": GIVEN["scales"],
    "rotation": np.ascontiguousarray(MODEL.rotation),
    "sh_dc": GIVEN["sh"],
    "sh_ac_luma": GIVEN["sh"],
    "sh_ac_chroma": GIVEN["sh"],
}
BEFORE = {"rotation": ["scales"], "sh_ac_luma": ["opacity", "scales"], "sh_ac_chroma": ["opacity", "scales"]}


def luma() -> _format.AcLuma:
    """Of the model, all of it there."""
    ready = _format.AcLuma(len(DEPTHS))
    coded = _format.encode_sh_ac_luma(NEIGHBORS, GIVEN["opacity"], GIVEN["scales"], GIVEN["sh"])
    _format.decode_sh_ac_luma(coded, NEIGHBORS, GIVEN["opacity"], GIVEN["scales"], np.zeros_like(GIVEN["sh"]), ready)
    return ready


def encoder(name: str) -> tuple[Callable[..., Any], list[Any]]:
    given = [GIVEN[before] for before in BEFORE.get(name, [])]
    return getattr(_format, f"encode_{name}"), [NEIGHBORS, *given, VALUES[name]]


def decoder(name: str) -> tuple[Callable[..., Any], list[Any]]:
    encode, arguments = encoder(name)
    further = {"sh_ac_luma": [_format.AcLuma(len(DEPTHS))], "sh_ac_chroma": [luma()]}.get(name, [])
    given = [*arguments[:-1], np.zeros_like(VALUES[name]), *further]
    return getattr(_format, f"decode_{name}"), [encode(*arguments), *given]


CALLS: dict[str, Callable[[], tuple[Callable[..., Any], list[Any]]]] = {
    "Neighbors": lambda: (_format.Neighbors, [CELLS, DEPTHS]),
    "encode_octree": lambda: (_format.encode_octree, [CELLS, DEPTHS]),
    "order_leaves": lambda: (_format.order_leaves, [CELLS, DEPTHS, 21]),
    "encode_octree_streams": lambda: (_format.encode_octree_streams, list(OCTREE)),
    "decode_octree_streams": lambda: (
        _format.decode_octree_streams,
        [_format.encode_octree_streams(*OCTREE), len(DEPTHS)],
    ),
    "decode_octree": lambda: (_format.decode_octree, [*OCTREE, len(DEPTHS)]),
    **{f"encode_{name}": lambda name=name: encoder(name) for name in VALUES},
    **{f"decode_{name}": lambda name=name: decoder(name) for name in VALUES},
}


def strided(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The same values, every second row of a larger array."""
    return np.repeat(array, 2, axis=0)[::2]


WRONG = {
    "float64": lambda array: array.astype(np.float64),
    "another_integer": lambda array: array.astype(np.int64 if array.dtype == np.int32 else np.int32),
    "other_sign": lambda array: array.view(f"{'u' if array.dtype.kind == 'i' else 'i'}{array.itemsize}"),
    "big_endian_layout": lambda array: array.astype(array.dtype.newbyteorder(">")) if array.itemsize > 1 else None,
    "strided": strided,
    "another_shape": lambda array: array[..., None],
    "list": lambda array: array.tolist(),
}


def test_every_function_of_the_module_is_here() -> None:
    made = {getattr(CALLS[name]()[0], "__name__", name) for name in CALLS}
    native = {name for name in vars(_format) if callable(getattr(_format, name))}
    assert native - {name for name in native if name.endswith("Error")} == made | {"AcLuma"}


@pytest.mark.parametrize("name", CALLS)
def test_right_arguments_are_taken(name: str) -> None:
    call, arguments = CALLS[name]()
    call(*arguments)
    if name.removeprefix("decode_") in VALUES and name != "decode_octree":
        values, decoded = VALUES[name.removeprefix("decode_")], next(a for a in arguments[:1:-1] if hasattr(a, "shape"))
        where = {"sh_dc": np.s_[:, 0], "sh_ac_luma": np.s_[:, 1:, 0], "sh_ac_chroma": np.s_[:, 1:, 1:]}
        part = where.get(name.removeprefix("decode_"), np.s_[:])
        assert values.any()
        np.testing.assert_array_equal(decoded[part], values[part])


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", CALLS)
def test_no_array_is_converted(name: str, kind: str) -> None:
    _, arguments = CALLS[name]()
    for i, argument in enumerate(arguments):
        if not isinstance(argument, np.ndarray):
            continue
        call, others = CALLS[name]()
        wrong = WRONG[kind](argument)
        if wrong is None:
            continue
        with pytest.raises(TypeError, match="incompatible function arguments"):
            call(*others[:i], wrong, *others[i + 1 :])


@pytest.mark.parametrize("name", [name for name in CALLS if name.startswith("decode_") and "octree" not in name])
def test_outputs_that_cannot_be_written_are_refused(name: str) -> None:
    call, arguments = CALLS[name]()
    output = next(a for a in arguments[::-1] if isinstance(a, np.ndarray))
    output.flags.writeable = False
    with pytest.raises(TypeError, match="incompatible function arguments"):
        call(*arguments)


@pytest.mark.parametrize("name", CALLS)
def test_arrays_of_another_length_are_refused(name: str) -> None:
    _, arguments = CALLS[name]()
    for i, argument in enumerate(arguments):
        if isinstance(argument, np.ndarray):
            call, others = CALLS[name]()
            with pytest.raises(ValueError, match="differ in length"):
                call(*others[:i], np.ascontiguousarray(argument[:-1]), *others[i + 1 :])


def test_there_is_no_version_to_get_wrong() -> None:
    call, arguments = decoder("opacity")
    with pytest.raises(TypeError):
        call(*arguments, 77)


@pytest.mark.parametrize("cell", [[8, 0, 0], [0, 2**31, 0], [0, 0, 2**32 - 1]])
def test_cells_outside_their_depth_are_refused(cell: list[int]) -> None:
    with pytest.raises(ValueError, match=r"cells below 2\^depth"):
        _format.Neighbors(np.array([cell], np.uint32), np.array([3], np.uint8))


@pytest.mark.parametrize("encode", ["sh_dc", "sh_ac_luma", "sh_ac_chroma"])
@pytest.mark.parametrize("value", [2**24 + 1, -(2**24) - 1, -(2**31)])
def test_colours_too_large_for_a_column_are_refused(encode: str, value: int) -> None:
    call, arguments = encoder(encode)
    sh = arguments[-1].copy()
    sh[-1, -1, -1] = value
    with pytest.raises(ValueError, match=r"magnitudes up to 2\^24"):
        call(*arguments[:-1], sh)


@pytest.mark.parametrize("counts", [b"\xff" * 40, b"\xff" * 4 + b"\x01", b"\x80" * 6 + b"\0"])
def test_counts_without_an_end_are_refused(counts: bytes) -> None:
    with pytest.raises(ValueError, match="counts of at most 4 bytes"):
        _format.encode_octree_streams(b"\0", b"\0", b"", counts)


def test_a_tail_too_deep_is_refused() -> None:
    with pytest.raises(ValueError, match="a leaf at depth 21 at most"):
        _format.encode_octree_streams(b"\0", b"\x21", b"\0" * 13, b"\0")


def test_the_stub_has_the_functions_and_parameters_of_the_module() -> None:
    stub = Path(potr.__file__).parent / "_format.pyi"
    functions = {node.name: node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.FunctionDef)}
    native = {name: f for name, f in vars(_format).items() if callable(f) and not isinstance(f, type)}
    assert set(functions) == set(native)
    for name, function in native.items():
        parameters = re.findall(r"(?:^|, |\()(\w+): ", function.__doc__.splitlines()[0])
        assert parameters == [argument.arg for argument in functions[name].args.args], name
