// SPDX-License-Identifier: Apache-2.0
#include "entropy_streams.h"

#include <bit>
#include <cstdlib>
#include <limits>

namespace potr::entropy {
namespace {

// The values of a column: lowest + a symbol of `bits` bits.
struct Range {
    int32_t lowest = 0;
    int bits = 0;
};

constexpr size_t kRangeBytes = 5;  // i32 lowest, u8 bits
constexpr int kMaxBits = 26;

template <class T, int Columns>
using Ranges = std::array<Range, Columns>;

template <class T, int Columns>
Ranges<T, Columns> find_ranges(const T* values, size_t n, size_t stride) {
    Ranges<T, Columns> ranges;
    for (int c = 0; c < Columns && n > 0; ++c) {
        int32_t low = values[c], high = values[c];
        for (size_t i = 0; i < n; ++i) {
            low = std::min<int32_t>(low, values[i * stride + c]);
            high = std::max<int32_t>(high, values[i * stride + c]);
        }
        ranges[c] = {low, static_cast<int>(std::bit_width(static_cast<uint32_t>(high - low)))};
    }
    return ranges;
}

template <class T, int Columns>
Bytes with_ranges(const Ranges<T, Columns>& ranges, const Bytes& coded) {
    Bytes bytes;
    for (const Range& r : ranges) {
        for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<uint8_t>(static_cast<uint32_t>(r.lowest) >> shift));
        bytes.push_back(static_cast<uint8_t>(r.bits));
    }
    bytes.insert(bytes.end(), coded.begin(), coded.end());
    return bytes;
}

template <class T, int Columns>
Ranges<T, Columns> read_ranges(ByteView bytes) {
    constexpr int32_t kLargest = sizeof(T) == 4 ? 1 << 24 : std::numeric_limits<T>::max();
    constexpr int32_t kSmallest = sizeof(T) == 4 ? -kLargest : std::numeric_limits<T>::min();
    if (bytes.size() < kRangeBytes * Columns)
        throw StreamError(bytes.size(), "expected " + std::to_string(kRangeBytes * Columns) + " bytes of ranges, got the end");
    Ranges<T, Columns> ranges;
    for (int c = 0; c < Columns; ++c) {
        const uint8_t* at = &bytes[kRangeBytes * c];
        const uint32_t lowest = at[0] | at[1] << 8 | at[2] << 16 | static_cast<uint32_t>(at[3]) << 24;
        ranges[c] = {static_cast<int32_t>(lowest), at[4]};
        if (ranges[c].lowest < kSmallest || ranges[c].lowest > kLargest)
            throw StreamError(kRangeBytes * c, "expected a lowest value in " + std::to_string(kSmallest) + ".." +
                                                   std::to_string(kLargest) + ", got " + std::to_string(ranges[c].lowest));
        if (ranges[c].bits > kMaxBits)
            throw StreamError(kRangeBytes * c + 4, "expected at most 26 bits, got " + std::to_string(ranges[c].bits));
    }
    return ranges;
}

// Codes, or decodes in place, one value of a column.
template <class Mixer, class Coder, class T>
void code_value(Mixer& mixer, Coder& coder, const Range& range, size_t first_set, T& value) {
    const uint32_t symbol = Coder::kDecodes ? 0 : static_cast<uint32_t>(static_cast<int32_t>(value) - range.lowest);
    const int64_t result = range.lowest + static_cast<int64_t>(mixer.symbol(coder, symbol, range.bits, first_set));
    if constexpr (Coder::kDecodes) {
        if (sizeof(T) < 4 && result > std::numeric_limits<T>::max())
            coder.fail("expected values up to " + std::to_string(std::numeric_limits<T>::max()) + ", got " + std::to_string(result));
        value = static_cast<T>(result);
    }
}

// A difference in 19 classes, finer near 0.
uint32_t classify(int32_t v) {
    static constexpr uint8_t kClasses[40] = {0, 1, 2, 3, 4, 4, 5, 5, 5, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7,
                                             7, 7, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8};
    const int32_t a = std::abs(v);
    const uint32_t c = a < 40 ? kClasses[a] : 9;
    return v < 0 ? 16 + c : c;
}

template <class Coder, class T>
void code_opacity(Coder& coder, const Neighbors& neighbors, const Ranges<T, 1>& ranges, T* values) {
    Mixer<4> mixer(kMaxBits);
    const auto symbol = [&](int32_t j) { return j < 0 ? 0u : static_cast<uint32_t>(values[j] - ranges[0].lowest); };
    for (size_t i = 0; i < neighbors.size(); ++i) {
        const uint32_t depth = neighbors.depth(i), mean = neighbors.mean(i, symbol);
        const auto& near = neighbors.of(i);
        mixer.choose({context(), context(depth), context(mean / 8, depth), context(symbol(near[0]), symbol(near[1]))});
        code_value(mixer, coder, ranges[0], 0, values[i]);
    }
}

template <class Coder, class T>
void code_scales(Coder& coder, const Neighbors& neighbors, const Ranges<T, 3>& ranges, T* values) {
    Mixer<5> mixer(3 * kMaxBits);
    for (size_t i = 0; i < neighbors.size(); ++i) {
        const uint32_t depth = neighbors.depth(i);
        uint32_t low = 0, high = 0;  // of the axes already coded
        for (uint32_t axis = 0; axis < 3; ++axis) {
            const uint32_t mean = neighbors.mean(i, [&](int32_t j) { return values[3 * j + axis]; });
            mixer.choose({context(axis), context(axis, depth, low), context(axis, low, high), context(axis, depth, mean / 2),
                          context(axis, depth, (low + high) / 2, mean / 4)});
            T& value = values[3 * i + axis];
            code_value(mixer, coder, ranges[axis], axis * kMaxBits, value);
            low = axis ? std::min<uint32_t>(low, value) : value;
            high = std::max<uint32_t>(high, value);
        }
    }
}

template <class Coder, class T>
void code_rotation(Coder& coder, const Neighbors& neighbors, const uint16_t* scales, const Ranges<T, 3>& ranges, T* values) {
    Mixer<4> mixer(3 * kMaxBits);
    const auto order = [&](int32_t j) {
        if (j < 0) return 0;
        const uint16_t* s = &scales[3 * j];
        return 4 * (s[0] > s[1]) + 2 * (s[1] > s[2]) + (s[0] > s[2]);
    };
    for (size_t i = 0; i < neighbors.size(); ++i) {
        const int32_t near = neighbors.of(i)[0];
        const int own_order = order(static_cast<int32_t>(i)), near_order = order(near);
        T* const own = &values[3 * i];
        for (int axis = 0; axis < 3; ++axis) {
            const auto of_near = [&](int a) { return near < 0 ? 0 : static_cast<int>(values[3 * near + a]); };
            const int change = axis ? (own[axis - 1] - of_near(axis - 1)) >> 2 : 0;
            mixer.choose({context(axis), context(axis, axis > 0 ? own[0] : 0, axis > 1 ? own[1] : 0),
                          context(axis, of_near(axis), own_order), context(axis, own_order, near_order, of_near(axis), change)});
            code_value(mixer, coder, ranges[axis], axis * kMaxBits, own[axis]);
        }
    }
}

template <class Coder, class T>
void code_sh_dc(Coder& coder, const Neighbors& neighbors, int num_coefficients, const Ranges<T, 3>& ranges, T* sh) {
    Mixer<5> mixer(3 * kMaxBits);
    const size_t stride = 3 * num_coefficients;
    for (size_t i = 0; i < neighbors.size(); ++i) {
        std::array<uint32_t, 3> own{}, change{};  // symbols of the channels already coded, and how they differ from the mean
        for (int channel = 0; channel < 3; ++channel) {
            const auto symbol = [&](size_t j) { return static_cast<uint32_t>(sh[j * stride + channel] - ranges[channel].lowest); };
            const uint32_t mean = neighbors.mean(i, symbol);
            uint32_t low = ~0u, high = 0;
            for (int32_t j : neighbors.of(i)) {
                if (j < 0) break;
                low = std::min(low, symbol(j));
                high = std::max(high, symbol(j));
            }
            const uint32_t spread = classify(high > low ? static_cast<int32_t>(high - low) : 0);
            mixer.choose({context(channel), context(channel, mean / 4), context(channel, mean / 8, spread),
                          context(channel, mean / 4, change[0], change[1]), context(channel, own[0] / 2, own[1])});
            code_value(mixer, coder, ranges[channel], channel * kMaxBits, sh[i * stride + channel]);
            own[channel] = symbol(i);
            change[channel] = classify(static_cast<int32_t>(4 * own[channel] - mean));
        }
    }
}

// The AC coefficients: each splat's and channel's count of non-zero ones, then where they are and what.
template <class Coder>
class ShAc {
  public:
    ShAc(Coder& coder, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int num_coefficients, int32_t* sh)
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
            uint32_t symbol = 0;
            if constexpr (!Coder::kDecodes)
                for (int k = 1; k < k_; ++k) symbol += *at(i, k, channel) != 0;
            count_mixer_.choose({context(channel, own[0], own[1]), context(channel, own[0], count(a, channel) + count(b, channel)),
                           context(channel, largest, opacity_[i]),
                           context(channel, own[0] + own[1], size)});
            symbol = count_mixer_.symbol(coder_, symbol, std::bit_width(static_cast<unsigned>(k_ - 1)), 4 * channel);
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
                significant = places_.code(coder_, *at(i, k, channel) != 0, 1, 3 * k + channel);
            }
            history = history << 1 | significant;
            if (!significant) continue;
            --left;
            int32_t& value = *at(i, k, channel);
            values_.choose(sign_contexts);
            const int negative = values_.code(coder_, value < 0, 0, 3 * k + channel);
            values_.choose(magnitude_contexts);
            const uint32_t magnitude = code_magnitude(static_cast<uint32_t>(std::abs(value)), band);
            if constexpr (Coder::kDecodes) value = negative ? -static_cast<int32_t>(magnitude) : static_cast<int32_t>(magnitude);
            sum = std::min(sum + magnitude, 1u << 24);
            last = k;
        }
    }

    // 1 to 14 one by one, then by the length of what is more.
    uint32_t code_magnitude(uint32_t magnitude, uint32_t band) {
        uint32_t m = 1;
        while (m < 15 && values_.code(coder_, magnitude > m, m, 45 + 3 * m + band)) ++m;
        return m < 15 ? m : 15 + code_gamma(values_, coder_, magnitude - 15, 24, 15, 48);
    }

    Coder& coder_;
    const Neighbors& neighbors_;
    const uint16_t *opacity_, *scales_;
    const int k_;
    int32_t* const sh_;
    std::vector<uint8_t> counts_;
    Mixer<4> count_mixer_{12}, places_{48}, values_{91};
};

