# SPDX-License-Identifier: Apache-2.0
"""Runs: from a configuration to a result. Imported by the two programs before anything loads torch."""

import os

# libgomp's waiting threads otherwise spin for milliseconds at every barrier, beside the thread that reads photographs.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
