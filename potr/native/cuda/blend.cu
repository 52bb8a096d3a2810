// SPDX-License-Identifier: Apache-2.0
// Blending and statistics, one block per tile. Each of the block's four warps has a quadrant of 8 x 8 pixels, two to a lane.
// A batch of entries is loaded into shared memory, each thread one, which also finds the quadrants it may touch: a warp only
// looks at the entries of its own.
//
// Statistics take two walks. The first blends near to far. The second recomputes every alpha: near to far for the colour
// statistics, far to near for the others, where the colour behind a splat follows without subtraction,
// B <- B + alpha (c - B), and the transmittance before it by division, T <- T / (1 - alpha). A pixel stops before T falls
// below the minimum, in statistics never below kTransmittanceFloor, so that T survives the division; what lies behind is
// below anything a float sum could notice.
//
// Nothing is added atomically. The statistics of an entry go to its slot, which gather.cu adds up by splat, in order.
#include "blend.h"

using namespace potr;

// image [height, width, 3].
extern "C" __global__ void __launch_bounds__(kBlend)
render(const float* view, long long tiles_x, long long row_first, const int* begins, const long long* sorted,
       const int* splats, const float4* records, float transmittance_min, float* image) {
  __shared__ Batch batch;
  const Tile tile = tile_of(blockIdx.x, tiles_x, row_first, view);
  Pixel pixels[kPixels];
  start(pixels, tile);
  blend(pixels, entries_of(blockIdx.x, begins, sorted, splats, records), tile, transmittance_min, batch);
  finish(pixels, view);
#pragma unroll
  for (int k = 0; k < kPixels; ++k) {
    if (!pixels[k].inside) continue;
    float* out = image + offset_of(pixels[k], tile);
    for (int c = 0; c < 3; ++c) out[c] = pixels[k].color[c];
  }
}

// slots [entries, kSlot]: delta_sse, render_sse, contribution, peak, pixels. sse [tiles of the image]. Six blocks to a
// multiprocessor: left to itself the compiler takes fewer registers, and spills.
extern "C" __global__ void __launch_bounds__(kBlend, 6)
removal(const float* view, long long tiles_x, long long row_first, const int* begins, const long long* sorted,
        const int* splats, const float4* records, float transmittance_min, const float* photo,
        const unsigned char* levels, float* slots, double* sse) {
  __shared__ Batch batch;
  __shared__ Partial partial;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const Tile tile = tile_of(blockIdx.x, tiles_x, row_first, view);
  const Entries entries = entries_of(blockIdx.x, begins, sorted, splats, records);
  Pixel pixels[kPixels];
  start(pixels, tile);
  blend(pixels, entries, tile, fmaxf(transmittance_min, kTransmittanceFloor), batch);
  finish(pixels, view);
  subtract_photo(pixels, tile, photo, levels, sse + row_first * tiles_x + blockIdx.x);

  float behind[kPixels][3];
#pragma unroll
  for (int k = 0; k < kPixels; ++k)
    for (int c = 0; c < 3; ++c) {
      behind[k][c] = view[kViewBackground + c];
      pixels[k].color[c] *= 2.0f;  // 2 (C - g)
    }
  const int last = last_of_block(pixels, batch);
  const int num_batches = (entries.end - entries.begin + kBatch - 1) / kBatch;
  const int num_drawn = (last - entries.begin + kBatch - 1) / kBatch;
  int splat = entries.splat_at(entries.begin + (num_drawn - 1) * kBatch + (int)threadIdx.x);
  for (int n = num_batches - 1; n >= 0; --n) {
    const int first = entries.begin + n * kBatch;
    if (first >= last) {
      write_empty_slots(entries, first, slots);
      continue;
    }
    __syncthreads();
    load_batch(batch, entries, splat, tile);
    splat = entries.splat_at(first - kBatch + (int)threadIdx.x);
    __syncthreads();
    drop_behind(batch, first);
    for (int word = kWords - 1; word >= 0; --word) {
      unsigned left = batch.touched[warp][word];
      while (left) {
        float sums[3 * kGroup];  // delta_sse, render_sse, contribution of kGroup entries each
        unsigned group = 0;      // their places in the batch, a byte each
        int grouped = 0;
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
          sums[g] = sums[kGroup + g] = sums[2 * kGroup + g] = 0.0f;
          if (!left) continue;
          const int j = word * kWarp + 31 - __clz(left);
          left &= ~(1u << (j % kWarp));
          group |= (unsigned)j << (8 * g);
          grouped = g + 1;
          const float4 a = batch.a[j], b = batch.b[j];
          const float color[3] = {b.z, b.w, batch.c[j].x};
          float peak = 0.0f;
          int num_pixels = 0;
#pragma unroll
          for (int k = 0; k < kPixels; ++k) {
            Pixel& p = pixels[k];
            const float alpha = alpha_at(a, b, p.x, p.y, first + j < p.last ? kLog2AlphaMin : kNever);
            float weight = 0.0f;
            if (alpha > 0.0f) {
              p.transmittance = __fdividef(p.transmittance, 1.0f - alpha);
              weight = p.transmittance * alpha;
              for (int c = 0; c < 3; ++c) {
                const float difference = behind[k][c] - color[c];
                const float change = weight * difference;  // PD of the pixel: T a (B - c)
                behind[k][c] = fmaf(-alpha, difference, behind[k][c]);
                sums[g] = fmaf(change, change + p.color[c], sums[g]);
                sums[kGroup + g] = fmaf(change, change, sums[kGroup + g]);
              }
              sums[2 * kGroup + g] += weight;
            }
            peak = fmaxf(peak, weight);
            num_pixels += __popc(__ballot_sync(kAllLanes, weight > 0.0f));
          }
          // A positive float's bits are ordered as an integer's.
          const unsigned largest = __reduce_max_sync(kAllLanes, __float_as_uint(peak));
          if (lane == 0) {
            partial.of[warp][j][3] = __uint_as_float(largest);
            partial.of[warp][j][4] = (float)num_pixels;
          }
        }
        store_sums(sums, group, grouped, partial.of[warp]);
      }
    }
    __syncthreads();
    write_slots<true>(batch, partial, entries, first, slots);
  }
}

