// SPDX-License-Identifier: Apache-2.0
// The SH solver on the GPU: 16 lanes work on a problem, one row of its matrix each, in shared memory; the mathematics is
// sh_solver_math.h. A matrix of its own per thread would be 2 KB of local memory, and every elimination would go through
// the caches: with the rows shared out, global memory is read once.
//
// Compiled without fused products and sums, so that the results are the CPU's bits.
#include "../sh_solver_math.h"

namespace {

using namespace potr;

constexpr int kThreads = 128;  // of a block, at most
constexpr int kLanes = 16;

struct HalfWarp {
  static constexpr int kStride = 17;  // doubles: a column's entries lie in different banks
  static constexpr int kCount = kLanes;
  int begin;

  __device__ void sync() const { __syncwarp(0xffffffffu); }
  __device__ bool anyone(bool holds) const { return __any_sync(0xffffffffu, holds) != 0; }
  template <class Predicate>
  __device__ int first_of(int start, int n, const Predicate& holds) const {
    const bool here = begin >= start && begin < n && holds(begin);
    const unsigned warp = __ballot_sync(0xffffffffu, here);
    const unsigned votes = (threadIdx.x & kLanes ? warp >> kLanes : warp) & 0xffffu;
    return votes ? __ffs((int)votes) - 1 : n;
  }
};

using Work = ShWork<HalfWarp::kStride>;

// Which problem this thread's half warp works on. Those beyond the last take part in it without a result.
struct Place {
  HalfWarp lanes;
  long long problem;
  bool counts;
};

__device__ Place place(long long problems) {
  const long long wanted = ((long long)blockIdx.x * blockDim.x + threadIdx.x) / kLanes;
  const bool counts = wanted < problems;
  return {{(int)(threadIdx.x % kLanes)}, counts ? wanted : problems - 1, counts};
}

template <int n>
__device__ void compact_one(Work& work, const float* hessian, const float* sh, long long splats,
                            const CompactParameters& parameters, float* result) {
  const Place at = place(3 * splats);
  const long long splat = at.problem / 3;
  const int channel = (int)(at.problem % 3);
  const long long first = splat * n * 3 + channel;
  compact_channel<n>(at.lanes, work, hessian + splat * (n * (n + 1) / 2), sh + first, parameters, channel,
                     at.counts ? result + first : nullptr);
}

template <int n>
__device__ void newton_one(Work& work, const float* hessian, const float* gradient, const float* damping,
                           long long splats, const NewtonParameters& parameters, float* step) {
  const Place at = place(splats);
  const long long first = at.problem * n * 3;
  newton_step_of_splat<n>(at.lanes, work, hessian + at.problem * (n * (n + 1) / 2), gradient + first,
                          damping[at.problem], parameters, at.counts ? step + first : nullptr);
}

template <int n>
__device__ void round_one(Work& work, const float* hessian, const float* sh, const float* steps,
                          const double* rates, long long splats, const RoundParameters& parameters, int sweeps,
                          int* result) {
  const Place at = place(3 * splats);
  const long long splat = at.problem / 3;
  const int channel = (int)(at.problem % 3);
  const long long first = splat * n * 3 + channel;
  round_channel<n>(at.lanes, work, hessian + splat * (n * (n + 1) / 2), sh + first, steps + channel,
                   rates + channel * kRateLevels, parameters, sweeps, channel, at.counts ? result + first : nullptr);
}

}  // namespace

// hessian [N, K(K+1)/2], sh, gradient, result and step [N, K, 3], damping [N], steps [K, 3], rates [K, 3, kRateLevels],
// K in 1, 4, 9, 16, N > 0; a block has at most kThreads threads, and the grid 16 threads for each of 3 N problems
// (newton_step: of N).

extern "C" __global__ void __launch_bounds__(kThreads)
    compact(const float* hessian, const float* sh, long long splats, long long coefficients,
            const CompactParameters* parameters, float* result) {
  __shared__ Work work[kThreads / kLanes];
  Work& mine = work[threadIdx.x / kLanes];
  switch (coefficients) {
    case 1: compact_one<1>(mine, hessian, sh, splats, *parameters, result); break;
    case 4: compact_one<4>(mine, hessian, sh, splats, *parameters, result); break;
    case 9: compact_one<9>(mine, hessian, sh, splats, *parameters, result); break;
    default: compact_one<16>(mine, hessian, sh, splats, *parameters, result);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    newton_step(const float* hessian, const float* gradient, const float* damping, long long splats,
                long long coefficients, const NewtonParameters* parameters, float* step) {
  __shared__ Work work[kThreads / kLanes];
  Work& mine = work[threadIdx.x / kLanes];
  switch (coefficients) {
    case 1: newton_one<1>(mine, hessian, gradient, damping, splats, *parameters, step); break;
    case 4: newton_one<4>(mine, hessian, gradient, damping, splats, *parameters, step); break;
    case 9: newton_one<9>(mine, hessian, gradient, damping, splats, *parameters, step); break;
    default: newton_one<16>(mine, hessian, gradient, damping, splats, *parameters, step);
  }
}

extern "C" __global__ void __launch_bounds__(kThreads)
    round_coefficients(const float* hessian, const float* sh, const float* steps, const double* rates,
                       long long splats, long long coefficients, const RoundParameters* parameters, long long sweeps,
                       int* result) {
  __shared__ Work work[kThreads / kLanes];
  Work& mine = work[threadIdx.x / kLanes];
  const int count = (int)sweeps;
  switch (coefficients) {
    case 1: round_one<1>(mine, hessian, sh, steps, rates, splats, *parameters, count, result); break;
    case 4: round_one<4>(mine, hessian, sh, steps, rates, splats, *parameters, count, result); break;
    case 9: round_one<9>(mine, hessian, sh, steps, rates, splats, *parameters, count, result); break;
    default: round_one<16>(mine, hessian, sh, steps, rates, splats, *parameters, count, result);
  }
}
