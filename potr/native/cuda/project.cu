// SPDX-License-Identifier: Apache-2.0
// Projection and tile lists. Compiled without contraction (nvrtc.py), so that counting and writing a splat's tiles agree to
// the last bit, and projection nearly so with the CPU's.
//
// The host sorts the splats by depth, sums up their numbers of tiles in that order, has `emit` write the tiles of each, and
// sorts the entries by tile, stably: within a tile they stay near to far. Entries beyond `capacity` are dropped; the host
// sees that from the total and does the view again.
#include "view.h"

using namespace potr;

namespace {

constexpr int kAlone = 32;  // tiles that a lane goes through by itself; larger rectangles are shared by the warp

// A function and no generic lambda, which NVRTC 13.0 takes for a host function.
template <class T>
__device__ T from_lane(T value, int lane) { return __shfl_sync(kAllLanes, value, lane); }

// Calls visit(tag, n, x, y) for the n-th tile that the splat touches in rows [row_first, row_last), row by row; returns
// how many they are. All lanes of a warp take part, each with its own splat and tag; a rectangle may be empty.
template <class Visit>
__device__ int visit_tiles(const Ellipse& own, TileRectangle rectangle, int row_first, int row_last, long long own_tag,
                           Visit visit) {
  const float size = (float)(kTile - 1);
  const int own_x0 = rectangle.x0, own_width = rectangle.x1 - rectangle.x0;
  const int own_y0 = max((int)rectangle.y0, row_first);
  const int own_area = own_width * max(min((int)rectangle.y1, row_last) - own_y0, 0);
  int count = 0;
  if (own_area <= kAlone) {
    for (int t = 0, x = own_x0, y = own_y0; t < own_area; ++t) {
      if (ellipse_touches(own, (float)(x * kTile), (float)(y * kTile), size, size)) visit(own_tag, count++, x, y);
      if (++x == own_x0 + own_width) {
        x = own_x0;
        ++y;
      }
    }
  }
  const int lane = threadIdx.x % kWarp;
  for (unsigned left = __ballot_sync(kAllLanes, own_area > kAlone); left; left &= left - 1) {
    const int source = __ffs(left) - 1;
    const Ellipse ellipse{from_lane(own.x, source),       from_lane(own.y, source),       from_lane(own.l11, source),
                          from_lane(own.l21, source),     from_lane(own.l22, source),     from_lane(own.slope_x, source),
                          from_lane(own.slope_y, source), from_lane(own.reach, source)};
    const long long tag = from_lane(own_tag, source);
    const int x0 = from_lane(own_x0, source), y0 = from_lane(own_y0, source);
    const int width = from_lane(own_width, source), area = from_lane(own_area, source);
    int total = 0;
    for (int first = 0; first < area; first += kWarp) {
      const int t = first + lane, x = x0 + t % width, y = y0 + t / width;
      const bool touched = t < area && ellipse_touches(ellipse, (float)(x * kTile), (float)(y * kTile), size, size);
      const unsigned hits = __ballot_sync(kAllLanes, touched);
      if (touched) visit(tag, total + __popc(hits & ((1u << lane) - 1)), x, y);
      total += __popc(hits);
    }
    if (lane == source) count = total;
  }
  return count;
}

__device__ Ellipse load_ellipse(const float4* records, long long i) {
  return record_ellipse(records[kRecordVectors * i], records[kRecordVectors * i + 1], records[kRecordVectors * i + 2]);
}

// log2(sigmoid(logit)) without overflow or cancellation.
__device__ float log2_sigmoid(float logit) { return (fminf(logit, 0.0f) - log1pf(expf(-fabsf(logit)))) * kLog2E; }

__device__ long long thread_index() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

}  // namespace

