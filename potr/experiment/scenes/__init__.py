# SPDX-License-Identifier: Apache-2.0
"""The data sets of the paper: what there is, where it lies, how to fetch it."""
