// SPDX-License-Identifier: Apache-2.0
// What the kernels of blend.cu share: pixels, batches of entries, the first walk, and slots.
#pragma once

#include "../geometry_math.h"
#include "warp.h"

namespace potr {
namespace {

constexpr int kBlend = 128;        // threads of a block
constexpr int kBatch = kBlend;     // entries loaded at once
constexpr int kWarps = kBlend / kWarp;
constexpr int kQuadrant = kTile / 2;
constexpr int kPixels = 2;         // of a thread, kRowStep rows apart
constexpr int kRowStep = kWarp / kQuadrant;
constexpr int kWords = kBatch / kWarp;
constexpr int kGroup = 4;          // entries whose sums are taken together
constexpr int kGeometryVectors = kGeometrySlot / 4;
constexpr float kTransmittanceFloor = 1e-30f;
constexpr float kNever = 1.0f;     // above any log2 of an opacity

// A tile's entries, near to far.
struct Entries {
  const long long* sorted;  // where each was before sorting by tile
  const int* splats;        // of each entry before sorting
  const float4* records;
  int begin, end;

  // -1 outside [begin, end). Asked for a batch early: its two loads, one after the other, then wait for nobody.
  __device__ int splat_at(int entry) const { return entry >= begin && entry < end ? splats[sorted[entry]] : -1; }
};

struct Batch {
  float4 a[kBatch], b[kBatch], c[kBatch];  // records, the centre relative to the tile
  unsigned touched[kWarps][kWords];        // by quadrant: bit per entry
  unsigned lasts[kWarps];                  // by quadrant: one past the last entry blended, of all batches
};

struct Pixel {
  float x, y;               // of its centre, relative to the tile
  bool inside;              // the image
  float power_min;          // where alpha is drawn, by its log2; infinite once nothing is blended any more
  float transmittance;
  float color[3];
  int last;                 // one past the last entry blended
};

struct Tile {
  int x, y;                 // of its first pixel, in the image
  int width, height;        // of the image
};

__device__ float exp2_approximate(float v) {  // relative error 2^-22
#if defined(__CUDA_ARCH__)
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(v));
  return result;
#else
  return exp2f(v);
#endif
}

// Alpha of an entry at a pixel, 0 where it is not drawn. Every product and sum is spelt out, so that two walks get the
// same bits.
__device__ float alpha_at(const float4& a, const float4& b, float x, float y, float power_min) {
  const float dx = x - a.x, dy = y - a.y;
  const float p = fmaf(a.z, dx, a.w * dy), q = b.x * dy;
  const float power = fmaf(-q, q, fmaf(-p, p, b.y));
  return power >= power_min ? fminf(exp2_approximate(power), kAlphaMax) : 0.0f;
}

__device__ float after(float transmittance, float alpha) { return fmaf(-transmittance, alpha, transmittance); }

__device__ Tile tile_of(long long tile, long long tiles_x, long long row_first, const float* view) {
  return {(int)(tile % tiles_x) * kTile, (int)(row_first + tile / tiles_x) * kTile, (int)view[19], (int)view[20]};
}

__device__ void start(Pixel (&pixels)[kPixels], const Tile& tile) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int x = warp % 2 * kQuadrant + lane % kQuadrant, y = warp / 2 * kQuadrant + lane / kQuadrant;
#pragma unroll
  for (int k = 0; k < kPixels; ++k) {
    Pixel& p = pixels[k];
    p.x = (float)x;
    p.y = (float)(y + k * kRowStep);
    p.inside = tile.x + x < tile.width && tile.y + y + k * kRowStep < tile.height;
    p.power_min = p.inside ? kLog2AlphaMin : kNever;
    p.transmittance = 1.0f;
    p.color[0] = p.color[1] = p.color[2] = 0.0f;
    p.last = 0;
  }
}

// `splat` is this thread's, -1 for none.
__device__ void load_batch(Batch& batch, const Entries& entries, int splat, const Tile& tile) {
  const int t = threadIdx.x, lane = t % kWarp;
  unsigned quadrants = 0;
  if (splat >= 0) {
    const float4* record = entries.records + (long long)kRecordVectors * splat;
    float4 a = record[0];
    const float4 b = record[1], c = record[2];
    a.x -= (float)tile.x;
    a.y -= (float)tile.y;
    batch.a[t] = a;
    batch.b[t] = b;
    batch.c[t] = c;
    const Ellipse ellipse = record_ellipse(a, b, c);
    const float size = (float)(kQuadrant - 1);
#pragma unroll
    for (int q = 0; q < kWarps; ++q) {
      const float left = (float)(q % 2 * kQuadrant), top = (float)(q / 2 * kQuadrant);
      quadrants |= (unsigned)ellipse_touches(ellipse, left, top, size, size) << q;
    }
  }
#pragma unroll
  for (int q = 0; q < kWarps; ++q) {
    const unsigned touched = __ballot_sync(kAllLanes, quadrants >> q & 1);
    if (lane == q) batch.touched[q][t / kWarp] = touched;
  }
}

__device__ bool alive(const Pixel (&pixels)[kPixels]) { return fminf(pixels[0].power_min, pixels[1].power_min) < kNever; }