// One splat per thread. depth_keys sort as integers, 0x7fffffff where the splat is not visible; then its rectangle is
// empty, its number of tiles 0 and its record not written.
extern "C" __global__ void __launch_bounds__(256)
project(const float* view, long long tiles_x, long long tiles_y, long long num_splats, long long sh_degree,
        const float* means, const float* log_scales, const float* quats, const float* opacity_logits, const float* sh_dc,
        const float* sh_ac, float4* records, TileRectangle* rectangles, int* depth_keys, int* num_tiles) {
  const long long i = thread_index();
  Ellipse ellipse{};
  TileRectangle rectangle{};
  int key = 0x7fffffff;
  const Camera camera = load_camera(view);
  if (i < num_splats) {
    const float mean[3] = {means[3 * i], means[3 * i + 1], means[3 * i + 2]};
    const float scale[3] = {expf(log_scales[3 * i]), expf(log_scales[3 * i + 1]), expf(log_scales[3 * i + 2])};
    const float quat[4] = {quats[4 * i], quats[4 * i + 1], quats[4 * i + 2], quats[4 * i + 3]};
    float axes[9];
    splat_axes(quat, scale, axes);
    const float log2_opacity = log2_sigmoid(opacity_logits[i]);
    const Footprint<float> f = project_splat(camera, mean, axes);
    const float reach = log2_opacity - kLog2AlphaMin;
    const float radius = footprint_radius(f);
    float first_x, first_y, last_x, last_y;
    tile_range(f.x, radius, footprint_extent(reach, f.cov_xx), (int)tiles_x, &first_x, &last_x);
    tile_range(f.y, radius, footprint_extent(reach, f.cov_yy), (int)tiles_y, &first_y, &last_y);
    const bool drawable = f.depth > kNearPlane && f.det < kFloatMax && f.cov_xx < kFloatMax && f.cov_yy < kFloatMax &&
                          reach >= 0.0f && (int)first_x < (int)last_x && (int)first_y < (int)last_y;
    if (drawable) {
      const Falloff<float> falloff = footprint_falloff(f);
      const float dx = mean[0] - camera.center[0], dy = mean[1] - camera.center[1], dz = mean[2] - camera.center[2];
      const float inverse = 1.0f / sqrtf(dx * dx + dy * dy + dz * dz);
      float basis[kMaxCoefficients];
      sh_basis(dx * inverse, dy * inverse, dz * inverse, (int)sh_degree, basis);
      float color[3];
      for (int c = 0; c < 3; ++c) color[c] = 0.5f + basis[0] * sh_dc[3 * i + c];
      const int num_ac = (int)((sh_degree + 1) * (sh_degree + 1) - 1);
      const float* ac = sh_ac + i * num_ac * 3;
#pragma unroll
      for (int band = 1; band <= 3; ++band) {  // one at a time, so that a band's coefficients are all asked for at once
        if (band > sh_degree) break;
#pragma unroll
        for (int k = band * band; k < (band + 1) * (band + 1); ++k)
          for (int c = 0; c < 3; ++c) color[c] += basis[k] * ac[3 * (k - 1) + c];
      }
      unsigned clamped = 0;
      for (int c = 0; c < 3; ++c) {
        clamped |= (unsigned)(color[c] < 0.0f) << c;
        color[c] = max_of(color[c], 0.0f);
      }
      const float4 a = make_float4(f.x, f.y, falloff.l11, falloff.l21);
      const float4 b = make_float4(falloff.l22, log2_opacity, color[0], color[1]);
      const float4 c = make_float4(color[2], falloff.slope_x, falloff.slope_y, __uint_as_float(clamped));
      records[kRecordVectors * i] = a;
      records[kRecordVectors * i + 1] = b;
      records[kRecordVectors * i + 2] = c;
      ellipse = record_ellipse(a, b, c);
      rectangle = {(unsigned short)first_x, (unsigned short)first_y, (unsigned short)last_x, (unsigned short)last_y};
      key = __float_as_int(f.depth);  // a positive float's bits sort as an integer
    }
  }
  const int count = visit_tiles(ellipse, rectangle, 0, (int)tiles_y, 0, [](long long, int, int, int) {});
  if (i >= num_splats) return;
  rectangles[i] = rectangle;
  num_tiles[i] = count;
  depth_keys[i] = count ? key : 0x7fffffff;
}

