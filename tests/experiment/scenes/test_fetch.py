# SPDX-License-Identifier: Apache-2.0
"""Downloading and unpacking, from a server that breaks off and lies: only what is asked, whole or not at all."""

import hashlib
import logging
import random
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from potr.errors import PotrError
from potr.experiment.scenes import fetch
from potr.experiment.scenes.fetch import RemoteFile, download, remote_size, unpack
from potr.experiment.scenes.suites import Archive
from potr.progress import Progress
from tests.helpers.file_server import FileServer, serving

CONTENT = bytes(range(256)) * 10_000  # 2.56 MB, more than two reads
SHA256 = hashlib.sha256(CONTENT).hexdigest()

FILES = {
    "garden/images_4/a.JPG": b"a",
    "garden/images_4/b.JPG": b"b" * 3_000_000,
    "garden/images_40/c.JPG": b"c",
    "garden/images/a.JPG": b"large",
    "garden/sparse/0/images.bin": b"poses",
    "garden2/images_4/a.JPG": b"other",
    "readme.txt": b"read me",
}
WANTED = ("images_4/", "sparse/")


def archive_of(folder: Path, files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder / "scenes.zip"
    with zipfile.ZipFile(path, "w", compression) as zipped:
        for name, content in files.items():
            zipped.writestr(zipfile.ZipInfo(name), content, compression)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_only_what_is_wanted(tmp_path: Path) -> None:
    assert unpack(archive_of(tmp_path, FILES), "garden", tmp_path / "data" / "garden", WANTED) == []
    assert tree(tmp_path / "data") == {
        name: FILES[name] for name in ("garden/images_4/a.JPG", "garden/images_4/b.JPG", "garden/sparse/0/images.bin")
    }


def test_all_of_a_folder(tmp_path: Path) -> None:
    unpack(archive_of(tmp_path, FILES), "garden", tmp_path / "x" / "garden")
    assert len(tree(tmp_path / "x")) == 5


def test_what_is_there_is_kept_and_completed(tmp_path: Path) -> None:
    target = tmp_path / "data" / "garden"
    (target / "images_4").mkdir(parents=True)
    (target / "images_4" / "a.JPG").write_bytes(b"mine")
    kept = unpack(archive_of(tmp_path, FILES), "garden", target, WANTED)
    assert kept == [f"  {target / 'images_4' / 'a.JPG'} was there already and is kept"]
    assert (target / "images_4" / "a.JPG").read_bytes() == b"mine"
    assert (target / "sparse" / "0" / "images.bin").read_bytes() == b"poses"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["garden"]


@pytest.mark.parametrize(
    "name", ["../evil", "garden/../../evil", "/etc/evil", "..\\evil", "C:\\evil", "garden/images_4/../../../evil"]
)
def test_paths_that_lead_outside_are_refused(tmp_path: Path, name: str) -> None:
    archive = archive_of(tmp_path, FILES | {name: b"evil"})
    with pytest.raises(PotrError, match="nothing is unpacked, it has a path that leads outside: "):
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
    assert [path.name for path in tmp_path.rglob("*")] == ["scenes.zip"]


def test_symbolic_links_are_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, FILES)
    link = zipfile.ZipInfo("garden/images_4/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(archive, "a") as zipped:
        zipped.writestr(link, "/etc")
    with pytest.raises(PotrError, match="it has a symbolic link: 'garden/images_4/link'"):
        unpack(archive, "garden", tmp_path / "garden", WANTED)
    assert not (tmp_path / "garden").exists()


def test_a_scene_or_a_part_that_is_not_in_it(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, FILES)
    with pytest.raises(PotrError, match="expected stump/images_4/ in it, found none"):
        unpack(archive, "stump", tmp_path / "stump", WANTED)
    with pytest.raises(PotrError, match="expected garden2/sparse/ in it, found none"):
        unpack(archive, "garden2", tmp_path / "garden2", WANTED)


def test_damage_is_found_and_leaves_nothing(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, FILES, zipfile.ZIP_STORED)
    content = bytearray(archive.read_bytes())
    content[content.index(b"bbbb") + 1000] ^= 1
    archive.write_bytes(content)
    with pytest.raises(PotrError, match=r"not a usable \.zip \(Bad CRC-32.*delete it to download it again"):
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
    assert list((tmp_path / "data").iterdir()) == []
    archive.write_bytes(content[:1000])
    with pytest.raises(PotrError, match="File is not a zip file"):
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
    with pytest.raises(PotrError, match="cannot unpack"):
        unpack(tmp_path / "none.zip", "garden", tmp_path / "data" / "garden", WANTED)


def test_a_member_without_a_name_is_passed_over(tmp_path: Path) -> None:
    unpack(archive_of(tmp_path, FILES | {"./": b"", ".": b"x"}), "garden", tmp_path / "x" / "garden")
    assert len(tree(tmp_path / "x")) == 5


def test_a_name_that_is_no_utf_8_is_damage(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, {"garden/ä": b"a"})
    archive.write_bytes(archive.read_bytes().replace("ä".encode(), b"\xff\xff"))
    with pytest.raises(PotrError, match=r"not a usable \.zip .*utf-8"):
        unpack(archive, "garden", tmp_path / "garden")


def test_an_interruption_leaves_nothing_half_unpacked(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, FILES)
    target = tmp_path / "data" / "garden"

    def interrupt(stage: str, done: int, total: int) -> None:
        assert stage == "unpack garden (MB)"
        if done >= 2:
            assert (tmp_path / "data" / ".garden.part").is_dir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, "garden", target, WANTED, progress=Progress(interrupt))
    assert list((tmp_path / "data").iterdir()) == []
    (tmp_path / "data" / ".garden.part").mkdir()  # what a killed process leaves
    (tmp_path / "data" / ".garden.part" / "half").write_bytes(b"")
    unpack(archive, "garden", target, WANTED)
    assert {path.name for path in target.iterdir()} == {"images_4", "sparse"}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["garden"]


