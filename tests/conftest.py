# SPDX-License-Identifier: Apache-2.0
import os

# Before torch loads OpenMP. Its threads otherwise spin while they wait, and where several test processes share few
# cores they spin in each other's way: a run on a tiny scene took 0.15 s of processor time with this, 1 to 3 s without.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
