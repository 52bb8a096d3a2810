// SPDX-License-Identifier: Apache-2.0
// From the entries' slots (blend.cu) to sums by splat. One thread or, for a splat of many tiles, one warp adds up a splat's
// slots, always in the same order: the same bits on every run. Nothing is added where the entries did not fit, for then the
// host does the view again.
#include "../geometry_math.h"
#include "warp.h"

using namespace potr;

namespace {

constexpr int kAlone = 64;      // slots that a thread adds up by itself
constexpr int kSamplePlanes = 5;
constexpr int kViewsAtOnce = 8; // VIEWS_PER_BLOCK of potr/render/blocks.py

struct Totals {
  double of[kStatistics];
};

template <bool kFourthIsMaximum>
__device__ void add_slot(Totals& totals, const float* slot) {
  const float4 head = *(const float4*)slot;
  totals.of[0] += head.x;
  totals.of[1] += head.y;
  totals.of[2] += head.z;
  totals.of[3] = kFourthIsMaximum ? fmax(totals.of[3], (double)head.w) : totals.of[3] + head.w;
  totals.of[4] += slot[4];
}

// All lanes of a warp take part, each with its own splat's slots [first, first + count).
template <bool kFourthIsMaximum>
__device__ Totals sum_slots(const float* slots, long long own_first, int own_count) {
  Totals own{};
  if (own_count <= kAlone)
    for (int s = 0; s < own_count; ++s) add_slot<kFourthIsMaximum>(own, slots + kSlot * (own_first + s));
  const int lane = threadIdx.x % kWarp;
  for (unsigned left = __ballot_sync(kAllLanes, own_count > kAlone); left; left &= left - 1) {
    const int source = __ffs(left) - 1;
    const long long first = __shfl_sync(kAllLanes, own_first, source);
    const int count = __shfl_sync(kAllLanes, own_count, source);
    Totals part{};
    for (int s = lane; s < count; s += kWarp) add_slot<kFourthIsMaximum>(part, slots + kSlot * (first + s));
    for (int offset = kWarp / 2; offset > 0; offset /= 2)
      for (int i = 0; i < kStatistics; ++i) {
        const double other = __shfl_xor_sync(kAllLanes, part.of[i], offset);
        part.of[i] = kFourthIsMaximum && i == 3 ? fmax(part.of[i], other) : part.of[i] + other;
      }
    if (lane == source) own = part;
  }
  return own;
}

__device__ long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// Element e of a packed lower triangle, row by row, is (row, e - row (row + 1) / 2).
__device__ int triangle_row(int e) {
  int row = 0;
  while ((row + 1) * (row + 2) / 2 <= e) ++row;
  return row;
}

}  // namespace

// Adds one view's removal cost: delta_sse, render_sse, contribution [N] float64, peak [N] float32, pixels [N] int64.
// num_entries: how many the view has, of which `capacity` fitted. first_entry, num_tiles [N].
extern "C" __global__ void __launch_bounds__(256)
gather_removal(long long num_splats, const long long* num_entries, long long capacity, const int* first_entry,
               const int* num_tiles, const float* slots, double* delta_sse, double* render_sse, double* contribution,
               float* peak, long long* pixels) {
  if (*num_entries > capacity) return;
  const long long i = thread_index();
  const int count = i < num_splats ? num_tiles[i] : 0;
  const Totals totals = sum_slots<true>(slots, count ? first_entry[i] : 0, count);
  if (!count) return;
  delta_sse[i] += totals.of[0];
  render_sse[i] += totals.of[1];
  contribution[i] += totals.of[2];
  peak[i] = fmaxf(peak[i], (float)totals.of[3]);
  pixels[i] += (long long)totals.of[4];
}

