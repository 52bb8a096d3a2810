// SPDX-License-Identifier: Apache-2.0
// The context models of format version 3, docs/format.md sections 13 to 15: each function codes one section.
#pragma once

#include <array>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "entropy_coder.h"

namespace potr::entropy {

// The octree's byte streams as potr::OctreeStreams has them.
struct OctreeBytes {
    Bytes nodes, tail_depths, tail_bits, counts;
};
Bytes encode_octree(ByteView nodes, ByteView tail_depths, ByteView tail_bits, ByteView counts);
// At most max_splats splats; what only the streams' own decoder can see is left to it.
OctreeBytes decode_octree(ByteView coded, size_t max_splats);

// The four nearest of the up to 64 splats before each one.
class Neighbors {
  public:
    static constexpr int kCount = 4;
    static constexpr int kWindow = 64;

    // cells [n, 3] and depths [n], in depth-first order.
    Neighbors(const uint32_t* cells, const uint8_t* depths, size_t n);

    size_t size() const { return depths_.size(); }
    uint32_t depth(size_t i) const { return depths_[i]; }
    // Nearest first; -1 where there are not so many.
    const std::array<int32_t, kCount>& of(size_t i) const { return nearest_[i]; }

    // Four times the neighbours' mean, weighted by nearness; get(j) is splat j's value, not negative. 0 without neighbours.
    template <class Get>
    uint32_t mean(size_t i, Get get) const {
        uint64_t weights = 0, sum = 0;
        for (int j = 0; j < kCount; ++j) {
            if (nearest_[i][j] < 0) break;
            weights += weights_[i][j];
            sum += static_cast<uint64_t>(weights_[i][j]) * get(nearest_[i][j]);
        }
        return weights ? static_cast<uint32_t>((4 * sum + weights / 2) / weights) : 0;
    }

  private:
    std::vector<uint8_t> depths_;
    std::vector<std::array<int32_t, kCount>> nearest_;
    std::vector<std::array<uint32_t, kCount>> weights_;
};

// [n, columns] row-major integers; T as in QuantizedModel. Decoding fills `values`.
Bytes encode_opacity(const Neighbors& neighbors, const uint16_t* values);
void decode_opacity(ByteView coded, const Neighbors& neighbors, uint16_t* values);
Bytes encode_scales(const Neighbors& neighbors, const uint16_t* values);
void decode_scales(ByteView coded, const Neighbors& neighbors, uint16_t* values);
Bytes encode_rotation(const Neighbors& neighbors, const uint16_t* scales, const int16_t* values);
void decode_rotation(ByteView coded, const Neighbors& neighbors, const uint16_t* scales, int16_t* values);
// Coefficient 0 of sh [n, num_coefficients, 3], in place.
Bytes encode_sh_dc(const Neighbors& neighbors, int num_coefficients, const int32_t* sh);
void decode_sh_dc(ByteView coded, const Neighbors& neighbors, int num_coefficients, int32_t* sh);

// A difference in 19 classes, finer near 0.
inline uint32_t classify(int32_t v) {
    static constexpr uint8_t kClasses[40] = {0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7,
                                             7, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8};
    const int32_t a = std::abs(v);
    const uint32_t c = a < 40 ? kClasses[a] : 9;
    return v < 0 ? 16 + c : c;
}

}  // namespace potr::entropy