// The tiles of each splat in rows [row_first, row_last).
extern "C" __global__ void __launch_bounds__(256)
count_tiles(long long row_first, long long row_last, long long num_splats, const float4* records,
            const TileRectangle* rectangles, int* num_tiles) {
  const long long i = thread_index();
  Ellipse ellipse{};
  TileRectangle rectangle{};
  if (i < num_splats) rectangle = rectangles[i];
  if (rectangle.x0 < rectangle.x1) ellipse = load_ellipse(records, i);
  const int count =
      visit_tiles(ellipse, rectangle, (int)row_first, (int)row_last, 0, [](long long, int, int, int) {});
  if (i < num_splats) num_tiles[i] = count;
}

// Adds to row_totals[y] the entries of tile row y.
extern "C" __global__ void __launch_bounds__(256)
count_rows(long long tiles_y, long long num_splats, const float4* records, const TileRectangle* rectangles,
           unsigned long long* row_totals) {
  const long long i = thread_index();
  Ellipse ellipse{};
  TileRectangle rectangle{};
  if (i < num_splats) rectangle = rectangles[i];
  if (rectangle.x0 < rectangle.x1) ellipse = load_ellipse(records, i);
  visit_tiles(ellipse, rectangle, 0, (int)tiles_y, 0,
              [&](long long, int, int, int y) { atomicAdd(&row_totals[y], 1ull); });
}

// Writes each splat's entries in rows [row_first, row_last): the tile, counted from the first of those rows, and the splat.
// Splats come in the order `order`; ends[r] is the number of entries up to and with the r-th. Exactly one of keys16 and
// keys32 is not null. first_entry[i] is where splat i's entries begin.
extern "C" __global__ void __launch_bounds__(256)
emit(long long row_first, long long row_last, long long tiles_x, long long num_splats, long long capacity,
     const float4* records, const TileRectangle* rectangles, const int* num_tiles, const long long* order,
     const long long* ends, short* keys16, int* keys32, int* entry_splats, int* first_entry) {
  const long long r = thread_index();
  Ellipse ellipse{};
  TileRectangle rectangle{};
  long long begin = 0;
  int i = 0;
  if (r < num_splats) {
    i = (int)order[r];
    const int count = num_tiles[i];
    begin = min(ends[r] - count, capacity);
    if (count) {
      rectangle = rectangles[i];
      ellipse = load_ellipse(records, i);
    }
    first_entry[i] = (int)begin;
  }
  // capacity is below 2^31, so where the entries begin and whose they are fit one tag.
  const long long own_tag = begin << 32 | i;
  visit_tiles(ellipse, rectangle, (int)row_first, (int)row_last, own_tag, [&](long long tag, int n, int x, int y) {
    const long long entry = (tag >> 32) + n;
    if (entry >= capacity) return;
    const int tile = (int)((y - row_first) * tiles_x + x);
    if (keys16) keys16[entry] = (short)tile;
    else keys32[entry] = tile;
    entry_splats[entry] = (int)(tag & 0xffffffff);
  });
}

// Where each tile's entries begin among the sorted ones: the first that is not less, for tiles 0 .. num_tiles.
extern "C" __global__ void __launch_bounds__(256)
tile_begins(long long num_tiles, long long num_entries, const short* keys16, const int* keys32, int* begins) {
  const long long tile = thread_index();
  if (tile > num_tiles) return;
  long long low = 0, high = num_entries;
  while (low < high) {
    const long long middle = (low + high) / 2;
    const long long key = keys16 ? keys16[middle] : keys32[middle];
    if (key < tile) low = middle + 1;
    else high = middle;
  }
  begins[tile] = (int)low;
}
