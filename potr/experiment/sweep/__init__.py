# SPDX-License-Identifier: Apache-2.0
"""Many runs: planned, launched, reported."""
