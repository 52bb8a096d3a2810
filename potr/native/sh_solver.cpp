// SPDX-License-Identifier: Apache-2.0
#include "sh_solver.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace potr {
namespace {

using Vector = std::array<double, kMaxK>;
using Matrix = std::array<Vector, kMaxK>;

Matrix unpack(const float* packed, int n) {
  Matrix a{};
  for (int i = 0; i < n; ++i)
    for (int j = 0; j <= i; ++j) a[i][j] = a[j][i] = *packed++;
  return a;
}

Vector multiply(const Matrix& a, const Vector& x, int n) {
  Vector y{};
  for (int i = 0; i < n; ++i)
    for (int j = 0; j < n; ++j) y[i] += a[i][j] * x[j];
  return y;
}

// Gauss-Jordan in place; the matrix is symmetric positive definite, so no pivoting is needed.
void invert(Matrix& a, int n) {
  for (int p = 0; p < n; ++p) {
    const double inverse = 1.0 / a[p][p];
    a[p][p] = 1.0;
    for (int j = 0; j < n; ++j) a[p][j] *= inverse;
    for (int i = 0; i < n; ++i) {
      if (i == p) continue;
      const double factor = a[i][p];
      a[i][p] = 0.0;
      for (int j = 0; j < n; ++j) a[i][j] -= factor * a[p][j];
    }
  }
}

// Fixes variable i of a solved problem at `value`: moves the free others to their new optimum and takes i out of the
// inverse (the surgeon's step, Hassibi & Stork 1993).
void fix(Matrix& inverse, Vector& f, int i, double value, int n) {
  const double diagonal = inverse[i][i];
  const double shift = (f[i] - value) / diagonal;
  const Vector column = inverse[i];
  for (int j = 0; j < n; ++j) f[j] -= shift * column[j];
  for (int j = 0; j < n; ++j) {
    const double factor = column[j] / diagonal;
    for (int k = 0; k < n; ++k) inverse[j][k] -= factor * column[k];
  }
  f[i] = value;
}

double mean_diagonal(const Matrix& a, int n) {
  double trace = 0;
  for (int i = 0; i < n; ++i) trace += a[i][i];
  return trace / n;
}

// Weight of staying at the input, in units of the Hessian's mean diagonal. Directions that no view sees have eigenvalues of
// 0 but for the rounding of float32 sums, which reaches -3e-6 over 1000 views; the problem must stay positive definite.
constexpr double kRelativeRidge = 2e-5;
constexpr double kAbsoluteRidge = 1e-12;

Vector compact_channel(const Matrix& a, const Vector& f0, int n, const CompactParameters& p, int channel) {
  const double guard = kRelativeRidge * mean_diagonal(a, n) + kAbsoluteRidge;
  Matrix inverse = a;
  for (int i = 0; i < n; ++i) inverse[i][i] += guard + (i ? p.ridge[channel] : 0.0);
  Vector right = multiply(a, f0, n);
  for (int i = 0; i < n; ++i) right[i] += guard * f0[i];
  invert(inverse, n);
  Vector f = multiply(inverse, right, n);

  std::array<bool, kMaxK> kept{};
  std::fill_n(kept.begin(), n, true);
  const double drop = p.drop_cost[channel];
  const auto cost = [&](int i) { return f[i] * f[i] / inverse[i][i]; };

  if (p.redundancy_cosine < 1.0) {
    for (int i = 1; i < n; ++i) {
      for (int j = 0; j < i; ++j) {
        const bool parallel = kept[j] && std::abs(a[i][j]) > p.redundancy_cosine * std::sqrt(a[i][i] * a[j][j]);
        if (parallel && cost(i) <= p.redundancy_cost * drop) {
          fix(inverse, f, i, 0.0, n);
          kept[i] = false;
          break;
        }
      }
    }
  }
  for (;;) {
    int cheapest = -1;
    double least = drop;
    for (int i = 1; i < n; ++i)
      if (kept[i] && cost(i) <= least) {
        least = cost(i);
        cheapest = i;
      }
    if (cheapest < 0) break;
    fix(inverse, f, cheapest, 0.0, n);
    kept[cheapest] = false;
  }
  for (int i = 1; i < n; ++i)
    if (!kept[i]) f[i] = 0.0;
  return f;
}

double bits(double n, const RoundParameters& p) {
  const double magnitude = std::abs(n);
  return magnitude == 0 ? p.zero_bits : p.nonzero_bits + p.magnitude_bits * std::log2(magnitude);
}

// The best integer near x for the objective curvature * (step * n - x)^2 + rate(n). DC is never drawn to 0, the grey
// that costs no bits: over many splats hardly seen, that would add up.
double best_level(double x, double step, double curvature, double bit_cost, bool dc, const RoundParameters& p) {
  const double low = std::floor(x / step);
  if (dc) return std::round(x / step);
  double best = 0, least = std::numeric_limits<double>::infinity();
  for (const double n : {low, low + 1.0, 0.0}) {
    const double error = step * n - x;
    const double objective = curvature * error * error + bit_cost * bits(n, p);
    if (objective < least) {
      least = objective;
      best = n;
    }
  }
  return best;
}

void round_channel(const Matrix& a, const Vector& f0, int n, const RoundParameters& p, int channel,
                   std::int32_t* result) {
  const double guard = p.anchor * mean_diagonal(a, n) + kAbsoluteRidge;
  Matrix curvature = a;
  for (int i = 0; i < n; ++i) curvature[i][i] += guard;
  Matrix inverse = curvature;
  invert(inverse, n);

  Vector f = f0, levels{};
  for (int i = n - 1; i >= 0; --i) {  // DC last: it takes up what rounding the others left
    const double step = p.steps[3 * i + channel];
    levels[i] = best_level(f[i], step, 1.0 / inverse[i][i], p.bit_cost[channel], i == 0, p);
    fix(inverse, f, i, step * levels[i], n);
    inverse[i] = Vector{};
    for (int j = 0; j < n; ++j) inverse[j][i] = 0.0;
  }
  Vector difference{};
  for (int i = 0; i < n; ++i) difference[i] = p.steps[3 * i + channel] * levels[i] - f0[i];
  Vector gradient = multiply(curvature, difference, n);
  for (int sweep = 0; sweep < p.sweeps; ++sweep) {
    bool changed = false;
    for (int i = 0; i < n; ++i) {
      const double step = p.steps[3 * i + channel];
      const double optimum = step * levels[i] - gradient[i] / curvature[i][i];
      const double level = best_level(optimum, step, curvature[i][i], p.bit_cost[channel], i == 0, p);
      if (level == levels[i]) continue;
      const double move = step * (level - levels[i]);
      for (int j = 0; j < n; ++j) gradient[j] += move * curvature[j][i];
      levels[i] = level;
      changed = true;
    }
    if (!changed) break;
  }
  for (int i = 0; i < n; ++i) result[3 * i + channel] = static_cast<std::int32_t>(levels[i]);
}

template <class Solve>
void for_each_splat(const ShProblem& problem, int threads, Solve&& solve) {
  const int n = problem.num_coefficients;
  const std::size_t packed = static_cast<std::size_t>(n) * (n + 1) / 2;
#pragma omp parallel for schedule(dynamic, 1024) num_threads(threads)
  for (std::size_t splat = 0; splat < problem.num_splats; ++splat) {
    const Matrix a = unpack(problem.hessian + splat * packed, n);
    for (int channel = 0; channel < 3; ++channel) {
      Vector f0{};
      for (int i = 0; i < n; ++i) f0[i] = problem.sh[(splat * n + i) * 3 + channel];
      solve(splat, channel, a, f0);
    }
  }
}

}  // namespace

