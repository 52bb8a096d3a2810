// SPDX-License-Identifier: Apache-2.0
#include "rasterize.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>

#include "../thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace potr {
namespace {

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Transmittance behind opaque surfaces decays below the smallest normal number, where arithmetic is a hundred times
// slower. Flushing it to zero changes nothing a float32 sum can hold.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
  ~FlushDenormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
  FlushDenormals() {}
#endif
};

constexpr int64_t kProjectChunk = 64;   // blocks of a projection task
constexpr int64_t kSplatGrain = 2048;   // splats that a thread takes at once
constexpr int kRadixBits = 11;
constexpr int kRadix = 1 << kRadixBits;

// body(i) for every i in [0, count), on at most `threads` threads, which take `grain` of them at once.
template <class Body>
void parallel_for(int64_t count, int64_t grain, int threads, const Body& body) {
  ThreadPool::run(count, grain, threads, [&](int64_t first, int64_t last, int) {
    for (int64_t i = first; i < last; ++i) body(i);
  });
}

uint32_t tiles_of(const TileRectangle& r) { return (uint32_t)(r.x1 - r.x0) * (r.y1 - r.y0); }

}  // namespace

const Kernels* find_kernels(const std::string& name) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (name == "x86-64-v4" && __builtin_cpu_supports("x86-64-v4")) return &x86_64_v4::kernels;
  if (name == "x86-64-v3" && __builtin_cpu_supports("x86-64-v3")) return &x86_64_v3::kernels;
  if (name == "x86-64-v2" && __builtin_cpu_supports("x86-64-v2")) return &x86_64_v2::kernels;
#else
  if (name == "generic") return &generic::kernels;
#endif
  return nullptr;
}

std::vector<std::string> supported_instruction_sets() {
  std::vector<std::string> names;
  for (const char* name : {"x86-64-v4", "x86-64-v3", "x86-64-v2", "generic"})
    if (find_kernels(name)) names.push_back(name);
  return names;
}

Model::Model(const ModelArrays& m, int threads) {
  const int coefficients = (m.sh_degree + 1) * (m.sh_degree + 1);
  const int64_t rows = kGeometryRows + 3 * coefficients;
  const int64_t num_blocks = (m.num_splats + kBlock - 1) / kBlock;
  float* blocks = blocks_.reserve(std::max<int64_t>(num_blocks * rows * kBlock, 1));
  parallel_for(num_blocks, kSplatGrain / kBlock, threads, [&](int64_t block) {
    float* out = blocks + block * rows * kBlock;
    std::memset(out, 0, rows * kBlock * sizeof(float));
    for (int l = 0; l < kBlock; ++l) {
      const int64_t i = block * kBlock + l;
      if (i >= m.num_splats) {
        out[12 * kBlock + l] = kNeverDrawn;
        continue;
      }
      const float scale[3] = {std::exp(m.log_scales[3 * i]), std::exp(m.log_scales[3 * i + 1]),
                              std::exp(m.log_scales[3 * i + 2])};
      float axes[9];
      splat_axes(m.quats + 4 * i, scale, axes);
      for (int c = 0; c < 3; ++c) out[c * kBlock + l] = m.means[3 * i + c];
      for (int c = 0; c < 9; ++c) out[(3 + c) * kBlock + l] = axes[c];
      // log2(sigmoid(v)) = -log2(1 + e^-v)
      const double logit = m.opacity_logits[i];
      out[12 * kBlock + l] = (float)(-std::log1p(std::exp(-logit)) * 1.4426950408889634);
      for (int c = 0; c < 3; ++c) out[(kGeometryRows + c) * kBlock + l] = m.sh_dc[3 * i + c];
      const float* ac = m.sh_ac + i * 3 * (coefficients - 1);
      for (int k = 0; k < 3 * (coefficients - 1); ++k) out[(kGeometryRows + 3 + k) * kBlock + l] = ac[k];
    }
  });
  layout_ = {blocks, rows, m.num_splats, num_blocks, m.sh_degree};
}