// slots [entries, kSlot]: sum (T a)^2, sum T a (C - g) of R, G, B, sum T a. sse [tiles of the image].
extern "C" __global__ void __launch_bounds__(kBlend)
color(const float* view, long long tiles_x, long long row_first, const int* begins, const long long* sorted,
      const int* splats, const float4* records, float transmittance_min, const float* photo,
        const unsigned char* levels, float* slots, double* sse) {
  __shared__ Batch batch;
  __shared__ Partial partial;
  const int warp = threadIdx.x / kWarp;
  const Tile tile = tile_of(blockIdx.x, tiles_x, row_first, view);
  const Entries entries = entries_of(blockIdx.x, begins, sorted, splats, records);
  Pixel pixels[kPixels];
  start(pixels, tile);
  blend(pixels, entries, tile, fmaxf(transmittance_min, kTransmittanceFloor), batch);
  finish(pixels, view);
  subtract_photo(pixels, tile, photo, levels, sse + row_first * tiles_x + blockIdx.x);

#pragma unroll
  for (int k = 0; k < kPixels; ++k) pixels[k].transmittance = 1.0f;
  const int last = last_of_block(pixels, batch);
  int splat = entries.splat_at(entries.begin + (int)threadIdx.x);
  for (int first = entries.begin; first < entries.end; first += kBatch) {
    if (first >= last) {
      write_empty_slots(entries, first, slots);
      continue;
    }
    __syncthreads();
    load_batch(batch, entries, splat, tile);
    splat = entries.splat_at(first + kBatch + (int)threadIdx.x);
    __syncthreads();
    drop_behind(batch, first);
    for (int word = 0; word < kWords; ++word) {
      unsigned left = batch.touched[warp][word];
      while (left) {
        float sums[kStatistics * kGroup];
        unsigned group = 0;
        int grouped = 0;
#pragma unroll
        for (int g = 0; g < kGroup; ++g) {
          for (int s = 0; s < kStatistics; ++s) sums[s * kGroup + g] = 0.0f;
          if (!left) continue;
          const int j = word * kWarp + __ffs(left) - 1;
          left &= left - 1;
          group |= (unsigned)j << (8 * g);
          grouped = g + 1;
          const float4 a = batch.a[j], b = batch.b[j];
#pragma unroll
          for (int k = 0; k < kPixels; ++k) {
            Pixel& p = pixels[k];
            const float alpha = alpha_at(a, b, p.x, p.y, first + j < p.last ? kLog2AlphaMin : kNever);
            const float weight = p.transmittance * alpha;
            p.transmittance = after(p.transmittance, alpha);
            sums[g] = fmaf(weight, weight, sums[g]);
            for (int c = 0; c < 3; ++c) sums[(1 + c) * kGroup + g] = fmaf(weight, p.color[c], sums[(1 + c) * kGroup + g]);
            sums[4 * kGroup + g] += weight;
          }
        }
        store_sums(sums, group, grouped, partial.of[warp]);
      }
    }
    __syncthreads();
    write_slots<false>(batch, partial, entries, first, slots);
  }
}

