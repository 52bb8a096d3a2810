# SPDX-License-Identifier: Apache-2.0
"""A short run of the fuzz targets; `make fuzz` runs it for a minute."""

import re
import shutil

import pytest

from tests.format.run_fuzz import TARGETS, fuzz


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ with its sanitizers")
@pytest.mark.parametrize("target", TARGETS)
def test_a_short_fuzz_run_finds_nothing(target):
    report = fuzz(target, 1.5, seed=7)
    inputs, accepted, valid = map(int, re.findall(r"\d+", report))
    assert inputs >= 50
    assert valid >= 1
    assert accepted < inputs  # the mutations do harm
