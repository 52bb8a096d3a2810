// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <stdexcept>

#include "octree.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using CellArray = nb::ndarray<const uint32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using DepthArray = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <class T>
auto to_numpy(std::vector<T>&& values, std::initializer_list<size_t> shape) {
    auto* owned = new std::vector<T>(std::move(values));
    nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::ndarray<nb::numpy, T>(owned->data(), shape, owner);
}

nb::bytes to_bytes(const potr::Bytes& bytes) { return nb::bytes(bytes.data(), bytes.size()); }

potr::ByteView view(const nb::bytes& bytes) { return {static_cast<const uint8_t*>(bytes.data()), bytes.size()}; }

void check_lengths(const CellArray& cells, const DepthArray& depths) {
    if (cells.shape(0) != depths.shape(0)) throw std::invalid_argument("cells and depths differ in length");
}

}  // namespace

NB_MODULE(_octree, m) {
    m.doc() = "Octree coding of quantised positions; potr.format.octree is the documented face.";
    m.attr("MAX_DEPTH") = potr::kMaxDepth;

    // Both carry their parts as Python args: (index, reason) and (stream, offset, reason). Never freed: the interpreter may
    // be gone before statics are.
    static PyObject* const input_error = PyErr_NewException("potr._octree.OctreeInputError", PyExc_ValueError, nullptr);
    static PyObject* const stream_error = PyErr_NewException("potr._octree.OctreeStreamError", PyExc_ValueError, nullptr);
    if (!input_error || !stream_error) throw nb::python_error();
    m.attr("OctreeInputError") = nb::handle(input_error);
    m.attr("OctreeStreamError") = nb::handle(stream_error);
    nb::register_exception_translator([](const std::exception_ptr& p, void*) {
        try {
            std::rethrow_exception(p);
        } catch (const potr::OctreeInputError& e) {
            PyErr_SetObject(input_error, nb::make_tuple(e.index, e.what()).ptr());
        } catch (const potr::OctreeStreamError& e) {
            PyErr_SetObject(stream_error, nb::make_tuple(e.stream, e.offset, e.what()).ptr());
        }
    });

    m.def(
        "order_leaves",
        [](CellArray cells, DepthArray required_depths, int max_depth) {
            check_lengths(cells, required_depths);
            if (max_depth < 0 || max_depth > potr::kMaxDepth) throw std::invalid_argument("max_depth out of range");
            const size_t n = required_depths.shape(0);
            potr::Order result;
            {
                nb::gil_scoped_release release;
                result = potr::order_leaves({cells.data(), 3 * n}, {required_depths.data(), n}, max_depth);
            }
            return nb::make_tuple(to_numpy(std::move(result.order), {n}), to_numpy(std::move(result.depths), {n}));
        },
        "cells"_a.noconvert(), "required_depths"_a.noconvert(), "max_depth"_a);

    m.def(
        "encode_octree",
        [](CellArray cells, DepthArray depths) {
            check_lengths(cells, depths);
            const size_t n = depths.shape(0);
            potr::OctreeStreams streams;
            {
                nb::gil_scoped_release release;
                streams = potr::encode_octree({cells.data(), 3 * n}, {depths.data(), n});
            }
            return nb::make_tuple(to_bytes(streams.nodes), to_bytes(streams.tail_depths), to_bytes(streams.tail_bits),
                                  to_bytes(streams.counts));
        },
        "cells"_a.noconvert(), "depths"_a.noconvert());

    m.def(
        "decode_octree",
        [](nb::bytes nodes, nb::bytes tail_depths, nb::bytes tail_bits, nb::bytes counts, size_t num_splats) {
            potr::Cells cells;
            {
                nb::gil_scoped_release release;
                cells = potr::decode_octree(view(nodes), view(tail_depths), view(tail_bits), view(counts), num_splats);
            }
            return nb::make_tuple(to_numpy(std::move(cells.coordinates), {num_splats, 3}),
                                  to_numpy(std::move(cells.depths), {num_splats}));
        },
        "nodes"_a, "tail_depths"_a, "tail_bits"_a, "counts"_a, "num_splats"_a);
}
