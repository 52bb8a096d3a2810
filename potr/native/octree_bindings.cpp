// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>
NB_MODULE(_octree, m) { m.doc() = "Octree coding of quantised positions."; }
