// SPDX-License-Identifier: Apache-2.0
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>

#include <array>
#include <stdexcept>

#include "sh_solver.h"

namespace nb = nanobind;
using nb::literals::operator""_a;

namespace {

template <class T, std::size_t D>
using Array = nb::ndarray<T, nb::ndim<D>, nb::c_contig, nb::device::cpu>;

potr::ShProblem problem_of(const Array<const float, 2>& hessian, const Array<const float, 3>& sh) {
  const std::size_t n = sh.shape(0), k = sh.shape(1);
  if ((k != 1 && k != 4 && k != 9 && k != 16) || sh.shape(2) != 3)
    throw std::invalid_argument("sh: expected [N, K, 3] with K in 1, 4, 9, 16");
  if (hessian.shape(0) != n || hessian.shape(1) != k * (k + 1) / 2)
    throw std::invalid_argument("hessian: expected [N, K(K+1)/2]");
  return {hessian.data(), sh.data(), n, static_cast<int>(k)};
}

template <class T>
void check_result(const Array<T, 3>& result, const Array<const float, 3>& sh) {
  for (int axis = 0; axis < 3; ++axis)
    if (result.shape(axis) != sh.shape(axis)) throw std::invalid_argument("result: expected the shape of sh");
}

void compact(Array<const float, 2> hessian, Array<const float, 3> sh, std::array<double, 3> ridge,
             std::array<double, 3> drop_cost, double redundancy_cosine, double redundancy_cost,
             Array<float, 3> result, int threads) {
  const potr::ShProblem problem = problem_of(hessian, sh);
  check_result(result, sh);
  potr::CompactParameters parameters{};
  std::copy(ridge.begin(), ridge.end(), parameters.ridge);
  std::copy(drop_cost.begin(), drop_cost.end(), parameters.drop_cost);
  parameters.redundancy_cosine = redundancy_cosine;
  parameters.redundancy_cost = redundancy_cost;
  nb::gil_scoped_release release;
  potr::compact(problem, parameters, result.data(), threads);
}

void newton_step(Array<const float, 2> hessian, Array<const float, 3> gradient, Array<const float, 1> damping,
                 double relative_prior, double absolute_prior, Array<float, 3> result, int threads) {
  const potr::ShProblem problem = problem_of(hessian, gradient);
  check_result(result, gradient);
  if (damping.shape(0) != gradient.shape(0)) throw std::invalid_argument("damping: expected [N]");
  nb::gil_scoped_release release;
  potr::newton_step(problem, damping.data(), {relative_prior, absolute_prior}, result.data(), threads);
}

void round_coefficients(Array<const float, 2> hessian, Array<const float, 3> sh, Array<const float, 2> steps,
                        Array<const double, 3> rates, std::array<double, 3> bit_cost, double anchor, int sweeps,
                        Array<std::int32_t, 3> result, int threads) {
  const potr::ShProblem problem = problem_of(hessian, sh);
  check_result(result, sh);
  if (steps.shape(0) != sh.shape(1) || steps.shape(1) != 3) throw std::invalid_argument("steps: expected [K, 3]");
  if (rates.shape(0) != sh.shape(1) || rates.shape(1) != 3 || rates.shape(2) != potr::kRateLevels)
    throw std::invalid_argument("rates: expected [K, 3, 32]");
  potr::RoundParameters parameters{};
  std::copy(bit_cost.begin(), bit_cost.end(), parameters.bit_cost);
  parameters.anchor = anchor;
  nb::gil_scoped_release release;
  potr::round_coefficients(problem, steps.data(), rates.data(), parameters, sweeps, result.data(), threads);
}

}  // namespace

NB_MODULE(_solver, m) {
  m.doc() = "Per-splat quadratic problems of SH compaction and rounding.";
  m.def("compact", &compact, nb::arg("hessian").noconvert(), nb::arg("sh").noconvert(), "ridge"_a, "drop_cost"_a,
        "redundancy_cosine"_a, "redundancy_cost"_a, nb::arg("result").noconvert(), "threads"_a);
  m.def("newton_step", &newton_step, nb::arg("hessian").noconvert(), nb::arg("gradient").noconvert(),
        nb::arg("damping").noconvert(), "relative_prior"_a, "absolute_prior"_a, nb::arg("result").noconvert(),
        "threads"_a);
  m.def("round_coefficients", &round_coefficients, nb::arg("hessian").noconvert(), nb::arg("sh").noconvert(),
        nb::arg("steps").noconvert(), nb::arg("rates").noconvert(), "bit_cost"_a, "anchor"_a, "sweeps"_a,
        nb::arg("result").noconvert(), "threads"_a);
}
