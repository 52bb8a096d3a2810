# SPDX-License-Identifier: Apache-2.0
"""Writes every golden file (make golden). A diff changes the format or its sizes: review it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from potr.format.decode import decode
from tests.golden import cases
from tests.golden.defects import DEFECTS
from tests.golden.modelled_defects import MODELLED_DEFECTS


def main() -> None:
    cases.ERRORS.mkdir(exist_ok=True)
    for old in (*cases.HERE.glob("*.potr"), *cases.ERRORS.glob("*.potr")):
        old.unlink()
    hashes, sizes = [cases.HASH_HEADER], [cases.SIZE_HEADER]
    for name in cases.VALID:
        data = cases.pack(name)
        (cases.HERE / f"{name}.potr").write_bytes(data)
        hashes.append(cases.hash_row(name, decode(data)))
        sizes += cases.size_rows(name, data)
    cases.HASHES.write_text("\n".join(hashes) + "\n")
    cases.SIZES.write_text("\n".join(sizes) + "\n")
    for defect in DEFECTS + MODELLED_DEFECTS:
        (cases.ERRORS / f"{defect.name}.potr").write_bytes(defect.make())


if __name__ == "__main__":
    main()
