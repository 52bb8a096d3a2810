// SPDX-License-Identifier: Apache-2.0
#include "octree.h"

#include <algorithm>
#include <array>
#include <bit>
#include <utility>

namespace potr {
namespace {

// 21 bits to every third bit of 63.
uint64_t spread(uint64_t v) {
    v = (v | v << 32) & 0x001f00000000ffffull;
    v = (v | v << 16) & 0x001f0000ff0000ffull;
    v = (v | v << 8) & 0x100f00f00f00f00full;
    v = (v | v << 4) & 0x10c30c30c30c30c3ull;
    return (v | v << 2) & 0x1249249249249249ull;
}

uint32_t gather(uint64_t v) {
    v &= 0x1249249249249249ull;
    v = (v | v >> 2) & 0x10c30c30c30c30c3ull;
    v = (v | v >> 4) & 0x100f00f00f00f00full;
    v = (v | v >> 8) & 0x001f0000ff0000ffull;
    v = (v | v >> 16) & 0x001f00000000ffffull;
    return static_cast<uint32_t>((v | v >> 32) & 0x1fffffull);
}

// Octant = 4 x + 2 y + z, the root's octant in the most significant bits.
uint64_t morton(const uint32_t* cell) { return spread(cell[0]) << 2 | spread(cell[1]) << 1 | spread(cell[2]); }

int octant(uint64_t code, int depth) { return static_cast<int>(code >> 3 * (kMaxDepth - 1 - depth)) & 7; }

uint64_t checked_morton(const uint32_t* cell, int depth, size_t index) {
    if ((cell[0] | cell[1] | cell[2]) >> depth)
        throw OctreeInputError(index, "expected cell coordinates below 2^" + std::to_string(depth));
    return morton(cell) << 3 * (kMaxDepth - depth);  // left-aligned: the first corner of the cell at kMaxDepth
}

struct Keyed {
    uint64_t code;
    int64_t index;
};

// Least significant digit first, 8 bits a pass; stable; passes over constant digits are skipped.
void radix_sort(std::vector<Keyed>& items) {
    std::array<std::array<size_t, 256>, 8> histogram{};
    for (const Keyed& item : items)
        for (int digit = 0; digit < 8; ++digit) ++histogram[digit][item.code >> 8 * digit & 255];
    std::vector<Keyed> other(items.size());
    for (int digit = 0; digit < 8; ++digit) {
        auto& bins = histogram[digit];
        if (std::ranges::count(bins, items.size())) continue;
        size_t sum = 0;
        for (size_t& bin : bins) sum += std::exchange(bin, sum);
        for (const Keyed& item : items) other[bins[item.code >> 8 * digit & 255]++] = item;
        items.swap(other);
    }
}

class LeafFinder {
  public:
    LeafFinder(const std::vector<Keyed>& items, const std::vector<uint8_t>& required, std::vector<uint8_t>& depths)
        : items_(items), required_(required), depths_(depths) {}

    void visit(size_t first, size_t last, int depth) {
        if (*std::max_element(required_.begin() + first, required_.begin() + last) <= depth) {
            std::fill(depths_.begin() + first, depths_.begin() + last, static_cast<uint8_t>(depth));
            return;
        }
        while (first < last) {
            const int child = octant(items_[first].code, depth);
            size_t end = first + 1;
            while (end < last && octant(items_[end].code, depth) == child) ++end;
            visit(first, end, depth + 1);
            first = end;
        }
    }

  private:
    const std::vector<Keyed>& items_;
    const std::vector<uint8_t>& required_;
    std::vector<uint8_t>& depths_;
};

struct Leaf {
    uint64_t code;  // left-aligned
    int depth;
};

class BitWriter {
  public:
    void write(uint64_t value, int bits) {
        for (int i = bits - 1; i >= 0; --i) {
            if (used_ == 0) bytes.push_back(0);
            bytes.back() |= static_cast<uint8_t>((value >> i & 1) << (7 - used_));
            used_ = (used_ + 1) & 7;
        }
    }
    Bytes bytes;

  private:
    int used_ = 0;
};

class Encoder {
  public:
    explicit Encoder(const std::vector<Leaf>& leaves) : leaves_(leaves) {}

    OctreeStreams run() {
        if (!leaves_.empty()) visit(0, leaves_.size(), 0);
        OctreeStreams streams;
        BitWriter bits;
        for (int level = 0; level <= kMaxDepth; ++level) {
            streams.nodes.insert(streams.nodes.end(), nodes_[level].begin(), nodes_[level].end());
            for (size_t leaf : tails_[level]) {
                const int below = leaves_[leaf].depth - level;
                streams.tail_depths.push_back(static_cast<uint8_t>(below));
                const uint64_t aligned = leaves_[leaf].code >> 3 * (kMaxDepth - leaves_[leaf].depth);
                bits.write(aligned & ((1ull << 3 * below) - 1), 3 * below);
            }
        }
        streams.tail_bits = std::move(bits.bytes);
        return streams;
    }

