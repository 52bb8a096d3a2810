// SPDX-License-Identifier: Apache-2.0
// Fuzz target of the context-modelled sections: any bytes must be refused or decode to values that code to bytes which
// decode to the same. With clang: -fsanitize=fuzzer. Without: -DPOTR_FUZZ_DRIVER adds a main() with a seeded loop.
#include <cstdio>
#include <cstdlib>

#include "entropy_sh_ac.h"
#include "entropy_streams.h"
#include "octree.h"

namespace {

using namespace potr::entropy;

constexpr size_t kHeader = 3;  // which section, splats as u16
constexpr size_t kMaxSplats = 400;

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "fuzz_entropy: %s\n", what);
    std::abort();
}

// Fixed splats for the other attributes to refer to.
struct Given {
    explicit Given(size_t n) : cells(3 * n), depths(n), opacity(n), scales(3 * n) {
        for (size_t i = 0; i < n; ++i) {
            depths[i] = static_cast<uint8_t>(9 + i % 3);
            for (size_t axis = 0; axis < 3; ++axis) {
                cells[3 * i + axis] = static_cast<uint32_t>((i * (axis + 3)) % 500);
                scales[3 * i + axis] = static_cast<uint16_t>((i * (axis + 7)) % 40);
            }
            opacity[i] = static_cast<uint16_t>(i % 22);
        }
    }
    std::vector<uint32_t> cells;
    std::vector<uint8_t> depths;
    std::vector<uint16_t> opacity, scales;
};

bool octree(ByteView coded, size_t n) {
    const OctreeBytes streams = decode_octree(coded, n);
    const Bytes again = encode_octree(streams.nodes, streams.tail_depths, streams.tail_bits, streams.counts);
    const OctreeBytes same = decode_octree(again, n);
    if (same.nodes != streams.nodes || same.tail_depths != streams.tail_depths || same.tail_bits != streams.tail_bits ||
        same.counts != streams.counts)
        fail("another octree");
    try {
        potr::decode_octree(streams.nodes, streams.tail_depths, streams.tail_bits, streams.counts, n);
    } catch (const potr::OctreeStreamError&) {
        return false;
    }
    return true;
}

template <class T, class Decode, class Encode>
bool values(ByteView coded, size_t size, Decode decode, Encode encode) {
    std::vector<T> first(size), second(size);
    decode(coded, first.data());
    decode(encode(first.data()), second.data());
    if (first != second) fail("other values");
    return true;
}

