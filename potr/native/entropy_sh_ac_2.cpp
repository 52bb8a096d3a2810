// SPDX-License-Identifier: Apache-2.0
// The AC coefficients of format version 2, which are read but not written any more: docs/format.md, section 15.
#include <bit>
#include <cstdlib>

#include "entropy_mixer_2.h"
#include "entropy_streams.h"

namespace potr::entropy {
namespace {

using version2::Mixer;

// Each splat's and channel's count of non-zero ones, then where they are and what.
class ShAc {
  public:
    ShAc(Decoder& coder, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int num_coefficients, int32_t* sh)
        : coder_(coder), neighbors_(neighbors), opacity_(opacity), scales_(scales), k_(num_coefficients), sh_(sh),
          counts_(3 * neighbors.size()) {}

    void run() {
        for (size_t i = 0; i < neighbors_.size(); ++i) {
            code_counts(i);
            for (int channel = 0; channel < 3; ++channel)
                if (counts_[3 * i + channel]) code_channel(i, channel);
        }
    }

  private:
    int32_t* at(size_t i, int k, int channel) { return &sh_[(i * k_ + k) * 3 + channel]; }
    uint32_t count(int32_t j, int channel) const { return j < 0 ? 0 : counts_[3 * j + channel]; }

    void code_counts(size_t i) {
        const int32_t a = neighbors_.of(i)[0], b = neighbors_.of(i)[1];
        const uint16_t* s = &scales_[3 * i];
        const uint32_t largest = std::max({s[0], s[1], s[2]}), size = (s[0] + s[1] + s[2]) / 4;
        std::array<uint32_t, 2> own{};
        for (int channel = 0; channel < 3; ++channel) {
            count_mixer_.choose({context(channel, own[0], own[1]), context(channel, own[0], count(a, channel) + count(b, channel)),
                           context(channel, largest, opacity_[i]),
                           context(channel, own[0] + own[1], size)});
            const uint32_t symbol = count_mixer_.symbol(coder_, 0, std::bit_width(static_cast<unsigned>(k_ - 1)), 4 * channel);
            if (symbol >= static_cast<uint32_t>(k_))
                coder_.fail("expected at most " + std::to_string(k_ - 1) + " coefficients in a channel, got " + std::to_string(symbol));
            counts_[3 * i + channel] = static_cast<uint8_t>(symbol);
            if (channel < 2) own[channel] = symbol;
        }
    }

    void code_channel(size_t i, int channel) {
        const uint32_t count = counts_[3 * i + channel];
        uint32_t left = count, history = 0, sum = 0;  // sum of the magnitudes so far
        int last = 0;                                 // the non-zero coefficient before this one
        const int32_t nearest = neighbors_.of(i)[0];
        const uint32_t total = counts_[3 * i] + counts_[3 * i + 1] + counts_[3 * i + 2];
        for (int k = 1; left > 0; ++k) {
            uint32_t nonzero = 0, magnitudes = 0;  // of the neighbours' coefficients
            int32_t values = 0;
            for (int32_t j : neighbors_.of(i)) {
                if (j < 0) break;
                const int32_t value = std::clamp(*at(j, k, channel), -50, 50);
                nonzero += value != 0;
                magnitudes += std::abs(value);
                values += value;
            }
            magnitudes = std::min(magnitudes, 63u);
            const uint32_t luma = channel > 0 ? classify(*at(i, k, 0)) : 0, red_blue = channel > 1 ? classify(*at(i, k, 1)) : 0;
            // What a value's sign and magnitude go by, fetched while the place is decoded.
            const uint32_t done = count - left, band = k < 4 ? 1 : k < 9 ? 2 : 3, activity = done ? std::min(31u, 2 * sum / done) : 0;
            const uint32_t of_nearest = nearest < 0 ? 0 : classify(*at(nearest, k, channel)), mean = classify(values);
            const std::array<uint32_t, 4> sign_contexts = {
                context(k, channel), context(k, channel, luma, red_blue),
                context(k, channel, last, last > 0 && *at(i, last, channel) < 0), context(channel, mean, of_nearest)};
            const std::array<uint32_t, 4> magnitude_contexts = {
                context(k, channel, magnitudes), context(k, channel, total), context(k, channel, luma & 15, red_blue & 15),
                context(channel, band, activity, count)};
            values_.prefetch(sign_contexts);
            values_.prefetch(magnitude_contexts);
            int significant = 1;
            if (left < static_cast<uint32_t>(k_ - k)) {
                const bool before = i > 0 && *at(i - 1, k, channel) != 0;
                places_.choose({context(k, channel, nonzero, before), context(k, channel, history & 15, count),
                                context(k, channel, magnitudes, left), context(k, channel, left, luma, std::min(red_blue & 15, 3u))});
                significant = places_.code(coder_, 0, 1, 3 * k + channel);
            }
            history = history << 1 | significant;
            if (!significant) continue;
            --left;
            values_.choose(sign_contexts);
            const int negative = values_.code(coder_, 0, 0, 3 * k + channel);
            values_.choose(magnitude_contexts);
            const uint32_t magnitude = code_magnitude(band);
            *at(i, k, channel) = negative ? -static_cast<int32_t>(magnitude) : static_cast<int32_t>(magnitude);
            sum = std::min(sum + magnitude, 1u << 24);
            last = k;
        }
    }

    // 1 to 14 one by one, then by the length of what is more.
    uint32_t code_magnitude(uint32_t band) {
        uint32_t m = 1;
        while (m < 15 && values_.code(coder_, 0, m, 45 + 3 * m + band)) ++m;
        return m < 15 ? m : 15 + values_.gamma(coder_, 0, 24, 15, 48);
    }

    Decoder& coder_;
    const Neighbors& neighbors_;
    const uint16_t *opacity_, *scales_;
    const int k_;
    int32_t* const sh_;
    std::vector<uint8_t> counts_;
    Mixer<4> count_mixer_{12}, places_{48}, values_{91};
};

}  // namespace

void decode_sh_ac_version2(ByteView coded, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales,
                           int num_coefficients, int32_t* sh) {
    Decoder coder(coded);
    ShAc(coder, neighbors, opacity, scales, num_coefficients, sh).run();
    coder.finish();
}

}  // namespace potr::entropy
