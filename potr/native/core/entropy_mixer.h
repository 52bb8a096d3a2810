// SPDX-License-Identifier: Apache-2.0
// The mixed probabilities: docs/format.md, section 12 specifies every operation here.
#pragma once

#include "entropy_coder.h"

namespace potr::entropy {

constexpr int kInputs = 4;  // contexts of a decision
using Lanes = int32_t __attribute__((vector_size(4 * kInputs)));

// A probability that learns: how many decisions it has seen, up to 15, times 512, and its level, the logit.
using Counter = uint16_t;
constexpr Counter kNewCounter = 256;

struct CounterTables {
    std::array<int16_t, 1 << 13> input;  // what a counter says, for the mixing
    // What it becomes, by the decision: of a decision's first context, which follows the place and learns faster, and of the others.
    std::array<std::array<std::array<Counter, 2>, 1 << 13>, 2> next;
    CounterTables();
};
extern const CounterTables kCounterTables;

constexpr Lanes kNewWeights = Lanes{} + 2375;
using Counters = std::array<Counter*, kInputs>;  // of a decision, or the lines that hold them

// The probability that the decision of counter `node` of the lines is 1, in 65536ths.
inline int32_t odds(const Counters& lines, uint32_t node, const Lanes& weights) {
    int32_t sum = 0;  // below 2^30
    for (int i = 0; i < kInputs; ++i) sum += kCounterTables.input[lines[i][node]] * weights[i];
    return kTables.squash[std::clamp(sum >> 15, -2047, 2047) + 2048];
}

inline void learn(const Counters& lines, uint32_t node, Lanes& weights, int32_t one, int bit) {
    constexpr Lanes kMost = Lanes{} + 32767;
    Lanes inputs;
    for (int i = 0; i < kInputs; ++i) inputs[i] = kCounterTables.input[lines[i][node]];
    const int32_t error = ((bit << 16) - one) >> 6;
    Lanes moved = weights + ((inputs * error + (1 << 14)) >> 15);
    moved = moved > kMost ? kMost : moved;
    weights = moved < -kMost ? -kMost : moved;
    for (int i = 0; i < kInputs; ++i) lines[i][node] = kCounterTables.next[i > 0][lines[i][node]][bit];
}

template <class Coder>
int decide(Coder& coder, int bit, const Counters& lines, uint32_t node, Lanes& weights) {
    const int32_t one = odds(lines, node, weights);
    bit = coder.code(bit, one);
    learn(lines, node, weights, one, bit);
    return bit;
}

// A number below 2^(most + 1) - 1 by the length of number + 1 and, at even odds, its lower bits.
template <class Coder>
uint32_t code_gamma(Coder& coder, uint32_t number, int most, const Counters& lines, uint32_t first_node, Lanes& weights) {
    int length = 0;
    for (const uint32_t v = number + 1; decide(coder, v >> length > 1, lines, std::min<uint32_t>(first_node + length, 15), weights); ++length)
        if (length == most) coder.fail("expected a number below 2^" + std::to_string(most + 1));
    uint32_t value = 1;
    for (int left = length; left > 0;) {
        const int count = std::min(left, 16);
        left -= count;
        value = value << count | coder.bits((number + 1) >> left & ((1u << count) - 1), count);
    }
    return value - 1;
}

// Decisions whose contexts are found by hash: each chooses one of 4096 lines of 16 counters.
class Mixer {
  public:
    // sets: how many sets of weights.
    explicit Mixer(size_t sets) : table_(kInputs * kSlots), weights_(sets, kNewWeights) {}

    // The contexts of the next decisions.
    void choose(const std::array<uint32_t, kInputs>& contexts) {
        hashes_ = contexts;
        choose_lines(0);
    }

    template <class Coder>
    int code(Coder& coder, int bit, uint32_t node, size_t set) {
        return decide(coder, bit, lines_, node, weights_[set]);
    }

    template <class Coder>
    uint32_t gamma(Coder& coder, uint32_t number, int most, uint32_t first_node, size_t set) {
        return code_gamma(coder, number, most, lines_, first_node, weights_[set]);
    }

    // A value below 2^bits, most significant bit first; uses the `bits` sets of weights from first_set.
    template <class Coder>
    uint32_t symbol(Coder& coder, uint32_t value, int bits, size_t first_set) {
        uint32_t prefix = 1;
        Lanes* weights = &weights_[first_set];
        for (int left = bits; left > 0;) {
            if (left < bits) choose_lines(prefix);
            const Counters lines = lines_;
            int32_t one = odds(lines, 1, *weights);
            for (uint32_t node = 1;; ++weights) {
                // Whatever this bit will be, the odds of the next one: its counters and weights are others than this one's.
                const bool more = --left > 0 && node < 8;
                const int32_t after_0 = more ? odds(lines, 2 * node, weights[1]) : 0;
                const int32_t after_1 = more ? odds(lines, 2 * node + 1, weights[1]) : 0;
                const int bit = coder.code(value >> left & 1, one);
                learn(lines, node, *weights, one, bit);
                prefix = 2 * prefix + bit;
                if (!more) break;
                node = 2 * node + bit;
                one = after_0 + ((after_1 - after_0) & -bit);
            }
            ++weights;
        }
        return prefix - (1u << bits);
    }

  private:
    struct alignas(32) Line {
        std::array<Counter, 16> counters;
        Line() { counters.fill(kNewCounter); }
    };
    static constexpr size_t kSlots = 1 << 12;

    void choose_lines(uint32_t prefix) {
        for (int i = 0; i < kInputs; ++i) lines_[i] = table_[i * kSlots + ((hashes_[i] + prefix) * 0x85EBCA6Bu >> 20)].counters.data();
    }

    std::vector<Line> table_;
    std::vector<Lanes> weights_;
    std::array<uint32_t, kInputs> hashes_{};
    Counters lines_{};
};

}  // namespace potr::entropy
