// SPDX-License-Identifier: Apache-2.0
// Sums over the lanes of a warp, in an order that never changes.
#pragma once

#include "view.h"

namespace potr {

// Sums each of N <= 32 values over the 32 lanes. Every round halves the values a lane holds: it keeps one half of them and
// gives the other to its partner, about one shuffle a value in place of five. Returns the sum that ends in this lane and
// writes which value it is the sum of to `index`, or -1 if it is of none.
template <int N>
__device__ inline float transposed_sums(float (&values)[N], int* index) {
  const int lane = threadIdx.x % kWarp;
  int first = 0, held = N;  // the values this lane holds are [first, first + held)
  int size = N;             // the most that any lane holds: a constant once unrolled
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
    const bool upper = lane & offset;
    const int half = (size + 1) / 2;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i >= half) break;
      const float low = values[i], high = half + i < size ? values[half + i] : 0.0f;
      const float kept = upper ? high : low, given = upper ? low : high;
      values[i] = kept + __shfl_xor_sync(kAllLanes, given, offset);
    }
    first += upper ? half : 0;
    held = upper ? held - half : min(held, half);
    size = half;
  }
  *index = held > 0 ? first : -1;
  return values[0];
}

__device__ inline double warp_sum(double value) {
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(kAllLanes, value, offset);
  return value;
}

}  // namespace potr
