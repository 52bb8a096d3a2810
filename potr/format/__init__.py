# SPDX-License-Identifier: Apache-2.0
"""The bitstream, both directions (docs/format.md)."""
