// SPDX-License-Identifier: Apache-2.0
// Octree coding of quantised positions. The byte streams are specified in docs/format.md, section "Octree".
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace potr {

constexpr int kMaxDepth = 21;  // three 21-bit coordinates make a 63-bit Morton code

using Bytes = std::vector<uint8_t>;
using ByteView = std::span<const uint8_t>;

// Cells are [n, 3] row-major; a cell at depth d has coordinates below 2^d.
struct Cells {
    std::vector<uint32_t> coordinates;  // [n, 3]
    std::vector<uint8_t> depths;        // [n]
};

struct Order {
    std::vector<int64_t> order;   // [n] index into the input
    std::vector<uint8_t> depths;  // [n] leaf depth, in that order
};

struct OctreeStreams {
    Bytes nodes;        // per node, level by level: occupancy code, or 0 for a tail (one leaf below, or a leaf)
    Bytes tail_depths;  // per tail, level by level: levels from the tail down to its leaf
    Bytes tail_bits;    // the octants on the way down, 3 bits each, most significant bit first
    Bytes counts;       // per leaf, depth first: splats in the leaf minus one, LEB128
};

// The input of encode or order_leaves breaks its contract; index is the first offending splat.
struct OctreeInputError : std::runtime_error {
    OctreeInputError(size_t index, const std::string& reason) : std::runtime_error(reason), index(index) {}
    size_t index;
};

// A stream is not a valid encoding.
struct OctreeStreamError : std::runtime_error {
    OctreeStreamError(const char* stream, size_t offset, const std::string& reason)
        : std::runtime_error(reason), stream(stream), offset(offset) {}
    const char* stream;  // a member of OctreeStreams
    size_t offset;       // bytes into it
};

// Depth-first order of the splats, and their leaves: a node is a leaf exactly when every splat in it requires no more
// depth than the node's. Stable. cells are at max_depth.
Order order_leaves(std::span<const uint32_t> cells, std::span<const uint8_t> required_depths, int max_depth);

// cells at their own depths, in depth-first order, no cell inside another.
OctreeStreams encode_octree(std::span<const uint32_t> cells, std::span<const uint8_t> depths);

// Linear in num_splats and the stream sizes; allocates for num_splats only after the streams have been checked.
// Accepts exactly what encode_octree writes.
Cells decode_octree(ByteView nodes, ByteView tail_depths, ByteView tail_bits, ByteView counts, size_t num_splats);

}  // namespace potr
