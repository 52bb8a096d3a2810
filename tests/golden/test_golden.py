# SPDX-License-Identifier: Apache-2.0
"""The committed files decode to the committed hashes; under the pinned versions the encoder still writes them."""

import importlib.metadata
import re
from pathlib import Path

import pytest

from potr.errors import BitstreamError
from potr.format.decode import decode
from tests.golden import cases
from tests.golden.defects import DEFECTS
from tests.golden.modelled_defects import MODELLED_DEFECTS

CONSTRAINTS = (Path(__file__).parents[2] / "constraints.txt").read_text().splitlines()
PINNED = all(f"{name}=={importlib.metadata.version(name)}" in CONSTRAINTS for name in ("zstandard", "numpy"))
pinned_only = pytest.mark.skipif(not PINNED, reason="zstandard or numpy is not the version of constraints.txt")
ALL_DEFECTS = DEFECTS + MODELLED_DEFECTS


@pytest.mark.parametrize("name", cases.VALID)
def test_file_decodes_to_its_hashes(name):
    rows = cases.HASHES.read_text().splitlines()
    assert rows[0] == cases.HASH_HEADER
    assert cases.hash_row(name, decode((cases.HERE / f"{name}.potr").read_bytes())) in rows


@pinned_only
@pytest.mark.parametrize("name", cases.VALID)
def test_encoder_writes_the_same_bytes(name):
    data = cases.pack(name)
    assert data == (cases.HERE / f"{name}.potr").read_bytes(), "run make golden and review the change"
    recorded = [row for row in cases.SIZES.read_text().splitlines() if row.startswith(f"{name},")]
    assert cases.size_rows(name, data) == recorded


def test_there_is_a_file_for_every_case_and_no_other():
    assert {p.stem for p in cases.HERE.glob("*.potr")} == set(cases.VALID)
    assert {p.stem for p in cases.ERRORS.glob("*.potr")} == {d.name for d in ALL_DEFECTS}
    assert len({d.name for d in ALL_DEFECTS}) == len(ALL_DEFECTS)


@pytest.mark.parametrize("defect", ALL_DEFECTS, ids=lambda d: d.name)
@pytest.mark.parametrize("source", ["committed", "made"])
def test_defect_is_refused_by_name_and_reason(defect, source):
    data = (cases.ERRORS / f"{defect.name}.potr").read_bytes() if source == "committed" else defect.make()
    with pytest.raises(BitstreamError) as caught:
        decode(data)
    assert caught.value.section == defect.section, caught.value
    assert re.search(defect.reason, caught.value.reason), caught.value
    assert 0 <= caught.value.offset <= len(data)
