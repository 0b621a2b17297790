#include "core/mask_rows.hpp"

#include <algorithm>
#include <cstring>

#include "core/resize_table.hpp"

namespace graftsdk {

namespace {

bool centre_inside(int64_t pixel, double low, double high) {
  const double centre = static_cast<double>(pixel) + 0.5;
  return centre >= low && centre < high;
}

Taps taps_at(int64_t pixel, double low, double high, int64_t cells) {
  const double centre = static_cast<double>(pixel) + 0.5;
  return bilinear_taps((centre - low) / (high - low) * static_cast<double>(cells) - 0.5, cells);
}

}  // namespace

double BoxMaskRows::cell(int64_t row, int64_t column) const {
  const uint8_t* at = mask_.data + row * mask_.row_stride + column * mask_.column_stride;
  if (!mask_.is_float) return *at != 0 ? 1.0 : 0.0;
  float value = 0.0f;
  std::memcpy(&value, at, sizeof value);  // arrays may be unaligned
  return static_cast<double>(value);
}

void BoxMaskRows::start(const BoxMask& mask, const Window& window) {
  mask_ = mask;
  window_ = window;
  band_ = -1;
  runs_.clear();
  const auto width = static_cast<size_t>(window.x1 - window.x0);
  slide_.assign(width, 0.0);
  pattern_.assign(width, 0);
  const double low = mask.extent[0];
  const double high = mask.extent[2];
  for (int64_t x = window.x0; x < window.x1; ++x) {
    if (!centre_inside(x, low, high)) continue;
    const int64_t at = x - window.x0;
    const Taps taps = taps_at(x, low, high, mask.width);
    slide_[static_cast<size_t>(at)] = taps.fraction;
    if (runs_.empty()) first_cell_ = taps.lower;
    const int64_t left = taps.lower - first_cell_;
    if (runs_.empty() || runs_.back().left != left) runs_.push_back({at, at, left, taps.upper - first_cell_});
    runs_.back().end = at + 1;
  }
  const auto cells = static_cast<size_t>(runs_.empty() ? 0 : runs_.back().right + 1);
  upper_.assign(cells, 0.0);
  lower_.assign(cells, 0.0);
}

void BoxMaskRows::enter_band(int64_t upper, int64_t lower) {
  band_ = upper;
  for (size_t i = 0; i < upper_.size(); ++i) {
    upper_[i] = cell(upper, first_cell_ + static_cast<int64_t>(i));
    lower_[i] = cell(lower, first_cell_ + static_cast<int64_t>(i));
  }
  mixed_.clear();
  for (const Run& run : runs_) {
    const auto left = static_cast<size_t>(run.left);
    const auto right = static_cast<size_t>(run.right);
    const int inside = (upper_[left] > 0.5) + (upper_[right] > 0.5) + (lower_[left] > 0.5) + (lower_[right] > 0.5);
    if (inside != 0 && inside != 4) mixed_.push_back(run);
    std::memset(pattern_.data() + run.begin, inside == 4, static_cast<size_t>(run.end - run.begin));
  }
}

void BoxMaskRows::row(int64_t y, uint8_t* covered) {
  const double low = mask_.extent[1];
  const double high = mask_.extent[3];
  if (runs_.empty() || !centre_inside(y, low, high)) {
    std::memset(covered, 0, pattern_.size());
    return;
  }
  const Taps taps = taps_at(y, low, high, mask_.height);
  if (taps.lower != band_) enter_band(taps.lower, taps.upper);
  std::memcpy(covered, pattern_.data(), pattern_.size());
  for (const Run& run : mixed_) {
    const auto left = static_cast<size_t>(run.left);
    const auto right = static_cast<size_t>(run.right);
    const double from = upper_[left] + (lower_[left] - upper_[left]) * taps.fraction;
    const double to = upper_[right] + (lower_[right] - upper_[right]) * taps.fraction;
    for (int64_t x = run.begin; x < run.end; ++x) {
      covered[x] = from + (to - from) * slide_[static_cast<size_t>(x)] > 0.5;
    }
  }
}

}  // namespace graftsdk