// One view's colour samples [kSamplePlanes, N]: sum (T a)^2, sum T a (C - g) of the channels that are not clamped, sum T a;
// all 0 where every channel is. With `add` it adds to what other tile rows of the view have given, else it overwrites.
extern "C" __global__ void __launch_bounds__(256)
gather_color(long long num_splats, const long long* num_entries, long long capacity, const int* first_entry,
             const int* num_tiles, const float4* records, const float* slots, long long add, float* samples) {
  if (*num_entries > capacity) return;
  const long long i = thread_index();
  const int count = i < num_splats ? num_tiles[i] : 0;
  Totals totals = sum_slots<false>(slots, count ? first_entry[i] : 0, count);
  if (i >= num_splats || (add && !count)) return;
  const unsigned clamped = count ? __float_as_uint(records[kRecordVectors * i + 2].w) : 0;
  for (int c = 0; c < 3; ++c)
    if (clamped >> c & 1) totals.of[1 + c] = 0;
  if (clamped == 7) totals.of[0] = totals.of[4] = 0;
  for (int p = 0; p < kSamplePlanes; ++p) {
    float* sample = samples + p * num_splats + i;
    *sample = add ? *sample + (float)totals.of[p] : (float)totals.of[p];
  }
}

// Adds a block of views' samples [num_views, kSamplePlanes, N] to the statistics, one splat per warp: hessian
// [N, K(K+1)/2] and gradient [N, K, 3] float32, weight and contribution [N] float64, seen_views [N] int32.
extern "C" __global__ void __launch_bounds__(256)
add_color_samples(long long num_splats, long long sh_degree, long long num_views, const float* views, const float* means,
                  const float* samples, float* hessian, float* gradient, double* weight, double* contribution,
                  int* seen_views) {
  constexpr int kWarps = 256 / kWarp;
  constexpr int kMaxTriangle = kMaxCoefficients * (kMaxCoefficients + 1) / 2;
  __shared__ unsigned char rows[kMaxTriangle];
  __shared__ float bases[kWarps][kViewsAtOnce][kMaxCoefficients];
  __shared__ float seen_as[kWarps][kViewsAtOnce][kSamplePlanes];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int K = (int)((sh_degree + 1) * (sh_degree + 1)), triangle = K * (K + 1) / 2;
  for (int e = threadIdx.x; e < triangle; e += blockDim.x) rows[e] = (unsigned char)triangle_row(e);
  __syncthreads();

  const long long i = (long long)blockIdx.x * kWarps + warp;
  if (i >= num_splats) return;
  float own_weight = 0;
  if (lane < num_views) {
    const float* sample = samples + (long long)lane * kSamplePlanes * num_splats + i;
    for (int p = 0; p < kSamplePlanes; ++p) seen_as[warp][lane][p] = sample[p * num_splats];
    own_weight = seen_as[warp][lane][0];
    const float* center = views + lane * kViewFloats + kViewCenter;
    const float dx = means[3 * i] - center[0], dy = means[3 * i + 1] - center[1], dz = means[3 * i + 2] - center[2];
    const float inverse = 1.0f / sqrtf(dx * dx + dy * dy + dz * dz);
    float basis[kMaxCoefficients];
    sh_basis(dx * inverse, dy * inverse, dz * inverse, (int)sh_degree, basis);
#pragma unroll
    for (int k = 0; k < kMaxCoefficients; ++k)
      if (k < K) bases[warp][lane][k] = basis[k];
  }
  const unsigned seen = __ballot_sync(kAllLanes, own_weight > 0.0f);
  if (!seen) return;
  __syncwarp();
  for (int e = lane; e < triangle; e += kWarp) {
    const int a = rows[e], b = e - a * (a + 1) / 2;
    float sum = 0;
    for (unsigned left = seen; left; left &= left - 1) {
      const int v = __ffs(left) - 1;
      sum = fmaf(bases[warp][v][b], seen_as[warp][v][0] * bases[warp][v][a], sum);
    }
    hessian[i * triangle + e] += sum;
  }
  for (int e = lane; e < 3 * K; e += kWarp) {
    float sum = 0;
    for (unsigned left = seen; left; left &= left - 1) {
      const int v = __ffs(left) - 1;
      sum = fmaf(seen_as[warp][v][1 + e % 3], bases[warp][v][e / 3], sum);
    }
    gradient[i * 3 * K + e] += sum;
  }
  if (lane) return;
  double weights = 0, contributions = 0;
  for (int v = 0; v < num_views; ++v) {
    weights += seen_as[warp][v][0];
    contributions += seen_as[warp][v][4];
  }
  weight[i] += weights;
  contribution[i] += contributions;
  seen_views[i] += __popc(seen);
}

