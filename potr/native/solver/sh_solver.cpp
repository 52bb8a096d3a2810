// SPDX-License-Identifier: Apache-2.0
#include "sh_solver.h"

#include <type_traits>

#include "../thread_pool.h"

namespace potr {
namespace {

// The CPU's lanes (see sh_solver_math.h): one, which does every row.
struct OneLane {
  static constexpr int kStride = kMaxK, begin = 0, kCount = 1;
  void sync() const {}
  bool anyone(bool holds) const { return holds; }
  template <class Predicate>
  int first_of(int start, int n, const Predicate& holds) const {
    while (start < n && !holds(start)) ++start;
    return start;
  }
};

using Work = ShWork<OneLane::kStride>;

// Calls solve(K as a type, splat, packed Hessian, offset of the splat's coefficients, working memory).
template <int n, class Solve>
void for_each_splat(const ShProblem& problem, int threads, const Solve& solve) {
  constexpr std::size_t kPacked = n * (n + 1) / 2;
  ThreadPool::run(problem.num_splats, 1024, threads, [&](std::int64_t first, std::int64_t last, int) {
    Work work;
    for (std::size_t splat = first; splat < std::size_t(last); ++splat)
      solve(std::integral_constant<int, n>{}, splat, problem.hessian + splat * kPacked, splat * n * 3, work);
  });
}

template <class Solve>
void dispatch(const ShProblem& problem, int threads, const Solve& solve) {
  switch (problem.num_coefficients) {
    case 1: return for_each_splat<1>(problem, threads, solve);
    case 4: return for_each_splat<4>(problem, threads, solve);
    case 9: return for_each_splat<9>(problem, threads, solve);
    default: return for_each_splat<16>(problem, threads, solve);
  }
}

}  // namespace

void compact(const ShProblem& problem, const CompactParameters& parameters, float* result, int threads) {
  dispatch(problem, threads, [&](auto n, std::size_t, const float* packed, std::size_t at, Work& work) {
    for (int channel = 0; channel < 3; ++channel)
      compact_channel<n()>(OneLane{}, work, packed, problem.sh + at + channel, parameters, channel,
                           result + at + channel);
  });
}

void newton_step(const ShProblem& problem, const float* damping, const NewtonParameters& parameters, float* step,
                 int threads) {
  dispatch(problem, threads, [&](auto n, std::size_t splat, const float* packed, std::size_t at, Work& work) {
    newton_step_of_splat<n()>(OneLane{}, work, packed, problem.sh + at, damping[splat], parameters, step + at);
  });
}

void round_coefficients(const ShProblem& problem, const float* steps, const double* rates,
                        const RoundParameters& parameters, int sweeps, std::int32_t* result, int threads) {
  dispatch(problem, threads, [&](auto n, std::size_t, const float* packed, std::size_t at, Work& work) {
    for (int channel = 0; channel < 3; ++channel)
      round_channel<n()>(OneLane{}, work, packed, problem.sh + at + channel, steps + channel,
                         rates + channel * kRateLevels, parameters, sweeps, channel, result + at + channel);
  });
}

}  // namespace potr
