// SPDX-License-Identifier: Apache-2.0
// The mixed probabilities of format version 2, which is read but not written any more: docs/format.md, section 12.
#pragma once

#include "entropy_coder.h"

namespace potr::entropy::version2 {

// A probability that learns: 22 bits of it above 10 bits of how many decisions it has seen.
using Counter = uint32_t;
constexpr Counter kNewCounter = 1u << 31;
constexpr std::array<Counter, 16> new_counters() {
    std::array<Counter, 16> counters{};
    counters.fill(kNewCounter);
    return counters;
}
// Of a counter that has seen so many decisions, in 1024ths.
constexpr std::array<uint32_t, 32> kRates = [] {
    std::array<uint32_t, 32> rates{};
    for (uint32_t n = 0; n < 32; ++n) rates[n] = 2 * (5120 / (10 * n + 16));
    return rates;
}();
constexpr uint32_t kFastLimit = 12, kSlowLimit = 30;  // the first context learns faster: it follows the place

inline void update(Counter& counter, int bit, uint32_t limit) {
    // Modulo 2^32, the same as p += (target - p) * (rate / 2) >> 9 on a signed p of its own.
    const uint32_t target = ((1u << 22) - 1) & -static_cast<uint32_t>(bit), seen = counter & 31;
    counter += ((target - (counter >> 10)) * kRates[seen] & ~1023u) + (seen < limit);
}

// Decisions whose probability is mixed from those of Inputs contexts.
template <int Inputs>
class Mixer {
  public:
    // sets: how many sets of weights.
    explicit Mixer(size_t sets) : table_(Inputs * kSlots), weights_(sets * Inputs, 1 << 12) {}

    // The contexts of the next decisions. Each chooses a line of 16 counters.
    void choose(const std::array<uint32_t, Inputs>& contexts) {
        contexts_ = contexts;
        choose_lines(0);
    }

    // Begins to fetch the lines that choose() will take: the tables of a section do not fit the cache next to the core.
    void prefetch(const std::array<uint32_t, Inputs>& contexts) const {
        for (int i = 0; i < Inputs; ++i) __builtin_prefetch(&table_[slot(i, contexts[i])], 1);
    }

    // One decision by counter `node` (0 to 15) of the lines, with that set of weights.
    template <class Coder>
    int code(Coder& coder, int bit, uint32_t node, size_t set) {
        std::array<int32_t, Inputs> inputs;
        int32_t* const weights = &weights_[set * Inputs];
        for (int i = 0; i < Inputs; ++i) inputs[i] = kTables.stretch[lines_[i][node] >> 20];
        int32_t sum = 0;
        for (int i = 0; i < Inputs; ++i) sum += weights[i] * inputs[i];
        const int32_t p = kTables.squash[std::clamp(sum >> 14, -2047, 2047) + 2048];
        bit = coder.code(bit, p);
        const int32_t error = ((bit << 16) - p) * 3 >> 5;
        for (int i = 0; i < Inputs; ++i)
            weights[i] = std::clamp(weights[i] + ((inputs[i] * error + (1 << 13)) >> 14), -kMaxWeight, kMaxWeight);
        for (int i = 0; i < Inputs; ++i) update(lines_[i][node], bit, i == 0 ? kFastLimit : kSlowLimit);
        return bit;
    }

    // A number below 2^(most + 1) - 1 by the length of number + 1 and, at even odds, its lower bits.
    template <class Coder>
    uint32_t gamma(Coder& coder, uint32_t number, int most, uint32_t first_node, size_t set) {
        int length = 0;
        for (const uint32_t v = number + 1; code(coder, v >> length > 1, std::min<uint32_t>(first_node + length, 15), set); ++length)
            if (length == most) coder.fail("expected a number below 2^" + std::to_string(most + 1));
        uint32_t value = 1;
        for (int i = length - 1; i >= 0; --i) value = value << 1 | coder.code((number + 1) >> i & 1, kEven);
        return value - 1;
    }

    // A value below 2^bits, most significant bit first; uses the `bits` sets of weights from first_set.
    template <class Coder>
    uint32_t symbol(Coder& coder, uint32_t value, int bits, size_t first_set) {
        uint32_t prefix = 1, node = 1;
        for (int i = 0; i < bits; ++i) {
            if (i > 0 && i % 4 == 0) {
                choose_lines(prefix);
                node = 1;
            }
            const int bit = code(coder, value >> (bits - 1 - i) & 1, node, first_set + i);
            prefix = prefix << 1 | bit;
            node = node << 1 | bit;
        }
        return prefix - (1u << bits);
    }

  private:
    struct alignas(64) Line {  // of the cache
        std::array<Counter, 16> counters = new_counters();
    };
    static constexpr size_t kSlots = 1 << 12;
    static constexpr int32_t kMaxWeight = 1 << 16;  // 4; a sum of products fits 32 bits

    static size_t slot(int input, uint32_t hash) { return input * kSlots + (hash * 0x85EBCA6Bu >> 20); }

    void choose_lines(uint32_t prefix) {
        for (int i = 0; i < Inputs; ++i) lines_[i] = table_[slot(i, contexts_[i] + prefix)].counters.data();
    }

    std::vector<Line> table_;
    std::vector<int32_t> weights_;
    std::array<uint32_t, Inputs> contexts_{};
    std::array<Counter*, Inputs> lines_{};
};

}  // namespace potr::entropy::version2
