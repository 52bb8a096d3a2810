# SPDX-License-Identifier: Apache-2.0
"""The benchmark runs, and what it compares with renders the same image (bench checks that itself)."""

import shutil

import pytest

from experiments.bench_rasterizer import bench, markdown, random_scene
from potr import _rasterizer


@pytest.mark.skipif(shutil.which("g++") is None, reason="the row loop is compiled by g++")
def test_bench_on_a_small_scene() -> None:
    model, view = random_scene(2000)
    results = bench(model, view, 1, _rasterizer.supported_instruction_sets()[:1], reference=False)
    assert [(r["way"].split()[0], r["pass"], r["threads"]) for r in results] == [
        ("row", "render", 1),
        ("row", "render", 2),
        *(("cpu", p, t) for t in (1, 2) for p in ("render", "removal cost", "color statistics")),
    ]
    assert all(r["best_ms"] > 0 for r in results)
    assert len(markdown(results).splitlines()) == 2 + len(results)
