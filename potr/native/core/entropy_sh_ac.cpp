// SPDX-License-Identifier: Apache-2.0
#include "entropy_sh_ac.h"

#include <bit>
#include <cstdlib>

#include "entropy_mixer.h"

namespace potr::entropy {
namespace {

using Row = AcPlane::Row;
constexpr int kLargest = 31;       // in a row
constexpr size_t kPublished = 64;  // splats at a time

// Magnitudes up to 31 in ten classes, finer near 0.
constexpr std::array<uint8_t, kLargest + 1> kLevels = {0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7,
                                                       7, 7, 7, 7, 7, 7, 8, 8, 8, 8, 8, 8, 8, 8, 9, 9};
uint32_t level(int32_t v) { return kLevels[std::min(std::abs(v), kLargest)]; }
uint32_t signed_level(int32_t v) { return v < 0 ? 9 + level(v) : level(v); }  // 0 to 18

// Counters by an index of their own: the contexts are few.
class Table {
  public:
    explicit Table(size_t size) : counters_(size, kNewCounter) {}
    Counter* operator[](size_t i) { return &counters_[i]; }

  private:
    std::vector<Counter> counters_;
};

// What a channel's decisions have taught.
struct Models {
    Mixer counts{5};
    Table near{16 * 10}, history{16 * 16 * 16}, impact_left{16 * 64 * 16}, levels_left{16 * 16 * 40};
    Table place{16}, colors{16 * 19 * 19}, last{16 * 32}, neighbors{19 * 19};
    Table magnitudes{16 * 100 * 16}, impact{16 * 64 * 16}, levels{16 * 100 * 16}, activity{3 * 32 * 16 * 16};
    std::array<Lanes, 16> place_weights = filled<16>(), sign_weights = filled<16>();
    std::array<Lanes, 48> magnitude_weights = filled<48>();

  private:
    template <size_t Size>
    static std::array<Lanes, Size> filled() {
        std::array<Lanes, Size> weights;
        weights.fill(kNewWeights);
        return weights;
    }
};

using Values = std::array<int8_t, 16>;  // a row, one value at a time
Values values_of(const Row& row) { return std::bit_cast<Values>(row); }

// What is known of a splat and channel before its coefficients, by k.
struct Around {
    Values magnitudes, nonzero, sum;  // of the neighbours
    Values nearest, before;           // the nearest neighbour, the splat before
    Values luma, red_blue;            // the splat's own
    uint32_t impact;                  // by opacity and size, 0 to 63
};

template <class Coder>
class Channel {
  public:
    // before: the channels' planes coded before this one's.
    Channel(Coder& coder, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int num_coefficients,
            int32_t* sh, int channel, const AcPlane* luma, const AcPlane* red_blue, AcPlane& own)
        : coder_(coder), neighbors_(neighbors), opacity_(opacity), scales_(scales), k_(num_coefficients), sh_(sh + channel),
          luma_(luma), red_blue_(red_blue), own_(own) {}

    void code(size_t i) {
        std::array<size_t, Neighbors::kCount> near;
        for (int j = 0; j < Neighbors::kCount; ++j) near[j] = neighbors_.of(i)[j] < 0 ? neighbors_.size() : neighbors_.of(i)[j];
        const uint32_t count = code_count(i, near);
        own_.counts[i] = static_cast<uint8_t>(count);
        if (count == 0) return;
        const Around around = look_around(i, near);
        const uint32_t places = code_places(i, around, count);
        code_magnitudes(i, around, count, places, code_signs(i, around, places));
    }

  private:
    int32_t& at(size_t i, int k) { return sh_[(i * k_ + k) * 3]; }

    uint32_t code_count(size_t i, const std::array<size_t, Neighbors::kCount>& near) {
        uint32_t count = 0;
        if constexpr (!Coder::kDecodes)
            for (int k = 1; k < k_; ++k) count += at(i, k) != 0;
        const uint16_t* s = &scales_[3 * i];
        const uint32_t a = luma_ ? luma_->counts[i] : 0, b = red_blue_ ? red_blue_->counts[i] : 0;
        const uint32_t of_near = (2 * own_.counts[near[0]] + own_.counts[near[1]] + own_.counts[near[2]]) / 2;
        models_.counts.choose(std::array{context(a, b), context(a, of_near), context(std::max({s[0], s[1], s[2]}), opacity_[i]),
                                         context(a + b, (s[0] + s[1] + s[2]) / 32)});
        if (!models_.counts.code(coder_, count > 0, 0, 4)) return 0;
        count = 1 + models_.counts.symbol(coder_, count - 1, std::bit_width(static_cast<unsigned>(k_ - 2)), 0);
        if (count >= static_cast<uint32_t>(k_))
            coder_.fail("expected at most " + std::to_string(k_ - 1) + " coefficients in a channel, got " + std::to_string(count));
        return count;
    }

