// SPDX-License-Identifier: Apache-2.0
// The CPU rasteriser: a model laid out once, then one call per view. Results do not depend on the number of threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "rasterize_kernels.h"

namespace potr {

// A reusable, uninitialised, 64-byte aligned array that only grows.
template <class T>
class Buffer {
 public:
  Buffer() = default;
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~Buffer() { std::free(data_); }

  // At least `size` elements; contents are lost when it grows.
  T* reserve(int64_t size) {
    if (size > size_) {
      std::free(data_);
      size_ = 0;
      const size_t bytes = ((size_t)size * sizeof(T) + 63) / 64 * 64;
      data_ = (T*)std::aligned_alloc(64, bytes);
      if (!data_) throw std::bad_alloc();
      size_ = size;
    }
    return data_;
  }
  T* data() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_ = nullptr;
  int64_t size_ = 0;
};

// The kernels of an instruction set by name ("x86-64-v3", "generic"); null if unknown or not supported by this machine.
const Kernels* find_kernels(const std::string& name);
// Best first.
std::vector<std::string> supported_instruction_sets();

struct ModelArrays {
  int64_t num_splats;
  int sh_degree;
  const float* means;           // [N, 3]
  const float* log_scales;      // [N, 3]
  const float* quats;           // [N, 4]
  const float* opacity_logits;  // [N]
  const float* sh_dc;           // [N, 3]
  const float* sh_ac;           // [N, K-1, 3]
};

// A model after activation, in the layout projection reads.
class Model {
 public:
  Model(const ModelArrays& arrays, int threads);
  const ModelLayout& layout() const { return layout_; }

 private:
  Buffer<float> blocks_;
  ModelLayout layout_;
};

struct Timings {
  double project = 0, sort = 0, bin = 0, blend = 0, gather = 0;  // seconds
};

struct RemovalSums {
  double* delta_sse;     // each [N], added to
  double* render_sse;
  double* contribution;
  float* peak;           // maximum taken
  int64_t* pixels;
};

struct ColorSums {
  float* hessian;       // [N, K(K+1)/2]
  float* gradient;      // [N, K, 3]
  double* weight;       // [N]
  double* contribution; // [N]
  int32_t* seen_views;  // [N]
};

struct GeometrySums {
  float* hessian;   // [N, 55]
  float* gradient;  // [N, 10]
};

// Working memory is reused from view to view: calls from several threads come one after the other.
class Rasterizer {
 public:
  // tape_bytes: the most that the threads' tapes may take together, where one tile's tape does not take more.
  Rasterizer(const Kernels& kernels, int threads, int64_t tape_bytes)
      : kernels_(kernels), threads_(threads), tape_bytes_(tape_bytes) {}

  void render(const Model& model, const Camera& camera, const float background[3], float transmittance_min,
              float* image);
  // Both return the view's squared error.
  double removal(const Model& model, const Camera& camera, const float background[3], float transmittance_min,
                 const float* photo, const RemovalSums& sums);
  // color is called between begin_color and finish_color, with the same model and sums throughout and by one thread; the
  // Hessian and the gradient lack the last views until then.
  void begin_color(const Model& model);
  void finish_color(const Model& model, const ColorSums& sums);
  double color(const Model& model, const Camera& camera, const float background[3], float transmittance_min,
               const float* photo, const ColorSums& sums);

  double geometry(const Model& model, const Camera& camera, const float background[3], float transmittance_min,
                  const float* photo, const GeometrySums& sums);

  Timings timings() const {
    const std::lock_guard lock(mutex_);
    return timings_;
  }
  int64_t num_entries() const {
    const std::lock_guard lock(mutex_);
    return num_entries_;
  }

 private:
  void prepare(const Model& model, const Camera& camera, bool slots);
  void project(const Model& model, const Camera& camera);
  void sort_by_depth();
  void bin(bool slots);
  void add_samples(const Model& model, const ColorSums& sums);
  template <class TileFunction>
  void for_each_tile(const TileTask& common, bool tape, TileFunction function);

  const Kernels& kernels_;
  const int threads_;
  const int64_t tape_bytes_;
  mutable std::mutex mutex_;  // held by every public call that uses what follows
  Timings timings_;

  int tiles_x_ = 0, tiles_y_ = 0;
  int64_t num_visible_ = 0, num_entries_ = 0, longest_tile_ = 0;
  Buffer<Splat> splats_;               // by splat index; only the visible ones are written
  Buffer<TileRectangle> rectangles_;   // by splat index
  Buffer<uint32_t> keys_, indices_, keys_swap_, indices_swap_;  // visible splats, near to far once sorted
  Buffer<uint32_t> unsorted_;          // visible splats by index
  Buffer<int64_t> tile_begin_;         // [tiles + 1]
  Buffer<uint32_t> entries_;           // splat indices tile by tile
  Buffer<int64_t> chunk_begin_;        // of projection: [chunks + 1]
  Buffer<int64_t> positions_;          // [chunks, tiles_y + 1, tiles_x + 1]
  Buffer<uint32_t> slot_begin_;        // [chunks]
  Buffer<float> slots_;
  Buffer<double> tile_sse_;
  Buffer<ColorSample> samples_;        // [N, kColorBatch], of the views since they were last added up
  Buffer<uint8_t> num_samples_;        // [N]
  int64_t sampled_splats_ = -1;        // of the model begun with
  int sampled_views_ = 0;
  std::vector<Buffer<char>> tapes_;    // one per thread
};

}  // namespace potr
