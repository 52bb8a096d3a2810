// SPDX-License-Identifier: Apache-2.0
// Geometry statistics: from sums over the pixels of one view to those by change of the splat in space, the ten changes of
// GeometryStatistics in potr/render/base.py. Compiled by g++ and, as device code, by NVRTC.
#pragma once

#include "splat_math.h"

namespace potr {

// With w = T a the weight, D = w (B - c) the change on removal and (p, q) = L^T d: six sums of -D e times the monomials
// 1, p, q, p^2, pq, q^2; then fifteen moments, of w |B - c|^2 times those up to degree 4, 1, p, q, p^2, pq, q^2, p^3, ...
constexpr int kGeometryGradients = 6;
constexpr int kGeometryMoments = 15;
constexpr int kGeometrySums = kGeometryGradients + kGeometryMoments;
constexpr int kGeometryChanges = 10;
constexpr int kGeometryTriangle = kGeometryChanges * (kGeometryChanges + 1) / 2;

// How a view sees one axis of a splat: t = by_p p + by_q q is 2 ln 2 (J W M)^T L (p, q), and `nearer` by how much, as a
// share of the depth, a shift of one deviation along the axis brings the splat.
struct GeometryAxis {
  double by_p, by_q, nearer;
};

POTR_HD void geometry_axes(const Camera& camera, const float mean[3], const float axes[9], float l11, float l21, float l22,
                           GeometryAxis seen[3]) {
  const float* m = camera.viewmat;
  const float x = m[0] * mean[0] + m[1] * mean[1] + m[2] * mean[2] + m[3];
  const float y = m[4] * mean[0] + m[5] * mean[1] + m[6] * mean[2] + m[7];
  const float z = m[8] * mean[0] + m[9] * mean[1] + m[10] * mean[2] + m[11];
  float row_x[3], row_y[3];
  project_axes(camera, x / z, y / z, 1.0f / z, axes, row_x, row_y);
  for (int c = 0; c < 3; ++c) {
    seen[c].by_p = 2 * kLn2 * ((double)row_x[c] * l11 + (double)row_y[c] * l21);
    seen[c].by_q = 2 * kLn2 * (double)row_y[c] * l22;
    seen[c].nearer = -(m[8] * axes[c] + m[9] * axes[3 + c] + m[10] * axes[6 + c]) / z;
  }
}

// How the logarithm of alpha answers to one of the changes: the coefficients of 1, p, q, p^2, pq, q^2.
POTR_HD void geometry_response(const GeometryAxis seen[3], int change, double response[kGeometryGradients]) {
  for (int k = 0; k < kGeometryGradients; ++k) response[k] = 0;
  if (change == 0) {  // log opacity
    response[0] = 1;
  } else if (change < 4) {  // a shift
    const GeometryAxis& axis = seen[change - 1];
    double squared[3] = {};  // of |t|^2: the coefficients of p^2, pq, q^2
    for (int c = 0; c < 3; ++c) {
      squared[0] += seen[c].by_p * seen[c].by_p;
      squared[1] += 2 * seen[c].by_p * seen[c].by_q;
      squared[2] += seen[c].by_q * seen[c].by_q;
    }
    response[1] = axis.by_p;
    response[2] = axis.by_q;
    for (int k = 0; k < 3; ++k) response[3 + k] = axis.nearer * squared[k];
  } else {  // a strain: xx, yy, zz, xy, xz, yz
    const int e = change - 4;
    const GeometryAxis& a = seen[e < 3 ? e : e == 5];
    const GeometryAxis& b = seen[e < 3 ? e : e == 3 ? 1 : 2];
    const double twice = e < 3 ? 1 : 2;
    response[3] = twice * a.by_p * b.by_p;
    response[4] = twice * (a.by_p * b.by_q + a.by_q * b.by_p);
    response[5] = twice * a.by_q * b.by_q;
  }
}

// Where the moment of the product of two of the monomials 1, p, q, p^2, pq, q^2 is.
POTR_HD int geometry_moment(int k, int l) {
  const int degree_k = (k > 0) + (k > 2), degree_l = (l > 0) + (l > 2), degree = degree_k + degree_l;
  const int powers_of_q = k - degree_k * (degree_k + 1) / 2 + l - degree_l * (degree_l + 1) / 2;
  return degree * (degree + 1) / 2 + powers_of_q;
}

POTR_HD double geometry_dot(const double a[kGeometryGradients], const double b[kGeometryGradients]) {
  double sum = 0;
  for (int k = 0; k < kGeometryGradients; ++k) sum += a[k] * b[k];
  return sum;
}

// Element l of a response times the symmetric matrix of the moments.
POTR_HD double geometry_times_moments(const double response[kGeometryGradients], const double moments[kGeometryMoments],
                                      int l) {
  double sum = 0;
  for (int k = 0; k < kGeometryGradients; ++k) sum += response[k] * moments[geometry_moment(k, l)];
  return sum;
}

}  // namespace potr
