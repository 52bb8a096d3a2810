# SPDX-License-Identifier: Apache-2.0
"""Unpacking: only what is asked, never outside, never over what is there, whole or not at all."""

import random
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from potr.errors import PotrError
from potr.experiment.scenes import download
from potr.experiment.scenes.unpack import unpack
from potr.experiment.scenes.web import RemoteFile
from tests.helpers.file_server import FileServer, serving

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
            zipped.writestr(zipfile.ZipInfo(name), content)
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
    assert kept == [target / "images_4" / "a.JPG"]
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
            assert (tmp_path / "data" / ".garden.unpacking").is_dir()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        unpack(archive, "garden", target, WANTED, progress=interrupt)
    assert list((tmp_path / "data").iterdir()) == []
    (tmp_path / "data" / ".garden.unpacking").mkdir()  # what a killed process leaves
    (tmp_path / "data" / ".garden.unpacking" / "half").write_bytes(b"")
    unpack(archive, "garden", target, WANTED)
    assert {path.name for path in target.iterdir()} == {"images_4", "sparse"}
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["garden"]


def test_the_disk_is_looked_at_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=102_000_000)
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(PotrError, match=r"unpacking garden needs 3\.0 MB, 102\.0 MB are free"):
        unpack(archive_of(tmp_path, FILES), "garden", tmp_path / "data" / "garden", WANTED)
    assert list((tmp_path / "data").iterdir()) == []


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """The archive with five megabytes that nobody asks for in the middle of it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    noise = random.Random(0)
    large = {f"{name}/images/large.JPG": noise.randbytes(5_000_000) for name in ("garden", "bicycle")}
    wanted = {f"garden/images_4/{index}.JPG": noise.randbytes(400_000) for index in range(6)}
    path = archive_of(tmp_path, {**large, **wanted, "garden/sparse/0/images.bin": b"poses"}, zipfile.ZIP_STORED)
    with serving({"scenes.zip": path.read_bytes()}) as state:
        yield state


def remote(server: FileServer) -> RemoteFile:
    return RemoteFile(f"{server.url}/scenes.zip", retries=2, wait=0.0)


def test_a_scene_is_read_out_of_an_archive_on_the_server(server: FileServer, tmp_path: Path) -> None:
    with remote(server) as archive:
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
        assert archive.size > 12_000_000
        assert 2_400_000 < archive.received < 5_000_000
    with zipfile.ZipFile(tmp_path / "scenes.zip") as zipped:
        for name, content in tree(tmp_path / "data").items():
            assert content == zipped.read(name)
    assert len(tree(tmp_path / "data")) == 7
    assert len(server.gets) < 6  # the directory, and what lies together in one request


def test_breaks_of_the_connection_are_taken_up_at_their_byte(server: FileServer, tmp_path: Path) -> None:
    server.answers = [None, 500_000, 0, "503", 500_000]
    with remote(server) as archive:
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
        assert archive.received < 5_000_000
    assert len(tree(tmp_path / "data")) == 7
    server.answers = [None, None, None, 100_000, 0, 0, 0]
    with remote(server) as archive, pytest.raises(PotrError, match=r"scenes\.zip: the connection broke"):
        unpack(archive, "garden", tmp_path / "again" / "garden", WANTED)
    assert list((tmp_path / "again").iterdir()) == []


def test_a_server_without_ranges_and_one_that_changes_the_file(server: FileServer, tmp_path: Path) -> None:
    with remote(server) as archive:
        server.files["scenes.zip"] += b"more"
        with pytest.raises(PotrError, match="has changed on the server"):
            unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)
    server.ranges = False
    with pytest.raises(PotrError, match="can only be had whole from this server"):
        remote(server)
    server.files["scenes.zip"] = b"no zip"
    server.ranges = True
    with remote(server) as archive, pytest.raises(PotrError, match=r"not a usable \.zip \(File is not a zip file\)$"):
        unpack(archive, "garden", tmp_path / "data" / "garden", WANTED)


def test_a_remote_file_is_a_seekable_stream(server: FileServer) -> None:
    content = server.files["scenes.zip"]
    with remote(server) as archive:
        assert archive.seek(-10, 2) == len(content) - 10
        assert archive.read() == content[-10:]
        assert archive.read(5) == b""
        archive.seek(100)
        archive.seek(20, 1)
        assert archive.tell() == 120
        assert archive.read(5) == content[120:125]
        with pytest.raises(OSError, match="before the first byte"):
            archive.seek(-1)
