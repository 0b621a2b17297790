#include "core/source_rows.hpp"

#include <algorithm>
#include <cstring>

#include "core/resize_table.hpp"

namespace graftsdk {

namespace {

bool any_of_16(const uint8_t* bytes) {
  uint64_t words[2];
  std::memcpy(words, bytes, sizeof words);
  return (words[0] | words[1]) != 0;
}

/// All nonzero bytes lie inside. It begins and ends at multiples of 16 or at the end: values are read back as the
/// vectors that they were written as.
Span covered_span(const uint8_t* covered, int64_t width) {
  if (width < 16) return {0, std::any_of(covered, covered + width, [](uint8_t byte) { return byte != 0; }) ? width : 0};
  const int64_t whole = width / 16 * 16;
  int64_t begin = 0;
  while (begin < whole && !any_of_16(covered + begin)) begin += 16;
  if (any_of_16(covered + width - 16)) return {begin, width};
  int64_t end = whole;
  while (end > begin && !any_of_16(covered + end - 16)) end -= 16;
  return {begin, end};
}

/// Vectors only grow: a value that an earlier crop left behind is multiplied by 0, so it has to be finite.
template <typename T>
void grow(std::vector<T>& values, int64_t size) {
  if (values.size() < static_cast<size_t>(size)) values.resize(static_cast<size_t>(size));
}

}  // namespace

static_assert(BoxMaskRows::kSlack >= CropSteps::kBlock);

void SourceRows::start(size_t index, const Window& window, int64_t capacity) {
  constexpr int64_t kBlock = CropSteps::kBlock;
  index_ = index;
  window_ = window;
  width_ = window.x1 - window.x0;
  stride_ = checked_sum(width_, 2 * kBlock - 1) / kBlock * kBlock;
  grow(bytes_, checked_product(checked_product(stride_, 3), capacity));
  expected_ = 0;
  held_.assign(static_cast<size_t>(capacity), -1);
  rows_.assign(static_cast<size_t>(capacity), {nullptr, {0, width_}});
  grow(pixels_, checked_product(checked_sum(width_, kBlock), 3));
  grow(covered_, checked_sum(width_, kBlock));
  // Rows of the image and of a mask over it go on behind the window; own copies have a block of room there.
  const bool copied = image_.column_stride != 3 || image_.channel_stride != 1;
  const bool mask_copied = masks_.frames.empty() || masks_.frames[index].column_stride != 1;
  readable_ = copied && mask_copied ? width_ + kBlock : image_.width - window.x0;
  if (!masks_.boxes.empty()) box_rows_.start(masks_.boxes[index], window);
}

const SourceRows::Row& SourceRows::row(int64_t y) {
  const int64_t slot = y % capacity();
  Row& row = rows_[static_cast<size_t>(slot)];
  if (held_[static_cast<size_t>(slot)] == y) return row;
  held_[static_cast<size_t>(slot)] = y;
  uint8_t* planes = bytes_.data() + slot * 3 * stride_;
  const Span before = row.covered;
  row = {planes, {0, width_}};
  const uint8_t* covered = nullptr;
  if (!masks_.boxes.empty() || !masks_.frames.empty()) {
    covered = covered_row(y);
    row.covered = covered == nullptr ? Span{0, 0} : covered_span(covered, width_);
    // Outside `before` the slot holds the fill, unless it is new: then `before` is everything.
    const bool within = before.begin >= row.covered.begin && before.end <= row.covered.end;
    if (!within && !before.empty()) std::memset(planes, fill_, static_cast<size_t>(3 * stride_));
    if (row.covered.empty()) return row;
    covered += row.covered.begin;
  }
  steps_.load(pixels(y, row.covered), covered, fill_, row.covered.end - row.covered.begin,
              readable_ - row.covered.begin, planes + row.covered.begin, stride_);
  return row;
}

const uint8_t* SourceRows::pixel_at(int64_t y, int64_t x) const {
  return image_.data + (window_.y0 + y) * image_.row_stride + (window_.x0 + x) * image_.column_stride;
}

const uint8_t* SourceRows::mask_at(int64_t y) const {
  const FrameMask& mask = masks_.frames[index_];
  return mask.data + (window_.y0 + y) * mask.row_stride + window_.x0 * mask.column_stride;
}

void SourceRows::expect(int64_t begin, int64_t end, Span span) {
  constexpr int64_t kLine = 64;
  for (int64_t y = std::max(begin, expected_); y < end; ++y) {
    if (image_.column_stride == 3) {
      const uint8_t* row = pixel_at(y, 0);
      for (int64_t i = 3 * span.begin; i < 3 * span.end; i += kLine) __builtin_prefetch(row + i);
    }
    if (!masks_.frames.empty() && masks_.frames[index_].column_stride == 1) {
      const uint8_t* row = mask_at(y);
      for (int64_t i = 0; i < width_; i += kLine) __builtin_prefetch(row + i);
    }
  }
  expected_ = std::max(end, expected_);
}

/// Bytes of the mask in the window's row `y`, or null where all are 0.
const uint8_t* SourceRows::covered_row(int64_t y) {
  if (!masks_.boxes.empty()) return box_rows_.row(window_.y0 + y);
  const int64_t step = masks_.frames[index_].column_stride;
  const uint8_t* from = mask_at(y);
  if (step == 1) return from;
  for (int64_t x = 0; x < width_; ++x) covered_[static_cast<size_t>(x)] = from[x * step];
  return covered_.data();
}

/// Pixels of the window's row `y`, three bytes each.
const uint8_t* SourceRows::pixels(int64_t y, Span span) {
  const uint8_t* from = pixel_at(y, span.begin);
  if (image_.column_stride == 3 && image_.channel_stride == 1) return from;
  uint8_t* to = pixels_.data();
  for (int64_t x = 0; x < span.end - span.begin; ++x) {
    for (int64_t channel = 0; channel < 3; ++channel) {
      *to++ = from[x * image_.column_stride + channel * image_.channel_stride];
    }
  }
  return pixels_.data();
}

}  // namespace graftsdk
