# SPDX-License-Identifier: Apache-2.0
"""The encoder's checkpoint: what was stored comes back, and a damaged file is no progress rather than a crash."""

from pathlib import Path

import pytest
import torch

from potr.encoder.checkpoint import Progressed, load, save
from potr.encoder.prune import PassReport, PruneState

REPORT = PassReport("early", 1, 0, 4, 1e-9, 1e-3, 1e-9, 2e-9, 0.25, 0.2, real_mse_change=None, undone=True)
STATE = PruneState(torch.tensor([0, 2, 3, 4]), torch.arange(5), (REPORT,), 0.1, 1e-9, True)


def stored(path: Path) -> bytes:
    save(
        path, "key", Progressed(early=STATE, sh=torch.ones(4, 16, 3), compact_details={"a": 1}, seconds={"early": 2.0})
    )
    return path.read_bytes()


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    stored(tmp_path / "checkpoint")
    progressed = load(tmp_path / "checkpoint", "key")
    assert progressed.early is not None
    assert torch.equal(progressed.early.kept, STATE.kept)
    assert torch.equal(progressed.early.before, STATE.before)
    assert progressed.early.passes == STATE.passes
    assert (progressed.early.cap, progressed.early.share_limit, progressed.early.finished) == (1e-9, 0.1, True)
    assert progressed.sh is not None
    assert torch.equal(progressed.sh, torch.ones(4, 16, 3))
    assert (progressed.compact_details, progressed.seconds, progressed.late) == ({"a": 1}, {"early": 2.0}, None)
    assert load(tmp_path / "checkpoint", "another key") == Progressed()
    assert load(tmp_path / "none", "key") == Progressed()


@pytest.mark.parametrize("kept", [0, 1, 50, 1000, -1, -30])
def test_a_cut_checkpoint_is_no_progress(tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "checkpoint"
    data = stored(path)
    path.write_bytes(data[:kept])
    assert load(path, "key") == Progressed()
    assert "unreadable checkpoint" in caplog.text


def test_changed_bytes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint"
    data = stored(path)
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        progressed = load(path, "key")
        if progressed.early is not None:  # a byte of the archive's directory that nothing depends on
            assert torch.equal(progressed.early.kept, STATE.kept)
            assert progressed.early.passes == STATE.passes
