// SPDX-License-Identifier: Apache-2.0
// The inner loops of the CPU rasteriser, compiled once per instruction set (rasterize_kernels.cpp, splat_kernels.cpp) and
// chosen at run time. Plain pointers only: nothing here may instantiate a standard-library template, or the linker could
// keep the copy that was compiled for a newer instruction set than the machine has.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../geometry_math.h"
#include "../splat_math.h"

namespace potr {

constexpr int kBlock = 16;           // splats that lie together in the model's layout
constexpr int kTilePixels = kTile * kTile;
constexpr int kGeometryRows = 13;    // mean 3, axes 9, log2 opacity 1; then 3 rows per SH coefficient
constexpr float kNeverDrawn = -1e30f;  // log2 opacity of padding

// The model laid out for projection: blocks of kBlock splats, each `rows` rows of kBlock floats.
struct ModelLayout {
  const float* blocks;
  int64_t rows;
  int64_t num_splats;
  int64_t num_blocks;
  int sh_degree;
};

struct TileRectangle {
  uint16_t x0, y0, x1, y1;  // tiles, upper bounds exclusive
};

// What blending needs to know of one splat in one view. With d = pixel - (x, y) its alpha is
// 2^(log2_opacity - |L^T d|^2), L the lower Cholesky factor of the inverse covariance times sqrt(log2(e) / 2).
struct alignas(64) Splat {
  float x, y;
  float l11, l21, l22;
  float log2_opacity;
  float slope_x, slope_y;  // cov_xy / cov_yy and cov_xy / cov_xx: where alpha is largest along a row, along a column
  float color[3];          // clamped at 0; up to here `project` writes as one array of 11 floats
  uint32_t clamped;        // bit c: channel c came out below 0
  TileRectangle tiles;
  uint32_t first_slot;     // of its statistics slots, one per tile of its rectangle, row by row
};
static_assert(sizeof(Splat) == 64 && offsetof(Splat, clamped) == 11 * sizeof(float));

struct ProjectTask {
  ModelLayout model;
  Camera camera;
  int tiles_x, tiles_y;
  Splat* splats;          // [num_splats]
  TileRectangle* tiles;   // [num_splats]
};

constexpr int kRemovalSlot = 5;  // delta_sse, render_sse, contribution, peak, pixels
constexpr int kColorSlot = 5;    // sum (T a)^2, sum T a (C - g) of R, G, B, sum T a
constexpr int kGeometrySlot = kGeometrySums;

struct TileTask {
  const Splat* splats;
  const uint32_t* entries;   // splat indices, near to far
  int64_t num_entries;
  int tile_x, tile_y;        // in tiles
  int width, height;         // of the image
  float background[3];
  float transmittance_min;
  float* image;              // [height, width, 3] or null
  const float* photo;        // [height, width, 3], statistics only
  float* slots;              // [number of slots, kRemovalSlot or kColorSlot], statistics only
  void* tape;                // tape_bytes_per_entry x num_entries, 64-byte aligned, statistics only
};

// How one view sees one splat's colour: sum (T a)^2, and sum T a (C - g) of the channels that are not clamped.
struct ColorSample {
  float direction[3];  // unit, camera to splat
  float weight;
  float gradient[3];
  float unused;
};
constexpr int kColorBatch = 8;  // samples of a splat that are added up at once

struct Kernels {
  const char* name;
  // Projects blocks [first, last); writes depth keys and indices of the visible splats, returns how many.
  int64_t (*project)(const ProjectTask&, int64_t first, int64_t last, uint32_t* keys, uint32_t* indices);
  void (*render_tile)(const TileTask&);
  double (*removal_tile)(const TileTask&);  // returns the tile's squared error
  double (*color_tile)(const TileTask&);
  double (*geometry_tile)(const TileTask&);
  // Adds count <= kColorBatch samples of a splat to its [K(K+1)/2] Hessian and [K, 3] gradient.
  void (*add_color_samples)(const ColorSample*, int count, int sh_degree, float* hessian, float* gradient);
  int64_t tape_bytes_per_entry;
};

namespace x86_64_v2 { extern const Kernels kernels; }
namespace x86_64_v3 { extern const Kernels kernels; }
namespace x86_64_v4 { extern const Kernels kernels; }
namespace generic { extern const Kernels kernels; }

}  // namespace potr
