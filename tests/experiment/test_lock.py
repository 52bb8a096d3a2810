# SPDX-License-Identifier: Apache-2.0
"""One process at a time works on a run, and one that died is no obstacle."""

import logging
import os
import sys
import threading
from pathlib import Path

import pytest

from potr.errors import PotrError
from potr.experiment.lock import Busy, lock_file, locked
from tests.helpers.processes import started

HOLD = """
import sys, time
from pathlib import Path
from potr.experiment.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_run_is_one_process_s_until_it_dies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "ball" / "q0.5"
    with started([sys.executable, "-c", HOLD, str(folder)]) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(Busy, match=f"process {holder.pid} on .* works on it"), locked(folder, wait=False):
            pass
        with locked(folder.with_name("q0.6"), wait=False):  # another run is free
            pass
        threading.Timer(0.2, holder.kill).start()  # SIGKILL: nothing is tidied up
        with caplog.at_level(logging.INFO, logger="potr"), locked(folder):
            assert lock_file(folder).read_text().startswith(f"process {os.getpid()} on ")
        assert f"process {holder.pid} on" in caplog.text
    assert not folder.exists()


def test_a_lock_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / ".locks").write_text("in the way")
    with pytest.raises(PotrError, match="cannot write"), locked(tmp_path / "ball" / "q0.5"):
        pass