def test_the_disk_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=102_000_000)
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PotrError, match=r"unpacking garden needs 3\.0 MB, 102\.0 MB are free"):
        unpack(archive_of(tmp_path, FILES), "garden", tmp_path / "data" / "garden", WANTED)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_inflate_without_bounds_are_refused(tmp_path: Path, method: int) -> None:
    archive = archive_of(tmp_path, {"garden/bomb": bytes(1_000_000)}, method)
    with pytest.raises(PotrError, match="expected stored or deflated files: 'garden/bomb'"):
        unpack(archive, "garden", tmp_path / "data" / "garden")
    assert not (tmp_path / "data").exists()


def test_a_member_that_holds_more_than_it_says_is_damage(tmp_path: Path) -> None:
    """The room on the disk is looked for by the sizes in the directory, so more than that must not be written."""
    archive = archive_of(tmp_path, {"garden/bomb": bytes(50_000_000)})
    content = archive.read_bytes()
    directory = content.index(b"PK\1\2")
    for place in (content.index(b"PK\3\4") + 22, directory + 24):
        content = content[:place] + struct.pack("<I", 1000) + content[place + 4 :]
    archive.write_bytes(content)
    written: list[int] = []
    with pytest.raises(PotrError, match=r"not a usable \.zip"):
        unpack(
            archive,
            "garden",
            tmp_path / "data" / "garden",
            progress=Progress(lambda _, done, total: written.append(total)),
        )
    assert list((tmp_path / "data").iterdir()) == []
    assert set(written) <= {1}


def test_a_directory_that_claims_more_than_the_disk_holds(tmp_path: Path) -> None:
    archive = archive_of(tmp_path, {f"garden/{index}": b"x" for index in range(1000)})
    claims = struct.pack("<I", 0xFFFFFFF0)
    content, place = archive.read_bytes(), 0
    while (place := content.find(b"PK\1\2", place)) >= 0:
        content = content[: place + 24] + claims + content[place + 28 :]
        place += 28
    archive.write_bytes(content)
    with pytest.raises(PotrError, match=r"unpacking garden needs 4,?295\.0 GB"):
        unpack(archive, "garden", tmp_path / "data" / "garden")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "WAITS", (0.0, 0.0))
    with serving({"a.zip": CONTENT}) as state:
        yield state


def got(server: FileServer, folder: Path, sha256: str | None = SHA256) -> Path:
    return download(Archive("https://nowhere.example/a.zip", len(CONTENT), sha256=sha256), folder, base_url=server.url)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_fetched_once_and_only_the_file_is_left(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / ".a.zip.part").mkdir()  # what a killed process leaves
    (tmp_path / ".a.zip.part" / "half").write_bytes(b"")
    path = got(server, tmp_path)
    assert path.read_bytes() == CONTENT
    assert names(tmp_path) == {"a.zip"}
    assert got(server, tmp_path) == path
    assert len(server.gets) == 1


@pytest.mark.parametrize("sha256", [SHA256, None])
@pytest.mark.parametrize("answer", [0, 1_500_000, len(CONTENT) - 1, "503"])
def test_a_broken_download_leaves_nothing_and_starts_over(
    server: FileServer, tmp_path: Path, answer: int | str, sha256: str | None
) -> None:
    server.answers = [answer]
    with pytest.raises(PotrError, match=r"/a\.zip: .*nothing is kept, the same command starts over"):
        got(server, tmp_path, sha256)
    assert names(tmp_path) == set()
    assert got(server, tmp_path, sha256).read_bytes() == CONTENT


