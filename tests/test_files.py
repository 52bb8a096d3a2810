# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
from typing import BinaryIO

import pytest

from potr.errors import PotrError
from potr.files import write_atomic


def test_writes_bytes_and_makes_folders(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.bin", b"content")
    assert (tmp_path / "a" / "b.bin").read_bytes() == b"content"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.bin"]


def test_refuses_an_existing_file_before_the_writer_runs(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(b"old")

    def writer(file: BinaryIO) -> None:
        raise AssertionError("the writer ran")

    with pytest.raises(PotrError, match=r"b\.bin: exists already"):
        write_atomic(path, writer)
    assert path.read_bytes() == b"old"


def test_overwrites_when_told(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(b"old")
    write_atomic(path, lambda file: file.write(b"new"), overwrite=True)
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_interruption_leaves_the_old_file_and_no_other(tmp_path: Path, interruption: type[BaseException]) -> None:
    path = tmp_path / "b.bin"
    path.write_bytes(b"old")

    def writer(file: BinaryIO) -> None:
        file.write(b"half")
        raise interruption

    with pytest.raises(interruption):
        write_atomic(path, writer, overwrite=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_refuses_a_file_that_came_into_being_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "b.bin"
    with pytest.raises(PotrError, match="exists already"):
        write_atomic(path, lambda file: path.write_bytes(b"theirs"))
    assert path.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [path]


def test_names_what_the_system_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PotrError, match=r"cannot write: (Not a directory|File exists)"):
        write_atomic(tmp_path / "file" / "b.bin", b"")
