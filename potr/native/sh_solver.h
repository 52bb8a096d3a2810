// SPDX-License-Identifier: Apache-2.0
// Per-splat quadratic problems of SH compaction and rounding: at most 16 unknowns, millions of splats.
#pragma once
#include <cstddef>
#include <cstdint>

namespace potr {

inline constexpr int kMaxK = 16;

// Hessians are packed lower triangles, row by row, [N, K(K+1)/2]; coefficients are [N, K, 3] in the opponent space.
struct ShProblem {
  const float* hessian;
  const float* sh;  // coefficients, or their gradient
  std::size_t num_splats;
  int num_coefficients;  // K
};

struct CompactParameters {
  double ridge[3];           // energy penalty of AC coefficients, by channel; units of the Hessian
  double drop_cost[3];       // an AC coefficient goes when that raises the objective by at most this, by channel
  double redundancy_cosine;  // AC bases more parallel than this to a kept one are dropped first; 1 keeps all
  double redundancy_cost;    // ... if that raises the objective by at most this many drop costs
};

struct RoundParameters {
  const float* steps;  // [K, 3]
  double bit_cost[3];  // objective units per bit, by channel
  double zero_bits, nonzero_bits, magnitude_bits;  // rate model: zero_bits, or nonzero_bits + magnitude_bits * log2|n|
  double anchor;       // weight of staying at the input, as a share of the Hessian's mean diagonal
  int sweeps;          // of coordinate descent after sequential rounding
};

// Minimises (f - f0)^T A (f - f0) + ridge |f_ac|^2, dropping AC coefficients greedily with re-solve of the others.
void compact(const ShProblem& problem, const CompactParameters& parameters, float* result, int threads);

// Integers n minimising (s n - f0)^T A (s n - f0) + bit_cost * bits(n): sequential rounding with error feedback, then
// coordinate descent.
void round_coefficients(const ShProblem& problem, const RoundParameters& parameters, std::int32_t* result, int threads);

// step = -(damping A + prior)^-1 gradient, with prior = relative * mean diagonal of damping A + absolute.
// gradient and step are [N, K, 3], damping [N].
void newton_step(const ShProblem& problem, const float* damping, double relative_prior, double absolute_prior,
                 float* step, int threads);

}  // namespace potr