  private:
    void visit(size_t first, size_t last, int level) {
        if (last - first == 1) {
            nodes_[level].push_back(0);
            tails_[level].push_back(first);
            return;
        }
        const size_t slot = nodes_[level].size();
        nodes_[level].push_back(0);
        while (first < last) {
            const int child = octant(leaves_[first].code, level);
            size_t end = first + 1;
            while (end < last && octant(leaves_[end].code, level) == child) ++end;
            nodes_[level][slot] |= static_cast<uint8_t>(1 << child);
            visit(first, end, level + 1);
            first = end;
        }
    }

    const std::vector<Leaf>& leaves_;
    std::array<Bytes, kMaxDepth + 1> nodes_;
    std::array<std::vector<size_t>, kMaxDepth + 1> tails_;  // leaf indices
};

void write_leb128(Bytes& bytes, uint64_t value) {
    while (value > 127) {
        bytes.push_back(static_cast<uint8_t>(value) | 128);
        value >>= 7;
    }
    bytes.push_back(static_cast<uint8_t>(value));
}

// Splats per leaf, checked to be as many leaves as tails and num_splats splats in all.
std::vector<uint32_t> read_counts(ByteView bytes, size_t tails, size_t num_splats) {
    std::vector<uint32_t> counts;
    counts.reserve(tails);
    size_t at = 0;
    uint64_t left = num_splats;
    for (size_t leaf = 0; leaf < tails; ++leaf) {
        uint64_t value = 0;
        const size_t start = at;
        for (int shift = 0;; shift += 7) {
            if (at == bytes.size()) throw OctreeStreamError("counts", at, "expected a count for every leaf, got the end");
            const uint8_t byte = bytes[at++];
            if (shift > 28) throw OctreeStreamError("counts", start, "expected a count of at most 5 bytes");
            value |= static_cast<uint64_t>(byte & 127) << shift;
            if (byte < 128) {
                if (byte == 0 && shift > 0) throw OctreeStreamError("counts", start, "expected the shortest LEB128 form");
                break;
            }
        }
        if (value >= left)
            throw OctreeStreamError("counts", start, "expected " + std::to_string(num_splats) + " splats in all, got more");
        left -= value + 1;
        counts.push_back(static_cast<uint32_t>(value + 1));
    }
    if (left) throw OctreeStreamError("counts", at, std::to_string(left) + " splats are in no leaf");
    if (at != bytes.size()) throw OctreeStreamError("counts", at, "expected the end after the last leaf's count");
    return counts;
}

class Decoder {
  public:
    Decoder(ByteView nodes, ByteView tail_depths, ByteView tail_bits) : nodes_(nodes), depths_(tail_depths), bits_(tail_bits) {
        locate_levels();
    }

    size_t tails() const { return depths_.size(); }

    Cells run(const std::vector<uint32_t>& counts, size_t num_splats) {
        cells_.coordinates.reserve(3 * num_splats);
        cells_.depths.reserve(num_splats);
        next_count_ = counts.data();
        if (!nodes_.empty()) visit(0, 0);
        return std::move(cells_);
    }

  private:
    // Where each level's nodes, tail depths and tail bits begin; after this every stream is known to be long enough.
    void locate_levels() {
        size_t node = 0, tail = 0, width = nodes_.empty() ? 0 : 1;
        uint64_t bit = 0;
        for (int level = 0; width > 0; ++level) {
            next_node_[level] = node;
            next_tail_[level] = tail;
            next_bit_[level] = bit;
            if (width > nodes_.size() - node)
                throw OctreeStreamError("nodes", nodes_.size(), "expected " + std::to_string(width) + " nodes at depth " +
                                                                     std::to_string(level) + ", got the end");
            size_t children = 0;
            for (const size_t end = node + width; node < end; ++node) {
                if (nodes_[node]) {
                    if (level == kMaxDepth) throw OctreeStreamError("nodes", node, "expected only leaves at the greatest depth");
                    children += std::popcount(nodes_[node]);
                    continue;
                }
                if (tail == depths_.size()) throw OctreeStreamError("tail_depths", tail, "expected one for every tail, got the end");
                if (depths_[tail] > kMaxDepth - level)
                    throw OctreeStreamError("tail_depths", tail, "leads below the greatest depth");
                bit += 3 * depths_[tail++];
            }
            width = children;
        }
        if (node != nodes_.size()) throw OctreeStreamError("nodes", node, "expected the end after the last node");
        if (tail != depths_.size()) throw OctreeStreamError("tail_depths", tail, "expected the end after the last tail");
        if (bits_.size() != (bit + 7) / 8)
            throw OctreeStreamError("tail_bits", std::min<size_t>(bits_.size(), (bit + 7) / 8),
                                    "expected " + std::to_string((bit + 7) / 8) + " bytes, got " + std::to_string(bits_.size()));
        if (bit % 8 && bits_.back() << bit % 8 & 255)
            throw OctreeStreamError("tail_bits", bits_.size() - 1, "expected zero padding bits");
    }

