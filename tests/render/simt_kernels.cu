// SPDX-License-Identifier: Apache-2.0
// Kernels for test_simt.py: what the emulation runs, as CUDA takes it too.
#include "../../potr/native/splat_math.h"

namespace {

constexpr unsigned kFull = 0xffffffffu;
constexpr int kThreads = 128;
__constant__ float kHalf = 0.5f;

template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(kFull, v, offset);
  return v;
}

}  // namespace

// sums[block] = sum of the block's values: shuffles within the warps, shared memory between them.
extern "C" __global__ void __launch_bounds__(kThreads) block_sums(const float* __restrict__ values, long long count,
                                                                 float* sums) {
  __shared__ float of_warps[kThreads / 32];
  const long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const float sum = warp_sum(i < count ? __ldg(values + i) : 0.0f);
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    const float total = warp_sum(threadIdx.x < blockDim.x / 32 ? of_warps[threadIdx.x] : 0.0f);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
  }
}

// Indices of the values that are not negative, in order within each warp; `counts` [warps], `kept` [warps, 32].
extern "C" __global__ void compact(const float* values, int* counts, unsigned* kept) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % 32;
  const bool keep = values[i] >= 0.0f;
  const unsigned lanes = __ballot_sync(kFull, keep);
  if (keep) kept[i - lane + __popc(lanes & ((1u << lane) - 1))] = i;
  if (lane == 0) counts[i / 32] = __popc(lanes);
}

// Every collective on the thread's value, 16 numbers for each thread.
extern "C" __global__ void collectives(const unsigned* values, long long* out) {
  const unsigned v = values[threadIdx.x], lane = threadIdx.x % 32;
  long long* to = out + 16 * threadIdx.x;
  to[0] = __shfl_sync(kFull, (int)v, 5);
  to[1] = __shfl_sync(kFull, v, lane + 9, 8);
  to[2] = __shfl_xor_sync(kFull, (long long)v << 32, 3) >> 32;
  to[3] = __shfl_up_sync(kFull, v, 3);
  to[4] = __shfl_down_sync(kFull, v, 3, 16);
  to[5] = (long long)__shfl_down_sync(kFull, (double)v, 1);
  to[6] = __reduce_max_sync(kFull, v);
  to[7] = __reduce_add_sync(kFull, v);
  to[8] = __reduce_or_sync(kFull, v);
  to[9] = __any_sync(kFull, v % 64 == 1) + 2 * __all_sync(kFull, v < 100);
  to[10] = __syncthreads_count(v % 3 == 0);
  to[11] = __syncthreads_or(v == 7) + 2 * __syncthreads_and(v < 100);
  to[12] = __ffs((int)v) + 100 * __clz((int)v) + 10000 * __popcll(((unsigned long long)v << 40) | v);
  to[13] = __brev(v) + __clzll((long long)v) + __ffsll((long long)v << 35);
  to[14] = __float_as_int(__uint_as_float(v)) + max(min((int)v, 50), 20);
  to[15] = __double_as_longlong(__fmul_rn(kHalf, (float)v));
}

// Histogram of 8 bins, and the sum, least and largest of the values.
extern "C" __global__ void atomics(const int* values, int* bins, float* sum, int* least, unsigned* largest,
                                   unsigned long long* bits) {
  const int v = values[blockIdx.x * blockDim.x + threadIdx.x];
  __shared__ int own[8];
  if (threadIdx.x < 8) own[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&own[v % 8], 1);
  __syncthreads();
  if (threadIdx.x < 8) atomicAdd(&bins[threadIdx.x], own[threadIdx.x]);
  atomicAdd(sum, (float)v);
  atomicMin(least, v);
  atomicMax(largest, (unsigned)v);
  atomicOr(bits, 1ull << (v % 64));
}

// The shared header's own functions, four splats in a float4 each.
extern "C" __global__ void basis(const float4* directions, float* out, float scale) {
  const float4 d = directions[threadIdx.x];
  float values[potr::kMaxCoefficients];
  potr::sh_basis(d.x, d.y, d.z, 3, values);
  for (int k = 0; k < potr::kMaxCoefficients; ++k) out[threadIdx.x * potr::kMaxCoefficients + k] = scale * values[k];
}

// Reverses a block's values; without its barrier a thread reads what another may not have written yet.
template <bool barrier>
__device__ void reverse_block(int* values) {
  __shared__ int copy[kThreads];
  copy[threadIdx.x] = values[threadIdx.x];
  if (barrier) __syncthreads();
  values[threadIdx.x] = copy[kThreads - 1 - threadIdx.x];
}
extern "C" __global__ void reverse(int* values) { reverse_block<true>(values); }
extern "C" __global__ void reverse_without_barrier(int* values) { reverse_block<false>(values); }

// One wrong thing each, by number.
extern "C" __global__ void wrong(long long what, int* values, const float4* vectors) {
  __shared__ int shared[kThreads];
  const unsigned t = threadIdx.x;
  if (what == 1 && t < 32) __syncthreads();
  if (what == 2 && t != 40) __syncthreads();
  if (what == 3) {
    if (t < 64) __syncthreads();
    else __syncthreads();
  }
  if (what == 4 && t % 2 == 0) values[t] = (int)__ballot_sync(kFull, 1);
  if (what == 5) values[t] = __shfl_sync(0x0000ffffu, (int)t, 0);
  if (what == 6 && t == 3) shared[t + values[0]] = 1;
  if (what == 7) values[t] = shared[t];
  if (what == 8) values[0] = 1 << values[0];
  if (what == 9) values[t] = (int)reinterpret_cast<const float4*>((const float*)vectors + 1)->x;
  if (what == 10) values[t] = (int)(1e20f * (float)t);
  if (what == 11 && t == 0) values[blockDim.x] = 7;
  if (what == 12 && t == 0) values[-3] = 7;
  if (what == 14 && t == 77) values[t] = (int)vectors[1000].x;
  if (what == 13 && t > 50) {
    __syncwarp();
    return;
  }
}