// The first walk. A pixel stops before its transmittance falls below the minimum, which is at most 1. Where nothing is
// drawn alpha is 0 and changes nothing: selections in place of branches, as this is the innermost loop.
__device__ void blend(Pixel (&pixels)[kPixels], const Entries& entries, const Tile& tile, float transmittance_min,
                      Batch& batch) {
  const int warp = threadIdx.x / kWarp;
  int splat = entries.splat_at(entries.begin + (int)threadIdx.x);
  for (int first = entries.begin; first < entries.end; first += kBatch) {
    if (__syncthreads_and(!alive(pixels))) break;
    load_batch(batch, entries, splat, tile);
    splat = entries.splat_at(first + kBatch + (int)threadIdx.x);
    __syncthreads();
    for (int word = 0; word < kWords; ++word) {
      if (!__any_sync(kAllLanes, alive(pixels))) break;
      unsigned left = __brev(batch.touched[warp][word]);  // __clz is one instruction, __ffs two
      while (left) {
        const int bit = __clz(left), j = word * kWarp + bit;
        left &= ~(0x80000000u >> bit);
        const float4 a = batch.a[j], b = batch.b[j];
        const float blue = batch.c[j].x;
#pragma unroll
        for (int k = 0; k < kPixels; ++k) {
          Pixel& p = pixels[k];
          const float alpha = alpha_at(a, b, p.x, p.y, p.power_min);
          const float then = after(p.transmittance, alpha);
          const bool stops = then < transmittance_min;
          const float weight = stops ? 0.0f : p.transmittance * alpha;
          p.color[0] = fmaf(weight, b.z, p.color[0]);
          p.color[1] = fmaf(weight, b.w, p.color[1]);
          p.color[2] = fmaf(weight, blue, p.color[2]);
          p.transmittance = stops ? p.transmittance : then;
          p.power_min = stops ? kNever : p.power_min;
          p.last = weight > 0.0f ? first + j + 1 : p.last;
        }
      }
    }
  }
}

// Adds what shines through from the background.
__device__ void finish(Pixel (&pixels)[kPixels], const float* view) {
#pragma unroll
  for (int k = 0; k < kPixels; ++k)
    for (int c = 0; c < 3; ++c)
      pixels[k].color[c] = fmaf(pixels[k].transmittance, view[kViewBackground + c], pixels[k].color[c]);
}

__device__ long long offset_of(const Pixel& pixel, const Tile& tile) {
  return (((long long)tile.y + (int)pixel.y) * tile.width + tile.x + (int)pixel.x) * 3;
}

// The render minus the photograph, 0 outside the image, in place of the colour; the photograph is either float or, where it
// is null, 255 levels. Thread 0 writes the tile's squared error.
__device__ void subtract_photo(Pixel (&pixels)[kPixels], const Tile& tile, const float* photo,
                               const unsigned char* levels, double* sse) {
  __shared__ double totals[kWarps];
  double own = 0;
#pragma unroll
  for (int k = 0; k < kPixels; ++k) {
    Pixel& p = pixels[k];
    const long long offset = p.inside ? offset_of(p, tile) : 0;
    for (int c = 0; c < 3; ++c) {
      if (p.inside) p.color[c] -= photo ? photo[offset + c] : __fdiv_rn((float)levels[offset + c], 255.0f);
      else p.color[c] = 0.0f;
      own += (double)p.color[c] * p.color[c];
    }
  }
  own = warp_sum(own);
  if (threadIdx.x % kWarp == 0) totals[threadIdx.x / kWarp] = own;
  __syncthreads();
  if (threadIdx.x == 0) *sse = totals[0] + totals[1] + totals[2] + totals[3];
}

// One past the last entry that any pixel of the block blended; sets those of the warps.
__device__ int last_of_block(const Pixel (&pixels)[kPixels], Batch& batch) {
  const unsigned last = __reduce_max_sync(kAllLanes, (unsigned)max(pixels[0].last, pixels[1].last));
  if (threadIdx.x % kWarp == 0) batch.lasts[threadIdx.x / kWarp] = last;
  __syncthreads();
  return (int)max(max(batch.lasts[0], batch.lasts[1]), max(batch.lasts[2], batch.lasts[3]));
}

// Takes what lies behind a warp's last blended entry out of its bits: there is nothing to add.
__device__ void drop_behind(Batch& batch, int first) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  if (lane < kWords) {
    const int kept = (int)batch.lasts[warp] - first - lane * kWarp;  // of the 32 entries of word `lane`
    if (kept < kWarp) batch.touched[warp][lane] &= kept > 0 ? (1u << kept) - 1 : 0u;
  }
  __syncwarp();
}

// A batch's statistics as each warp sees them: of the entries that touch its quadrant.
struct Partial {
  float of[kWarps][kBatch][kStatistics];
};

// Sums a group's values over the warp and writes them: values[s * kGroup + g] is statistic s of the group's entry g.
template <int N>
__device__ void store_sums(float (&values)[N], unsigned group, int grouped, float (*partial)[kStatistics]) {
  int index;
  const float sum = transposed_sums(values, &index);
  const int g = index % kGroup;
  if (index >= 0 && g < grouped) partial[group >> (8 * g) & 0xff][index / kGroup] = sum;
}

