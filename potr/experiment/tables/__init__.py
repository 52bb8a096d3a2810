# SPDX-License-Identifier: Apache-2.0
"""Tables and figures of the experiments, as pure functions of what lies under outputs/ and of what others published."""
