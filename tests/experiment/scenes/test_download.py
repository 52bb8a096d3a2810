# SPDX-License-Identifier: Apache-2.0
"""Downloads from a local server that breaks off, changes its mind, lies and runs out: nothing is lost or half-done."""

import hashlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pooch.core
import pytest

from potr.errors import PotrError
from potr.experiment.scenes import download
from potr.experiment.scenes.download import fetch, remote_size
from potr.experiment.scenes.suites import Archive
from tests.helpers.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 10_000  # 2.56 MB, more than two reads
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving({"a.zip": CONTENT}) as state:
        yield state


def got(server: FileServer, folder: Path, sha256: str | None = SHA256, retries: int = 2) -> Path:
    archive = Archive("https://nowhere.example/a.zip", len(CONTENT), sha256=sha256)
    return fetch(archive, folder, base_url=server.url, retries=retries, wait=0.0)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_fetched_once_and_only_the_file_is_left(server: FileServer, tmp_path: Path) -> None:
    path = got(server, tmp_path / "new" / "folder")
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == {"a.zip"}
    assert got(server, path.parent) == path
    assert server.gets == [None]


@pytest.mark.parametrize("broken_after", [0, 1, 1_500_000, len(CONTENT) - 1])
def test_a_broken_connection_is_taken_up_where_it_broke(server: FileServer, tmp_path: Path, broken_after: int) -> None:
    server.answers = [broken_after]
    assert got(server, tmp_path).read_bytes() == CONTENT
    assert server.gets == [None, f"bytes={broken_after}-" if broken_after else None]


def test_many_breaks_are_no_reason_to_stop_while_bytes_come(server: FileServer, tmp_path: Path) -> None:
    server.answers = [100_000] * 20
    assert got(server, tmp_path, retries=1).read_bytes() == CONTENT
    assert len(server.gets) == 21


def test_the_next_process_goes_on_with_the_part(server: FileServer, tmp_path: Path) -> None:
    server.answers = [1_000_000, 0, 0, 0]
    with pytest.raises(PotrError, match=r"broke.*1,000,000 bytes are in .*a\.zip\.part, the same command goes on"):
        got(server, tmp_path)
    assert not (tmp_path / "a.zip").exists()
    server.requests.clear()
    assert got(server, tmp_path).read_bytes() == CONTENT
    assert server.gets == ["bytes=1000000-"]
    assert names(tmp_path) == {"a.zip"}


def test_a_part_of_another_version_is_thrown_away(server: FileServer, tmp_path: Path) -> None:
    server.answers = [1_000_000, 0, 0, 0]
    with pytest.raises(PotrError):
        got(server, tmp_path)
    server.files["a.zip"] = b"new" + CONTENT
    assert got(server, tmp_path, sha256=None).read_bytes() == b"new" + CONTENT
    server.files["a.zip"] = CONTENT  # now a part longer than the file, of a version that is no more
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "a.zip.part").write_bytes(b"x" * (len(CONTENT) + 5))
    assert got(server, tmp_path / "b").read_bytes() == CONTENT


@pytest.mark.parametrize("lacks", ["ranges", "versions"])
def test_a_server_that_cannot_resume_sends_all_again(server: FileServer, tmp_path: Path, lacks: str) -> None:
    setattr(server, lacks, False)
    server.answers = [1_000_000]
    assert got(server, tmp_path).read_bytes() == CONTENT


def test_a_part_that_is_whole_is_taken_as_it_is(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interruption while pooch computes the checksum must not cost the whole download."""
    with monkeypatch.context() as patch:
        patch.setattr(pooch.core, "hash_matches", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            got(server, tmp_path)
    assert names(tmp_path) == {"a.zip.part", "a.zip.part.json"}
    assert got(server, tmp_path).read_bytes() == CONTENT
    assert server.gets == [None, f"bytes={len(CONTENT)}-"]


def test_a_wrong_checksum_keeps_nothing(server: FileServer, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(PotrError, match=f"expected {wrong} but got {SHA256}.*Nothing is kept"):
        got(server, tmp_path, sha256=wrong)
    assert names(tmp_path) == set()


def test_an_archive_that_is_there_is_checked_and_never_replaced(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"the user's own")
    with pytest.raises(PotrError, match=f"expected SHA-256 {SHA256}, found .*; delete it to download it again"):
        got(server, tmp_path)
    assert (tmp_path / "a.zip").read_bytes() == b"the user's own"
    assert server.requests == []


def test_an_unknown_checksum_is_recorded_and_compared_with_later(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        path = got(server, tmp_path, sha256=None)
    assert "no checksum is published" in caplog.text
    assert (tmp_path / "a.zip.sha256").read_text() == f"{SHA256}  a.zip\n"  # as sha256sum -c reads it
    got(server, tmp_path, sha256=None)
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(PotrError, match=f"expected SHA-256 {SHA256}"):
        got(server, tmp_path, sha256=None)


def test_refusals_are_not_retried_and_overload_is(server: FileServer, tmp_path: Path) -> None:
    server.answers = ["403"]
    with pytest.raises(PotrError, match=r"/a\.zip: the server answered 403"):
        got(server, tmp_path)
    assert len(server.gets) == 1
    server.answers = ["503", "429"]
    assert got(server, tmp_path).read_bytes() == CONTENT
    assert len(server.gets) == 4


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    archive = Archive("http://127.0.0.1:9/a.zip", 5)
    with pytest.raises(PotrError, match=r"cannot connect .*refused"):
        fetch(archive, tmp_path, retries=1, wait=0.0)
    assert remote_size(archive) == 5
    with pytest.raises(PotrError, match="not an address"):
        fetch(archive, tmp_path, base_url="nonsense", retries=1, wait=0.0)


def test_no_byte_is_fetched_where_there_is_no_room(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=101_000_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PotrError, match=r"the rest of a\.zip needs 2\.6 MB, 101\.0 MB are free"):
        got(server, tmp_path)  # 100 MB stay in reserve
    assert names(tmp_path) == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_fills_up_meanwhile(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "a.zip.part").symlink_to("/dev/full")
    with pytest.raises(PotrError, match="No space left on device; the part so far is kept"):
        got(server, tmp_path)
    assert len(server.gets) == 1


def test_progress_and_the_size_the_server_tells(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, int, int]] = []
    archive = Archive("https://nowhere.example/a.zip", 7)
    assert remote_size(archive, server.url) == len(CONTENT)
    with caplog.at_level(logging.WARNING):
        fetch(archive, tmp_path, base_url=server.url, progress=lambda *said: told.append(said))
    assert "2,560,000 bytes on the server, 7 were expected" in caplog.text
    assert {stage for stage, _, _ in told} == {"download a.zip (MB)"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1:] == (3, 3)