    Around look_around(size_t i, const std::array<size_t, Neighbors::kCount>& near) const {
        Row magnitudes{}, nonzero{}, sum{};
        for (size_t j : near) {
            const Row row = own_.rows[j];
            magnitudes += row > -row ? row : -row;
            nonzero -= row != 0;  // a lane that holds is -1
            sum += row;
        }
        const uint16_t* s = &scales_[3 * i];
        return {.magnitudes = values_of(magnitudes),
                .nonzero = values_of(nonzero),
                .sum = values_of(sum),
                .nearest = values_of(own_.rows[near[0]]),
                .before = values_of(i > 0 ? own_.rows[i - 1] : Row{}),
                .luma = values_of(luma_ ? luma_->rows[i] : Row{}),
                .red_blue = values_of(red_blue_ ? red_blue_->rows[i] : Row{}),
                .impact = static_cast<uint32_t>(8 * std::min(opacity_[i] / 4, 7) + std::min((s[0] + s[1] + s[2]) / 48, 7))};
    }

    // Bit k for each coefficient that is not 0.
    uint32_t code_places(size_t i, const Around& around, uint32_t count) {
        uint32_t places = 0, history = 0, left = count;
        for (int k = 1; left > 0; ++k) {
            if (left == static_cast<uint32_t>(k_ - k)) return places | ((1u << left) - 1) << k;
            const uint32_t levels = 4 * level(around.luma[k]) + std::min(level(around.red_blue[k]), 3u);
            const Counters counters = {
                models_.near[k * 10 + 2 * around.nonzero[k] + (around.before[k] != 0)], models_.history[(k * 16 + history) * 16 + count],
                models_.impact_left[(k * 64 + around.impact) * 16 + left], models_.levels_left[(k * 16 + left) * 40 + levels]};
            const int significant = decide(coder_, at(i, k) != 0, counters, 0, models_.place_weights[k]);
            places |= significant << k;
            history = (2 * history + significant) & 15;
            left -= significant;
        }
        return places;
    }

    // Bit k for each of them that is negative.
    uint32_t code_signs(size_t i, const Around& around, uint32_t places) {
        uint32_t signs = 0, last = 0, negative = 0;  // the coefficient before this one, and its sign
        for (; places; places &= places - 1) {
            const uint32_t k = std::countr_zero(places);
            const Counters counters = {
                models_.place[k], models_.colors[(k * 19 + signed_level(around.luma[k])) * 19 + signed_level(around.red_blue[k])],
                models_.last[(k * 16 + last) * 2 + negative],
                models_.neighbors[signed_level(around.sum[k]) * 19 + signed_level(around.nearest[k])]};
            negative = decide(coder_, at(i, k) < 0, counters, 0, models_.sign_weights[k]);
            signs |= negative << k;
            last = k;
        }
        return signs;
    }

    void code_magnitudes(size_t i, const Around& around, uint32_t count, uint32_t places, uint32_t signs) {
        Values row{};
        uint32_t done = 0, total = 0;
        for (; places; places &= places - 1) {
            const uint32_t k = std::countr_zero(places), band = k < 4 ? 0 : k < 9 ? 1 : 2;
            const int32_t nearest = std::abs(around.nearest[k]), others = (around.magnitudes[k] - nearest) / 2;
            const uint32_t activity = done ? std::min(31u, 2 * total / done) : 0;
            const Counters lines = {models_.magnitudes[((k * 10 + level(nearest)) * 10 + level(others)) * 16],
                                    models_.impact[(k * 64 + around.impact) * 16],
                                    models_.levels[((k * 10 + level(around.luma[k])) * 10 + level(around.red_blue[k])) * 16],
                                    models_.activity[((band * 32 + activity) * 16 + count) * 16]};
            int32_t& value = at(i, k);
            const uint32_t magnitude = code_magnitude(static_cast<uint32_t>(std::abs(value)), lines, band);
            const bool negative = signs >> k & 1;
            if constexpr (Coder::kDecodes) value = negative ? -static_cast<int32_t>(magnitude) : static_cast<int32_t>(magnitude);
            const int8_t clamped = static_cast<int8_t>(std::min<uint32_t>(magnitude, kLargest));
            row[k] = negative ? -clamped : clamped;
            total = std::min(total + magnitude, 1u << 24);
            ++done;
        }
        own_.rows[i] = std::bit_cast<Row>(row);
    }