void compact(const ShProblem& problem, const CompactParameters& parameters, float* result, int threads) {
  const int n = problem.num_coefficients;
  for_each_splat(problem, threads, [&](std::size_t splat, int channel, const Matrix& a, const Vector& f0) {
    const Vector f = compact_channel(a, f0, n, parameters, channel);
    for (int i = 0; i < n; ++i) result[(splat * n + i) * 3 + channel] = static_cast<float>(f[i]);
  });
}

void newton_step(const ShProblem& problem, const float* damping, double relative_prior, double absolute_prior,
                 float* step, int threads) {
  const int n = problem.num_coefficients;
  for_each_splat(problem, threads, [&](std::size_t splat, int channel, const Matrix& a, const Vector& gradient) {
    Matrix inverse = a;
    const double prior = relative_prior * damping[splat] * mean_diagonal(a, n) + absolute_prior;
    for (int i = 0; i < n; ++i) {
      for (int j = 0; j < n; ++j) inverse[i][j] *= damping[splat];
      inverse[i][i] += prior;
    }
    invert(inverse, n);
    const Vector move = multiply(inverse, gradient, n);
    for (int i = 0; i < n; ++i) step[(splat * n + i) * 3 + channel] = static_cast<float>(-move[i]);
  });
}

void round_coefficients(const ShProblem& problem, const RoundParameters& parameters, std::int32_t* result,
                        int threads) {
  const int n = problem.num_coefficients;
  for_each_splat(problem, threads, [&](std::size_t splat, int channel, const Matrix& a, const Vector& f0) {
    round_channel(a, f0, n, parameters, channel, result + splat * n * 3);
  });
}

}  // namespace potr