template <int Columns, class T, class Run>
Bytes encode(const T* values, size_t n, size_t stride, Run run) {
    const Ranges<T, Columns> ranges = find_ranges<T, Columns>(values, n, stride);
    Encoder coder;
    run(coder, ranges, const_cast<T*>(values));  // an encoder changes nothing
    return with_ranges<T, Columns>(ranges, coder.finish());
}

template <int Columns, class T, class Run>
void decode(ByteView coded, T* values, Run run) {
    const Ranges<T, Columns> ranges = read_ranges<T, Columns>(coded);
    try {
        Decoder coder(coded.subspan(kRangeBytes * Columns));
        run(coder, ranges, values);
        coder.finish();
    } catch (const StreamError& error) {
        throw StreamError(error.offset + kRangeBytes * Columns, error.what());
    }
}

}  // namespace

Neighbors::Neighbors(const uint32_t* cells, const uint8_t* depths, size_t n) : depths_(depths, depths + n), nearest_(n), weights_(n) {
    // The cells' centres in units of which the cube's side is 2^22; before the first splat there are kWindow far ones.
    constexpr int32_t kFar = 1 << 28, kTaken = std::numeric_limits<int32_t>::max();
    std::array<std::vector<int32_t>, 3> centers;
    for (int axis = 0; axis < 3; ++axis) {
        centers[axis].assign(n + kWindow, kFar);
        for (size_t i = 0; i < n; ++i)
            centers[axis][i + kWindow] = static_cast<int32_t>((2 * cells[3 * i + axis] + 1) << (21 - depths[i]));
    }
    const int32_t *xs = centers[0].data(), *ys = centers[1].data(), *zs = centers[2].data();
    for (size_t i = 0; i < n; ++i) {
        const int32_t x = xs[i + kWindow], y = ys[i + kWindow], z = zs[i + kWindow];
        std::array<int32_t, kWindow> distances;
        for (int j = 0; j < kWindow; ++j)
            distances[j] = std::abs(xs[i + j] - x) + std::abs(ys[i + j] - y) + std::abs(zs[i + j] - z);
        const int32_t unit = (1 << (22 - depths[i])) / 4 + 1;
        for (int k = 0; k < kCount; ++k) {
            int32_t smallest = kTaken;
            for (int j = 0; j < kWindow; ++j) smallest = std::min(smallest, distances[j]);
            int j = kWindow - 1;
            while (distances[j] != smallest) --j;
            distances[j] = kTaken;
            nearest_[i][k] = smallest < kFar / 2 ? static_cast<int32_t>(i) - kWindow + j : -1;
            weights_[i][k] = static_cast<uint32_t>((1 << 16) / (1 + smallest / unit) + 1);
        }
    }
}