// The whole sector: a memory with error correction would have to read what a part of one leaves as it was.
__device__ void store_slot(float* slots, long long index, const float (&values)[kStatistics]) {
  float4* slot = (float4*)(slots + kSlot * index);
  slot[0] = make_float4(values[0], values[1], values[2], values[3]);
  slot[1] = make_float4(values[4], 0.0f, 0.0f, 0.0f);
}

// Adds up the warps' statistics of each entry of the batch and writes its slot.
template <bool kFourthIsMaximum>
__device__ void write_slots(const Batch& batch, const Partial& partial, const Entries& entries, int first, float* slots) {
  const int t = threadIdx.x;
  if (first + t >= entries.end) return;
  float totals[kStatistics] = {};
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (!(batch.touched[w][t / kWarp] >> (t % kWarp) & 1)) continue;
    for (int s = 0; s < kStatistics; ++s) {
      const float value = partial.of[w][t][s];
      totals[s] = kFourthIsMaximum && s == 3 ? fmaxf(totals[s], value) : totals[s] + value;
    }
  }
  store_slot(slots, entries.sorted[first + t], totals);
}

__device__ void write_empty_slots(const Entries& entries, int first, float* slots) {
  if (first + (int)threadIdx.x >= entries.end) return;
  const float zeros[kStatistics] = {};
  store_slot(slots, entries.sorted[first + threadIdx.x], zeros);
}

// The geometry statistics of one word of a batch, 32 entries, as each warp sees them.
struct alignas(16) GeometryPartial {
  float of[kWarps][kWarp][kGeometrySlot];
};

// Adds up the warps' statistics of each entry of the word, the first of which is `first`, and writes its slot.
__device__ void write_geometry_slots(const Batch& batch, const GeometryPartial& partial, const Entries& entries, int first,
                                     int word, float* slots) {
  for (int i = threadIdx.x; i < kWarp * kGeometryVectors; i += kBlend) {
    const int bit = i / kGeometryVectors, part = i % kGeometryVectors;
    if (first + bit >= entries.end) break;
    float4 total = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      if (!(batch.touched[w][word] >> bit & 1)) continue;
      const float4 value = *(const float4*)&partial.of[w][bit][4 * part];
      total = make_float4(total.x + value.x, total.y + value.y, total.z + value.z, total.w + value.w);
    }
    if (part == kGeometryVectors - 1) total.y = total.z = total.w = 0.0f;  // no warp has written the padding
    ((float4*)(slots + kGeometrySlot * entries.sorted[first + bit]))[part] = total;
  }
}
static_assert(kGeometrySums == kGeometrySlot - 3);

__device__ void write_empty_geometry_slots(const Entries& entries, int first, float* slots) {
  const int count = min(entries.end - first, kBatch);
  for (int i = threadIdx.x; i < count * kGeometryVectors; i += kBlend) {
    float4* slot = (float4*)(slots + kGeometrySlot * entries.sorted[first + i / kGeometryVectors]);
    slot[i % kGeometryVectors] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  }
}

// Adds what an entry at a pixel gives to its kGeometrySums sums; `behind` is the colour there, before and then with it.
__device__ void add_geometry(const float4& a, const float4& b, float blue, float alpha, Pixel& pixel, float (&behind)[3],
                             float (&sums)[kGeometrySums]) {
  const float color[3] = {b.z, b.w, blue};
  pixel.transmittance = __fdividef(pixel.transmittance, 1.0f - alpha);
  float along = 0.0f, squared = 0.0f;
  for (int c = 0; c < 3; ++c) {
    const float difference = behind[c] - color[c];
    behind[c] = fmaf(-alpha, difference, behind[c]);
    along = fmaf(-difference, pixel.color[c], along);
    squared = fmaf(difference, difference, squared);
  }
  const float responds = alpha < kAlphaMax ? pixel.transmittance * alpha : 0.0f;  // not where alpha is at its cap
  along *= responds;
  squared *= responds;
  const float dx = pixel.x - a.x, dy = pixel.y - a.y;
  const float p = fmaf(a.z, dx, a.w * dy), q = b.x * dy;
  const float pp = p * p, pq = p * q, qq = q * q;
  const float monomials[kGeometryMoments] = {1.0f,    p,       q,       pp,      pq,      qq,      pp * p, pp * q,
                                             qq * p,  qq * q,  pp * pp, pp * pq, pp * qq, qq * pq, qq * qq};
#pragma unroll
  for (int i = 0; i < kGeometryGradients; ++i) sums[i] = fmaf(along, monomials[i], sums[i]);
#pragma unroll
  for (int i = 0; i < kGeometryMoments; ++i)
    sums[kGeometryGradients + i] = fmaf(squared, monomials[i], sums[kGeometryGradients + i]);
}

__device__ Entries entries_of(long long tile, const int* begins, const long long* sorted, const int* splats,
                              const float4* records) {
  return {sorted, splats, records, begins[tile], begins[tile + 1]};
}

}  // namespace
}  // namespace potr
