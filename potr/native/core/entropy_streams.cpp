// SPDX-License-Identifier: Apache-2.0
#include "entropy_streams.h"

#include <bit>
#include <cstdlib>
#include <limits>
#include <system_error>
#include <thread>

#include "entropy_mixer.h"

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
template <class Coder, class T>
void code_value(Mixer& mixer, Coder& coder, const Range& range, size_t first_set, T& value) {
    const uint32_t symbol = Coder::kDecodes ? 0 : static_cast<uint32_t>(static_cast<int32_t>(value) - range.lowest);
    const int64_t result = range.lowest + static_cast<int64_t>(mixer.symbol(coder, symbol, range.bits, first_set));
    if constexpr (Coder::kDecodes) {
        if (sizeof(T) < 4 && result > std::numeric_limits<T>::max())
            coder.fail("expected values up to " + std::to_string(std::numeric_limits<T>::max()) + ", got " + std::to_string(result));
        value = static_cast<T>(result);
    }
}

template <class Coder, class T>
void code_opacity(Coder& coder, const Neighbors& neighbors, const Ranges<T, 1>& ranges, T* values) {
    Mixer mixer(kMaxBits);
    const auto symbol = [&](int32_t j) { return j < 0 ? 0u : static_cast<uint32_t>(values[j] - ranges[0].lowest); };
    for (size_t i = 0; i < neighbors.size(); ++i) {
        const uint32_t depth = neighbors.depth(i), mean = neighbors.mean(i, symbol);
        const auto& near = neighbors.of(i);
        mixer.choose(std::array{context(), context(depth), context(mean / 8, depth), context(symbol(near[0]), symbol(near[1]))});
        code_value(mixer, coder, ranges[0], 0, values[i]);
    }
}

template <class Coder, class T>
void code_scales(Coder& coder, const Neighbors& neighbors, const Ranges<T, 3>& ranges, T* values) {
    Mixer mixer(3 * kMaxBits);
    for (size_t i = 0; i < neighbors.size(); ++i) {
        const uint32_t depth = neighbors.depth(i);
        uint32_t low = 0, high = 0;  // of the axes already coded
        for (uint32_t axis = 0; axis < 3; ++axis) {
            const uint32_t mean = neighbors.mean(i, [&](int32_t j) { return values[3 * j + axis]; });
            mixer.choose(std::array{context(axis), context(axis, depth, low), context(axis, low, high),
                                    context(axis, depth, mean / 2)});
            T& value = values[3 * i + axis];
            code_value(mixer, coder, ranges[axis], axis * kMaxBits, value);
            low = axis ? std::min<uint32_t>(low, value) : value;
            high = std::max<uint32_t>(high, value);
        }
    }
}

template <class Coder, class T>
void code_rotation(Coder& coder, const Neighbors& neighbors, const uint16_t* scales, const Ranges<T, 3>& ranges, T* values) {
    Mixer mixer(3 * kMaxBits);
    for (size_t i = 0; i < neighbors.size(); ++i) {
        T* const own = &values[3 * i];
        for (int axis = 0; axis < 3; ++axis) {
            const uint32_t first = axis > 0 ? own[0] : 0, second = axis > 1 ? own[1] : 0;
            // How alike the scales across the axis are says how little a turn about it shows.
            const uint16_t* s = &scales[3 * i];
            const int apart = std::abs(s[(axis + 1) % 3] - s[(axis + 2) % 3]), sum = s[0] + s[1] + s[2];
            mixer.choose(std::array{context(axis), context(axis, first, second), context(axis, std::min(apart, 20)),
                                    context(axis, sum / 8, std::min(apart / 2, 10))});
            code_value(mixer, coder, ranges[axis], axis * kMaxBits, own[axis]);
        }
    }
}

template <class Coder, class T>
void code_sh_dc(Coder& coder, const Neighbors& neighbors, int num_coefficients, const Ranges<T, 3>& ranges, T* sh) {
    Mixer mixer(3 * kMaxBits);
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
            mixer.choose(std::array{context(channel), context(channel, mean / 8, spread), context(channel, mean / 4, change[0], change[1]),
                                    context(channel, own[0] / 2, own[1])});
            code_value(mixer, coder, ranges[channel], channel * kMaxBits, sh[i * stride + channel]);
            own[channel] = symbol(i);
            change[channel] = classify(static_cast<int32_t>(4 * own[channel] - mean));
        }
    }
}

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
    constexpr size_t kAlone = 4096;  // splats that are not worth two threads
    constexpr int32_t kFar = 1 << 28, kTaken = std::numeric_limits<int32_t>::max();
    std::array<std::vector<int32_t>, 3> centers;
    for (int axis = 0; axis < 3; ++axis) {
        centers[axis].assign(n + kWindow, kFar);
        for (size_t i = 0; i < n; ++i)
            centers[axis][i + kWindow] = static_cast<int32_t>((2 * cells[3 * i + axis] + 1) << (21 - depths[i]));
    }
    const int32_t *xs = centers[0].data(), *ys = centers[1].data(), *zs = centers[2].data();
    const auto find = [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
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
    };
    if (n < kAlone) {
        find(0, n);
    } else {
        std::thread half;
        try {
            half = std::thread(find, 0, n / 2);  // every splat's neighbours are written by one of the two
        } catch (const std::system_error&) {     // no more threads to be had
            find(0, n / 2);
        }
        find(n / 2, n);
        if (half.joinable()) half.join();
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
    return encode<3>(values, neighbors.size(), 3,
                     [&](auto& c, auto& r, int16_t* v) { code_rotation(c, neighbors, scales, r, v); });
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

}  // namespace potr::entropy
