// SPDX-License-Identifier: Apache-2.0
// The mathematics of one splat in one view, for every native backend. R is float, or (g++) a vector of floats with a splat
// in each lane; NVRTC compiles the same functions as device code. Formulas: Kerbl et al. 2023 (3D Gaussian Splatting),
// Zwicker et al. 2001 (EWA splatting). Frames, pixel centres and SH order: docs/conventions.md.
#pragma once

#if defined(__CUDACC__) || defined(__CUDACC_RTC__)
#define POTR_HD __host__ __device__ __forceinline__
#else
#include <math.h>
#define POTR_HD static inline __attribute__((always_inline))
#endif

namespace potr {

constexpr int kTile = 16;                    // pixels, the side of a tile
constexpr float kNearPlane = 0.2f;           // world units along the viewing direction; nearer splats are not drawn
constexpr float kMargin = 0.15f;             // of the image's side: how far outside a mean's Jacobian is still its own
constexpr float kDilation = 0.3f;            // px^2 added to the diagonal of the 2D covariance
constexpr float kAlphaMax = 0.99f;
constexpr float kAlphaMin = 1.0f / 255.0f;
constexpr float kLog2AlphaMin = -7.99435344f;  // log2(kAlphaMin)
constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.69314718f;
constexpr float kFloatMax = 3.402823466e38f;
constexpr int kMaxCoefficients = 16;         // SH coefficients of a colour channel at degree 3

// A pinhole camera; viewmat rows are [R | t], world to camera, x right, y down, z forward.
struct Camera {
  float viewmat[12];
  float center[3];
  float fx, fy, cx, cy;
  int width, height;
};

// A splat's footprint on the image: pixel-index coordinates (the first pixel's centre is 0) and the dilated covariance.
template <class R>
struct Footprint {
  R x, y, depth;
  R cov_xx, cov_xy, cov_yy, det;
};

template <class R>
POTR_HD R all_lanes(float v) { return R{} + v; }
template <class R>
POTR_HD R min_of(R a, R b) { return a < b ? a : b; }
template <class R>
POTR_HD R max_of(R a, R b) { return a > b ? a : b; }  // max_of(NaN, b) is b
template <class R>
POTR_HD R clamp_to(R v, float low, float high) {
  return min_of(max_of(v, all_lanes<R>(low)), all_lanes<R>(high));
}
template <class R>
POTR_HD R sqrt_of(R v) {
  if constexpr (sizeof(R) == sizeof(float)) {
    return sqrtf(v);
  } else {
    for (unsigned l = 0; l < sizeof(R) / sizeof(float); ++l) v[l] = sqrtf(v[l]);
    return v;
  }
}
template <class R>
POTR_HD R ceil_of(R v) {
  if constexpr (sizeof(R) == sizeof(float)) {
    return ceilf(v);
  } else {
    for (unsigned l = 0; l < sizeof(R) / sizeof(float); ++l) v[l] = ceilf(v[l]);
    return v;
  }
}

// Rotation times scale, row by row: axes[3 * i + j] is the world coordinate i of the splat's axis j, one deviation long.
POTR_HD void splat_axes(const float quat[4], const float scale[3], float axes[9]) {
  const float norm2 = quat[0] * quat[0] + quat[1] * quat[1] + quat[2] * quat[2] + quat[3] * quat[3];
  const bool usable = norm2 > 0.0f && norm2 < kFloatMax;
  const float inverse = usable ? 1.0f / sqrtf(norm2) : 0.0f;
  const float w = usable ? quat[0] * inverse : 1.0f;  // a zero quaternion is the identity
  const float x = quat[1] * inverse, y = quat[2] * inverse, z = quat[3] * inverse;
  axes[0] = (1 - 2 * (y * y + z * z)) * scale[0];
  axes[1] = 2 * (x * y - w * z) * scale[1];
  axes[2] = 2 * (x * z + w * y) * scale[2];
  axes[3] = 2 * (x * y + w * z) * scale[0];
  axes[4] = (1 - 2 * (x * x + z * z)) * scale[1];
  axes[5] = 2 * (y * z - w * x) * scale[2];
  axes[6] = 2 * (x * z - w * y) * scale[0];
  axes[7] = 2 * (y * z + w * x) * scale[1];
  axes[8] = (1 - 2 * (x * x + y * y)) * scale[2];
}

// The splat's axes projected, J W A: what moving along each axis by one deviation moves on the image, in pixels.
template <class R>
POTR_HD void project_axes(const Camera& camera, R u, R w, R inverse_z, const R axes[9], R row_x[3], R row_y[3]) {
  const float* v = camera.viewmat;
  // 1.3 tan(fov / 2) about the image centre; a principal point off the centre shifts the window with it.
  const float margin_x = kMargin * camera.width, margin_y = kMargin * camera.height;
  const R u_clamped =
      clamp_to(u, -(camera.cx + margin_x) / camera.fx, (camera.width - camera.cx + margin_x) / camera.fx);
  const R w_clamped =
      clamp_to(w, -(camera.cy + margin_y) / camera.fy, (camera.height - camera.cy + margin_y) / camera.fy);

  const R jx = camera.fx * inverse_z, jy = camera.fy * inverse_z;
  for (int j = 0; j < 3; ++j) {
    const R along_x = v[0] * axes[j] + v[1] * axes[3 + j] + v[2] * axes[6 + j];
    const R along_y = v[4] * axes[j] + v[5] * axes[3 + j] + v[6] * axes[6 + j];
    const R along_z = v[8] * axes[j] + v[9] * axes[3 + j] + v[10] * axes[6 + j];
    row_x[j] = jx * (along_x - u_clamped * along_z);
    row_y[j] = jy * (along_y - w_clamped * along_z);
  }
}

// EWA projection: cov = (J W A)(J W A)^T + dilation, with J the Jacobian of the perspective map at the splat, its x/z and
// y/z clamped to 1.3 x the field of view. The determinant is taken from the rows' cross product, so it is positive
// however thin the splat.
template <class R>
POTR_HD Footprint<R> project_splat(const Camera& camera, const R mean[3], const R axes[9]) {
  const float* v = camera.viewmat;
  const R x = v[0] * mean[0] + v[1] * mean[1] + v[2] * mean[2] + v[3];
  const R y = v[4] * mean[0] + v[5] * mean[1] + v[6] * mean[2] + v[7];
  const R z = v[8] * mean[0] + v[9] * mean[1] + v[10] * mean[2] + v[11];
  const R inverse_z = 1.0f / z;
  const R u = x * inverse_z, w = y * inverse_z;

  R row_x[3], row_y[3];
  project_axes(camera, u, w, inverse_z, axes, row_x, row_y);
  const R xx = row_x[0] * row_x[0] + row_x[1] * row_x[1] + row_x[2] * row_x[2];
  const R xy = row_x[0] * row_y[0] + row_x[1] * row_y[1] + row_x[2] * row_y[2];
  const R yy = row_y[0] * row_y[0] + row_y[1] * row_y[1] + row_y[2] * row_y[2];
  const R cross_x = row_x[1] * row_y[2] - row_x[2] * row_y[1];
  const R cross_y = row_x[2] * row_y[0] - row_x[0] * row_y[2];
  const R cross_z = row_x[0] * row_y[1] - row_x[1] * row_y[0];

  Footprint<R> f;
  f.x = camera.fx * u + (camera.cx - 0.5f);
  f.y = camera.fy * w + (camera.cy - 0.5f);
  f.depth = z;
  f.cov_xx = xx + kDilation;
  f.cov_xy = xy;
  f.cov_yy = yy + kDilation;
  f.det = cross_x * cross_x + cross_y * cross_y + cross_z * cross_z + kDilation * (xx + yy) + kDilation * kDilation;
  return f;
}

// The reference rasteriser's radius: three standard deviations along the longer axis, in whole pixels.
template <class R>
POTR_HD R footprint_radius(const Footprint<R>& f) {
  const R half_difference = 0.5f * (f.cov_xx - f.cov_yy);
  const R spread = sqrt_of(max_of(half_difference * half_difference + f.cov_xy * f.cov_xy, all_lanes<R>(0.1f)));
  return ceil_of(3.0f * sqrt_of(0.5f * (f.cov_xx + f.cov_yy) + spread));
}

// How far the ellipse on which alpha falls to 1/255 reaches from the centre along an axis, in pixels: `reach` is
// log2(255 opacity), `variance` that axis's element of the covariance. Rounding only ever makes it longer.
template <class R>
POTR_HD R footprint_extent(R reach, R variance) {
  return sqrt_of(2.0f * kLn2 * max_of(reach, R{}) * variance) * 1.00001f + 0.01f;
}

// How alpha falls off: with d = pixel - centre it is 2^(log2_opacity - |L^T d|^2), L the lower Cholesky factor of the
// inverse covariance times sqrt(log2(e) / 2). slope_x = cov_xy / cov_yy and slope_y = cov_xy / cov_xx say where alpha is
// largest along a row, along a column.
template <class R>
struct Falloff {
  R l11, l21, l22;
  R slope_x, slope_y;
};

template <class R>
POTR_HD Falloff<R> footprint_falloff(const Footprint<R>& f) {
  const R scale = all_lanes<R>(0.849321800f);  // sqrt(log2(e) / 2)
  const R inverse_yy = 1.0f / f.cov_yy;
  const R root = scale * sqrt_of(f.cov_yy / f.det);
  const R slope_x = f.cov_xy * inverse_yy;
  return {root, -root * slope_x, scale * sqrt_of(inverse_yy), slope_x, f.cov_xy / f.cov_xx};
}

// First and one-past-last tile that [center - extent, center + extent] touches, within [0, tiles], still to be truncated
// to integers. `radius` gives the reference's rectangle (its upper bound may be a tile short, which is part of the image
// formation); `extent` the exact reach of the ellipse on which alpha falls to 1/255. A splat is drawn in the intersection.
template <class R>
POTR_HD void tile_range(R center, R radius, R extent, int tiles, R* first, R* last) {
  const float n = (float)tiles, s = 1.0f / kTile;
  *first = clamp_to((center - min_of(radius, extent)) * s, 0.0f, n);
  *last = min_of(clamp_to((center + radius + (float)(kTile - 1)) * s, 0.0f, n),
                 clamp_to((center + extent) * s + 1.0f, 0.0f, n));
}

// Values of the SH basis at the unit vector (x, y, z), degree <= 3; twin of potr/model/sh.py.
template <class R>
POTR_HD void sh_basis(R x, R y, R z, int degree, R basis[kMaxCoefficients]) {
  basis[0] = all_lanes<R>(0.28209479177387814f);
  if (degree < 1) return;
  basis[1] = -0.4886025119029199f * y;
  basis[2] = 0.4886025119029199f * z;
  basis[3] = -0.4886025119029199f * x;
  if (degree < 2) return;
  const R xx = x * x, yy = y * y, zz = z * z;
  basis[4] = 1.0925484305920792f * x * y;
  basis[5] = -1.0925484305920792f * y * z;
  basis[6] = 0.31539156525252005f * (2 * zz - xx - yy);
  basis[7] = -1.0925484305920792f * x * z;
  basis[8] = 0.5462742152960396f * (xx - yy);
  if (degree < 3) return;
  basis[9] = -0.5900435899266435f * y * (3 * xx - yy);
  basis[10] = 2.890611442640554f * x * y * z;
  basis[11] = -0.4570457994644658f * y * (4 * zz - xx - yy);
  basis[12] = 0.3731763325901154f * z * (2 * zz - 3 * xx - 3 * yy);
  basis[13] = -0.4570457994644658f * x * (4 * zz - xx - yy);
  basis[14] = 1.445305721320277f * z * (xx - yy);
  basis[15] = -0.5900435899266435f * x * (xx - 3 * yy);
}

}  // namespace potr
