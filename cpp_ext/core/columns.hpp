#pragma once

#include <cstdint>
#include <vector>

#include "core/crop_steps.hpp"
#include "core/resize_table.hpp"
#include "core/span.hpp"

namespace graftsdk {

/// The horizontal half of a resize: the table as the steps read it, and which outputs a span of pixels reaches.
class Columns {
 public:
  explicit Columns(const CropSteps& steps) : steps_(steps) {}

  /// A resize from `source` to `target` pixels by `table`.
  void start(const ResizeTable& table, int64_t source, int64_t target);

  /// Outputs that read a pixel of `span`, in whole groups: 0 or a multiple of kGroup, to one or to the last output.
  /// The same at every level, since the others get a value of their own.
  Span reached(Span span) const;

  /// Pixels that these outputs read, in whole groups.
  Span needed(Span outputs) const;

  /// Values that a plane of a row has to have.
  int64_t stride() const { return stride_; }

  /// One row of outputs, those outside `outputs` filled, from a row of `stride()` that `combine` made where these need
  /// it. Its other values have no weight, but have to be finite.
  void write(const float* row, Span outputs, const OutputRow& output);

 private:
  bool pack(const ResizeTable& table);

  const CropSteps& steps_;
  int64_t source_ = 0;
  int64_t target_ = 0;
  int64_t taps_ = 0;
  int64_t stride_ = 0;
  bool picks_ = false;
  int64_t windows_ = 1;
  std::vector<int64_t> first_;     // of each output, in whole groups
  std::vector<int64_t> reaching_;  // of each pixel, the first output that reads it or one behind it
  std::vector<int64_t> beyond_;    // of each pixel, the first output that reads neither it nor one before it
  std::vector<int64_t> base_;
  std::vector<int32_t> index_;
  std::vector<float> weights_;
  std::vector<float> pixels_;
};

}  // namespace graftsdk