    uint64_t read_bits(uint64_t& at, int count) const {
        uint64_t value = 0;
        for (int i = 0; i < count; ++i, ++at) value = value << 1 | (bits_[at / 8] >> (7 - at % 8) & 1);
        return value;
    }

    // code is the node's Morton code at its own level.
    void visit(uint64_t code, int level) {
        const size_t at = next_node_[level]++;
        const unsigned occupancy = nodes_[at];
        if (occupancy == 0) {
            const int below = depths_[next_tail_[level]++];
            append(code << 3 * below | read_bits(next_bit_[level], 3 * below), level + below);
            return;
        }
        if (std::has_single_bit(occupancy) && nodes_[next_node_[level + 1]] == 0)
            throw OctreeStreamError("nodes", at, "expected a tail, got a node whose only child is one");
        for (unsigned left = occupancy; left; left &= left - 1) visit(code << 3 | std::countr_zero(left), level + 1);
    }

    void append(uint64_t code, int depth) {
        const std::array<uint32_t, 3> cell = {gather(code >> 2), gather(code >> 1), gather(code)};
        for (uint32_t left = *next_count_++; left > 0; --left) {
            cells_.coordinates.insert(cells_.coordinates.end(), cell.begin(), cell.end());
            cells_.depths.push_back(static_cast<uint8_t>(depth));
        }
    }

    ByteView nodes_, depths_, bits_;
    // One cursor a level: depth-first order visits the nodes of each level from left to right.
    std::array<size_t, kMaxDepth + 2> next_node_{}, next_tail_{};
    std::array<uint64_t, kMaxDepth + 2> next_bit_{};
    const uint32_t* next_count_ = nullptr;
    Cells cells_;
};

}  // namespace

Order order_leaves(std::span<const uint32_t> cells, std::span<const uint8_t> required_depths, int max_depth) {
    const size_t n = required_depths.size();
    std::vector<Keyed> items(n);
    for (size_t i = 0; i < n; ++i) {
        if (required_depths[i] > max_depth)
            throw OctreeInputError(i, "expected a required depth of at most " + std::to_string(max_depth));
        items[i] = {checked_morton(&cells[3 * i], max_depth, i), static_cast<int64_t>(i)};
    }
    radix_sort(items);
    Order result{std::vector<int64_t>(n), std::vector<uint8_t>(n)};
    std::vector<uint8_t> required(n);
    for (size_t i = 0; i < n; ++i) {
        result.order[i] = items[i].index;
        required[i] = required_depths[items[i].index];
    }
    if (n) LeafFinder(items, required, result.depths).visit(0, n, 0);
    return result;
}

OctreeStreams encode_octree(std::span<const uint32_t> cells, std::span<const uint8_t> depths) {
    std::vector<Leaf> leaves;
    Bytes counts;
    uint64_t repeats = 0, end = 0;  // of the current leaf
    for (size_t i = 0; i < depths.size(); ++i) {
        if (depths[i] > kMaxDepth) throw OctreeInputError(i, "expected a depth of at most " + std::to_string(kMaxDepth));
        const uint64_t code = checked_morton(&cells[3 * i], depths[i], i);
        if (i > 0 && code == leaves.back().code && depths[i] == leaves.back().depth) {
            ++repeats;
            continue;
        }
        if (code < end) throw OctreeInputError(i, "expected depth-first order and no cell inside another");
        if (i > 0) write_leb128(counts, repeats);
        repeats = 0;
        leaves.push_back({code, depths[i]});
        end = code + (1ull << 3 * (kMaxDepth - depths[i]));
    }
    if (!leaves.empty()) write_leb128(counts, repeats);
    OctreeStreams streams = Encoder(leaves).run();
    streams.counts = std::move(counts);
    return streams;
}

Cells decode_octree(ByteView nodes, ByteView tail_depths, ByteView tail_bits, ByteView counts, size_t num_splats) {
    Decoder decoder(nodes, tail_depths, tail_bits);
    return decoder.run(read_counts(counts, decoder.tails(), num_splats), num_splats);
}

}  // namespace potr
