// SPDX-License-Identifier: Apache-2.0
// Per-splat quadratic problems of SH compaction and rounding: at most 16 unknowns, millions of splats.
#pragma once
#include <cstddef>
#include <cstdint>

#include "../sh_solver_math.h"

namespace potr {

// Hessians are packed lower triangles, row by row, [N, K(K+1)/2]; coefficients are [N, K, 3] in the opponent space.
struct ShProblem {
  const float* hessian;
  const float* sh;  // coefficients, or their gradient
  std::size_t num_splats;
  int num_coefficients;  // K: 1, 4, 9 or 16
};

// Minimises (f - f0)^T A (f - f0) + ridge |f_ac|^2, dropping AC coefficients greedily with re-solve of the others.
void compact(const ShProblem& problem, const CompactParameters& parameters, float* result, int threads);

// step = -(damping A + prior)^-1 gradient, with prior = relative * mean diagonal of damping A + absolute.
// gradient and step are [N, K, 3], damping [N].
void newton_step(const ShProblem& problem, const float* damping, const NewtonParameters& parameters, float* step,
                 int threads);

// Integers n minimising (s n - f0)^T A (s n - f0) + bit_cost * bits(n): sequential rounding with error feedback, then
// `sweeps` of coordinate descent. steps is [K, 3], rates [K, 3, kRateLevels].
void round_coefficients(const ShProblem& problem, const float* steps, const double* rates,
                        const RoundParameters& parameters, int sweeps, std::int32_t* result, int threads);

}  // namespace potr
