// SPDX-License-Identifier: Apache-2.0
// The adaptive binary arithmetic coder of modelled sections: integers only, so that every machine decodes the same symbols.
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
        shift_out();
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

    // `count` bits at even odds, most significant first; at most 16.
    uint32_t bits(uint32_t value, int count) {
        range_ >>= count;
        low_ += value * range_;
        if (low_ < value * range_) carry();
        shift_out();
        return value;
    }

    [[noreturn]] void fail(const std::string& reason) const { throw std::invalid_argument(reason); }

  private:
    void shift_out() {
        while (range_ < 1ull << 32) {
            for (int shift = 56; shift >= 32; shift -= 8) bytes_.push_back(static_cast<uint8_t>(low_ >> shift));
            low_ <<= 32;
            range_ <<= 32;
        }
    }

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
        if (value_ == range_) fail("expected a number below the coder's range");  // from here on it stays below
    }

    int code(int, uint32_t one) {
        const uint64_t bound = (range_ >> 16) * one;
        const int bit = value_ < bound;
        const uint64_t zero = static_cast<uint64_t>(bit) - 1;  // a mask: no branch that half of all decisions mispredict
        value_ -= bound & zero;
        range_ = bound + ((range_ - 2 * bound) & zero);
        shift_in();
        return bit;
    }

    uint32_t bits(uint32_t, int count) {
        range_ >>= count;
        const uint64_t value = value_ / range_;
        if (value >> count) fail("expected a number below the coder's range");  // the encoder's rounding leaves a gap
        value_ -= value * range_;
        shift_in();
        return static_cast<uint32_t>(value);
    }

    [[noreturn]] void fail(const std::string& reason) const { throw StreamError(std::min(at_, bytes_.size()), reason); }

    void finish() const {
        if (at_ < bytes_.size()) fail("expected the end after the last symbol");
        if (!bytes_.empty() && bytes_.back() == 0) fail("expected no zero byte at the end");
    }

  private:
    void shift_in() {
        if (range_ < 1ull << 32) [[unlikely]] {  // once is enough: no decision takes more than 16 bits
            range_ <<= 32;
            fetch();
        }
    }

    void fetch() {
        for (int i = 0; i < 4; ++i, ++at_) value_ = value_ << 8 | (at_ < bytes_.size() ? bytes_[at_] : 0);
    }

    ByteView bytes_;
    size_t at_ = 0;
    uint64_t value_ = 0, range_ = ~0ull;
};

struct Tables {
    std::array<uint16_t, 4096> squash;  // 65536 / (1 + e^-x) of x in 256ths, for x = index - 2048
    Tables();
};
extern const Tables kTables;

// A context: some numbers, modulo 2^32, as one.
template <class... Numbers>
constexpr uint32_t context(Numbers... numbers) {
    uint32_t hash = 0;
    ((hash = (hash + static_cast<uint32_t>(numbers) + 1) * 0x9E3779B1u), ...);
    return hash;
}

}  // namespace potr::entropy
