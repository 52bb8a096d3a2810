// SPDX-License-Identifier: Apache-2.0
// The streams of an octree, coded by the context of the nodes around each one.
#include <array>
#include <bit>

#include "entropy_mixer.h"
#include "entropy_streams.h"

namespace potr::entropy {
namespace {

constexpr int kDeepest = 21;

struct Node {
    int32_t parent;                     // index in the level above
    int32_t children = 0;               // index of the first one in the level below
    std::array<int32_t, 6> beside{};    // the face neighbours at -x, +x, -y, +y, -z, +z in its level; -1 for none
    uint8_t octant;
    uint8_t occupancy = 0;
    uint8_t leaf_depth = 0;             // of a tail
    bool tail = false;
};

// Reads the streams of an encoder, appends to those of a decoder.
class Cursor {
  public:
    explicit Cursor(ByteView bytes) : bytes_(bytes) {}
    uint8_t byte() {
        if (at_ == bytes_.size()) throw std::invalid_argument("expected the streams of an octree, got the end of one");
        return bytes_[at_++];
    }
    int bit() {
        if (used_ == 0) current_ = byte();
        const int value = current_ >> (7 - used_) & 1;
        used_ = (used_ + 1) & 7;
        return value;
    }
    bool done() const { return at_ == bytes_.size(); }

  private:
    ByteView bytes_;
    size_t at_ = 0;
    int used_ = 0;
    uint8_t current_ = 0;
};

struct Input {
    Cursor nodes, tail_depths, tail_bits, counts;
};

template <class Coder>
class OctreeCoder {
  public:
    // input: the streams where they are known, else null.
    OctreeCoder(Coder& coder, Input* input, size_t max_splats) : coder_(coder), in_(input), max_splats_(max_splats) {}

    OctreeBytes run(bool empty) {
        if (!empty) level_.push_back({.parent = -1, .octant = 0});
        for (depth_ = 0; !level_.empty(); ++depth_) {
            last_leaf_depth_ = 0;
            below_.clear();
            for (size_t i = 0; i < level_.size(); ++i) visit(i);
            above_.swap(level_);
            level_.swap(below_);
        }
        if (num_waiting_ > 0) write_bits(0, 8 - num_waiting_);
        code_counts();
        return std::move(out_);
    }

  private:
    static constexpr uint32_t kBits = 16;  // of a way to a leaf, at a time

    // What is known around a node.
    struct Around {
        uint32_t siblings = 1;           // occupancy of its parent
        uint32_t present = 0;            // bit per face neighbour
        uint32_t count = 0;              // of them
        uint32_t tails = 0, inner = 0;   // of those coded before it
        uint32_t leaf_depth = 0;         // deepest leaf of those tails
        std::array<uint32_t, 3> touching{};  // children of the neighbours at -x, -y, -z that touch it
    };

    void visit(size_t i) {
        Node& node = level_[i];
        node.beside.fill(-1);
        if (depth_ > 0) find_beside(node);
        const Around around = look_around(node, i);
        const bool only_child = depth_ > 0 && std::has_single_bit(around.siblings);
        int code = in_ ? in_->nodes.byte() : 0;
        node.tail = depth_ == kDeepest || (!only_child && code_tail(node, i, around, code == 0));
        if (node.tail) {
            out_.nodes.push_back(0);
            code_leaf(node, around);
            ++leaves_;
        } else {
            code = code_occupancy(node, around, code);
            if (code == 0) coder_.fail("expected a node with children");
            out_.nodes.push_back(static_cast<uint8_t>(code));
            node.occupancy = static_cast<uint8_t>(code);
            node.children = static_cast<int32_t>(below_.size());
            for (int octant = 0; octant < 8; ++octant)
                if (code >> octant & 1) below_.push_back({.parent = static_cast<int32_t>(i), .octant = static_cast<uint8_t>(octant)});
        }
        if (leaves_ + (level_.size() - i - 1) + below_.size() > max_splats_)
            coder_.fail("expected at most " + std::to_string(max_splats_) + " leaves, got more");
    }

    void find_beside(Node& node) {
        const Node& parent = above_[node.parent];
        for (int face = 0; face < 6; ++face) {
            const int axis_bit = 4 >> (face >> 1), other = node.octant ^ axis_bit;
            const bool inside = ((node.octant & axis_bit) != 0) != ((face & 1) != 0);  // the neighbour is a sibling
            const int32_t cousin = inside ? node.parent : parent.beside[face];
            if (cousin < 0 || !(above_[cousin].occupancy >> other & 1)) continue;
            const unsigned before = above_[cousin].occupancy & ((1u << other) - 1);
            node.beside[face] = above_[cousin].children + std::popcount(before);
        }
    }

    Around look_around(const Node& node, size_t i) const {
        static constexpr std::array<uint32_t, 3> kUpper = {0xF0, 0xCC, 0xAA};  // the children in an axis's upper half
        Around around;
        if (depth_ > 0) around.siblings = above_[node.parent].occupancy;
        for (int face = 0; face < 6; ++face) {
            const int32_t j = node.beside[face];
            if (j < 0) continue;
            around.present |= 1u << face;
            ++around.count;
            if (static_cast<size_t>(j) >= i) continue;
            const Node& neighbor = level_[j];
            ++(neighbor.tail ? around.tails : around.inner);
            around.leaf_depth = std::max<uint32_t>(around.leaf_depth, neighbor.leaf_depth);
            if (face % 2 == 0) around.touching[face / 2] = neighbor.occupancy & kUpper[face / 2];
        }
        return around;
    }