void Rasterizer::project(const Model& model, const Camera& camera) {
  const ModelLayout& layout = model.layout();
  const int64_t padded = layout.num_blocks * kBlock;
  const int64_t num_chunks = (layout.num_blocks + kProjectChunk - 1) / kProjectChunk;
  const ProjectTask task{layout, camera, tiles_x_, tiles_y_, splats_.reserve(padded), rectangles_.reserve(padded)};
  // Each chunk writes its visible splats to its own stretch of the swap arrays; then they are moved together, so their
  // order is that of the model.
  uint32_t* keys = keys_swap_.reserve(padded);
  uint32_t* indices = indices_swap_.reserve(padded);
  int64_t* begin = chunk_begin_.reserve(num_chunks + 1);
  parallel_for(num_chunks, 4, threads_, [&](int64_t chunk) {
    const int64_t first = chunk * kProjectChunk, last = std::min(first + kProjectChunk, layout.num_blocks);
    begin[chunk] = kernels_.project(task, first, last, keys + first * kBlock, indices + first * kBlock);
  });
  num_visible_ = 0;
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    const int64_t count = begin[chunk];
    begin[chunk] = num_visible_;
    num_visible_ += count;
  }
  begin[num_chunks] = num_visible_;
  keys_.reserve(padded);
  indices_.reserve(padded);
  unsorted_.reserve(padded);
  parallel_for(num_chunks, 32, threads_, [&](int64_t chunk) {
    const int64_t from = chunk * kProjectChunk * kBlock, to = begin[chunk], count = begin[chunk + 1] - to;
    std::copy_n(keys + from, count, keys_.data() + to);
    std::copy_n(indices + from, count, indices_.data() + to);
    std::copy_n(indices + from, count, unsorted_.data() + to);
  });
}

// Stable radix sort of the visible splats by the bits of their depth, 3 x 11 bits.
void Rasterizer::sort_by_depth() {
  for (int shift = 0; shift < 32; shift += kRadixBits) {
    int64_t begin[kRadix] = {};
    for (int64_t i = 0; i < num_visible_; ++i) ++begin[keys_[i] >> shift & (kRadix - 1)];
    int64_t total = 0;
    for (int64_t& b : begin) total += std::exchange(b, total);
    for (int64_t i = 0; i < num_visible_; ++i) {
      const int64_t to = begin[keys_[i] >> shift & (kRadix - 1)]++;
      keys_swap_[to] = keys_[i];
      indices_swap_[to] = indices_[i];
    }
    std::swap(keys_, keys_swap_);
    std::swap(indices_, indices_swap_);
  }
}

// Distributes the sorted splats over the tiles they touch; within a tile they stay sorted. The order is cut into as
// many chunks as there are threads: all count, the counts become positions, all write.
void Rasterizer::bin(bool slots) {
  const int64_t num_tiles = (int64_t)tiles_x_ * tiles_y_;
  const int64_t stride = tiles_x_ + 1, corners = stride * (tiles_y_ + 1);
  const int64_t chunks = std::clamp<int64_t>(num_visible_ / kSplatGrain, 1, threads_);
  int64_t* positions = positions_.reserve(chunks * corners);
  int64_t* tile_begin = tile_begin_.reserve(num_tiles + 1);
  const auto first_of = [&](int64_t chunk) { return num_visible_ * chunk / chunks; };
  parallel_for(chunks, 1, threads_, [&](int64_t chunk) {
    // A rectangle is counted at its four corners; summing along rows and columns gives the count of every tile.
    int64_t* count = positions + chunk * corners;
    std::fill_n(count, corners, 0);
    for (int64_t i = first_of(chunk); i < first_of(chunk + 1); ++i) {
      const TileRectangle r = rectangles_[indices_[i]];
      ++count[r.y0 * stride + r.x0];
      --count[r.y0 * stride + r.x1];
      --count[r.y1 * stride + r.x0];
      ++count[r.y1 * stride + r.x1];
    }
    for (int64_t y = 0; y < tiles_y_; ++y) {
      int64_t along_row = 0;
      for (int64_t x = 0; x < tiles_x_; ++x) {
        along_row += count[y * stride + x];
        count[y * stride + x] = along_row + (y > 0 ? count[(y - 1) * stride + x] : 0);
      }
    }
  });
  int64_t total = 0;
  longest_tile_ = 0;
  for (int64_t tile = 0; tile < num_tiles; ++tile) {
    const int64_t corner = tile / tiles_x_ * stride + tile % tiles_x_;
    tile_begin[tile] = total;
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      total += std::exchange(positions[chunk * corners + corner], total);
    longest_tile_ = std::max(longest_tile_, total - tile_begin[tile]);
  }
  tile_begin[num_tiles] = total;
  num_entries_ = total;
  if (total > std::numeric_limits<uint32_t>::max()) throw std::length_error("more than 2^32 (splat, tile) pairs");
  uint32_t* entries = entries_.reserve(total);
  if (slots) slot_begin_.reserve(chunks);
  parallel_for(chunks, 1, threads_, [&](int64_t chunk) {
    int64_t* position = positions + chunk * corners;
    for (int64_t i = first_of(chunk); i < first_of(chunk + 1); ++i) {
      const uint32_t index = indices_[i];
      const TileRectangle r = rectangles_[index];
      for (int64_t y = r.y0; y < r.y1; ++y)
        for (int64_t x = r.x0; x < r.x1; ++x) entries[position[y * stride + x]++] = index;
    }
    if (!slots) return;
    uint32_t count = 0;
    for (int64_t v = first_of(chunk); v < first_of(chunk + 1); ++v) count += tiles_of(rectangles_[unsorted_[v]]);
    slot_begin_[chunk] = count;
  });
  if (!slots) return;
  uint32_t begin = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) begin += std::exchange(slot_begin_[chunk], begin);
  parallel_for(chunks, 1, threads_, [&](int64_t chunk) {
    uint32_t slot = slot_begin_[chunk];
    for (int64_t v = first_of(chunk); v < first_of(chunk + 1); ++v) {
      splats_[unsorted_[v]].first_slot = slot;
      slot += tiles_of(rectangles_[unsorted_[v]]);
    }
  });
}

