# SPDX-License-Identifier: Apache-2.0
"""What an encode keeps: it comes back as it was, damage is made good with a word, and other inputs have other names."""

import time
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from potr.encoder import resume as resume_module
from potr.encoder.encode import StageReport
from potr.encoder.prune import PassReport, PruneState
from potr.encoder.quality import config_for
from potr.encoder.resume import NO_RESUME, Entry, Resume, code_sha256, fingerprint
from potr.encoder.target import Attempt, Trial
from potr.model.splats import SplatModel
from tests.helpers.scenes import random_model, random_views

REPORT = PassReport("early", 1, 0, 4, 1e-9, 1e-3, 1e-9, 2e-9, 0.25, 0.2, real_mse_change=None, undone=True)
STATE = PruneState(random_model(1, num_splats=4), random_model(2, num_splats=5), (REPORT,), 0.1, 1e-9)
TRIAL = Attempt(Trial(0.5, 3, 4, None, 1.5), b"\0abc", (StageReport("pack", 1.0, 4, 4, {"bytes": 3}),), True)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("value", [STATE, replace(STATE, previous=None, cap=None, passes=(), finished=True), TRIAL])
def test_what_was_saved_comes_back(tmp_path: Path, value: Any) -> None:
    Entry(type(value), tmp_path / "value").save(value, finished=False)
    entry = Entry[Any](type(value), tmp_path / "value")
    assert same(entry.load(), value)
    assert (entry.found, entry.finished) == (True, False)
    assert entry.seconds > 0
    entry.drop()
    assert entry.load() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", [0, 1, 50, 1000, -1, -30])
def test_a_cut_file_is_none_at_all(tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "state"
    Entry(PruneState, path).save(STATE)
    path.write_bytes(path.read_bytes()[:kept])
    entry = Entry(PruneState, path)
    assert entry.load() is None
    assert (entry.found, entry.finished, entry.seconds) == (False, False, 0.0)
    assert f"{path}: unreadable" in caplog.text
    assert "it is made again" in caplog.text
    entry.save(STATE)
    assert same(Entry(PruneState, path).load(), STATE)


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "state"
    Entry(PruneState, path).save(STATE)
    data = path.read_bytes()
    noticed = 0
    for place in range(0, len(data), 37):
        for flipped in (0xFF, 0x01):
            path.write_bytes(data[:place] + bytes([data[place] ^ flipped]) + data[place + 1 :])
            found = Entry(PruneState, path).load()
            noticed += found is None
            assert found is None or same(found, STATE)  # a byte of the archive's directory that nothing depends on
    assert noticed > len(data) / 37


def test_unfinished_work_is_written_at_once_and_then_at_most_so_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    kept = Resume(tmp_path, every=60.0).of(random_model(1), random_views(1), "cpu")
    entry = kept.entry(PruneState, "early")

    def written() -> float | None:
        found = Entry(PruneState, entry.path).load()
        return None if found is None else found.share_limit

    for seconds, share, expected in ((1.0, 0.1, 0.1), (30.0, 0.2, 0.1), (62.0, 0.3, 0.3), (70.0, 0.4, 0.3)):
        clock[0] = seconds
        entry.save(replace(STATE, share_limit=share), finished=False)
        assert written() == expected
    with pytest.raises(KeyboardInterrupt), kept:
        raise KeyboardInterrupt
    assert written() == 0.4
    entry.save(replace(STATE, share_limit=0.5))  # finished
    assert written() == 0.5


def test_what_serves_an_interruption_alone_goes_at_the_end(tmp_path: Path) -> None:
    for raised, left in ((ValueError, 2), (None, 1)):
        kept = Resume(tmp_path).of(random_model(1), random_views(1), "cpu")
        lasting, passing = kept.entry(PruneState, "early", lasting=True), kept.entry(PruneState, "late")
        try:
            with kept:
                lasting.save(STATE)
                passing.save(STATE)
                if raised is not None:
                    raise raised
        except ValueError:
            pass
        assert len(list(tmp_path.iterdir())) == left


def test_all_that_goes_in_has_a_part_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    model, views = random_model(1, num_splats=5), random_views(1)
    keys = [fingerprint(model, views, "cpu"), fingerprint(model, views, "cuda"), fingerprint(model, views[:1], "cpu")]
    for f in fields(SplatModel):
        values = getattr(model, f.name).clone()
        values[3] += 1e-3
        keys.append(fingerprint(replace(model, **{f.name: values}), views, "cpu"))
    view = views[0]
    for changes in (
        {"background": (1.0, 1.0, 1.0)}, {"name": "another"}, {"image": view.read() * 0.5},
        {"camera": replace(view.camera, fx=view.camera.fx * 2)},
        {"camera": replace(view.camera, viewmat=torch.eye(4))},
    ):  # fmt: skip
        keys.append(fingerprint(model, [replace(view, **changes), views[1]], "cpu"))
    code = code_sha256()
    monkeypatch.setattr(resume_module, "code_sha256", lambda: f"{code} after a change")
    keys.append(fingerprint(model, views, "cpu"))
    assert len(set(keys)) == len(keys)


def test_settings_tell_entries_apart(tmp_path: Path) -> None:
    kept = Resume(tmp_path).of(random_model(1), random_views(1), "cpu")
    one, other = config_for(0.3), config_for(0.4)
    paths = [kept.entry(PruneState, "early", c.prune, c.compact).path for c in (one, other, one)]
    assert paths[0] == paths[2] != paths[1]


def test_without_a_folder_nothing_is_kept() -> None:
    kept = NO_RESUME.of(random_model(1), random_views(1), "cpu")
    with kept:
        entry = kept.entry(PruneState, "early")
        entry.save(STATE)
        assert entry.load() is None
    NO_RESUME.clear()
    assert not kept.resumed


def test_the_code_s_hash_is_of_its_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("render", "encoder"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "a.py").write_text("one")
    monkeypatch.setattr(resume_module, "_PACKAGE", tmp_path)
    before = code_sha256.__wrapped__()
    (tmp_path / "encoder" / "notes.txt").write_text("no code")
    assert code_sha256.__wrapped__() == before
    (tmp_path / "encoder" / "a.py").write_text("two")
    changed = code_sha256.__wrapped__()
    (tmp_path / "_native.so").write_bytes(b"\x7fELF")
    assert len({before, changed, code_sha256.__wrapped__()}) == 3
    assert code_sha256.__wrapped__("render") != changed


@dataclass(frozen=True)
class Nested:
    values: tuple[float, ...]
    notes: dict[str, Any]


def test_plain_values_keep_their_types(tmp_path: Path) -> None:
    value = Nested((1.5, 2.0), {"a": [1, None, True]})
    Entry(Nested, tmp_path / "nested").save(value)
    assert same(Entry(Nested, tmp_path / "nested").load(), value)