    bool code_tail(const Node& node, size_t i, const Around& around, bool tail) {
        const uint32_t before = i > 0 && level_[i - 1].parent == node.parent ? 1 + level_[i - 1].tail : 0;
        const int siblings = std::popcount(around.siblings);
        tail_mixer_.choose(std::array{context(depth_, before), context(siblings, around.count, before),
                                      context(around.tails, around.inner, around.count), context(around.siblings, node.octant)});
        return tail_mixer_.code(coder_, tail, 1, depth_);
    }

    void code_leaf(Node& node, const Around& around) {
        const uint32_t most = kDeepest - depth_;
        uint32_t below = in_ ? in_->tail_depths.byte() : 0;
        if (below > most) coder_.fail("expected a leaf at depth 21 at most");
        const int siblings = std::popcount(around.siblings);
        depth_mixer_.choose(std::array{context(depth_, last_leaf_depth_), context(depth_), context(depth_, around.leaf_depth),
                                       context(depth_, around.count, siblings)});
        below = depth_mixer_.symbol(coder_, below, 5, 0);
        if (below > most) coder_.fail("expected a leaf at depth 21 at most");
        out_.tail_depths.push_back(static_cast<uint8_t>(below));
        for (uint32_t left = 3 * below; left > 0;) {
            const uint32_t count = std::min(left, kBits);
            uint32_t bits = 0;
            if (in_)
                for (uint32_t k = 0; k < count; ++k) bits = 2 * bits + in_->tail_bits.bit();
            bits = coder_.bits(bits, count);
            write_bits(bits, count);
            left -= count;
        }
        last_leaf_depth_ = node.leaf_depth = static_cast<uint8_t>(depth_ + below);
    }

    int code_occupancy(const Node& node, const Around& around, int code) {
        const auto& t = around.touching;
        const uint32_t touched = (t[0] != 0) | (t[1] != 0) << 1 | (t[2] != 0) << 2;
        node_mixer_.choose(std::array{context(depth_), context(around.siblings, node.octant), context(depth_, around.present, touched),
                                      context(t[0], t[1], t[2], around.present & 42)});
        return static_cast<int>(node_mixer_.symbol(coder_, code, 8, 8 * around.count));
    }

    void code_counts() {
        uint64_t left = max_splats_;
        uint32_t last = 0, before = 0;  // of the leaf before, and before that
        for (size_t leaf = 0; leaf < leaves_; ++leaf) {
            uint32_t more = 0;  // splats in it but one
            if (in_)
                for (int shift = 0;; shift += 7) {
                    if (shift > 21) coder_.fail("expected counts of at most 4 bytes");  // 2^28 splats in a leaf
                    const uint32_t byte = in_->counts.byte();
                    more |= (byte & 127) << shift;
                    if (byte < 128) break;
                }
            count_mixer_.choose(std::array{context(), context(std::min(last, 3u)), context(std::min(last, 3u), std::min(before, 3u)),
                                           context(std::min(last, 15u))});
            more = count_mixer_.gamma(coder_, more, 27, 1, 0);
            if (more >= left) coder_.fail("expected " + std::to_string(max_splats_) + " splats in all, got more");
            left -= more + 1;
            before = last;
            last = more;
            for (; more > 127; more >>= 7) out_.counts.push_back(static_cast<uint8_t>(more | 128));
            out_.counts.push_back(static_cast<uint8_t>(more));
        }
    }

    void write_bits(uint32_t bits, uint32_t count) {
        waiting_ = waiting_ << count | bits;
        for (num_waiting_ += count; num_waiting_ >= 8; num_waiting_ -= 8)
            out_.tail_bits.push_back(static_cast<uint8_t>(waiting_ >> (num_waiting_ - 8)));
    }

    Coder& coder_;
    Input* const in_;
    const size_t max_splats_;
    int depth_ = 0;
    uint32_t last_leaf_depth_ = 0;  // of the tail before in this level
    size_t leaves_ = 0;
    uint32_t waiting_ = 0, num_waiting_ = 0;  // the bits of tail_bits that make no byte yet, below others
    std::vector<Node> above_, level_, below_;
    OctreeBytes out_;
    Mixer tail_mixer_{kDeepest + 1}, depth_mixer_{5}, node_mixer_{8 * 7}, count_mixer_{1};
};

}  // namespace

Bytes encode_octree(ByteView nodes, ByteView tail_depths, ByteView tail_bits, ByteView counts) {
    Input input{Cursor(nodes), Cursor(tail_depths), Cursor(tail_bits), Cursor(counts)};
    Encoder coder;
    OctreeCoder<Encoder>(coder, &input, ~size_t{0} >> 1).run(nodes.empty());
    if (!input.nodes.done() || !input.tail_depths.done() || !input.counts.done())
        throw std::invalid_argument("expected the streams of an octree, got more bytes");
    return coder.finish();
}

OctreeBytes decode_octree(ByteView coded, size_t max_splats) {
    Decoder coder(coded);
    OctreeBytes streams = OctreeCoder<Decoder>(coder, nullptr, max_splats).run(max_splats == 0);
    coder.finish();
    return streams;
}

}  // namespace potr::entropy