void Rasterizer::prepare(const Model& model, const Camera& camera, bool slots) {
  tiles_x_ = (camera.width + kTile - 1) / kTile;
  tiles_y_ = (camera.height + kTile - 1) / kTile;
  if (tiles_x_ > 65535 || tiles_y_ > 65535) throw std::length_error("image wider or higher than 2^20 pixels");
  const double t0 = now();
  project(model, camera);
  const double t1 = now();
  sort_by_depth();
  const double t2 = now();
  bin(slots);
  timings_ = {t1 - t0, t2 - t1, now() - t2, 0, 0};
}

// A tile's tape is as long as its list, so without a bound tapes would take threads x the longest. Where that is more
// than tape_bytes_, tiles that need more than a thread's share come last, on as few threads as it allows: at least one.
template <class TileFunction>
void Rasterizer::for_each_tile(const TileTask& common, bool tape, TileFunction function) {
  const double t0 = now();
  const auto tape_bytes = [&](int64_t entries) { return std::max<int64_t>(entries * kernels_.tape_bytes_per_entry, 64); };
  const auto on_tiles = [&](int64_t count, int threads, int64_t bytes, const auto& tile_of) {
    if (tape && (int64_t)tapes_.size() < threads) tapes_.resize(threads);
    ThreadPool::run(count, 1, threads, [&](int64_t first, int64_t last, int worker) {
      const FlushDenormals flush;
      TileTask task = common;
      task.splats = splats_.data();
      task.slots = slots_.data();
      for (int64_t i = first; i < last; ++i) {
        const int64_t tile = tile_of(i);
        task.tile_x = (int)(tile % tiles_x_);
        task.tile_y = (int)(tile / tiles_x_);
        task.entries = entries_.data() + tile_begin_[tile];
        task.num_entries = tile_begin_[tile + 1] - tile_begin_[tile];
        if (tape) task.tape = tapes_[worker].reserve(bytes);
        function(tile, task);
      }
    });
  };
  const int64_t num_tiles = (int64_t)tiles_x_ * tiles_y_;
  const int64_t longest = tape_bytes(longest_tile_), share = tape_bytes_ / threads_;
  if (!tape || longest <= share) {
    on_tiles(num_tiles, threads_, longest, [](int64_t i) { return i; });
  } else {
    std::vector<int64_t> shorter, longer;
    for (int64_t tile = 0; tile < num_tiles; ++tile)
      (tape_bytes(tile_begin_[tile + 1] - tile_begin_[tile]) <= share ? shorter : longer).push_back(tile);
    on_tiles(shorter.size(), threads_, share, [&](int64_t i) { return shorter[i]; });
    tapes_.clear();
    const int few = (int)std::clamp<int64_t>(tape_bytes_ / longest, 1, threads_);
    on_tiles(longer.size(), few, longest, [&](int64_t i) { return longer[i]; });
    tapes_.clear();
  }
  timings_.blend = now() - t0;
}