    // 1 to 14 one by one, then by the length of what is more.
    uint32_t code_magnitude(uint32_t magnitude, const Counters& lines, uint32_t band) {
        for (uint32_t m = 1; m < 15; ++m)
            if (!decide(coder_, magnitude > m, lines, m, models_.magnitude_weights[3 * m + band])) return m;
        return 15 + code_gamma(coder_, magnitude - 15, 24, lines, 15, models_.magnitude_weights[0]);
    }

    Coder& coder_;
    const Neighbors& neighbors_;
    const uint16_t *opacity_, *scales_;
    const int k_;
    int32_t* const sh_;
    const AcPlane *const luma_, *const red_blue_;
    AcPlane& own_;
    Models models_;
};

template <class Coder>
void code_luma(Coder& coder, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int k, int32_t* sh, AcLuma& luma) {
    Channel<Coder> channel(coder, neighbors, opacity, scales, k, sh, 0, nullptr, nullptr, luma.plane);
    for (size_t i = 0; i < neighbors.size(); ++i) {
        channel.code(i);
        if ((i + 1) % kPublished == 0) luma.publish(i + 1);
    }
}

template <class Coder>
void code_chroma(Coder& coder, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int k, int32_t* sh,
                 const AcLuma& luma) {
    AcPlane first(neighbors.size()), second(neighbors.size());
    Channel<Coder> red_blue(coder, neighbors, opacity, scales, k, sh, 1, &luma.plane, nullptr, first);
    Channel<Coder> green(coder, neighbors, opacity, scales, k, sh, 2, &luma.plane, &first, second);
    for (size_t i = 0, ready = 0; i < neighbors.size(); ++i) {
        if (i >= ready) ready = luma.wait(i);
        red_blue.code(i);
        green.code(i);
    }
}

}  // namespace

Bytes encode_sh_ac_luma(const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int num_coefficients,
                        const int32_t* sh) {
    Encoder coder;
    AcLuma luma(neighbors.size());
    code_luma(coder, neighbors, opacity, scales, num_coefficients, const_cast<int32_t*>(sh), luma);  // an encoder changes nothing
    return coder.finish();
}

Bytes encode_sh_ac_chroma(const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int num_coefficients,
                          const int32_t* sh) {
    Encoder coder;
    const size_t n = neighbors.size();
    AcLuma luma(n);
    for (size_t i = 0; i < n; ++i)
        for (int k = 1; k < num_coefficients; ++k) {
            const int32_t value = sh[(i * num_coefficients + k) * 3];
            luma.plane.rows[i][k] = static_cast<int8_t>(std::clamp(value, -kLargest, kLargest));
            luma.plane.counts[i] += value != 0;
        }
    luma.publish(n);
    code_chroma(coder, neighbors, opacity, scales, num_coefficients, const_cast<int32_t*>(sh), luma);
    return coder.finish();
}

void decode_sh_ac_luma(ByteView coded, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales,
                       int num_coefficients, int32_t* sh, AcLuma& luma) {
    try {
        Decoder coder(coded);
        code_luma(coder, neighbors, opacity, scales, num_coefficients, sh, luma);
        coder.finish();
    } catch (...) {
        luma.close();
        throw;
    }
    luma.publish(neighbors.size());
}

void decode_sh_ac_chroma(ByteView coded, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales,
                         int num_coefficients, int32_t* sh, const AcLuma& luma) {
    Decoder coder(coded);
    code_chroma(coder, neighbors, opacity, scales, num_coefficients, sh, luma);
    coder.finish();
}

}  // namespace potr::entropy
