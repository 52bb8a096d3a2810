// SPDX-License-Identifier: Apache-2.0
// Runs the CUDA kernels of potr/native/cuda on the CPU, for tests: g++ compiles
//     #include "simt.h"
//     #include "NAME.cu"
//     SIMT_KERNEL(kernel, 1024)   // for each kernel: its name and the largest block it may be launched with
// to a shared object (tests/helpers/simt.py writes that). One-dimensional grids and blocks, blocks of whole warps,
// static shared memory, which starts as 0xff bytes in every block. Finds what a GPU shows as wrong numbers at best:
// barriers and collectives that some threads miss (fibres.h), and what SIMT_SANITIZER lists below.
//
// Not emulated: denormals flushed to zero, contraction to fma (write fmaf), the error of approximate functions; a
// thread that spins until another of its block writes hangs. Conversions and shifts out of range are errors, because
// there CPU and GPU differ.
#pragma once

#include <signal.h>

#include <type_traits>
#include <utility>

#include "intrinsics.h"

// Not earlier: the C library's headers use some of these names.
#define __global__
#define __device__
#define __host__
#define __constant__ __attribute__((unused))
#define __shared__ static thread_local
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)

namespace simt {

struct Index {  // one-dimensional: y or z is an error of the compiler
  unsigned x;
};

constexpr size_t kSignatureBytes = 1024;

// A parameter as text: "long long", "float", "*f4" (pointer to a floating type of 4 bytes), "*i4" (integer of either
// sign), "*" (pointer to anything else).
template <class T>
void describe_parameter(char* text) {
  if constexpr (std::is_pointer_v<T>) {
    using Element = std::remove_cv_t<std::remove_pointer_t<T>>;
    if constexpr (std::is_arithmetic_v<Element>)
      snprintf(text, 32, "*%c%zu", std::is_floating_point_v<Element> ? 'f' : 'i', sizeof(Element));
    else
      snprintf(text, 32, "*");
  } else {
    static_assert(std::is_same_v<T, long long> || std::is_same_v<T, float>,
                  "kernels take pointers, long long and float, nothing else");
    snprintf(text, 32, std::is_same_v<T, float> ? "float" : "long long");
  }
}

// The parameters of a kernel, each followed by a comma.
template <class... P>
void signature(void (*)(P...), char* text) {
  size_t used = 0;
  char parameter[32];
  text[0] = 0;
  ((describe_parameter<P>(parameter),
    used += (size_t)snprintf(text + used, used < kSignatureBytes ? kSignatureBytes - used : 0, "%s,", parameter)), ...);
}

template <auto kernel, class... P, size_t... I>
void call_with(void (*)(P...), void** arguments, std::index_sequence<I...>) {
  kernel(*static_cast<P*>(arguments[I])...);
}
template <auto kernel, class... P>
void call_unpacked(void (*typed)(P...), void** arguments) {
  call_with<kernel>(typed, arguments, std::index_sequence_for<P...>{});
}
template <auto kernel>
void call(void** arguments) {
  call_unpacked<kernel>(kernel, arguments);
}

// An access to memory that is not there ends the launch, not the process. Of one launch at a time.
class AccessErrors {
 public:
  AccessErrors() {
    struct sigaction ours = {};
    ours.sa_sigaction = found;
    ours.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;  // left for the host's stack: neither blocked nor in use
    sigaction(SIGSEGV, &ours, &before_);
  }
  ~AccessErrors() { sigaction(SIGSEGV, &before_, nullptr); }

 private:
  static void found(int, siginfo_t* info, void*) {
    if (current && current->running) current->fail_thread("access to memory that is not there, at %p", info->si_addr);
    signal(SIGSEGV, SIG_DFL);  // not in a kernel: as without us
  }

  struct sigaction before_;
};

// Runs every block; returns 1 with a message in launch.error on the first error.
inline int run_blocks(Launch& launch, unsigned most_threads, int cpu_threads) {
  if (launch.threads == 0 || launch.threads % kWarp || launch.threads > most_threads || launch.threads > kMaxThreads) {
    snprintf(launch.error, kErrorBytes, "kernel %s: blocks of %u threads; expected a multiple of 32 up to %u",
             launch.kernel, launch.threads, most_threads);
    return 1;
  }
  const AccessErrors guard;
#pragma omp parallel for num_threads(cpu_threads) if (cpu_threads > 1) schedule(dynamic, 1)
  for (long long i = 0; i < launch.blocks; ++i) {
    if (__atomic_load_n(&launch.failed, __ATOMIC_ACQUIRE)) continue;
    if (!current) current = new Multiprocessor;  // kept, with its stacks, for the next launch
    current->run(launch, launch.block_at(i));
  }
  return launch.failed;
}

}  // namespace simt

#define SIMT_EXPORT extern "C" __attribute__((visibility("default")))
#define threadIdx (simt::Index{simt::current->running->thread})
#define blockIdx (simt::Index{(unsigned)simt::current->block})
#define blockDim (simt::Index{simt::current->launch->threads})
#define gridDim (simt::Index{(unsigned)simt::current->launch->blocks})

// The two symbols that the shared object exports; hidden visibility keeps the rest of several such objects apart.
#define SIMT_KERNEL(NAME, MOST_THREADS)                                                                             \
  SIMT_EXPORT void simt_signature_##NAME(char* text) { simt::signature(NAME, text); }                               \
  SIMT_EXPORT int simt_launch_##NAME(long long blocks, unsigned threads, int order, uint64_t seed, int cpu_threads, \
                                     void** arguments, char* error) {                                               \
    simt::Launch launch{#NAME, blocks, threads, (simt::Order)order, seed, simt::call<NAME>, arguments, error, 0};   \
    return simt::run_blocks(launch, MOST_THREADS, cpu_threads);                                                     \
  }

// What -fsanitize calls, in place of its library, which would end the process. Each gets the place in the source first.
struct SimtSource {
  const char* file;
  unsigned line, column;
};
#define SIMT_SANITIZER(NAME, TEXT, ...)                                                                             \
  extern "C" [[noreturn]] void __ubsan_handle_##NAME##_abort(SimtSource* at, ##__VA_ARGS__) {                       \
    if (!simt::current) abort();                                                                                    \
    simt::current->fail_thread("%s (%s:%u)", TEXT, simt::base_name(at->file), at->line);                            \
  }
SIMT_SANITIZER(out_of_bounds, "index out of an array's bounds", void*)
SIMT_SANITIZER(type_mismatch_v1, "null or misaligned pointer", void*)
SIMT_SANITIZER(shift_out_of_bounds, "shift by too many bits", void*, void*)
SIMT_SANITIZER(float_cast_overflow, "floating value out of the integer type's range", void*)
SIMT_SANITIZER(divrem_overflow, "integer division by zero or overflow", void*, void*)
