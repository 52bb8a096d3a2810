// SPDX-License-Identifier: Apache-2.0
// Blending and statistics. Compiled once per instruction set with POTR_ISA naming the namespace.
//
// A tile's 256 pixels are kept in small blocks of one SIMD vector each (4 wide; 1, 2 or 4 high), a splat's blocks culled
// all at once into a bit mask by the exact minimum of its quadratic form over each block. Statistics take two walks: the
// first blends near to far and tapes alpha and T * alpha of every block it touches; the second replays the tape far to
// near, where the colour behind a splat follows without subtraction:  B <- B + alpha (c - B).
#include "rasterize_kernels.h"
#include "simd.h"

namespace potr::POTR_ISA {

// splat_kernels.cpp
int64_t project(const ProjectTask&, int64_t first, int64_t last, uint32_t* keys, uint32_t* indices);
void add_color_samples(const ColorSample*, int count, int sh_degree, float* hessian, float* gradient);

namespace {

constexpr int kBlockWidth = 4;
constexpr int kBlockHeight = kLanes / kBlockWidth;
constexpr int kColumns = kTile / kBlockWidth;
constexpr int kTileBlocks = kTilePixels / kLanes;

using Mask = uint64_t;

// Where lanes lie in a block and blocks in the tile. Constant-initialised: code of a newer instruction set must not run
// when the module is loaded.
struct TileGrid {
  alignas(64) float lane_x[kLanes];
  alignas(64) float lane_y[kLanes];
  alignas(64) float block_x[kTileBlocks];
  alignas(64) float block_y[kTileBlocks];
};

constexpr TileGrid make_grid() {
  TileGrid grid{};
  for (int l = 0; l < kLanes; ++l) {
    grid.lane_x[l] = (float)(l % kBlockWidth);
    grid.lane_y[l] = (float)(l / kBlockWidth);
  }
  for (int b = 0; b < kTileBlocks; ++b) {
    grid.block_x[b] = (float)(b % kColumns * kBlockWidth);
    grid.block_y[b] = (float)(b / kColumns * kBlockHeight);
  }
  return grid;
}

constexpr TileGrid kGrid = make_grid();

struct BlockState {
  F transmittance;  // negative where the pixel has stopped, its size being the final transmittance
  F color[3];
};

struct TileState {
  BlockState blocks[kTileBlocks];
  Mask alive;  // blocks with a pixel that still blends
};

struct TapedBlock {
  F alpha, weight;  // 0 where the pixel was not blended
};

struct TapedEntry {
  Mask blocks;
  int64_t entry;
};

// A splat within a tile. With d = pixel - centre, p = l11 dx + l21 dy and q = l22 dy: alpha is 2^(log2_opacity - p^2 - q^2).
// p and q of a pixel are those of its place in the block (lane) plus those of its block.
struct TileSplat {
  F lane_p, lane_q;
  alignas(64) float block_p[kTileBlocks];
  alignas(64) float block_q[kTileBlocks];
  Mask blocks;  // in which alpha may reach 1/255
};

// Over a rectangle a convex quadratic is least at its centre if that is inside, else on an edge facing it: two
// candidates, each exact on its edge.
inline void place(const Splat& s, float x, float y, TileSplat& placed) {
  const F reach = broadcast((s.log2_opacity - kLog2AlphaMin) * 1.0001f + 0.001f);
  const F lane_x = load(kGrid.lane_x) - x, lane_y = load(kGrid.lane_y) - y;
  placed.lane_p = lane_x * s.l11 + lane_y * s.l21;
  placed.lane_q = lane_y * s.l22;
  placed.blocks = 0;
  for (int v = 0; v < kTileBlocks; v += kLanes) {
    const F block_x = load(kGrid.block_x + v), block_y = load(kGrid.block_y + v);
    store(placed.block_p + v, block_x * s.l11 + block_y * s.l21);
    store(placed.block_q + v, block_y * s.l22);
    const F left = block_x - x, right = left + (float)(kBlockWidth - 1);
    const F top = block_y - y, bottom = top + (float)(kBlockHeight - 1);
    const F near_x = min(max(left, F{}), right), near_y = min(max(top, F{}), bottom);
    const F best_y = min(max(near_x * s.slope_y, top), bottom), best_x = min(max(near_y * s.slope_x, left), right);
    const F a = near_x * s.l11 + best_y * s.l21, b = best_y * s.l22;
    const F c = best_x * s.l11 + near_y * s.l21, d = near_y * s.l22;
    placed.blocks |= (Mask)at_least(reach, min(a * a + b * b, c * c + d * d)) << v;
  }
}

inline void start(TileState& state, const TileTask& task) {
  state.alive = 0;
  for (int b = 0; b < kTileBlocks; ++b) {
    const int x = task.tile_x * kTile + b % kColumns * kBlockWidth, y = task.tile_y * kTile + b / kColumns * kBlockHeight;
    const F one = broadcast(1.0f);
    const F inside_x = load(kGrid.lane_x) + (float)x < broadcast((float)task.width) ? one : F{};
    BlockState& block = state.blocks[b];
    block.transmittance = load(kGrid.lane_y) + (float)y < broadcast((float)task.height) ? inside_x : F{};
    for (F& channel : block.color) channel = F{};
    if (positive(block.transmittance)) state.alive |= Mask(1) << b;
  }
}

// Blends all entries near to far. With kStops a pixel ends before its transmittance falls below the task's minimum. With
// kTaped, every blended block is recorded and the number of taped entries returned; `skipped(entry)` is called for each
// entry that touched nothing.
template <bool kStops, bool kTaped, class Skipped>
inline int64_t blend(TileState& state, const TileTask& task, TapedEntry* taped_entries, TapedBlock* tape, Skipped skipped) {
  const float origin_x = (float)(task.tile_x * kTile), origin_y = (float)(task.tile_y * kTile);
  const F transmittance_min = broadcast(task.transmittance_min);
  int64_t num_taped = 0;
  int64_t e = 0;
  TileSplat placed;
  for (; e < task.num_entries && state.alive; ++e) {
    if (e + 8 < task.num_entries) __builtin_prefetch(&task.splats[task.entries[e + 8]]);
    const Splat& s = task.splats[task.entries[e]];
    place(s, s.x - origin_x, s.y - origin_y, placed);
    Mask blended = 0;
    for (Mask left = placed.blocks & state.alive; left; left &= left - 1) {
      const int b = __builtin_ctzll(left);
      const F p = placed.lane_p + placed.block_p[b], q = placed.lane_q + placed.block_q[b];
      const F power = s.log2_opacity - p * p - q * q;
      const F alpha_min = broadcast(kLog2AlphaMin);
      if (!at_least(power, alpha_min)) continue;
      BlockState& block = state.blocks[b];
      const I drawn = power >= alpha_min;
      const F alpha = min(exp2_of(power), broadcast(kAlphaMax));
      const F before = block.transmittance;
      const F after = before - before * alpha;
      const I blends = kStops ? drawn & (after >= transmittance_min) : drawn;
      const F weight = blends ? before * alpha : F{};
      for (int c = 0; c < 3; ++c) block.color[c] += weight * s.color[c];
      const F stopped = kStops ? (drawn ? (F)((I)before | (int32_t)0x80000000) : before) : before;
      const F now = blends ? after : stopped;
      block.transmittance = now;
      if (!positive(now)) {
        // A branch, not a conditional move: the next splat's blocks must not wait for this one's transmittance.
        asm volatile("");
        state.alive &= ~(Mask(1) << b);
      }
      if constexpr (kTaped) {
        tape->alpha = blends ? alpha : F{};
        tape->weight = weight;
        ++tape;
        blended |= Mask(1) << b;
      }
    }
    if constexpr (kTaped) {
      if (blended) {
        taped_entries[num_taped++] = {blended, e};
      } else {
        skipped(e);
      }
    }
  }
  if constexpr (kTaped)
    for (; e < task.num_entries; ++e) skipped(e);
  return num_taped;
}

template <class Skipped>
inline int64_t blend_taped(TileState& state, const TileTask& task, TapedEntry* entries, TapedBlock* tape, Skipped skipped) {
  return task.transmittance_min > 0 ? blend<true, true>(state, task, entries, tape, skipped)
                                    : blend<false, true>(state, task, entries, tape, skipped);
}

inline F absolute(F v) { return (F)((I)v & 0x7fffffff); }

// Adds what shines through from the background.
inline void finish(TileState& state, const TileTask& task) {
  for (int b = 0; b < kTileBlocks; ++b)
    for (int c = 0; c < 3; ++c)
      state.blocks[b].color[c] += absolute(state.blocks[b].transmittance) * task.background[c];
}

inline void store_image(const TileState& state, const TileTask& task) {
  for (int b = 0; b < kTileBlocks; ++b)
    for (int l = 0; l < kLanes; ++l) {
      const int x = task.tile_x * kTile + b % kColumns * kBlockWidth + l % kBlockWidth;
      const int y = task.tile_y * kTile + b / kColumns * kBlockHeight + l / kBlockWidth;
      if (x >= task.width || y >= task.height) continue;
      float* pixel = task.image + ((int64_t)y * task.width + x) * 3;
      for (int c = 0; c < 3; ++c) pixel[c] = state.blocks[b].color[c][l];
    }
}

void render_tile(const TileTask& task) {
  TileState state;
  start(state, task);
  blend<true, false>(state, task, nullptr, nullptr, [](int64_t) {});
  finish(state, task);
  store_image(state, task);
}

// What the replay keeps of a block.
struct ReplayBlock {
  F behind[3];  // the colour seen behind the splats replayed so far
  F error[3];   // C - g, 0 outside the image
};

// Returns the sum of squared errors.
inline double load_error(const TileState& state, const TileTask& task, ReplayBlock replay[kTileBlocks]) {
  double total = 0;
  for (int b = 0; b < kTileBlocks; ++b) {
    float lanes[3][kLanes] = {};
    for (int l = 0; l < kLanes; ++l) {
      const int x = task.tile_x * kTile + b % kColumns * kBlockWidth + l % kBlockWidth;
      const int y = task.tile_y * kTile + b / kColumns * kBlockHeight + l / kBlockWidth;
      if (x >= task.width || y >= task.height) continue;
      const float* pixel = task.photo + ((int64_t)y * task.width + x) * 3;
      for (int c = 0; c < 3; ++c) lanes[c][l] = state.blocks[b].color[c][l] - pixel[c];
    }
    for (int c = 0; c < 3; ++c) {
      for (int l = 0; l < kLanes; ++l) total += (double)lanes[c][l] * lanes[c][l];
      __builtin_memcpy(&replay[b].error[c], lanes[c], sizeof(F));
      replay[b].behind[c] = broadcast(task.background[c]);
    }
  }
  return total;
}

inline float* slot_of(const TileTask& task, int64_t entry, int slot_size) {
  const Splat& s = task.splats[task.entries[entry]];
  const int64_t width = s.tiles.x1 - s.tiles.x0;
  return task.slots + (s.first_slot + (task.tile_y - s.tiles.y0) * width + (task.tile_x - s.tiles.x0)) * slot_size;
}

// The tape's two parts in the caller's buffer: 64-byte aligned blocks first, then the entries.
inline TapedEntry* taped_entries_of(const TileTask& task) {
  return (TapedEntry*)((TapedBlock*)task.tape + task.num_entries * kTileBlocks);
}

double removal_tile(const TileTask& task) {
  TileState state;
  start(state, task);
  TapedBlock* tape = (TapedBlock*)task.tape;
  TapedEntry* taped_entries = taped_entries_of(task);
  const int64_t num_taped = blend_taped(state, task, taped_entries, tape, [&](int64_t entry) {
    float* slot = slot_of(task, entry, kRemovalSlot);
    for (int i = 0; i < kRemovalSlot; ++i) slot[i] = 0;
  });
  finish(state, task);
  if (task.image) store_image(state, task);
  ReplayBlock replay[kTileBlocks];
  const double sse = load_error(state, task, replay);
  for (ReplayBlock& block : replay)
    for (F& channel : block.error) channel += channel;  // 2 (C - g)

  for (int64_t t = 0; t < num_taped; ++t) tape += __builtin_popcountll(taped_entries[t].blocks);
  for (int64_t t = num_taped - 1; t >= 0; --t) {
    const Splat& s = task.splats[task.entries[taped_entries[t].entry]];
    if (t >= 8) __builtin_prefetch(&task.splats[task.entries[taped_entries[t - 8].entry]]);
    if (t >= 4) __builtin_prefetch(slot_of(task, taped_entries[t - 4].entry, kRemovalSlot), 1);
    F delta{}, squared{}, contribution{}, peak{};
    int pixels = 0;
    for (Mask left = taped_entries[t].blocks; left;) {
      const int b = 63 - __builtin_clzll(left);
      left &= ~(Mask(1) << b);
      --tape;
      ReplayBlock& block = replay[b];
      const F alpha = tape->alpha, weight = tape->weight;
      for (int c = 0; c < 3; ++c) {
        const F difference = block.behind[c] - s.color[c];
        const F change = weight * difference;  // PD of the pixel: T a (B - c)
        block.behind[c] -= alpha * difference;
        delta += change * (change + block.error[c]);
        squared += change * change;
      }
      contribution += weight;
      peak = max(peak, weight);
      pixels += __builtin_popcount(positive(weight));
    }
    float* slot = slot_of(task, taped_entries[t].entry, kRemovalSlot);
    const F4 totals = sums(delta, squared, contribution, F{});
    for (int i = 0; i < 3; ++i) slot[i] = totals[i];
    slot[3] = largest(peak);
    slot[4] = (float)pixels;
  }
  return sse;
}

double geometry_tile(const TileTask& task) {
  TileState state;
  start(state, task);
  TapedBlock* tape = (TapedBlock*)task.tape;
  TapedEntry* taped_entries = taped_entries_of(task);
  const int64_t num_taped = blend_taped(state, task, taped_entries, tape, [&](int64_t entry) {
    float* slot = slot_of(task, entry, kGeometrySlot);
    for (int i = 0; i < kGeometrySlot; ++i) slot[i] = 0;
  });
  finish(state, task);
  ReplayBlock replay[kTileBlocks];
  const double sse = load_error(state, task, replay);
  const float origin_x = (float)(task.tile_x * kTile), origin_y = (float)(task.tile_y * kTile);

  for (int64_t t = 0; t < num_taped; ++t) tape += __builtin_popcountll(taped_entries[t].blocks);
  for (int64_t t = num_taped - 1; t >= 0; --t) {
    const Splat& s = task.splats[task.entries[taped_entries[t].entry]];
    if (t >= 8) __builtin_prefetch(&task.splats[task.entries[taped_entries[t - 8].entry]]);
    const F left = load(kGrid.lane_x) - (s.x - origin_x), top = load(kGrid.lane_y) - (s.y - origin_y);
    F total[kGeometrySlot + 3] = {};
    for (Mask blocks = taped_entries[t].blocks; blocks;) {
      const int b = 63 - __builtin_clzll(blocks);
      blocks &= ~(Mask(1) << b);
      --tape;
      ReplayBlock& block = replay[b];
      const F alpha = tape->alpha, weight = tape->weight;
      F along{}, squared{};
      for (int c = 0; c < 3; ++c) {
        const F difference = block.behind[c] - s.color[c];
        block.behind[c] -= alpha * difference;
        along -= difference * block.error[c];
        squared += difference * difference;
      }
      // Where alpha is at its cap it does not respond.
      const F responds = alpha < broadcast(kAlphaMax) ? weight : F{};
      along *= responds;
      squared *= responds;
      const F dx = left + kGrid.block_x[b], dy = top + kGrid.block_y[b];
      const F p = dx * s.l11 + dy * s.l21, q = dy * s.l22;
      const F pp = p * p, pq = p * q, qq = q * q;
      const F first[6] = {broadcast(1.0f), p, q, pp, pq, qq};
      for (int i = 0; i < 6; ++i) total[i] += along * first[i];
      for (int i = 0; i < 6; ++i) total[6 + i] += squared * first[i];
      const F sp = squared * pp, sq = squared * qq;
      total[12] += sp * p;
      total[13] += sp * q;
      total[14] += sq * p;
      total[15] += sq * q;
      total[16] += sp * pp;
      total[17] += sp * pq;
      total[18] += sp * qq;
      total[19] += sq * pq;
      total[20] += sq * qq;
    }
    float* slot = slot_of(task, taped_entries[t].entry, kGeometrySlot);
    for (int i = 0; i < kGeometrySlot; i += 4) {
      const F4 four = sums(total[i], total[i + 1], total[i + 2], total[i + 3]);
      for (int j = 0; j < 4 && i + j < kGeometrySlot; ++j) slot[i + j] = four[j];
    }
  }
  return sse;
}

double color_tile(const TileTask& task) {
  TileState state;
  start(state, task);
  TapedBlock* tape = (TapedBlock*)task.tape;
  TapedEntry* taped_entries = taped_entries_of(task);
  const int64_t num_taped = blend_taped(state, task, taped_entries, tape, [&](int64_t entry) {
    float* slot = slot_of(task, entry, kColorSlot);
    for (int i = 0; i < kColorSlot; ++i) slot[i] = 0;
  });
  finish(state, task);
  ReplayBlock replay[kTileBlocks];
  const double sse = load_error(state, task, replay);
  for (int64_t t = 0; t < num_taped; ++t) {
    F squared{}, contribution{}, gradient[3] = {};
    for (Mask left = taped_entries[t].blocks; left; left &= left - 1) {
      const int b = __builtin_ctzll(left);
      const F weight = tape->weight;
      ++tape;
      squared += weight * weight;
      contribution += weight;
      for (int c = 0; c < 3; ++c) gradient[c] += weight * replay[b].error[c];
    }
    float* slot = slot_of(task, taped_entries[t].entry, kColorSlot);
    const F4 totals = sums(squared, gradient[0], gradient[1], gradient[2]);
    for (int i = 0; i < 4; ++i) slot[i] = totals[i];
    slot[4] = sums(contribution, F{}, F{}, F{})[0];
  }
  return sse;
}

}  // namespace

#define POTR_STRING(name) #name
#define POTR_NAME(name) POTR_STRING(name)
const Kernels kernels = {POTR_NAME(POTR_ISA), project, render_tile, removal_tile, color_tile, geometry_tile, add_color_samples,
                         (int64_t)(kTileBlocks * sizeof(TapedBlock) + sizeof(TapedEntry))};

}  // namespace potr::POTR_ISA
