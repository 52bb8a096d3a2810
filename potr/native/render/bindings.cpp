// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cmath>

#include "rasterize.h"

namespace nb = nanobind;

namespace {

template <class T, class... Shape>
using Array = nb::ndarray<T, nb::device::cpu, nb::c_contig, Shape...>;
using Image = Array<float, nb::shape<-1, -1, 3>>;
using Photo = Array<const float, nb::shape<-1, -1, 3>>;

void expect(bool condition, const char* message) {
  if (!condition) throw nb::value_error(message);
}

potr::Camera make_camera(Array<const float, nb::shape<4, 4>> viewmat, float fx, float fy, float cx, float cy, int width,
                         int height) {
  expect(width > 0 && height > 0, "camera: the image size must be positive");
  potr::Camera camera{};
  const float* v = viewmat.data();
  for (int i = 0; i < 12; ++i) camera.viewmat[i] = v[i];
  for (int i = 0; i < 3; ++i) camera.center[i] = -(v[i] * v[3] + v[4 + i] * v[7] + v[8 + i] * v[11]);
  camera.fx = fx;
  camera.fy = fy;
  camera.cx = cx;
  camera.cy = cy;
  camera.width = width;
  camera.height = height;
  return camera;
}

int sh_degree_of(size_t coefficients) {
  for (int degree = 0; degree <= 3; ++degree)
    if ((size_t)(degree + 1) * (degree + 1) == coefficients) return degree;
  throw nb::value_error("sh_ac: expected 0, 3, 8 or 15 coefficients");
}

// The arrays color() adds to; they stay alive with this object.
struct ColorArrays {
  Array<float, nb::shape<-1, -1>> hessian;
  Array<float, nb::shape<-1, -1, 3>> gradient;
  Array<double, nb::shape<-1>> weight, contribution;
  Array<int32_t, nb::shape<-1>> seen_views;

  potr::ColorSums check(const potr::Model& model) const {
    const size_t n = model.layout().num_splats, degree = model.layout().sh_degree, k = (degree + 1) * (degree + 1);
    expect(hessian.shape(0) == n && hessian.shape(1) == k * (k + 1) / 2 && gradient.shape(0) == n &&
               gradient.shape(1) == k && weight.shape(0) == n && contribution.shape(0) == n && seen_views.shape(0) == n,
           "sums: not of the model's shape");
    return {hessian.data(), gradient.data(), weight.data(), contribution.data(), seen_views.data()};
  }
};

}  // namespace

