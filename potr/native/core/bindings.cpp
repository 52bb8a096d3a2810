// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "entropy_sh_ac.h"
#include "entropy_streams.h"
#include "octree.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace potr::entropy;

namespace {

template <class T, class... Shape>
using Array = nb::ndarray<T, Shape..., nb::c_contig, nb::device::cpu>;
using Depths = Array<const uint8_t, nb::ndim<1>>;
using Cells = Array<const uint32_t, nb::shape<-1, 3>>;
template <class T>
using Column = Array<T, nb::ndim<1>>;
template <class T>
using Triples = Array<T, nb::shape<-1, 3>>;
template <class T>
using Sh = Array<T, nb::shape<-1, -1, 3>>;

// The vector as an array that owns it.
template <class T>
auto to_numpy(std::vector<T>&& values, std::initializer_list<size_t> shape) {
    auto* owned = new std::vector<T>(std::move(values));
    nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::ndarray<nb::numpy, T>(owned->data(), shape, owner);
}

ByteView view(const nb::bytes& bytes) { return {static_cast<const uint8_t*>(bytes.data()), bytes.size()}; }
nb::bytes to_bytes(const Bytes& bytes) { return nb::bytes(bytes.data(), bytes.size()); }

template <class Run>
auto without_gil(Run run) {
    nb::gil_scoped_release release;
    return run();
}

template <class... Arrays>
void check_lengths(const Neighbors& neighbors, const Arrays&... arrays) {
    if (((arrays.shape(0) != neighbors.size()) || ...)) throw std::invalid_argument("arrays differ in length");
}

void check_lengths(const Cells& cells, const Depths& depths) {
    if (cells.shape(0) != depths.shape(0)) throw std::invalid_argument("cells and depths differ in length");
}

// Of QuantizedModel: the columns' symbols have room for no more.
void check_magnitudes(const Sh<const int32_t>& sh) {
    for (size_t i = 0; i < sh.size(); ++i)
        if (sh.data()[i] < -(1 << 24) || sh.data()[i] > 1 << 24) throw std::invalid_argument("expected magnitudes up to 2^24");
}

int coefficients(size_t k) {
    if (k != 1 && k != 4 && k != 9 && k != 16) throw std::invalid_argument("expected 1, 4, 9 or 16 coefficients");
    return static_cast<int>(k);
}

int coefficients_with_ac(size_t k) {
    if (k == 1) throw std::invalid_argument("expected 4, 9 or 16 coefficients");
    return coefficients(k);
}

}  // namespace

