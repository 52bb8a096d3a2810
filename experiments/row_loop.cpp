// SPDX-License-Identifier: Apache-2.0
// What bench_rasterizer.py measures the cpu backend against: the plain way to write a fast rasteriser in C++. Same
// mathematics and depth order, the reference's 3-sigma tile rectangles, one row of a tile at a time in a loop that the
// compiler vectorises. Compiled by the benchmark with -O3 -march=native; no part of the package.
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <vector>

#include "splat_math.h"

using namespace potr;

namespace {

struct Drawn {
  float x, y, a, b, c, opacity, color[3], depth;
  int x0, x1, y0, y1;
};

inline float exp_of(float v) {  // 2^(v log2 e), the same polynomial as the backend's
  const float p = v * kLog2E, shifted = p + 12582912.0f, f = p - (shifted - 12582912.0f);
  float r = 0.001326472731307149f;
  r = r * f + 0.009671512991189957f;
  r = r * f + 0.05550733581185341f;
  r = r * f + 0.24022242426872253f;
  r = r * f + 0.6931470036506653f;
  r = r * f + 1.0f;
  int32_t bits, exponent;
  std::memcpy(&bits, &r, 4);
  std::memcpy(&exponent, &shifted, 4);
  bits += (int32_t)((uint32_t)exponent << 23);
  std::memcpy(&r, &bits, 4);
  return r;
}

}  // namespace

extern "C" void render_rows(int64_t n, const float* means, const float* scales, const float* quats,
                            const float* opacities, const float* sh, const Camera* camera, int threads, float* image) {
  const int tiles_x = (camera->width + kTile - 1) / kTile, tiles_y = (camera->height + kTile - 1) / kTile;
  std::vector<Drawn> splats(n);
#pragma omp parallel for num_threads(threads) schedule(static, 1024)
  for (int64_t i = 0; i < n; ++i) {
    Drawn& s = splats[i];
    float axes[9], basis[kMaxCoefficients];
    splat_axes(quats + 4 * i, scales + 3 * i, axes);
    const Footprint<float> f = project_splat(*camera, means + 3 * i, axes);
    const float radius = footprint_radius(f);
    float x0, x1, y0, y1;
    tile_range(f.x, radius, radius, tiles_x, &x0, &x1);
    tile_range(f.y, radius, radius, tiles_y, &y0, &y1);
    s.x0 = (int)x0;
    s.x1 = (int)x1;
    s.y0 = (int)y0;
    s.y1 = (int)y1;
    if (!(f.depth > kNearPlane) || !(f.det < kFloatMax)) s.x1 = s.x0;
    if (s.x0 >= s.x1 || s.y0 >= s.y1) continue;
    s.x = f.x;
    s.y = f.y;
    s.a = f.cov_yy / f.det;
    s.b = -f.cov_xy / f.det;
    s.c = f.cov_xx / f.det;
    s.opacity = opacities[i];
    s.depth = f.depth;
    float d[3], norm = 0;
    for (int c = 0; c < 3; ++c) norm += (d[c] = means[3 * i + c] - camera->center[c]) * d[c];
    norm = 1 / std::sqrt(norm);
    sh_basis(d[0] * norm, d[1] * norm, d[2] * norm, 3, basis);
    for (int c = 0; c < 3; ++c) {
      float color = 0.5f;
      for (int k = 0; k < kMaxCoefficients; ++k) color += basis[k] * sh[(i * kMaxCoefficients + k) * 3 + c];
      s.color[c] = std::max(color, 0.0f);
    }
  }
  std::vector<uint32_t> order;
  for (int64_t i = 0; i < n; ++i)
    if (splats[i].x0 < splats[i].x1 && splats[i].y0 < splats[i].y1) order.push_back(i);
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return splats[a].depth < splats[b].depth; });
  std::vector<std::vector<uint32_t>> tiles(tiles_x * tiles_y);
  for (const uint32_t i : order)
    for (int y = splats[i].y0; y < splats[i].y1; ++y)
      for (int x = splats[i].x0; x < splats[i].x1; ++x) tiles[y * tiles_x + x].push_back(i);

#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
  for (int tile = 0; tile < tiles_x * tiles_y; ++tile) {
    const int left = tile % tiles_x * kTile, top = tile / tiles_x * kTile;
    alignas(64) float transmittance[kTile][kTile], color[3][kTile][kTile] = {};
    float running[kTile][kTile];  // 1 until the pixel stops
    for (auto& row : transmittance) std::fill_n(row, kTile, 1.0f);
    for (auto& row : running) std::fill_n(row, kTile, 1.0f);
    int entry = 0;
    for (const uint32_t i : tiles[tile]) {
      const Drawn& s = splats[i];
      for (int y = 0; y < kTile; ++y) {
        const float dy = top + y - s.y, cyy = -0.5f * s.c * dy * dy, by = -s.b * dy;
        for (int x = 0; x < kTile; ++x) {
          const float dx = left + x - s.x;
          const float power = (-0.5f * s.a * dx + by) * dx + cyy;
          const float alpha = std::min(s.opacity * exp_of(std::max(power, -80.0f)), kAlphaMax);
          const float t = transmittance[y][x], after = t - t * alpha;
          const float drawn = alpha >= kAlphaMin ? 1.0f : 0.0f;
          const float goes_on = after >= 1e-4f ? 1.0f : 0.0f;
          const float blends = drawn * goes_on * running[y][x];
          const float weight = blends * t * alpha;
          for (int c = 0; c < 3; ++c) color[c][y][x] += weight * s.color[c];
          running[y][x] *= 1.0f - drawn * (1.0f - goes_on);
          transmittance[y][x] = blends > 0.0f ? after : t;
        }
      }
      if (++entry % 32 == 0) {  // all pixels stopped?
        float any = 0;
        for (const auto& row : running)
          for (const float r : row) any += r;
        if (any == 0) break;
      }
    }
    for (int y = 0; y < kTile && top + y < camera->height; ++y)
      for (int x = 0; x < kTile && left + x < camera->width; ++x)
        for (int c = 0; c < 3; ++c)
          image[((int64_t)(top + y) * camera->width + left + x) * 3 + c] = color[c][y][x];
  }
}
