// SPDX-License-Identifier: Apache-2.0
// One block of CUDA threads at a time on one CPU thread: a fibre per CUDA thread, switched where threads wait for each
// other. Between two such places a fibre runs alone, so the order of the fibres, which a launch chooses, decides what a
// race gives: a kernel without races gives the same bits in every order. Part of simt.h.
//
// A warp has run when each of its lanes has come to the next barrier, warp collective or its end. All 32 must then be
// at the same place of the source; so must all warps of a block at a barrier. Everything else is an error, also what a
// GPU may let pass: lanes that ended before a collective, or two different barriers that meet.
#pragma once

#include <link.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "context.h"

namespace simt {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr size_t kStackBytes = 128 << 10;
constexpr size_t kPage = 4096;
constexpr size_t kErrorBytes = 2048;
constexpr unsigned char kUnset = 0xff;  // bytes of shared memory that a block has not written: NaN, -1

enum class Order : int { kForward, kBackward, kRandom };
enum class Scope : int { kWarp, kBlock, kEnded };

// Where a thread waits.
struct Site {
  Scope scope = Scope::kEnded;
  const char* what = "";
  const char* file = "";
  int line = 0;
};
inline bool same(const Site& a, const Site& b) {
  return a.scope == b.scope && a.line == b.line && (a.what == b.what || !strcmp(a.what, b.what)) &&
         (a.file == b.file || !strcmp(a.file, b.file));
}

inline const char* base_name(const char* path) {
  const char* slash = strrchr(path, '/');
  return slash ? slash + 1 : path;
}

struct Launch {
  const char* kernel;
  long long blocks;
  unsigned threads;
  Order order;
  uint64_t seed;
  void (*call)(void** arguments);
  void** arguments;
  char* error;      // [kErrorBytes]
  int failed;       // set atomically by the first block that fails

  // The grid's blocks start in this order too.
  long long block_at(long long i) const {
    if (order == Order::kForward) return i;
    if (order == Order::kBackward) return blocks - 1 - i;
    // Bits permuted within the next power of two, what falls outside walks on: a permutation without a table.
    const uint64_t key = seed * 0x9e3779b97f4a7c15ull + 0xd1b54a32d192ed03ull;
    uint64_t mask = 1, at = (uint64_t)i;
    while (mask < (uint64_t)blocks) mask <<= 1;
    do at = ((at ^ (key >> 8 & (mask - 1))) * (2 * key + 1) + (key >> 32)) & (mask - 1);
    while (at >= (uint64_t)blocks);
    return (long long)at;
  }
};

struct Fibre {
  Context context;
  char* stack = nullptr;
  bool started = false;
  unsigned thread = 0;
  Site site;
};

// Values that lanes hand each other. A lane that is ahead writes the next generation while others still read this one.
struct Warp {
  unsigned char order[kWarp];
  unsigned cursor;   // lanes that run or have run
  Site site;         // where the first of them waits
  bool parted;       // another waits elsewhere
  unsigned arrived;
  unsigned generation;
  uint64_t reduced[2];
  uint64_t values[2][kWarp];
};

class Multiprocessor;
inline thread_local Multiprocessor* current = nullptr;

class Multiprocessor {
 public:
  Launch* launch = nullptr;
  long long block = 0;
  Fibre* running = nullptr;
  unsigned arrived = 0, generation = 0;  // of the block's barriers
  uint64_t reduced[2] = {};

  Warp& warp() { return warps_[running->thread / kWarp]; }
  unsigned lane() const { return running->thread % kWarp; }

  // Runs one block to its end or to an error.
  void run(Launch& of, long long index) {
    launch = &of;
    block = index;
    random_ = of.seed * 0x9e3779b97f4a7c15ull + (uint64_t)index;
    arrived = generation = 0;
    poison_shared_memory();
    for (unsigned t = 0; t < of.threads; ++t) prepare(fibres_[t], t);
    for (unsigned w = 0; w < of.threads / kWarp; ++w) {
      Warp& warp = warps_[w];
      warp.generation = warp.arrived = 0;
      for (unsigned l = 0; l < kWarp; ++l) warp.order[l] = of.order == Order::kBackward ? kWarp - 1 - l : l;
      start_pass(warp);
    }
    make_all_ready();
    running = next();
    switch_context(host_, running->context);
    running = nullptr;
    if (__atomic_load_n(&of.failed, __ATOMIC_ACQUIRE))  // the fibres stopped anywhere: they start afresh
      for (Fibre& fibre : fibres_) fibre.started = false;
  }

  // The running thread waits; returns when all whom it waits for are there.
  void wait(const Site& site) {
    Fibre* self = running;
    Warp& of = warp();
    self->site = site;
    if (of.cursor == 1) of.site = site;
    else if (!same(of.site, site)) of.parted = true;
    running = next();
    if (running != self) switch_context(self->context, running ? running->context : host_);
  }

  // Ends the launch with a message about the running thread.
  [[noreturn]] void fail_thread(const char* format, ...) __attribute__((format(printf, 2, 3))) {
    char text[kErrorBytes];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    char where[64];
    snprintf(where, sizeof where, ", thread %u", running->thread);
    fail(where, text);
  }

 private:
  void prepare(Fibre& fibre, unsigned thread) {
    fibre.thread = thread;
    if (fibre.started) return;  // it waits in body() for its next block
    if (!fibre.stack) {
      void* stack = mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      if (stack == MAP_FAILED || mprotect(stack, kPage, PROT_NONE) != 0) abort();
      fibre.stack = static_cast<char*>(stack);
    }
    // Stacks that all end at a multiple of the page size would share a few cache sets.
    fibre.context.start(fibre.stack + kPage, kStackBytes - kPage - thread % 64 * 7 * 64, body);
    fibre.started = true;
  }

