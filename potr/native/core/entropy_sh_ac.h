// SPDX-License-Identifier: Apache-2.0
// The AC coefficients, docs/format.md section 15: luma in one section, chroma in another.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <vector>

#include "entropy_streams.h"

namespace potr::entropy {

// One channel's coefficients as contexts see them.
struct AcPlane {
    using Row = int8_t __attribute__((vector_size(16)));  // by k, at most 31 in magnitude; 0 at k = 0
    explicit AcPlane(size_t n) : rows(n + 1), counts(n + 1) {}
    std::vector<Row> rows;        // [n], and the zeros of a neighbour that is not there
    std::vector<uint8_t> counts;  // of those not 0, the same
};

// The luma that the chroma goes by, which may be decoded on another thread close behind. No data race: the plane's storage
// is fixed from the start, a splat's row is written once, before `ready` counts it (release), and read after (acquire).
class AcLuma {
  public:
    explicit AcLuma(size_t n) : plane(n), size_(n) {}

    // That many splats are there.
    void publish(size_t splats) {
        ready_.store(splats, std::memory_order_release);
        ready_.notify_all();
    }
    // There will be no more: who waits for others gets a StreamError.
    void close() {
        if (ready_.load(std::memory_order_relaxed) < size_) publish(kClosed);
    }
    // How many are there, more than i.
    size_t wait(size_t i) const {
        size_t ready = ready_.load(std::memory_order_acquire);
        for (; ready <= i; ready = ready_.load(std::memory_order_acquire)) ready_.wait(ready, std::memory_order_acquire);
        if (ready == kClosed) throw StreamError(0, "expected luma coefficients before");
        return ready;
    }
    size_t size() const { return size_; }

    AcPlane plane;

  private:
    static constexpr size_t kClosed = ~size_t{0};
    const size_t size_;
    std::atomic<size_t> ready_{0};
};

// sh is [n, num_coefficients, 3]; num_coefficients 4, 9 or 16. Decoding fills coefficients 1.. of channel 0 in luma, 1 and 2 in
// chroma, and expects zeros there. decode_sh_ac_luma publishes or closes; chroma waits for it.
Bytes encode_sh_ac_luma(const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int num_coefficients,
                        const int32_t* sh);
Bytes encode_sh_ac_chroma(const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int num_coefficients,
                          const int32_t* sh);
void decode_sh_ac_luma(ByteView coded, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales,
                       int num_coefficients, int32_t* sh, AcLuma& luma);
void decode_sh_ac_chroma(ByteView coded, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales,
                         int num_coefficients, int32_t* sh, const AcLuma& luma);

}  // namespace potr::entropy
