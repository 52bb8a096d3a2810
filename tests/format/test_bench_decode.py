# SPDX-License-Identifier: Apache-2.0
"""The table of experiments/bench_decode.py has the file's own numbers in it."""

from pathlib import Path

from experiments import bench_decode

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "modelled_degree_3.potr"


def test_a_row_has_splats_bytes_and_rates():
    data = GOLDEN.read_bytes()
    splats, clock, processor, threads = bench_decode.measure(data, 2)
    assert min(splats, clock, processor, threads) > 0
    row = bench_decode.row("file", 3_000_000, 1_000_000, 2.0, 3.0, 1.5)
    assert row == "| file | 1,000,000 | 3,000,000 | 24.0 | 0.50 | 1.50 | 3.00 | 1.50 |"
    head, rule, last = bench_decode.table([row]).split("\n")
    assert head.count("|") == rule.count("|") == last.count("|")