// Luma or chroma; the other is one that all zeros have.
bool coefficients(ByteView coded, bool is_luma, const Neighbors& near, const uint16_t* opacity, const uint16_t* scales, int k) {
    const size_t n = near.size();
    std::vector<int32_t> sh(3 * k * n), same(sh.size());
    const auto decode = [&](ByteView first, ByteView second, std::vector<int32_t>& to) {
        AcLuma luma(n);
        decode_sh_ac_luma(first, near, opacity, scales, k, to.data(), luma);
        decode_sh_ac_chroma(second, near, opacity, scales, k, to.data(), luma);
    };
    decode(is_luma ? coded : ByteView(encode_sh_ac_luma(near, opacity, scales, k, same.data())),
           is_luma ? ByteView(encode_sh_ac_chroma(near, opacity, scales, k, same.data())) : coded, sh);
    for (int32_t v : sh)
        if (std::abs(v) > 1 << 24) return false;
    decode(encode_sh_ac_luma(near, opacity, scales, k, sh.data()), encode_sh_ac_chroma(near, opacity, scales, k, sh.data()), same);
    if (same != sh) fail("other coefficients");
    return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    if (size < kHeader) return 0;
    const size_t n = (bytes[1] | bytes[2] << 8) % (kMaxSplats + 1);
    const ByteView coded{bytes + kHeader, size - kHeader};
    const Given given(n);
    const Neighbors near(given.cells.data(), given.depths.data(), n);
    const int k = bytes[0] / 8 % 3 == 0 ? 4 : bytes[0] / 8 % 3 == 1 ? 9 : 16;
    const uint16_t *opacity = given.opacity.data(), *scales = given.scales.data();
    try {
        switch (bytes[0] % 7) {
            case 0: return octree(coded, n);
            case 1:
                return values<uint16_t>(coded, n, [&](ByteView c, uint16_t* v) { decode_opacity(c, near, v); },
                                        [&](const uint16_t* v) { return encode_opacity(near, v); });
            case 2:
                return values<uint16_t>(coded, 3 * n, [&](ByteView c, uint16_t* v) { decode_scales(c, near, v); },
                                        [&](const uint16_t* v) { return encode_scales(near, v); });
            case 3:
                return values<int16_t>(coded, 3 * n, [&](ByteView c, int16_t* v) { decode_rotation(c, near, scales, v); },
                                       [&](const int16_t* v) { return encode_rotation(near, scales, v); });
            case 4: {
                std::vector<int32_t> sh(3 * k * n), same(sh.size());
                decode_sh_dc(coded, near, k, sh.data());
                for (int32_t v : sh)
                    if (std::abs(v) > 1 << 24) return 0;  // refused by who called: no encoder gets it
                decode_sh_dc(encode_sh_dc(near, k, sh.data()), near, k, same.data());
                if (same != sh) fail("other colours");
                return 1;
            }
            default: return coefficients(coded, bytes[0] % 7 == 5, near, opacity, scales, k);
        }
    } catch (const StreamError& error) {
        if (error.offset > coded.size()) fail("an offset outside the section");
        return 0;
    }
}

#ifdef POTR_FUZZ_DRIVER
#include <chrono>
#include <random>

int main(int argc, char** argv) {
    if (argc != 3) fail("usage: fuzz_entropy SECONDS SEED");
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(argv[1]));
    std::mt19937_64 random(std::strtoull(argv[2], nullptr, 10));
    uint64_t inputs = 0, accepted = 0, valid = 0;
    while (inputs == 0 || std::chrono::steady_clock::now() < end) {
        const uint8_t kind = static_cast<uint8_t>(random() % 256);
        const size_t n = 1 + random() % 60;
        Bytes input{kind, static_cast<uint8_t>(n), 0};
        // Columns of plausible ranges before noise, so that the coder is reached; at times few bytes, at times zeros.
        for (int column = 0, columns = kind % 7 == 1 ? 1 : kind % 7 == 0 || kind % 7 > 4 ? 0 : 3; column < columns; ++column)
            input.insert(input.end(), {static_cast<uint8_t>(random()), 0, 0, 0, static_cast<uint8_t>(random() % 28)});
        const uint64_t length = random() % (random() % 4 ? 400 : 8), mask = random() % 3 ? 255 : random();
        for (uint64_t i = 0; i < length; ++i) input.push_back(static_cast<uint8_t>(random() & mask));
        if (random() % 8 == 0) input[random() % input.size()] ^= static_cast<uint8_t>(1 << random() % 8);
        accepted += LLVMFuzzerTestOneInput(input.data(), input.size());
        ++inputs;
        // What decodes is cut to what the decoder reads: a valid one of its own making.
        const Given given(n);
        const Neighbors near(given.cells.data(), given.depths.data(), n);
        Bytes good = encode_scales(near, given.scales.data());
        good.insert(good.begin(), {2, static_cast<uint8_t>(n), 0});
        if (LLVMFuzzerTestOneInput(good.data(), good.size()) != 1) fail("a valid input was refused");
        ++valid;
        good[random() % good.size()] ^= static_cast<uint8_t>(1 << random() % 8);
        accepted += LLVMFuzzerTestOneInput(good.data(), good.size());
        ++inputs;
    }
    std::printf("%llu mutated inputs, %llu of them valid, from %llu valid ones\n", static_cast<unsigned long long>(inputs),
                static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(valid));
}
#endif