Bytes encode_opacity(const Neighbors& neighbors, const uint16_t* values) {
    return encode<1>(values, neighbors.size(), 1, [&](auto& c, auto& r, uint16_t* v) { code_opacity(c, neighbors, r, v); });
}

void decode_opacity(ByteView coded, const Neighbors& neighbors, uint16_t* values) {
    decode<1>(coded, values, [&](auto& c, auto& r, uint16_t* v) { code_opacity(c, neighbors, r, v); });
}

Bytes encode_scales(const Neighbors& neighbors, const uint16_t* values) {
    return encode<3>(values, neighbors.size(), 3, [&](auto& c, auto& r, uint16_t* v) { code_scales(c, neighbors, r, v); });
}

void decode_scales(ByteView coded, const Neighbors& neighbors, uint16_t* values) {
    decode<3>(coded, values, [&](auto& c, auto& r, uint16_t* v) { code_scales(c, neighbors, r, v); });
}

Bytes encode_rotation(const Neighbors& neighbors, const uint16_t* scales, const int16_t* values) {
    return encode<3>(values, neighbors.size(), 3, [&](auto& c, auto& r, int16_t* v) { code_rotation(c, neighbors, scales, r, v); });
}

void decode_rotation(ByteView coded, const Neighbors& neighbors, const uint16_t* scales, int16_t* values) {
    decode<3>(coded, values, [&](auto& c, auto& r, int16_t* v) { code_rotation(c, neighbors, scales, r, v); });
}

Bytes encode_sh_dc(const Neighbors& neighbors, int num_coefficients, const int32_t* sh) {
    return encode<3>(sh, neighbors.size(), 3 * num_coefficients,
                     [&](auto& c, auto& r, int32_t* v) { code_sh_dc(c, neighbors, num_coefficients, r, v); });
}

void decode_sh_dc(ByteView coded, const Neighbors& neighbors, int num_coefficients, int32_t* sh) {
    decode<3>(coded, sh, [&](auto& c, auto& r, int32_t* v) { code_sh_dc(c, neighbors, num_coefficients, r, v); });
}

Bytes encode_sh_ac(const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales, int num_coefficients, const int32_t* sh) {
    Encoder coder;
    ShAc(coder, neighbors, opacity, scales, num_coefficients, const_cast<int32_t*>(sh)).run();
    return coder.finish();
}

void decode_sh_ac(ByteView coded, const Neighbors& neighbors, const uint16_t* opacity, const uint16_t* scales,
                  int num_coefficients, int32_t* sh) {
    Decoder coder(coded);
    ShAc(coder, neighbors, opacity, scales, num_coefficients, sh).run();
    coder.finish();
}

}  // namespace potr::entropy
