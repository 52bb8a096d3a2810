// SPDX-License-Identifier: Apache-2.0
// One vector register of floats, as wide as the instruction set this is compiled for. GCC vector types carry the
// arithmetic; what they have no operator for, or g++ compiles badly, is spelt with intrinsics here. Everything has internal
// linkage: the same header is compiled for several instruction sets into one module.
#pragma once

#include <cstdint>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define POTR_LANES 16
#elif defined(__AVX2__)
#define POTR_LANES 8
#else
#define POTR_LANES 4
#endif

namespace potr::POTR_ISA {
namespace {

constexpr int kLanes = POTR_LANES;
typedef float F __attribute__((vector_size(4 * POTR_LANES)));
typedef int32_t I __attribute__((vector_size(4 * POTR_LANES)));

inline F broadcast(float v) { return v - F{}; }
inline F load(const float* aligned) { return *(const F*)aligned; }
inline void store(float* aligned, F v) { *(F*)aligned = v; }

#if POTR_LANES == 16
inline F min(F a, F b) { return (F)_mm512_min_ps((__m512)a, (__m512)b); }
inline F max(F a, F b) { return (F)_mm512_max_ps((__m512)a, (__m512)b); }
#elif POTR_LANES == 8
inline F min(F a, F b) { return (F)_mm256_min_ps((__m256)a, (__m256)b); }
inline F max(F a, F b) { return (F)_mm256_max_ps((__m256)a, (__m256)b); }
#elif defined(__SSE2__)
inline F min(F a, F b) { return (F)_mm_min_ps((__m128)a, (__m128)b); }
inline F max(F a, F b) { return (F)_mm_max_ps((__m128)a, (__m128)b); }
#else
inline F min(F a, F b) { return a < b ? a : b; }
inline F max(F a, F b) { return a > b ? a : b; }
#endif

// One bit per lane: a >= b.
inline uint32_t at_least(F a, F b) {
#if POTR_LANES == 16
  return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#elif POTR_LANES == 8
  return (uint32_t)_mm256_movemask_ps((__m256)(a >= b));
#elif defined(__SSE2__)
  return (uint32_t)_mm_movemask_ps((__m128)(a >= b));
#else
  const I mask = a >= b;
  uint32_t result = 0;
  for (int l = 0; l < kLanes; ++l) result |= (uint32_t)(mask[l] & 1) << l;
  return result;
#endif
}

// One bit per lane: a > 0.
inline uint32_t positive(F a) {
#if POTR_LANES == 16
  return _mm512_cmp_ps_mask((__m512)a, _mm512_setzero_ps(), _CMP_GT_OQ);
#elif POTR_LANES == 8
  return (uint32_t)_mm256_movemask_ps((__m256)(a > 0.0f));
#elif defined(__SSE2__)
  return (uint32_t)_mm_movemask_ps((__m128)(a > 0.0f));
#else
  return ~at_least(F{}, a) & ((1u << kLanes) - 1);
#endif
}

typedef float F4 __attribute__((vector_size(16)));

#if POTR_LANES == 16
inline F4 fold(F v) {  // lanes 0..3 of v plus 4..7 plus 8..11 plus 12..15
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
  return (F4)_mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
inline F4 fold_max(F v) {
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
  return (F4)_mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
#elif POTR_LANES == 8
inline F4 fold(F v) {
  return (F4)_mm_add_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
}
inline F4 fold_max(F v) {
  return (F4)_mm_max_ps(_mm256_castps256_ps128((__m256)v), _mm256_extractf128_ps((__m256)v, 1));
}
#else
inline F4 fold(F v) { return v; }
inline F4 fold_max(F v) { return v; }
#endif

// The four vectors' sums over their lanes.
inline F4 sums(F a, F b, F c, F d) {
  const F4 p = fold(a), q = fold(b), r = fold(c), s = fold(d);
  const F4 pq = __builtin_shufflevector(p, q, 0, 4, 1, 5) + __builtin_shufflevector(p, q, 2, 6, 3, 7);
  const F4 rs = __builtin_shufflevector(r, s, 0, 4, 1, 5) + __builtin_shufflevector(r, s, 2, 6, 3, 7);
  return __builtin_shufflevector(pq, rs, 0, 1, 4, 5) + __builtin_shufflevector(pq, rs, 2, 3, 6, 7);
}

inline float largest(F v) {
  const F4 f = fold_max(v);
  const float a = f[0] > f[1] ? f[0] : f[1], b = f[2] > f[3] ? f[2] : f[3];
  return a > b ? a : b;
}

// 2^p for |p| < 2^22 and results in range: round to nearest, degree-5 minimax polynomial on [-0.5, 0.5] (relative
// error 1e-7), exponent added as an integer.
inline F exp2_of(F p) {
  const F magic = broadcast(12582912.0f);  // 1.5 x 2^23: the sum's low bits are round(p)
  const F shifted = p + magic;
  const F f = p - (shifted - magic);
  F r = broadcast(0.001326472731307149f);
  r = r * f + 0.009671512991189957f;
  r = r * f + 0.05550733581185341f;
  r = r * f + 0.24022242426872253f;
  r = r * f + 0.6931470036506653f;
  r = r * f + 1.0f;
  return (F)((I)r + ((I)shifted << 23));
}

}  // namespace
}  // namespace potr::POTR_ISA
