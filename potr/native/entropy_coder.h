// SPDX-License-Identifier: Apache-2.0
// The adaptive binary arithmetic coder of format version 2: integers only, so that every machine decodes the same symbols.
// docs/format.md, section 12, specifies every operation here.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace potr::entropy {

using Bytes = std::vector<uint8_t>;
using ByteView = std::span<const uint8_t>;

// A coded section is no valid encoding; offset is in its bytes.
struct StreamError : std::runtime_error {
    StreamError(size_t offset, const std::string& reason) : std::runtime_error(reason), offset(offset) {}
    size_t offset;
};

constexpr uint32_t kEven = 1 << 15;  // probability 1/2

// Narrows an interval of [0, 1) by one decision after the other and writes the shortest number in it.
class Encoder {
  public:
    static constexpr bool kDecodes = false;

    // one: the probability that bit is 1, in 65536ths, 1 to 65535.
    int code(int bit, uint32_t one) {
        const uint64_t bound = (range_ >> 16) * one;
        if (bit) {
            range_ = bound;
        } else {
            low_ += bound;
            if (low_ < bound) carry();
            range_ -= bound;
        }
        while (range_ < 1ull << 32) {
            for (int shift = 56; shift >= 32; shift -= 8) bytes_.push_back(static_cast<uint8_t>(low_ >> shift));
            low_ <<= 32;
            range_ <<= 32;
        }
        return bit;
    }

    // The fewest bytes that decode to what was coded; zeros at the end go without saying.
    Bytes finish() {
        for (int kept = 8; kept <= 64; kept += 8) {
            const uint64_t rest = kept == 64 ? 0 : ~0ull >> kept;
            const uint64_t value = (low_ + rest) & ~rest;
            if (value - low_ >= range_) continue;
            if (value < low_) carry();
            for (int shift = 56; shift > 56 - kept; shift -= 8) bytes_.push_back(static_cast<uint8_t>(value >> shift));
            break;
        }
        while (!bytes_.empty() && bytes_.back() == 0) bytes_.pop_back();
        return std::move(bytes_);
    }

    [[noreturn]] void fail(const std::string& reason) const { throw std::invalid_argument(reason); }

  private:
    void carry() {
        for (size_t i = bytes_.size(); ++bytes_[--i] == 0;) {}
    }

    uint64_t low_ = 0, range_ = ~0ull;
    Bytes bytes_;
};

// Reads the decisions back from any bytes; behind the last one there are zeros.
class Decoder {
  public:
    static constexpr bool kDecodes = true;

    explicit Decoder(ByteView bytes) : bytes_(bytes) {
        fetch();
        fetch();
    }

    int code(int, uint32_t one) {
        const uint64_t bound = (range_ >> 16) * one;
        const int bit = value_ < bound;
        const uint64_t zero = static_cast<uint64_t>(bit) - 1;  // a mask: no branch that half of all decisions mispredict
        value_ -= bound & zero;
        range_ = bound + ((range_ - 2 * bound) & zero);
        if (range_ < 1ull << 32) [[unlikely]] {  // once is enough: one / 65536 is not below 2^-16 nor above 1 - 2^-16
            range_ <<= 32;
            fetch();
        }
        return bit;
    }

    [[noreturn]] void fail(const std::string& reason) const { throw StreamError(std::min(at_, bytes_.size()), reason); }

    void finish() const {
        if (at_ < bytes_.size()) fail("expected the end after the last symbol");
        if (!bytes_.empty() && bytes_.back() == 0) fail("expected no zero byte at the end");
    }

  private:
    void fetch() {
        for (int i = 0; i < 4; ++i, ++at_) value_ = value_ << 8 | (at_ < bytes_.size() ? bytes_[at_] : 0);
    }

    ByteView bytes_;
    size_t at_ = 0;
    uint64_t value_ = 0, range_ = ~0ull;
};

struct Tables {
    std::array<uint16_t, 4096> squash;  // 65536 / (1 + e^-x) of x in 256ths, for x = index - 2048
    std::array<int16_t, 4096> stretch;  // its inverse, of a probability in 4096ths
    std::array<uint32_t, 32> rate;      // of a counter that has seen so many decisions, in 1024ths
    Tables();
};
extern const Tables kTables;

// A probability that learns: 22 bits of it above 10 bits of how many decisions it has seen.
using Counter = uint32_t;
constexpr Counter kNewCounter = 1u << 31;
constexpr std::array<Counter, 16> new_counters() {
    std::array<Counter, 16> counters{};
    counters.fill(kNewCounter);
    return counters;
}
constexpr uint32_t kFastLimit = 12, kSlowLimit = 30;  // the first context learns faster: it follows the place

inline void update(Counter& counter, int bit, uint32_t limit) {
    // Modulo 2^32, the same as p += (target - p) * (rate / 2) >> 9 on a signed p of its own.
    const uint32_t target = ((1u << 22) - 1) & -static_cast<uint32_t>(bit), seen = counter & 31;
    counter += ((target - (counter >> 10)) * kTables.rate[seen] & ~1023u) + (seen < limit);
}

// A context: some numbers, modulo 2^32, as one.
template <class... Numbers>
constexpr uint32_t context(Numbers... numbers) {
    uint32_t hash = 0;
    ((hash = (hash + static_cast<uint32_t>(numbers) + 1) * 0x9E3779B1u), ...);
    return hash;
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

// A number below 2^(most + 1) - 1 by the length of number + 1 and, at even odds, its lower bits.
template <int Inputs, class Coder>
uint32_t code_gamma(Mixer<Inputs>& mixer, Coder& coder, uint32_t number, int most, uint32_t first_node, size_t set) {
    int length = 0;
    for (const uint32_t v = number + 1; mixer.code(coder, v >> length > 1, std::min<uint32_t>(first_node + length, 15), set); ++length)
        if (length == most) coder.fail("expected a number below 2^" + std::to_string(most + 1));
    uint32_t value = 1;
    for (int i = length - 1; i >= 0; --i) value = value << 1 | coder.code((number + 1) >> i & 1, kEven);
    return value - 1;
}

}  // namespace potr::entropy
