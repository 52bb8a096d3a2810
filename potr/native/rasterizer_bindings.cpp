// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>
NB_MODULE(_rasterizer, m) { m.doc() = "The CPU rasteriser."; }
