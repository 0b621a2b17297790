#pragma once

#include <cstdint>
#include <vector>

#include "core/crop_steps.hpp"
#include "core/mask_crop.hpp"
#include "core/mask_rows.hpp"
#include "core/span.hpp"

namespace graftsdk {

/// Rows of a window of the image, masked, each made once while rows that follow are asked for.
class SourceRows {
 public:
  struct Row {
    const uint8_t* planes;  // three, `stride()` apart; `fill` outside `covered`
    Span covered;           // of the window: no pixel of the person outside, where there is a mask
  };

  /// The image's channels lie in order or have any stride but -1.
  SourceRows(const ImageView& image, const CropMasks& masks, const CropSteps& steps, uint8_t fill)
      : image_(image), masks_(masks), steps_(steps), fill_(fill) {}

  /// The window of person `index`, of whom `capacity` rows stay.
  void start(size_t index, const Window& window, int64_t capacity);

  int64_t capacity() const { return static_cast<int64_t>(held_.size()); }
  int64_t stride() const { return stride_; }

  /// Row `y` of the window. Stays until `capacity()` other rows are asked for.
  const Row& row(int64_t y);

  /// Asks memory for the rows before `end` that have not been asked for, at the pixels of `span`.
  void expect(int64_t begin, int64_t end, Span span);

 private:
  const uint8_t* mask_at(int64_t y) const;
  const uint8_t* pixel_at(int64_t y, int64_t x) const;
  const uint8_t* covered_row(int64_t y);
  const uint8_t* pixels(int64_t y, Span span);

  ImageView image_;
  const CropMasks& masks_;
  const CropSteps& steps_;
  uint8_t fill_;

  size_t index_ = 0;
  Window window_{};
  int64_t width_ = 0;
  int64_t stride_ = 0;
  int64_t expected_ = 0;  // rows before it have been asked for
  int64_t readable_ = 0;  // pixels from the window's first one on that may be read in every row
  BoxMaskRows box_rows_;
  std::vector<uint8_t> bytes_;  // source rows, each in the slot row % number of slots
  std::vector<int64_t> held_;   // which one a slot holds
  std::vector<Row> rows_;
  std::vector<uint8_t> pixels_;  // a row of an image with other strides
  std::vector<uint8_t> covered_;
};

}  // namespace graftsdk
