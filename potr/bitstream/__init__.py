# SPDX-License-Identifier: Apache-2.0
"""The file format's outer layers: container, entropy stage, bounds-checked reading. Knows bytes, not splats."""
