# SPDX-License-Identifier: Apache-2.0
"""The rasteriser's backends and the statistics of a model's error."""