// Adds one view's geometry statistics, one splat per warp: hessian [N, 55] and gradient [N, 10] float32.
extern "C" __global__ void __launch_bounds__(256)
gather_geometry(long long num_splats, const long long* num_entries, long long capacity, const int* first_entry,
                const int* num_tiles, const float4* records, const float* view, const float* means,
                const float* log_scales, const float* quats, const float* slots, float* hessian, float* gradient) {
  constexpr int kWarps = 256 / kWarp;
  constexpr int kVectors = kGeometrySlot / 4;  // of a slot; a lane reads one
  constexpr int kSlotsAtOnce = 4;
  __shared__ double sums[kWarps][kGeometrySlot];
  __shared__ GeometryAxis seen[kWarps][3];
  __shared__ double responses[kWarps][kGeometryChanges][kGeometryGradients];
  __shared__ double products[kWarps][kGeometryChanges][kGeometryGradients];  // of the responses and the moments
  if (*num_entries > capacity) return;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const long long i = (long long)blockIdx.x * kWarps + warp;
  const int count = i < num_splats ? num_tiles[i] : 0;
  if (!count) return;

  double own[4] = {};
  if (lane < kVectors * kSlotsAtOnce) {
    const float4* vectors = (const float4*)(slots + kGeometrySlot * (long long)first_entry[i]);
    for (long long v = lane; v < (long long)kVectors * count; v += kVectors * kSlotsAtOnce) {
      const float4 value = vectors[v];
      own[0] += value.x;
      own[1] += value.y;
      own[2] += value.z;
      own[3] += value.w;
    }
  }
  for (int c = 0; c < 4; ++c) {
    own[c] += __shfl_down_sync(kAllLanes, own[c], 2 * kVectors);
    own[c] += __shfl_down_sync(kAllLanes, own[c], kVectors);
    if (lane < kVectors) sums[warp][4 * lane + c] = own[c];
  }
  __syncwarp();
  const double* moments = sums[warp] + kGeometryGradients;
  if (!(moments[0] > 0)) return;

  const float scale[3] = {expf(log_scales[3 * i]), expf(log_scales[3 * i + 1]), expf(log_scales[3 * i + 2])};
  float axes[9];
  splat_axes(quats + 4 * i, scale, axes);
  const float4 a = records[kRecordVectors * i], b = records[kRecordVectors * i + 1];
  GeometryAxis own_seen[3];
  geometry_axes(load_camera(view), means + 3 * i, axes, a.z, a.w, b.x, own_seen);
  if (lane == 0)
    for (int c = 0; c < 3; ++c) seen[warp][c] = own_seen[c];
  __syncwarp();
  if (lane < kGeometryChanges) geometry_response(seen[warp], lane, responses[warp][lane]);
  __syncwarp();
  for (int e = lane; e < kGeometryChanges * kGeometryGradients; e += kWarp) {
    const int change = e / kGeometryGradients, l = e % kGeometryGradients;
    products[warp][change][l] = geometry_times_moments(responses[warp][change], moments, l);
  }
  __syncwarp();
  for (int e = lane; e < kGeometryTriangle; e += kWarp) {
    const int row = triangle_row(e), column = e - row * (row + 1) / 2;
    hessian[i * kGeometryTriangle + e] += (float)geometry_dot(products[warp][row], responses[warp][column]);
  }
  if (lane < kGeometryChanges)
    gradient[i * kGeometryChanges + lane] += (float)geometry_dot(responses[warp][lane], sums[warp]);
}