NB_MODULE(_render, m) {
  m.doc() = "The CPU rasteriser.";
  m.def("supported_instruction_sets", &potr::supported_instruction_sets);

  nb::class_<potr::Camera>(m, "Camera")
      .def("__init__",
           [](potr::Camera* self, Array<const float, nb::shape<4, 4>> viewmat, float fx, float fy, float cx, float cy,
              int width, int height) { new (self) potr::Camera(make_camera(viewmat, fx, fy, cx, cy, width, height)); },
           nb::arg("viewmat").noconvert(), nb::arg("fx"), nb::arg("fy"), nb::arg("cx"), nb::arg("cy"),
           nb::arg("width"), nb::arg("height"));

  nb::class_<potr::Model>(m, "Model")
      .def("__init__",
           [](potr::Model* self, Array<const float, nb::shape<-1, 3>> means,
              Array<const float, nb::shape<-1, 3>> log_scales, Array<const float, nb::shape<-1, 4>> quats,
              Array<const float, nb::shape<-1>> opacity_logits, Array<const float, nb::shape<-1, 3>> sh_dc,
              Array<const float, nb::shape<-1, -1, 3>> sh_ac, int threads) {
             const size_t n = means.shape(0);
             expect(log_scales.shape(0) == n && quats.shape(0) == n && opacity_logits.shape(0) == n &&
                        sh_dc.shape(0) == n && sh_ac.shape(0) == n,
                    "model: tensors of different length");
             expect(n < (size_t(1) << 32), "model: more than 2^32 splats");
             expect(threads > 0, "threads must be positive");
             const potr::ModelArrays arrays{(int64_t)n,        sh_degree_of(sh_ac.shape(1) + 1),
                                            means.data(),      log_scales.data(),
                                            quats.data(),      opacity_logits.data(),
                                            sh_dc.data(),      sh_ac.data()};
             nb::gil_scoped_release release;
             new (self) potr::Model(arrays, threads);
           },
           nb::arg("means").noconvert(), nb::arg("log_scales").noconvert(), nb::arg("quats").noconvert(),
           nb::arg("opacity_logits").noconvert(), nb::arg("sh_dc").noconvert(), nb::arg("sh_ac").noconvert(),
           nb::arg("threads"))
      .def_prop_ro("num_splats", [](const potr::Model& self) { return self.layout().num_splats; });

  nb::class_<ColorArrays>(m, "ColorSums")
      .def("__init__",
           [](ColorArrays* self, Array<float, nb::shape<-1, -1>> hessian, Array<float, nb::shape<-1, -1, 3>> gradient,
              Array<double, nb::shape<-1>> weight, Array<double, nb::shape<-1>> contribution,
              Array<int32_t, nb::shape<-1>> seen_views) {
             new (self) ColorArrays{hessian, gradient, weight, contribution, seen_views};
           },
           nb::arg("hessian").noconvert(), nb::arg("gradient").noconvert(), nb::arg("weight").noconvert(),
           nb::arg("contribution").noconvert(), nb::arg("seen_views").noconvert());

  nb::class_<potr::Rasterizer>(m, "Rasterizer")
      .def("__init__",
           [](potr::Rasterizer* self, const std::string& instruction_set, int threads, int64_t tape_bytes) {
             const potr::Kernels* kernels = potr::find_kernels(instruction_set);
             expect(kernels != nullptr, "instruction set unknown or not supported by this machine");
             expect(threads > 0, "threads must be positive");
             expect(tape_bytes > 0, "tape_bytes must be positive");
             new (self) potr::Rasterizer(*kernels, threads, tape_bytes);
           },
           nb::arg("instruction_set"), nb::arg("threads"), nb::arg("tape_bytes"))
      .def("render",
           [](potr::Rasterizer& self, const potr::Model& model, const potr::Camera& camera, float r, float g, float b,
              float transmittance_min, Image image) {
             expect((int)image.shape(0) == camera.height && (int)image.shape(1) == camera.width,
                    "image: not of the camera's size");
             const float background[3] = {r, g, b};
             nb::gil_scoped_release release;
             self.render(model, camera, background, transmittance_min, image.data());
           },
           nb::arg("model"), nb::arg("camera"), nb::arg("r"), nb::arg("g"), nb::arg("b"), nb::arg("transmittance_min"),
           nb::arg("image").noconvert())
      .def("removal",
           [](potr::Rasterizer& self, const potr::Model& model, const potr::Camera& camera, float r, float g, float b,
              float transmittance_min, Photo photo, Array<double, nb::shape<-1>> delta_sse,
              Array<double, nb::shape<-1>> render_sse, Array<double, nb::shape<-1>> contribution,
              Array<float, nb::shape<-1>> peak, Array<int64_t, nb::shape<-1>> pixels) {
             const size_t n = model.layout().num_splats;
             expect((int)photo.shape(0) == camera.height && (int)photo.shape(1) == camera.width,
                    "photo: not of the camera's size");
             expect(delta_sse.shape(0) == n && render_sse.shape(0) == n && contribution.shape(0) == n &&
                        peak.shape(0) == n && pixels.shape(0) == n,
                    "sums: not of the model's length");
             const float background[3] = {r, g, b};
             const potr::RemovalSums sums{delta_sse.data(), render_sse.data(), contribution.data(), peak.data(),
                                          pixels.data()};
             nb::gil_scoped_release release;
             return self.removal(model, camera, background, transmittance_min, photo.data(), sums);
           },
           nb::arg("model"), nb::arg("camera"), nb::arg("r"), nb::arg("g"), nb::arg("b"), nb::arg("transmittance_min"),
           nb::arg("photo").noconvert(), nb::arg("delta_sse").noconvert(), nb::arg("render_sse").noconvert(),
           nb::arg("contribution").noconvert(), nb::arg("peak").noconvert(), nb::arg("pixels").noconvert())
      .def("geometry",
           [](potr::Rasterizer& self, const potr::Model& model, const potr::Camera& camera, float r, float g, float b,
              float transmittance_min, Photo photo, Array<float, nb::shape<-1, 55>> hessian,
              Array<float, nb::shape<-1, 10>> gradient) {
             const size_t n = model.layout().num_splats;
             expect((int)photo.shape(0) == camera.height && (int)photo.shape(1) == camera.width,
                    "photo: not of the camera's size");
             expect(hessian.shape(0) == n && gradient.shape(0) == n, "sums: not of the model's length");
             const potr::GeometrySums sums{hessian.data(), gradient.data()};
             const float background[3] = {r, g, b};
             nb::gil_scoped_release release;
             return self.geometry(model, camera, background, transmittance_min, photo.data(), sums);
           },
           nb::arg("model"), nb::arg("camera"), nb::arg("r"), nb::arg("g"), nb::arg("b"), nb::arg("transmittance_min"),
           nb::arg("photo").noconvert(), nb::arg("hessian").noconvert(), nb::arg("gradient").noconvert())
      .def("begin_color",
           [](potr::Rasterizer& self, const potr::Model& model) {
             nb::gil_scoped_release release;
             self.begin_color(model);
           },
           nb::arg("model"))
      .def("color",
           [](potr::Rasterizer& self, const potr::Model& model, const potr::Camera& camera, float r, float g, float b,
              float transmittance_min, Photo photo, const ColorArrays& sums) {
             expect((int)photo.shape(0) == camera.height && (int)photo.shape(1) == camera.width,
                    "photo: not of the camera's size");
             const potr::ColorSums checked = sums.check(model);
             const float background[3] = {r, g, b};
             nb::gil_scoped_release release;
             return self.color(model, camera, background, transmittance_min, photo.data(), checked);
           },
           nb::arg("model"), nb::arg("camera"), nb::arg("r"), nb::arg("g"), nb::arg("b"), nb::arg("transmittance_min"),
           nb::arg("photo").noconvert(), nb::arg("sums"))
      .def("finish_color",
           [](potr::Rasterizer& self, const potr::Model& model, const ColorArrays& sums) {
             const potr::ColorSums checked = sums.check(model);
             nb::gil_scoped_release release;
             self.finish_color(model, checked);
           },
           nb::arg("model"), nb::arg("sums"))
      .def_prop_ro("timings", [](const potr::Rasterizer& self) {
        const potr::Timings t = self.timings();
        nb::dict d;
        d["project"] = t.project;
        d["sort"] = t.sort;
        d["bin"] = t.bin;
        d["blend"] = t.blend;
        d["gather"] = t.gather;
        return d;
      })
      .def_prop_ro("num_entries", &potr::Rasterizer::num_entries);
}