namespace {
TileTask make_task(const Camera& camera, const float background[3], float transmittance_min) {
  TileTask task{};
  task.width = camera.width;
  task.height = camera.height;
  std::copy_n(background, 3, task.background);
  task.transmittance_min = transmittance_min;
  return task;
}
}  // namespace

void Rasterizer::render(const Model& model, const Camera& camera, const float background[3], float transmittance_min,
                        float* image) {
  const std::lock_guard lock(mutex_);
  prepare(model, camera, false);
  TileTask common = make_task(camera, background, transmittance_min);
  common.image = image;
  for_each_tile(common, false, [&](int64_t, const TileTask& task) { kernels_.render_tile(task); });
}

double Rasterizer::removal(const Model& model, const Camera& camera, const float background[3],
                           float transmittance_min, const float* photo, const RemovalSums& sums) {
  const std::lock_guard lock(mutex_);
  prepare(model, camera, true);
  TileTask common = make_task(camera, background, transmittance_min);
  common.photo = photo;
  slots_.reserve(num_entries_ * kRemovalSlot);
  const int64_t num_tiles = (int64_t)tiles_x_ * tiles_y_;
  tile_sse_.reserve(num_tiles);
  for_each_tile(common, true, [&](int64_t tile, const TileTask& task) { tile_sse_[tile] = kernels_.removal_tile(task); });

  const double t0 = now();
  parallel_for(num_visible_, kSplatGrain, threads_, [&](int64_t v) {
    const int64_t i = unsorted_[v];
    const Splat& s = splats_[i];
    const int64_t count = tiles_of(s.tiles);
    const float* slot = slots_.data() + (int64_t)s.first_slot * kRemovalSlot;
    double total[3] = {};
    float peak = 0, pixels = 0;
    for (int64_t t = 0; t < count; ++t, slot += kRemovalSlot) {
      for (int j = 0; j < 3; ++j) total[j] += slot[j];
      peak = std::max(peak, slot[3]);
      pixels += slot[4];
    }
    sums.delta_sse[i] += total[0];
    sums.render_sse[i] += total[1];
    sums.contribution[i] += total[2];
    sums.peak[i] = std::max(sums.peak[i], peak);
    sums.pixels[i] += (int64_t)pixels;
  });
  double sse = 0;
  for (int64_t tile = 0; tile < num_tiles; ++tile) sse += tile_sse_[tile];
  timings_.gather = now() - t0;
  return sse;
}

void Rasterizer::begin_color(const Model& model) {
  const std::lock_guard lock(mutex_);
  const int64_t n = model.layout().num_splats;
  samples_.reserve(n * kColorBatch);
  std::fill_n(num_samples_.reserve(n), n, 0);
  sampled_splats_ = n;
  sampled_views_ = 0;
}

void Rasterizer::finish_color(const Model& model, const ColorSums& sums) {
  const std::lock_guard lock(mutex_);
  add_samples(model, sums);
}

// A splat's Hessian is 136 floats: touching it once per kColorBatch views, not per view, is what makes this fast.
void Rasterizer::add_samples(const Model& model, const ColorSums& sums) {
  if (sampled_splats_ != model.layout().num_splats) throw std::logic_error("begin_color was not called for this model");
  const int degree = model.layout().sh_degree, K = (degree + 1) * (degree + 1);
  parallel_for(model.layout().num_splats, kSplatGrain, threads_, [&](int64_t i) {
    if (num_samples_[i] == 0) return;
    kernels_.add_color_samples(&samples_[i * kColorBatch], num_samples_[i], degree,
                               sums.hessian + i * (K * (K + 1) / 2), sums.gradient + i * K * 3);
    num_samples_[i] = 0;
  });
  sampled_views_ = 0;
}

