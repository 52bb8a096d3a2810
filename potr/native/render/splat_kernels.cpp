// SPDX-License-Identifier: Apache-2.0
// What is done splat by splat: projection, one splat per lane, and the sums of colour samples. Compiled once per
// instruction set with POTR_ISA naming the namespace.
#include "rasterize_kernels.h"
#include "simd.h"

namespace potr::POTR_ISA {

int64_t project(const ProjectTask& task, int64_t first, int64_t last, uint32_t* keys, uint32_t* indices) {
  const Camera& camera = task.camera;
  const int degree = task.model.sh_degree;
  const int num_coefficients = (degree + 1) * (degree + 1);
  int64_t visible_count = 0;
  for (int64_t lane = first * kBlock; lane < last * kBlock; lane += kLanes) {
    const float* rows = task.model.blocks + lane / kBlock * task.model.rows * kBlock + lane % kBlock;
    F mean[3], axes[9];
    for (int i = 0; i < 3; ++i) mean[i] = load(rows + i * kBlock);
    for (int i = 0; i < 9; ++i) axes[i] = load(rows + (3 + i) * kBlock);
    const F log2_opacity = load(rows + 12 * kBlock);
    const Footprint<F> f = project_splat(camera, mean, axes);
    const F reach = log2_opacity - kLog2AlphaMin;  // log2(255 opacity): alpha >= 1/255 where |L^T d|^2 <= reach
    const F radius = footprint_radius(f);
    F first_x, first_y, last_x, last_y;
    tile_range(f.x, radius, footprint_extent(reach, f.cov_xx), task.tiles_x, &first_x, &last_x);
    tile_range(f.y, radius, footprint_extent(reach, f.cov_yy), task.tiles_y, &first_y, &last_y);
    const I x0 = __builtin_convertvector(first_x, I), x1 = __builtin_convertvector(last_x, I);
    const I y0 = __builtin_convertvector(first_y, I), y1 = __builtin_convertvector(last_y, I);
    const I visible = (f.depth > kNearPlane) & (f.det < kFloatMax) & (f.cov_xx < kFloatMax) & (f.cov_yy < kFloatMax) &
                      (reach >= 0.0f) & (x0 < x1) & (y0 < y1);
    uint32_t left = at_least((F)(visible & (I)broadcast(1.0f)), broadcast(1.0f));
    if (!left) continue;

    const Falloff<F> falloff = footprint_falloff(f);
    const F dx = mean[0] - camera.center[0], dy = mean[1] - camera.center[1], dz = mean[2] - camera.center[2];
    const F inverse = 1.0f / sqrt_of(dx * dx + dy * dy + dz * dz);
    F basis[kMaxCoefficients];
    sh_basis(dx * inverse, dy * inverse, dz * inverse, degree, basis);
    F color[3] = {broadcast(0.5f), broadcast(0.5f), broadcast(0.5f)};
    const float* sh = rows + kGeometryRows * kBlock;
    for (int k = 0; k < num_coefficients; ++k)
      for (int c = 0; c < 3; ++c) color[c] += basis[k] * load(sh + (3 * k + c) * kBlock);
    I clamped{};
    for (int c = 0; c < 3; ++c) {
      clamped |= (color[c] < 0.0f) & (1 << c);
      color[c] = max_of(color[c], F{});
    }
    const F values[11] = {f.x,         f.y,          falloff.l11,     falloff.l21,     falloff.l22, log2_opacity,
                          falloff.slope_x, falloff.slope_y, color[0], color[1], color[2]};
    for (; left; left &= left - 1) {
      const int l = __builtin_ctz(left);
      Splat& s = task.splats[lane + l];
      float lane_values[11];
      for (int i = 0; i < 11; ++i) lane_values[i] = values[i][l];
      __builtin_memcpy((void*)&s, lane_values, sizeof lane_values);
      s.clamped = (uint32_t)clamped[l];
      s.tiles = {(uint16_t)x0[l], (uint16_t)y0[l], (uint16_t)x1[l], (uint16_t)y1[l]};
      task.tiles[lane + l] = s.tiles;
      const float depth = f.depth[l];
      __builtin_memcpy(&keys[visible_count], &depth, 4);  // a positive float's bits sort as an integer
      indices[visible_count] = (uint32_t)(lane + l);
      ++visible_count;
    }
  }
  return visible_count;
}

void add_color_samples(const ColorSample* samples, int count, int degree, float* hessian, float* gradient) {
  const int K = (degree + 1) * (degree + 1);
  alignas(64) float basis[kColorBatch][kMaxCoefficients] = {};
  for (int v = 0; v < count; ++v) {
    const float* d = samples[v].direction;
    sh_basis(d[0], d[1], d[2], degree, basis[v]);
  }
  for (int a = 0; a < K; ++a) {
    alignas(64) float row[kMaxCoefficients];
    for (int b = 0; b <= a; b += kLanes) {
      F sum{};
      for (int v = 0; v < count; ++v) sum += load(basis[v] + b) * (samples[v].weight * basis[v][a]);
      store(row + b, sum);
    }
    for (int b = 0; b <= a; ++b) *hessian++ += row[b];
    for (int c = 0; c < 3; ++c) {
      float sum = 0;
      for (int v = 0; v < count; ++v) sum += samples[v].gradient[c] * basis[v][a];
      gradient[3 * a + c] += sum;
    }
  }
}

}  // namespace potr::POTR_ISA
