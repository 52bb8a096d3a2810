// SPDX-License-Identifier: Apache-2.0
// What the CUDA kernels share: a view's camera, a splat's record in that view, and when an ellipse touches a rectangle.
#pragma once

#include "../splat_math.h"

namespace potr {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kWarp = 32;

// What a statistics pass writes of each entry, for gather.cu to add up (potr/render/cuda.py: SLOT, GEOMETRY_SLOT).
constexpr int kStatistics = 5;
constexpr int kSlot = 8;           // floats, one 32-byte sector: kStatistics and padding
constexpr int kGeometrySlot = 24;  // of the geometry statistics: kGeometrySums and padding, three sectors

// A view on the device: viewmat rows [R | t], centre, fx, fy, cx, cy, width, height, background (potr/render/cuda.py).
constexpr int kViewCenter = 12;
constexpr int kViewBackground = 21;
constexpr int kViewFloats = 24;

__device__ inline Camera load_camera(const float* view) {
  Camera camera;
  for (int i = 0; i < 12; ++i) camera.viewmat[i] = view[i];
  for (int i = 0; i < 3; ++i) camera.center[i] = view[kViewCenter + i];
  camera.fx = view[15];
  camera.fy = view[16];
  camera.cx = view[17];
  camera.cy = view[18];
  camera.width = (int)view[19];
  camera.height = (int)view[20];
  return camera;
}

// A visible splat in one view, three float4: x, y, l11, l21 | l22, log2 opacity, red, green | blue, slope_x, slope_y, and
// the channels whose colour came out below 0 (bit c), as the bits of a float.
constexpr int kRecordVectors = 3;

struct alignas(8) TileRectangle {
  unsigned short x0, y0, x1, y1;  // tiles, upper bounds exclusive
};

// The ellipse on which alpha falls to 1/255, in some pixel frame.
struct Ellipse {
  float x, y, l11, l21, l22, slope_x, slope_y;
  float reach;  // log2(255 opacity) and a margin for rounding
};

__device__ inline Ellipse record_ellipse(float4 a, float4 b, float4 c) {
  return {a.x, a.y, a.z, a.w, b.x, c.y, c.z, (b.y - kLog2AlphaMin) * 1.0001f + 0.001f};
}

// Whether alpha may reach 1/255 at a pixel of the rectangle [left, left + width] x [top, top + height]: over a rectangle a
// convex quadratic is least at its centre if that is inside, else on an edge facing it: two candidates, each exact on
// its edge.
__device__ inline bool ellipse_touches(const Ellipse& s, float left, float top, float width, float height) {
  left -= s.x;
  top -= s.y;
  const float right = left + width, bottom = top + height;
  const float near_x = fminf(fmaxf(left, 0.0f), right), near_y = fminf(fmaxf(top, 0.0f), bottom);
  const float best_y = fminf(fmaxf(near_x * s.slope_y, top), bottom);
  const float best_x = fminf(fmaxf(near_y * s.slope_x, left), right);
  const float a = near_x * s.l11 + best_y * s.l21, b = best_y * s.l22;
  const float c = best_x * s.l11 + near_y * s.l21, d = near_y * s.l22;
  return fminf(a * a + b * b, c * c + d * d) <= s.reach;
}

}  // namespace potr