  static void body() {
    Multiprocessor& self = *current;
    for (;;) {
      self.launch->call(self.launch->arguments);
      self.wait(Site{});
    }
  }

  // The fibre that runs next; null when the block is done.
  Fibre* next() {
    Warp* warp = &warps_[ready_[slot_]];
    if (warp->cursor == kWarp) {
      finish_pass(*warp, ready_[slot_]);
      if (ready_count_ == 0 && !finish_barrier()) return nullptr;
      slot_ = launch->order == Order::kRandom ? draw(ready_count_) : ready_count_ - 1;
      warp = &warps_[ready_[slot_]];
    }
    return &fibres_[ready_[slot_] * kWarp + warp->order[warp->cursor++]];
  }

  void finish_pass(Warp& warp, unsigned index) {
    if (warp.parted) fail_waiting("the lanes of a warp part", index * kWarp, kWarp);
    if (warp.site.scope == Scope::kWarp) {
      warp.generation ^= 1;
      warp.arrived = 0;
      start_pass(warp);
    } else {
      ready_[slot_] = ready_[--ready_count_];
    }
  }

  bool finish_barrier() {
    const unsigned warps = launch->threads / kWarp;
    for (unsigned w = 1; w < warps; ++w)
      if (!same(warps_[w].site, warps_[0].site)) fail_waiting("the warps of the block part", 0, launch->threads);
    if (warps_[0].site.scope == Scope::kEnded) return false;
    generation ^= 1;
    arrived = 0;
    for (unsigned w = 0; w < warps; ++w) start_pass(warps_[w]);
    make_all_ready();
    return true;
  }

  void start_pass(Warp& warp) {
    warp.cursor = 0;
    warp.parted = false;
    if (launch->order != Order::kRandom) return;
    for (unsigned l = kWarp - 1; l > 0; --l) {
      const unsigned other = draw(l + 1);
      const unsigned char lane = warp.order[l];
      warp.order[l] = warp.order[other];
      warp.order[other] = lane;
    }
  }

  // The last one runs first.
  void make_all_ready() {
    ready_count_ = launch->threads / kWarp;
    for (unsigned w = 0; w < ready_count_; ++w)
      ready_[w] = launch->order == Order::kBackward ? w : ready_count_ - 1 - w;
    slot_ = launch->order == Order::kRandom ? draw(ready_count_) : ready_count_ - 1;
  }

  unsigned draw(unsigned below) {  // splitmix64
    uint64_t z = random_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (unsigned)((z >> 32) * below >> 32);
  }

  // What is `static thread_local` in this shared object is the block's shared memory (and `current`).
  void poison_shared_memory() {
    if (!shared_) {
      auto find = [](dl_phdr_info* info, size_t, void* to) {
        return static_cast<Multiprocessor*>(to)->find_shared(*info);
      };
      dl_iterate_phdr(find, this);
      if (!shared_) abort();
    }
    Multiprocessor* const self = current;
    memset(shared_, kUnset, shared_bytes_);
    current = self;
  }

  int find_shared(const dl_phdr_info& info) {
    char* const own = reinterpret_cast<char*>(&current);
    for (int i = 0; i < info.dlpi_phnum; ++i) {
      char* const begin = static_cast<char*>(info.dlpi_tls_data);
      if (info.dlpi_phdr[i].p_type != PT_TLS || begin > own || own >= begin + info.dlpi_phdr[i].p_memsz) continue;
      shared_ = begin;
      shared_bytes_ = info.dlpi_phdr[i].p_memsz;
      return 1;
    }
    return 0;
  }

  [[noreturn]] void fail_waiting(const char* what, unsigned first, unsigned count) {
    char text[kErrorBytes];
    size_t used = (size_t)snprintf(text, sizeof text, "%s", what);
    auto add = [&](const char* format, auto... values) {
      if (used < sizeof text) used += (size_t)snprintf(text + used, sizeof text - used, format, values...);
    };
    bool told[kMaxThreads] = {};
    for (unsigned t = first; t < first + count; ++t) {
      if (told[t]) continue;
      const Site& site = fibres_[t].site;
      add("%s", t == first ? ": threads " : "; threads ");
      unsigned ranges = 0;
      for (unsigned begin = t, end; begin < first + count; begin = end) {
        end = begin + 1;
        if (!same(fibres_[begin].site, site)) continue;
        while (end < first + count && same(fibres_[end].site, site)) ++end;
        for (unsigned u = begin; u < end; ++u) told[u] = true;
        if (++ranges == 9) add(", ...");
        if (ranges > 8) continue;
        add(end == begin + 1 ? "%s%u" : "%s%u-%u", ranges == 1 ? "" : ", ", begin, end - 1);
      }
      if (site.scope == Scope::kEnded) add(" have ended");
      else add(" wait at %s (%s:%d)", site.what, base_name(site.file), site.line);
    }
    fail("", text);
  }

  [[noreturn]] void fail(const char* where, const char* text) {
    if (!__atomic_exchange_n(&launch->failed, 1, __ATOMIC_ACQ_REL))
      snprintf(launch->error, kErrorBytes, "kernel %s, block %lld%s: %s", launch->kernel, block, where, text);
    switch_context(running->context, host_);
    abort();
  }

  Context host_;
  Fibre fibres_[kMaxThreads];
  Warp warps_[kMaxThreads / kWarp];
  unsigned ready_[kMaxThreads / kWarp];  // warps that are not at a barrier and have not ended
  unsigned ready_count_ = 0, slot_ = 0;
  uint64_t random_ = 0;
  char* shared_ = nullptr;
  size_t shared_bytes_ = 0;
};

}  // namespace simt
