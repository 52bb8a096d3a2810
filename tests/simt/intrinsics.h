// SPDX-License-Identifier: Apache-2.0
// CUDA's built-in device functions, for threads that are fibres (fibres.h); meaning as in the CUDA C++ Programming
// Guide, except that a warp's mask must be full. What CUDA does not overload is not overloaded here. Part of simt.h.
#pragma once

#include <math.h>

#include "fibres.h"

namespace simt {

template <class To, class From>
inline To bits(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &value, sizeof to);
  return to;
}

inline void require_full(unsigned mask, const Site& site) {
  if (mask != 0xffffffffu)
    current->fail_thread("%s (%s:%d) with mask 0x%08x; expected all lanes", site.what, base_name(site.file), site.line,
                         mask);
}

// Combines one value of each lane of the warp; every lane gets the result.
template <class Combine>
inline uint64_t reduce_warp(unsigned mask, uint64_t value, const Site& site, Combine combine) {
  require_full(mask, site);
  Warp& warp = current->warp();
  const unsigned generation = warp.generation;
  uint64_t& result = warp.reduced[generation];
  result = warp.arrived++ == 0 ? value : combine(result, value);
  current->wait(site);
  return result;
}

inline uint64_t add(uint64_t a, uint64_t b) { return a + b; }

// Sum of one value of each thread of the block.
inline uint64_t sum_block(uint64_t value, const Site& site) {
  uint64_t& result = current->reduced[current->generation];
  result = current->arrived++ == 0 ? value : result + value;
  current->wait(site);
  return result;
}

// Every lane shows a value; `source` says whose the lane gets.
template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, const Site& site) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles values of 4 or 8 bytes");
  require_full(mask, site);
  Warp& warp = current->warp();
  const unsigned generation = warp.generation;
  memcpy(&warp.values[generation][current->lane()], &value, sizeof value);
  current->wait(site);
  memcpy(&value, &warp.values[generation][source], sizeof value);
  return value;
}

}  // namespace simt

#define SIMT_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define SIMT_SITE(scope) simt::Site{simt::Scope::scope, __func__, file, line}

inline void __syncthreads(SIMT_AT) { simt::current->wait(SIMT_SITE(kBlock)); }
inline int __syncthreads_count(int v, SIMT_AT) { return (int)simt::sum_block(v != 0, SIMT_SITE(kBlock)); }
inline int __syncthreads_or(int v, SIMT_AT) { return simt::sum_block(v != 0, SIMT_SITE(kBlock)) != 0; }
inline int __syncthreads_and(int v, SIMT_AT) { return simt::sum_block(v == 0, SIMT_SITE(kBlock)) == 0; }

inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_AT) {
  simt::require_full(mask, SIMT_SITE(kWarp));
  simt::current->wait(SIMT_SITE(kWarp));
}
inline unsigned __ballot_sync(unsigned mask, int v, SIMT_AT) {
  return (unsigned)simt::reduce_warp(mask, uint64_t(v != 0) << simt::current->lane(), SIMT_SITE(kWarp), simt::add);
}
inline int __any_sync(unsigned mask, int v, SIMT_AT) {
  return simt::reduce_warp(mask, v != 0, SIMT_SITE(kWarp), simt::add) != 0;
}
inline int __all_sync(unsigned mask, int v, SIMT_AT) {
  return simt::reduce_warp(mask, v == 0, SIMT_SITE(kWarp), simt::add) == 0;
}
inline unsigned __reduce_add_sync(unsigned mask, unsigned v, SIMT_AT) {
  return (unsigned)simt::reduce_warp(mask, v, SIMT_SITE(kWarp), simt::add);
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned v, SIMT_AT) {
  return (unsigned)simt::reduce_warp(mask, v, SIMT_SITE(kWarp), [](uint64_t a, uint64_t b) { return a > b ? a : b; });
}
inline unsigned __reduce_min_sync(unsigned mask, unsigned v, SIMT_AT) {
  return (unsigned)simt::reduce_warp(mask, v, SIMT_SITE(kWarp), [](uint64_t a, uint64_t b) { return a < b ? a : b; });
}
inline unsigned __reduce_or_sync(unsigned mask, unsigned v, SIMT_AT) {
  return (unsigned)simt::reduce_warp(mask, v, SIMT_SITE(kWarp), [](uint64_t a, uint64_t b) { return a | b; });
}
inline unsigned __reduce_and_sync(unsigned mask, unsigned v, SIMT_AT) {
  return (unsigned)simt::reduce_warp(mask, v, SIMT_SITE(kWarp), [](uint64_t a, uint64_t b) { return a & b; });
}

// `width` splits the warp into segments; a lane whose source lies outside its segment gets its own value.
template <class T>
inline T __shfl_sync(unsigned mask, T v, int source, int width = 32, SIMT_AT) {
  const unsigned lane = simt::current->lane(), w = (unsigned)width;
  return simt::shuffle(mask, v, (lane & ~(w - 1)) | ((unsigned)source & (w - 1)), SIMT_SITE(kWarp));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T v, int lane_mask, int width = 32, SIMT_AT) {
  const unsigned lane = simt::current->lane(), w = (unsigned)width, source = lane ^ (unsigned)lane_mask;
  return simt::shuffle(mask, v, source <= (lane | (w - 1)) ? source : lane, SIMT_SITE(kWarp));
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T v, unsigned delta, int width = 32, SIMT_AT) {
  const unsigned lane = simt::current->lane(), w = (unsigned)width;
  return simt::shuffle(mask, v, (lane & (w - 1)) >= delta ? lane - delta : lane, SIMT_SITE(kWarp));
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T v, unsigned delta, int width = 32, SIMT_AT) {
  const unsigned lane = simt::current->lane(), w = (unsigned)width;
  return simt::shuffle(mask, v, (lane & (w - 1)) + delta < w ? lane + delta : lane, SIMT_SITE(kWarp));
}

inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline unsigned __brev(unsigned v) {
  unsigned reversed = 0;
  for (int bit = 0; bit < 32; ++bit) reversed |= (v >> bit & 1u) << (31 - bit);
  return reversed;
}

#define SIMT_ATOMIC_UPDATE(NAME, T, NEW)                                                                         \
  inline T NAME(T* at, T v) {                                                                                    \
    T old, updated;                                                                                              \
    __atomic_load(at, &old, __ATOMIC_RELAXED);                                                                   \
    do updated = NEW;                                                                                            \
    while (!__atomic_compare_exchange(at, &old, &updated, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));           \
    return old;                                                                                                  \
  }
#define SIMT_ATOMIC_INTEGERS(MACRO, NAME, NEW)                                                                   \
  MACRO(NAME, int, NEW) MACRO(NAME, unsigned, NEW) MACRO(NAME, unsigned long long, NEW)
SIMT_ATOMIC_UPDATE(atomicAdd, int, (int)((unsigned)old + (unsigned)v))
SIMT_ATOMIC_UPDATE(atomicAdd, unsigned, old + v)
SIMT_ATOMIC_UPDATE(atomicAdd, unsigned long long, old + v)
SIMT_ATOMIC_UPDATE(atomicAdd, float, old + v)
SIMT_ATOMIC_UPDATE(atomicAdd, double, old + v)
SIMT_ATOMIC_UPDATE(atomicSub, unsigned, old - v)
SIMT_ATOMIC_INTEGERS(SIMT_ATOMIC_UPDATE, atomicMax, old > v ? old : v)
SIMT_ATOMIC_INTEGERS(SIMT_ATOMIC_UPDATE, atomicMin, old < v ? old : v)
SIMT_ATOMIC_UPDATE(atomicMax, long long, old > v ? old : v)
SIMT_ATOMIC_UPDATE(atomicMin, long long, old < v ? old : v)
SIMT_ATOMIC_INTEGERS(SIMT_ATOMIC_UPDATE, atomicOr, old | v)
SIMT_ATOMIC_INTEGERS(SIMT_ATOMIC_UPDATE, atomicAnd, old & v)
SIMT_ATOMIC_INTEGERS(SIMT_ATOMIC_UPDATE, atomicXor, old ^ v)
SIMT_ATOMIC_INTEGERS(SIMT_ATOMIC_UPDATE, atomicExch, v)
SIMT_ATOMIC_UPDATE(atomicExch, float, v)
#define SIMT_ATOMIC_CAS(NAME, T, UNUSED)                                                                         \
  inline T NAME(T* at, T expected, T v) {                                                                        \
    __atomic_compare_exchange(at, &expected, &v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);                     \
    return expected;                                                                                             \
  }
SIMT_ATOMIC_INTEGERS(SIMT_ATOMIC_CAS, atomicCAS, )
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

template <class T>
inline T __ldg(const T* at) { return *at; }

inline unsigned __float_as_uint(float v) { return simt::bits<unsigned>(v); }
inline int __float_as_int(float v) { return simt::bits<int>(v); }
inline float __uint_as_float(unsigned v) { return simt::bits<float>(v); }
inline float __int_as_float(int v) { return simt::bits<float>(v); }
inline long long __double_as_longlong(double v) { return simt::bits<long long>(v); }
inline double __longlong_as_double(long long v) { return simt::bits<double>(v); }

inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float __fsqrt_rn(float v) { return sqrtf(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
#define __expf(v) expf(v)  // glibc declares functions of these names
#define __logf(v) logf(v)
#define __log2f(v) log2f(v)

#define SIMT_MIN_MAX(RESULT, A, B)                                                                               \
  inline RESULT min(A a, B b) { return (RESULT)a < (RESULT)b ? (RESULT)a : (RESULT)b; }                          \
  inline RESULT max(A a, B b) { return (RESULT)a > (RESULT)b ? (RESULT)a : (RESULT)b; }
#define SIMT_MIN_MAX_INTEGER(T)                                                                                  \
  SIMT_MIN_MAX(T, T, T) SIMT_MIN_MAX(unsigned T, unsigned T, unsigned T)                                         \
  SIMT_MIN_MAX(unsigned T, T, unsigned T) SIMT_MIN_MAX(unsigned T, unsigned T, T)
SIMT_MIN_MAX_INTEGER(int)
SIMT_MIN_MAX_INTEGER(long)
SIMT_MIN_MAX_INTEGER(long long)
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

#define SIMT_VECTORS(T, NAME)                                                                                    \
  struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };                                                             \
  struct NAME##3 { T x, y, z; };                                                                                 \
  struct alignas(16) NAME##4 { T x, y, z, w; };                                                                  \
  inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                                                     \
  inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }                                             \
  inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTORS(float, float)
SIMT_VECTORS(int, int)
SIMT_VECTORS(unsigned, uint)
struct alignas(16) double2 { double x, y; };
inline double2 make_double2(double x, double y) { return {x, y}; }
