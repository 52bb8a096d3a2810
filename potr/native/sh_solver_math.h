// SPDX-License-Identifier: Apache-2.0
// The mathematics of one splat's quadratic problems over SH coefficients, for g++ and NVRTC alike, in double.
//
// A problem's rows are spread over "lanes": a CPU has one lane that does all rows, a GPU kernel has a lane a row. Lanes is
//   kStride           from a row of the matrix to the next
//   begin, kCount     a lane does the rows begin, begin + kCount, ...
//   sync()            what every lane wrote before can be read by all after
//   first_of(s, n, f) the smallest i in [s, n) for which f(i) holds, else n; the lane of row i calls f(i)
//   anyone(b)         whether b holds in any problem that runs in lockstep with this one
// All lanes go through the same calls in the same order; a problem that has nothing left to do takes part without effect.
// Every number is computed by the same operations in the same order however many lanes there are, so a GPU gives the CPU's
// bits, as long as neither fuses a product and a sum.
#pragma once

#include "splat_math.h"

namespace potr {

constexpr int kMaxK = kMaxCoefficients;
constexpr int kRateLevels = 32;  // of a rate table: bits of the magnitudes 0 to 30, and of each one further

// Parameters are doubles only: on a GPU they lie in a float64 tensor.
struct CompactParameters {
  double ridge[3];           // energy penalty of AC coefficients, by channel; units of the Hessian
  double drop_cost[3];       // an AC coefficient goes when that raises the objective by at most this, by channel
  double redundancy_cosine;  // AC bases more parallel than this to a kept one are dropped first; 1 keeps all
  double redundancy_cost;    // ... if that raises the objective by at most this many drop costs
};

struct NewtonParameters {
  double relative_prior;  // of the damped matrix's mean diagonal
  double absolute_prior;
};

struct RoundParameters {
  double bit_cost[3];  // objective units per bit, by channel
  double anchor;            // weight of staying at the input, as a share of the Hessian's mean diagonal
};

// What a problem is worked out in; on a GPU in shared memory.
template <int kStride>
struct ShWork {
  double matrix[kMaxK * kStride];
  double f[kMaxK], column[kMaxK], right[kMaxK], candidates[kMaxK], levels[kMaxK];
};

// Weight of staying at the input, in units of the Hessian's mean diagonal. Directions that no view sees have eigenvalues of
// 0 but for the rounding of float32 sums, which reaches -3e-6 over 1000 views; the problem must stay positive definite.
constexpr double kRelativeRidge = 2e-5;
constexpr double kAbsoluteRidge = 1e-12;

POTR_HD double packed_entry(const float* packed, int row, int column) {  // column <= row
  return packed[row * (row + 1) / 2 + column];
}

template <int n, class Lanes>
POTR_HD void unpack(const Lanes& lanes, const float* packed, double* a) {
  for (int i = 0; i < n; ++i)
    for (int j = lanes.begin; j <= i; j += Lanes::kCount)
      a[i * Lanes::kStride + j] = a[j * Lanes::kStride + i] = packed_entry(packed, i, j);
  lanes.sync();
}

template <int n>
POTR_HD double dot(const double* row, const double* x) {
  double sum = 0;
  for (int j = 0; j < n; ++j) sum += row[j] * x[j];
  return sum;
}

template <int n>
POTR_HD double mean_diagonal(const float* packed) {
  double trace = 0;
  for (int i = 0; i < n; ++i) trace += packed_entry(packed, i, i);
  return trace / n;
}

// Gauss-Jordan in place; the matrix is symmetric positive definite, so no pivoting is needed.
template <int n, class Lanes>
POTR_HD void invert(const Lanes& lanes, double* a) {
  constexpr int kStride = Lanes::kStride;
  for (int p = 0; p < n; ++p) {
    double* pivot = a + p * kStride;
    const double inverse = 1.0 / pivot[p];
    lanes.sync();
    for (int j = lanes.begin; j < n; j += Lanes::kCount) pivot[j] = (j == p ? 1.0 : pivot[j]) * inverse;
    lanes.sync();
    for (int i = lanes.begin; i < n; i += Lanes::kCount) {
      if (i == p) continue;
      double* row = a + i * kStride;
      const double factor = row[p];
      row[p] = 0.0;
      for (int j = 0; j < n; ++j) row[j] -= factor * pivot[j];
    }
    lanes.sync();
  }
}

// Where `wanted`, fixes variable i of a solved problem at `value`: moves the free others to their new optimum and takes i out
// of the inverse (the surgeon's step, Hassibi & Stork 1993).
template <int n, class Lanes>
POTR_HD void fix(const Lanes& lanes, ShWork<Lanes::kStride>& w, int i, double value, bool wanted) {
  constexpr int kStride = Lanes::kStride;
  double diagonal = 1.0, shift = 0.0;
  if (wanted) {
    diagonal = w.matrix[i * kStride + i];
    shift = (w.f[i] - value) / diagonal;
    for (int j = lanes.begin; j < n; j += Lanes::kCount) w.column[j] = w.matrix[i * kStride + j];
  }
  lanes.sync();
  if (wanted) {
    for (int j = lanes.begin; j < n; j += Lanes::kCount) {
      w.f[j] = j == i ? value : w.f[j] - shift * w.column[j];
      const double factor = w.column[j] / diagonal;
      double* row = w.matrix + j * kStride;
      for (int k = 0; k < n; ++k) row[k] -= factor * w.column[k];
    }
  }
  lanes.sync();
}

// `sh` and `result` are a splat's [n, 3] at the channel. `result` may be null: the problem is solved for nothing.
template <int n, class Lanes>
POTR_HD void compact_channel(const Lanes& lanes, ShWork<Lanes::kStride>& w, const float* packed, const float* sh,
                             const CompactParameters& p, int channel, float* result) {
  constexpr int kStride = Lanes::kStride;
  const double guard = kRelativeRidge * mean_diagonal<n>(packed) + kAbsoluteRidge;
  for (int i = lanes.begin; i < n; i += Lanes::kCount) w.f[i] = sh[3 * i];
  unpack<n>(lanes, packed, w.matrix);
  for (int i = lanes.begin; i < n; i += Lanes::kCount) {
    w.right[i] = dot<n>(w.matrix + i * kStride, w.f) + guard * w.f[i];
    w.matrix[i * kStride + i] += guard + (i ? p.ridge[channel] : 0.0);
  }
  lanes.sync();
  invert<n>(lanes, w.matrix);
  for (int i = lanes.begin; i < n; i += Lanes::kCount) w.f[i] = dot<n>(w.matrix + i * kStride, w.right);
  lanes.sync();

  unsigned kept = (1u << n) - 1u;
  const double drop = p.drop_cost[channel];
  const auto cost = [&](int i) { return w.f[i] * w.f[i] / w.matrix[i * kStride + i]; };

  if (p.redundancy_cosine < 1.0) {
    for (int i = 1; i < n; ++i) {
      const double length2 = packed_entry(packed, i, i);
      const bool parallel = lanes.first_of(0, i, [&](int j) {
        return (kept >> j & 1u) && fabs(packed_entry(packed, i, j)) >
                                       p.redundancy_cosine * sqrt(length2 * packed_entry(packed, j, j));
      }) < i;
      const bool redundant = parallel && cost(i) <= p.redundancy_cost * drop;
      fix<n>(lanes, w, i, 0.0, redundant);
      if (redundant) kept &= ~(1u << i);
    }
  }
  for (;;) {
    for (int i = lanes.begin; i < n; i += Lanes::kCount) w.candidates[i] = cost(i);
    lanes.sync();
    int cheapest = 0;
    double least = drop;
    for (int i = 1; i < n; ++i)
      if ((kept >> i & 1u) && w.candidates[i] <= least) {
        least = w.candidates[i];
        cheapest = i;
      }
    if (!lanes.anyone(cheapest > 0)) break;
    fix<n>(lanes, w, cheapest, 0.0, cheapest > 0);
    if (cheapest > 0) kept &= ~(1u << cheapest);
  }
  if (result == nullptr) return;
  for (int i = lanes.begin; i < n; i += Lanes::kCount) result[3 * i] = kept >> i & 1u ? (float)w.f[i] : 0.0f;
}

// -(damping A + prior)^-1 b for the three channels of a splat; `gradient` and `step` are its [n, 3], `step` may be null.
template <int n, class Lanes>
POTR_HD void newton_step_of_splat(const Lanes& lanes, ShWork<Lanes::kStride>& w, const float* packed,
                                  const float* gradient, double damping, const NewtonParameters& p, float* step) {
  constexpr int kStride = Lanes::kStride;
  unpack<n>(lanes, packed, w.matrix);
  const double prior = p.relative_prior * damping * mean_diagonal<n>(packed) + p.absolute_prior;
  for (int i = lanes.begin; i < n; i += Lanes::kCount) {
    double* row = w.matrix + i * kStride;
    for (int j = 0; j < n; ++j) row[j] *= damping;
    row[i] += prior;
  }
  lanes.sync();
  invert<n>(lanes, w.matrix);
  if (step == nullptr) return;
  for (int i = lanes.begin; i < n; i += Lanes::kCount) {
    const double* row = w.matrix + i * kStride;
    for (int channel = 0; channel < 3; ++channel) {
      double move = 0;
      for (int j = 0; j < n; ++j) move += row[j] * gradient[3 * j + channel];
      step[3 * i + channel] = (float)-move;
    }
  }
}

// Bits of a level by a coefficient's row of the rate table.
POTR_HD double bits(double n, const double* rates) {
  constexpr int kLast = kRateLevels - 2;
  const double magnitude = fabs(n);
  return magnitude <= kLast ? rates[(int)magnitude] : rates[kLast] + (magnitude - kLast) * rates[kLast + 1];
}

// DC has no price. Drawn to 0, the grey, splats hardly seen would add up; drawn to their neighbours, those would light up
// whose colour is below 0 and clamped, which has no curvature either.
POTR_HD double best_dc_level(double x, double step) { return round(x / step); }

// The best integer for the objective curvature * (step * n - x)^2 + bit_cost * bits(n), of 0 and the three magnitudes from
// ceil(|x| / step) down.
POTR_HD double best_ac_level(double x, double step, double curvature, double bit_cost, const double* rates) {
  const double far = ceil(fabs(x) / step), sign = x < 0 ? -1.0 : 1.0;
  double best = 0, least = curvature * x * x + bit_cost * rates[0];
  for (int i = 0; i < 3 && far - i > 0; ++i) {
    const double magnitude = far - i;
    const double error = step * magnitude - fabs(x);
    const double objective = curvature * error * error + bit_cost * bits(magnitude, rates);
    if (objective < least) {
      least = objective;
      best = sign * magnitude;
    }
  }
  return best;
}

// `sh` [n, 3], `steps` [n, 3], `rates` [n, 3, kRateLevels] and `result` [n, 3] are at the channel; `result` may be null.
template <int n, class Lanes>
POTR_HD void round_channel(const Lanes& lanes, ShWork<Lanes::kStride>& w, const float* packed, const float* sh,
                           const float* steps, const double* rates, const RoundParameters& p, int sweeps,
                           int channel, int* result) {
  constexpr int kStride = Lanes::kStride;
  const double guard = p.anchor * mean_diagonal<n>(packed) + kAbsoluteRidge;
  const auto best_level = [&](int i, double x, double step, double curvature) {
    return i == 0 ? best_dc_level(x, step) : best_ac_level(x, step, curvature, p.bit_cost[channel], rates + 3 * i * kRateLevels);
  };
  for (int i = lanes.begin; i < n; i += Lanes::kCount) w.f[i] = sh[3 * i];
  unpack<n>(lanes, packed, w.matrix);
  for (int i = lanes.begin; i < n; i += Lanes::kCount) w.matrix[i * kStride + i] += guard;
  lanes.sync();
  invert<n>(lanes, w.matrix);

  for (int i = n - 1; i >= 0; --i) {  // DC last: it takes up what rounding the others left
    const double step = steps[3 * i];
    const double level = best_level(i, w.f[i], step, 1.0 / w.matrix[i * kStride + i]);
    fix<n>(lanes, w, i, step * level, true);
    w.levels[i] = level;  // by every lane, the same
    for (int j = lanes.begin; j < n; j += Lanes::kCount) w.matrix[i * kStride + j] = w.matrix[j * kStride + i] = 0.0;
    lanes.sync();
  }

  unpack<n>(lanes, packed, w.matrix);
  for (int i = lanes.begin; i < n; i += Lanes::kCount) {
    w.matrix[i * kStride + i] += guard;
    w.f[i] = steps[3 * i] * w.levels[i] - sh[3 * i];
  }
  lanes.sync();
  double* gradient = w.right;
  for (int i = lanes.begin; i < n; i += Lanes::kCount) gradient[i] = dot<n>(w.matrix + i * kStride, w.f);
  // Rows look for a better level all at once; the first that has one moves, and those after it look again.
  const auto improves = [&](int i) {
    const double step = steps[3 * i], curvature = w.matrix[i * kStride + i];
    const double optimum = step * w.levels[i] - gradient[i] / curvature;
    w.candidates[i] = best_level(i, optimum, step, curvature);
    return w.candidates[i] != w.levels[i];
  };
  for (int sweep = 0; sweep < sweeps; ++sweep) {
    bool changed = false;
    for (int i = 0;; ++i) {
      i = lanes.first_of(i, n, improves);
      if (!lanes.anyone(i < n)) break;
      lanes.sync();
      if (i < n) {
        const double move = steps[3 * i] * (w.candidates[i] - w.levels[i]);
        for (int j = lanes.begin; j < n; j += Lanes::kCount) gradient[j] += move * w.matrix[j * kStride + i];
        changed = true;
      }
      lanes.sync();
      if (i < n) w.levels[i] = w.candidates[i];
      lanes.sync();
    }
    if (!lanes.anyone(changed)) break;
  }
  if (result == nullptr) return;
  for (int i = lanes.begin; i < n; i += Lanes::kCount) result[3 * i] = (int)w.levels[i];
}

}  // namespace potr
