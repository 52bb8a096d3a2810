// SPDX-License-Identifier: Apache-2.0
// Fuzz target of the native octree decoder: it must refuse its input or decode it to what encodes to the same bytes.
// With clang: -fsanitize=fuzzer. Without: -DPOTR_FUZZ_DRIVER adds a main() with a seeded mutation loop.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "octree.h"

namespace {

constexpr size_t kHeader = 14;  // u16 splats, then the sizes of the first three streams as u32
constexpr size_t kMaxSplats = 4096;

uint32_t u32(const uint8_t* p) { return p[0] | p[1] << 8 | p[2] << 16 | static_cast<uint32_t>(p[3]) << 24; }

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "fuzz_octree: %s\n", what);
    std::abort();
}

potr::ByteView take(potr::ByteView& data, size_t size) {
    const potr::ByteView head = data.first(std::min(size, data.size()));
    data = data.subspan(head.size());
    return head;
}

bool same(const potr::Bytes& a, potr::ByteView b) { return std::equal(a.begin(), a.end(), b.begin(), b.end()); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* bytes, size_t size) {
    if (size < kHeader) return 0;
    const size_t splats = (bytes[0] | bytes[1] << 8) % (kMaxSplats + 1);
    potr::ByteView rest{bytes + kHeader, size - kHeader};
    const auto nodes = take(rest, u32(bytes + 2)), tails = take(rest, u32(bytes + 6)), bits = take(rest, u32(bytes + 10));
    try {
        const potr::Cells cells = potr::decode_octree(nodes, tails, bits, rest, splats);
        if (cells.depths.size() != splats || cells.coordinates.size() != 3 * splats) fail("wrong number of splats");
        const potr::OctreeStreams again = potr::encode_octree(cells.coordinates, cells.depths);
        if (!same(again.nodes, nodes) || !same(again.tail_depths, tails) || !same(again.tail_bits, bits) ||
            !same(again.counts, rest))
            fail("the decoded octree encodes to other bytes");
        return 1;
    } catch (const potr::OctreeStreamError&) {
        return 0;
    }
}

#ifdef POTR_FUZZ_DRIVER
#include <chrono>
#include <random>

namespace {

using Random = std::mt19937_64;

void append_u32(potr::Bytes& out, size_t value) {
    for (int shift = 0; shift < 32; shift += 8) out.push_back(static_cast<uint8_t>(value >> shift));
}

// A valid input: random clustered cells, ordered and encoded.
potr::Bytes valid_input(Random& random) {
    const size_t splats = random() % 200;
    const int max_depth = static_cast<int>(random() % (potr::kMaxDepth + 1)), spread = static_cast<int>(random() % (max_depth + 1));
    std::vector<uint32_t> cells(3 * splats);
    std::vector<uint8_t> required(splats);
    for (uint32_t& c : cells) c = static_cast<uint32_t>(random() % (1ull << spread));
    for (uint8_t& d : required) d = static_cast<uint8_t>(random() % (max_depth + 1));
    const potr::Order order = potr::order_leaves(cells, required, max_depth);
    std::vector<uint32_t> leaves(3 * splats);
    for (size_t i = 0; i < splats; ++i)
        for (int axis = 0; axis < 3; ++axis)
            leaves[3 * i + axis] = cells[3 * order.order[i] + axis] >> (max_depth - order.depths[i]);
    const potr::OctreeStreams s = potr::encode_octree(leaves, order.depths);
    potr::Bytes input{static_cast<uint8_t>(splats), static_cast<uint8_t>(splats >> 8)};
    for (const potr::Bytes* part : {&s.nodes, &s.tail_depths, &s.tail_bits}) append_u32(input, part->size());
    for (const potr::Bytes* part : {&s.nodes, &s.tail_depths, &s.tail_bits, &s.counts})
        input.insert(input.end(), part->begin(), part->end());
    return input;
}

void mutate(potr::Bytes& input, Random& random) {
    static constexpr uint8_t kTelling[] = {0, 1, 21, 22, 127, 128, 255};
    const size_t at = random() % (input.size() + 1);
    switch (random() % 6) {
        case 0: input.insert(input.begin() + at, random() % 4 ? 1 : random() % 32, kTelling[random() % 7]); return;
        case 1: if (at < input.size()) input.erase(input.begin() + at); return;
        case 2: if (at < input.size()) input[at] ^= static_cast<uint8_t>(1 << random() % 8); return;
        case 3: if (at < input.size()) input[at] = kTelling[random() % 7]; return;
        case 4: input[random() % std::min<size_t>(kHeader, input.size())] += random() % 2 ? 1 : 255; return;
        default: input.resize(std::max<size_t>(at, kHeader)); return;
    }
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) fail("usage: fuzz_octree SECONDS SEED");
    const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(std::atof(argv[1]));
    Random random(std::strtoull(argv[2], nullptr, 10));
    uint64_t inputs = 0, valid = 0, accepted = 0;
    while (inputs == 0 || std::chrono::steady_clock::now() < end) {
        const potr::Bytes good = valid_input(random);
        if (LLVMFuzzerTestOneInput(good.data(), good.size()) != 1) fail("a valid input was refused");
        ++valid;
        for (int round = 0; round < 50; ++round, ++inputs) {
            potr::Bytes bad = good;
            for (size_t times = 1 + random() % 3; times > 0; --times) mutate(bad, random);
            accepted += LLVMFuzzerTestOneInput(bad.data(), bad.size());
        }
    }
    std::printf("%llu mutated inputs, %llu of them valid, from %llu valid ones\n", static_cast<unsigned long long>(inputs),
                static_cast<unsigned long long>(accepted), static_cast<unsigned long long>(valid));
}
#endif