double Rasterizer::color(const Model& model, const Camera& camera, const float background[3], float transmittance_min,
                         const float* photo, const ColorSums& sums) {
  const std::lock_guard lock(mutex_);
  if (sampled_splats_ != model.layout().num_splats) throw std::logic_error("begin_color was not called for this model");
  prepare(model, camera, true);
  TileTask common = make_task(camera, background, transmittance_min);
  common.photo = photo;
  slots_.reserve(num_entries_ * kColorSlot);
  const int64_t num_tiles = (int64_t)tiles_x_ * tiles_y_;
  tile_sse_.reserve(num_tiles);
  for_each_tile(common, true, [&](int64_t tile, const TileTask& task) { tile_sse_[tile] = kernels_.color_tile(task); });

  const double t0 = now();
  const ModelLayout& layout = model.layout();
  parallel_for(num_visible_, kSplatGrain, threads_, [&](int64_t v) {
    const int64_t i = unsorted_[v];
    const Splat& s = splats_[i];
    if (s.clamped == 7) return;
    const int64_t count = tiles_of(s.tiles);
    const float* slot = slots_.data() + (int64_t)s.first_slot * kColorSlot;
    double total[kColorSlot] = {};
    for (int64_t t = 0; t < count; ++t, slot += kColorSlot)
      for (int j = 0; j < kColorSlot; ++j) total[j] += slot[j];
    if (!(total[0] > 0)) return;
    sums.weight[i] += total[0];
    sums.contribution[i] += total[4];
    sums.seen_views[i] += 1;

    const float* mean = layout.blocks + i / kBlock * layout.rows * kBlock + i % kBlock;
    float d[3], norm2 = 0;
    for (int c = 0; c < 3; ++c) {
      d[c] = mean[c * kBlock] - camera.center[c];
      norm2 += d[c] * d[c];
    }
    const float inverse = 1.0f / std::sqrt(norm2);
    ColorSample& sample = samples_[i * kColorBatch + num_samples_[i]++];
    sample.weight = (float)total[0];
    for (int c = 0; c < 3; ++c) {
      sample.direction[c] = d[c] * inverse;
      sample.gradient[c] = s.clamped >> c & 1 ? 0.0f : (float)total[1 + c];
    }
  });
  if (++sampled_views_ == kColorBatch) add_samples(model, sums);
  double sse = 0;
  for (int64_t tile = 0; tile < num_tiles; ++tile) sse += tile_sse_[tile];
  timings_.gather = now() - t0;
  return sse;
}

double Rasterizer::geometry(const Model& model, const Camera& camera, const float background[3], float transmittance_min,
                            const float* photo, const GeometrySums& sums) {
  const std::lock_guard lock(mutex_);
  prepare(model, camera, true);
  TileTask common = make_task(camera, background, transmittance_min);
  common.photo = photo;
  slots_.reserve(num_entries_ * kGeometrySlot);
  const int64_t num_tiles = (int64_t)tiles_x_ * tiles_y_;
  tile_sse_.reserve(num_tiles);
  for_each_tile(common, true, [&](int64_t tile, const TileTask& task) { tile_sse_[tile] = kernels_.geometry_tile(task); });

  const double t0 = now();
  const ModelLayout& layout = model.layout();
  parallel_for(num_visible_, kSplatGrain, threads_, [&](int64_t v) {
    const int64_t i = unsorted_[v];
    const Splat& s = splats_[i];
    const int64_t count = tiles_of(s.tiles);
    const float* slot = slots_.data() + (int64_t)s.first_slot * kGeometrySlot;
    double total[kGeometrySlot] = {};
    for (int64_t t = 0; t < count; ++t, slot += kGeometrySlot)
      for (int j = 0; j < kGeometrySlot; ++j) total[j] += slot[j];
    if (!(total[kGeometryGradients] > 0)) return;

    const float* rows = layout.blocks + i / kBlock * layout.rows * kBlock + i % kBlock;
    float mean[3], axes[9];
    for (int c = 0; c < 3; ++c) mean[c] = rows[c * kBlock];
    for (int c = 0; c < 9; ++c) axes[c] = rows[(3 + c) * kBlock];
    GeometryAxis seen[3];
    geometry_axes(camera, mean, axes, s.l11, s.l21, s.l22, seen);
    double responses[kGeometryChanges][kGeometryGradients];
    float* hessian = sums.hessian + i * kGeometryTriangle;
    float* gradient = sums.gradient + i * kGeometryChanges;
    for (int a = 0; a < kGeometryChanges; ++a) {
      geometry_response(seen, a, responses[a]);
      double product[kGeometryGradients];
      for (int l = 0; l < kGeometryGradients; ++l)
        product[l] = geometry_times_moments(responses[a], total + kGeometryGradients, l);
      gradient[a] += (float)geometry_dot(responses[a], total);
      for (int b = 0; b <= a; ++b) *hessian++ += (float)geometry_dot(product, responses[b]);
    }
  });
  double sse = 0;
  for (int64_t tile = 0; tile < num_tiles; ++tile) sse += tile_sse_[tile];
  timings_.gather = now() - t0;
  return sse;
}

}  // namespace potr