// slots [entries, kGeometrySlot]: the sums of geometry_math.h. sse [tiles of the image]. One entry at a time: its
// sums fill 21 lanes. Five blocks to a multiprocessor, for the reason above.
extern "C" __global__ void __launch_bounds__(kBlend, 5)
geometry(const float* view, long long tiles_x, long long row_first, const int* begins, const long long* sorted,
         const int* splats, const float4* records, float transmittance_min, const float* photo,
         const unsigned char* levels, float* slots, double* sse) {
  __shared__ Batch batch;
  __shared__ GeometryPartial partial;
  const int warp = threadIdx.x / kWarp;
  const Tile tile = tile_of(blockIdx.x, tiles_x, row_first, view);
  const Entries entries = entries_of(blockIdx.x, begins, sorted, splats, records);
  Pixel pixels[kPixels];
  start(pixels, tile);
  blend(pixels, entries, tile, fmaxf(transmittance_min, kTransmittanceFloor), batch);
  finish(pixels, view);
  subtract_photo(pixels, tile, photo, levels, sse + row_first * tiles_x + blockIdx.x);

  float behind[kPixels][3];
#pragma unroll
  for (int k = 0; k < kPixels; ++k)
    for (int c = 0; c < 3; ++c) behind[k][c] = view[kViewBackground + c];
  const int last = last_of_block(pixels, batch);
  const int num_batches = (entries.end - entries.begin + kBatch - 1) / kBatch;
  const int num_drawn = (last - entries.begin + kBatch - 1) / kBatch;
  int splat = entries.splat_at(entries.begin + (num_drawn - 1) * kBatch + (int)threadIdx.x);
  for (int n = num_batches - 1; n >= 0; --n) {
    const int first = entries.begin + n * kBatch;
    if (first >= last) {
      write_empty_geometry_slots(entries, first, slots);
      continue;
    }
    load_batch(batch, entries, splat, tile);  // the barrier at the end of the batch before has come before
    splat = entries.splat_at(first - kBatch + (int)threadIdx.x);
    __syncthreads();
    drop_behind(batch, first);
    for (int word = (min(entries.end - first, kBatch) - 1) / kWarp; word >= 0; --word) {
      unsigned left = batch.touched[warp][word];
      while (left) {
        const int bit = 31 - __clz(left), j = word * kWarp + bit;
        left &= ~(1u << bit);
        const float4 a = batch.a[j], b = batch.b[j];
        const float blue = batch.c[j].x;
        float sums[kGeometrySums] = {};
#pragma unroll
        for (int k = 0; k < kPixels; ++k) {
          Pixel& p = pixels[k];
          const float alpha = alpha_at(a, b, p.x, p.y, first + j < p.last ? kLog2AlphaMin : kNever);
          if (alpha > 0.0f) add_geometry(a, b, blue, alpha, p, behind[k], sums);
        }
        int index;
        const float sum = transposed_sums(sums, &index);
        if (index >= 0) partial.of[warp][bit][index] = sum;
      }
      __syncthreads();
      write_geometry_slots(batch, partial, entries, first + word * kWarp, word, slots);
      __syncthreads();
    }
  }
}