def test_a_wrong_checksum_keeps_nothing(server: FileServer, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(PotrError, match=f"expected {wrong} but got {SHA256}.*nothing is kept"):
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


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(fetch, "WAITS", (0.0,))
    archive = Archive("http://127.0.0.1:9/a.zip", 5)
    with pytest.raises(PotrError, match="refused"):
        download(archive, tmp_path)
    with pytest.raises(PotrError, match="refused"):
        RemoteFile(archive.url)
    assert remote_size(archive) == 5
    for ask in (lambda: download(archive, tmp_path, base_url="nonsense"), lambda: RemoteFile("nonsense/a.zip")):
        with pytest.raises(PotrError, match="Invalid URL"):
            ask()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_disk_that_fills_up_meanwhile(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(fetch.pooch.HTTPDownloader):
        def __call__(self, url: str, output_file: str, *_: object) -> None:
            with open("/dev/full", "wb") as full:
                super().__call__(url, full, None)

    monkeypatch.setattr(fetch.pooch, "HTTPDownloader", Full)
    with pytest.raises(PotrError, match="No space left on device; nothing is kept"):
        got(server, tmp_path)
    assert names(tmp_path) == set()


def test_progress_and_the_size_the_server_tells(
    server: FileServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[tuple[str, int, int]] = []
    archive = Archive("https://nowhere.example/a.zip", 7)
    with caplog.at_level(logging.WARNING):
        assert remote_size(archive, server.url) == len(CONTENT)
    assert "2,560,000 bytes on the server, 7 were expected" in caplog.text
    download(archive, tmp_path, base_url=server.url, progress=Progress(lambda *said: told.append(said)))
    assert {stage for stage, _, _ in told} == {"download a.zip (MB)"}
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert told[-1][1:] == (3, 3)


@pytest.fixture
def scenes(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FileServer:
    """The server with an archive of 12 MB, of which 2.4 MB in the middle are asked for."""
    monkeypatch.setattr(fetch, "BLOCK", 1 << 20)
    noise = random.Random(0)
    wanted = {f"garden/images_4/{index}.JPG": noise.randbytes(400_000) for index in range(6)}
    files = {
        "garden/images/large.JPG": noise.randbytes(5_000_000),
        **wanted,
        "garden/sparse/0/images.bin": b"poses",
        "bicycle/images/large.JPG": noise.randbytes(5_000_000),
    }
    server.files["scenes.zip"] = archive_of(tmp_path, files, zipfile.ZIP_STORED).read_bytes()
    return server


def remote(server: FileServer) -> RemoteFile:
    return RemoteFile(f"{server.url}/scenes.zip")


def test_a_scene_is_read_out_of_an_archive_on_the_server(scenes: FileServer, tmp_path: Path) -> None:
    with remote(scenes) as archive:
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
        assert archive.size > 12_000_000
        assert 2_400_000 < archive.received < 5_000_000
    with zipfile.ZipFile(tmp_path / "scenes.zip") as zipped:
        for name, content in tree(tmp_path / "data").items():
            assert content == zipped.read(name)
    assert len(tree(tmp_path / "data")) == 7
    assert len(scenes.gets) < 8  # the directory, and what lies together block by block


def test_a_request_that_fails_is_sent_again(scenes: FileServer, tmp_path: Path) -> None:
    scenes.answers = [None, 10, "503", None, 500_000, "429"]
    with remote(scenes) as archive:
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
    assert len(tree(tmp_path / "data")) == 7
    for answers, reason in (([0, 0, 0], "broken"), (["503"] * 3, "503 Server Error"), (["403"], "403 Client Error")):
        scenes.answers = [None, None, None, *answers]
        with remote(scenes) as archive, pytest.raises(PotrError, match=rf"scenes\.zip: .*{reason}"):
            unpack(archive, "garden", tmp_path / "again" / "garden", WANTED)
        assert scenes.answers == []
        assert not (tmp_path / "again").exists() or names(tmp_path / "again") == set()


def test_a_server_without_ranges_and_one_that_changes_the_file(scenes: FileServer, tmp_path: Path) -> None:
    for other in (scenes.files["scenes.zip"] + b"more", scenes.files["scenes.zip"][:-1] + b"x"):
        with remote(scenes) as archive:
            scenes.files["scenes.zip"] = other
            with pytest.raises(PotrError, match="has changed on the server"):
                unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
    scenes.ranges = False
    with pytest.raises(PotrError, match="can only be had whole from this server"):
        remote(scenes)
    scenes.files["scenes.zip"] = b"no zip"
    scenes.ranges = True
    with remote(scenes) as archive, pytest.raises(PotrError, match=r"not a usable \.zip \(File is not a zip file\)$"):
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)


def test_a_remote_file_is_a_seekable_stream(scenes: FileServer) -> None:
    content = scenes.files["scenes.zip"]
    with remote(scenes) as archive:
        assert archive.seek(-10, 2) == len(content) - 10
        assert archive.read() == content[-10:]
        assert archive.read(5) == b""
        archive.seek(100)
        archive.seek(20, 1)
        assert archive.tell() == 120
        assert archive.read(5) == content[120:125]
        with pytest.raises(OSError, match="before the first byte"):
            archive.seek(-1)
