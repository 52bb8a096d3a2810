# SPDX-License-Identifier: Apache-2.0
"""What everything speaks about: splats, cameras, scenes, spherical harmonics."""
