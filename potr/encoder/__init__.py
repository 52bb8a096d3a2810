# SPDX-License-Identifier: Apache-2.0
"""The encoder, one file a stage."""