NB_MODULE(_format, m) {
    m.doc() = "Octree coding and context-modelled entropy coding; potr.format is the documented face.";

    m.attr("MAX_DEPTH") = potr::kMaxDepth;

    // They carry their parts as Python args: (index, reason), (stream, offset, reason) and (offset, reason). Never freed:
    // the interpreter may be gone before statics are.
    static PyObject* const octree_input_error = PyErr_NewException("potr._format.OctreeInputError", PyExc_ValueError, nullptr);
    static PyObject* const octree_stream_error = PyErr_NewException("potr._format.OctreeStreamError", PyExc_ValueError, nullptr);
    static PyObject* const stream_error = PyErr_NewException("potr._format.StreamError", PyExc_ValueError, nullptr);
    if (!octree_input_error || !octree_stream_error || !stream_error) throw nb::python_error();
    m.attr("OctreeInputError") = nb::handle(octree_input_error);
    m.attr("OctreeStreamError") = nb::handle(octree_stream_error);
    m.attr("StreamError") = nb::handle(stream_error);
    nb::register_exception_translator([](const std::exception_ptr& p, void*) {
        try {
            std::rethrow_exception(p);
        } catch (const potr::OctreeInputError& e) {
            PyErr_SetObject(octree_input_error, nb::make_tuple(e.index, e.what()).ptr());
        } catch (const potr::OctreeStreamError& e) {
            PyErr_SetObject(octree_stream_error, nb::make_tuple(e.stream, e.offset, e.what()).ptr());
        } catch (const StreamError& e) {
            PyErr_SetObject(stream_error, nb::make_tuple(e.offset, e.what()).ptr());
        }
    });

    m.def(
        "order_leaves",
        [](Cells cells, Depths required_depths, int max_depth) {
            check_lengths(cells, required_depths);
            if (max_depth < 0 || max_depth > potr::kMaxDepth) throw std::invalid_argument("max_depth out of range");
            const size_t n = required_depths.shape(0);
            potr::Order result = without_gil([&] { return potr::order_leaves({cells.data(), 3 * n}, {required_depths.data(), n}, max_depth); });
            return nb::make_tuple(to_numpy(std::move(result.order), {n}), to_numpy(std::move(result.depths), {n}));
        },
        "cells"_a.noconvert(), "required_depths"_a.noconvert(), "max_depth"_a);

    m.def(
        "encode_octree",
        [](Cells cells, Depths depths) {
            check_lengths(cells, depths);
            const size_t n = depths.shape(0);
            potr::OctreeStreams streams = without_gil([&] { return potr::encode_octree({cells.data(), 3 * n}, {depths.data(), n}); });
            return nb::make_tuple(to_bytes(streams.nodes), to_bytes(streams.tail_depths), to_bytes(streams.tail_bits),
                                  to_bytes(streams.counts));
        },
        "cells"_a.noconvert(), "depths"_a.noconvert());

    m.def(
        "decode_octree",
        [](nb::bytes nodes, nb::bytes tail_depths, nb::bytes tail_bits, nb::bytes counts, size_t num_splats) {
            potr::Cells cells = without_gil([&] { return potr::decode_octree(view(nodes), view(tail_depths), view(tail_bits), view(counts), num_splats); });
            return nb::make_tuple(to_numpy(std::move(cells.coordinates), {num_splats, 3}),
                                  to_numpy(std::move(cells.depths), {num_splats}));
        },
        "nodes"_a, "tail_depths"_a, "tail_bits"_a, "counts"_a, "num_splats"_a);
    m.def(
        "encode_octree_streams",
        [](nb::bytes nodes, nb::bytes tail_depths, nb::bytes tail_bits, nb::bytes counts) {
            return to_bytes(without_gil([&] { return encode_octree(view(nodes), view(tail_depths), view(tail_bits), view(counts)); }));
        },
        "nodes"_a, "tail_depths"_a, "tail_bits"_a, "counts"_a);
    m.def(
        "decode_octree_streams",
        [](nb::bytes coded, size_t max_splats) {
            const OctreeBytes o = without_gil([&] { return decode_octree(view(coded), max_splats); });
            return nb::make_tuple(to_bytes(o.nodes), to_bytes(o.tail_depths), to_bytes(o.tail_bits), to_bytes(o.counts));
        },
        "coded"_a, "max_splats"_a);

    nb::class_<Neighbors>(m, "Neighbors")
        .def(
            "__init__",
            [](Neighbors* self, Cells cells, Depths depths) {
                check_lengths(cells, depths);
                for (size_t i = 0; i < depths.shape(0); ++i) {
                    const uint32_t* cell = &cells.data()[3 * i];
                    if (depths.data()[i] > 21) throw std::invalid_argument("expected depths up to 21");
                    if ((cell[0] | cell[1] | cell[2]) >> depths.data()[i]) throw std::invalid_argument("expected cells below 2^depth");
                }
                nb::gil_scoped_release release;
                new (self) Neighbors(cells.data(), depths.data(), depths.shape(0));
            },
            "cells"_a.noconvert(), "depths"_a.noconvert())
        .def("__len__", &Neighbors::size);

    // No array is converted: nanobind would decode into a copy and drop it.
    m.def(
        "encode_opacity",
        [](const Neighbors& n, Column<const uint16_t> values) {
            check_lengths(n, values);
            return to_bytes(without_gil([&] { return encode_opacity(n, values.data()); }));
        },
        "neighbors"_a, "values"_a.noconvert());
    m.def(
        "decode_opacity",
        [](nb::bytes coded, const Neighbors& n, Column<uint16_t> values) {
            check_lengths(n, values);
            without_gil([&] { decode_opacity(view(coded), n, values.data()); });
        },
        "coded"_a, "neighbors"_a, "values"_a.noconvert());
    m.def(
        "encode_scales",
        [](const Neighbors& n, Triples<const uint16_t> values) {
            check_lengths(n, values);
            return to_bytes(without_gil([&] { return encode_scales(n, values.data()); }));
        },
        "neighbors"_a, "values"_a.noconvert());
    m.def(
        "decode_scales",
        [](nb::bytes coded, const Neighbors& n, Triples<uint16_t> values) {
            check_lengths(n, values);
            without_gil([&] { decode_scales(view(coded), n, values.data()); });
        },
        "coded"_a, "neighbors"_a, "values"_a.noconvert());
    m.def(
        "encode_rotation",
        [](const Neighbors& n, Triples<const uint16_t> scales, Triples<const int16_t> values) {
            check_lengths(n, scales, values);
            return to_bytes(without_gil([&] { return encode_rotation(n, scales.data(), values.data()); }));
        },
        "neighbors"_a, "scales"_a.noconvert(), "values"_a.noconvert());
    m.def(
        "decode_rotation",
        [](nb::bytes coded, const Neighbors& n, Triples<const uint16_t> scales, Triples<int16_t> values) {
            check_lengths(n, scales, values);
            without_gil([&] { decode_rotation(view(coded), n, scales.data(), values.data()); });
        },
        "coded"_a, "neighbors"_a, "scales"_a.noconvert(), "values"_a.noconvert());
    m.def(
        "encode_sh_dc",
        [](const Neighbors& n, Sh<const int32_t> sh) {
            check_lengths(n, sh);
            check_magnitudes(sh);
            const int k = coefficients(sh.shape(1));
            return to_bytes(without_gil([&] { return encode_sh_dc(n, k, sh.data()); }));
        },
        "neighbors"_a, "sh"_a.noconvert());
    m.def(
        "decode_sh_dc",
        [](nb::bytes coded, const Neighbors& n, Sh<int32_t> sh) {
            check_lengths(n, sh);
            const int k = coefficients(sh.shape(1));
            without_gil([&] { decode_sh_dc(view(coded), n, k, sh.data()); });
        },
        "coded"_a, "neighbors"_a, "sh"_a.noconvert());

    nb::class_<AcLuma>(m, "AcLuma").def(nb::init<size_t>(), "splats"_a).def("close", &AcLuma::close);
    const auto define_encode = [&](const char* name, auto encode) {
        m.def(
            name,
            [encode](const Neighbors& n, Column<const uint16_t> opacity, Triples<const uint16_t> scales, Sh<const int32_t> sh) {
                check_lengths(n, opacity, scales, sh);
                check_magnitudes(sh);
                const int k = coefficients_with_ac(sh.shape(1));
                return to_bytes(without_gil([&] { return encode(n, opacity.data(), scales.data(), k, sh.data()); }));
            },
            "neighbors"_a, "opacity"_a.noconvert(), "scales"_a.noconvert(), "sh"_a.noconvert());
    };
    const auto define_decode = [&](const char* name, auto decode) {
        m.def(
            name,
            [decode](nb::bytes coded, const Neighbors& n, Column<const uint16_t> opacity, Triples<const uint16_t> scales,
                     Sh<int32_t> sh, AcLuma& luma) {
                check_lengths(n, opacity, scales, sh);
                if (luma.size() != n.size()) throw std::invalid_argument("arrays differ in length");
                const int k = coefficients_with_ac(sh.shape(1));
                without_gil([&] { decode(view(coded), n, opacity.data(), scales.data(), k, sh.data(), luma); });
            },
            "coded"_a, "neighbors"_a, "opacity"_a.noconvert(), "scales"_a.noconvert(), "sh"_a.noconvert(), "luma"_a);
    };
    define_encode("encode_sh_ac_luma", &encode_sh_ac_luma);
    define_encode("encode_sh_ac_chroma", &encode_sh_ac_chroma);
    define_decode("decode_sh_ac_luma", &decode_sh_ac_luma);
    define_decode("decode_sh_ac_chroma", &decode_sh_ac_chroma);
}
