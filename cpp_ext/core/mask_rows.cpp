#include "core/mask_rows.hpp"

#include <algorithm>
#include <cmath>
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

double float_cell(const uint8_t* from) {
  float narrow = 0.0f;
  std::memcpy(&narrow, from, sizeof narrow);  // arrays may be unaligned
  return static_cast<double>(narrow);
}

double cell(const BoxMask& mask, int64_t row, int64_t column) {
  const uint8_t* from = mask.data + row * mask.row_stride + column * mask.column_stride;
  return mask.is_float ? float_cell(from) : static_cast<double>(*from != 0);
}

/// Whether a pixel inside the extent lies between four cells that are all covered.
bool surely_covered(const BoxMask& mask, int64_t x, int64_t y) {
  const float* extent = mask.extent;
  if (!centre_inside(x, extent[0], extent[2]) || !centre_inside(y, extent[1], extent[3])) return false;
  const Taps across = taps_at(x, extent[0], extent[2], mask.width);
  const Taps down = taps_at(y, extent[1], extent[3], mask.height);
  return cell(mask, down.lower, across.lower) > 0.5 && cell(mask, down.lower, across.upper) > 0.5 &&
         cell(mask, down.upper, across.lower) > 0.5 && cell(mask, down.upper, across.upper) > 0.5;
}

}  // namespace

void BoxMaskRows::start(const BoxMask& mask, const Window& window) {
  mask_ = mask;
  window_ = window;
  band_ = -1;
  band_end_ = -1;
  runs_.clear();
  const auto width = static_cast<size_t>(window.x1 - window.x0);
  slide_.assign(width, 0.0);
  pattern_.assign(width + kSlack, 0);
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

void BoxMaskRows::read_cells(int64_t row, std::vector<double>& into) const {
  const uint8_t* from = mask_.data + row * mask_.row_stride + first_cell_ * mask_.column_stride;
  if (mask_.is_float) {
    for (double& value : into) {
      value = float_cell(from);
      from += mask_.column_stride;
    }
  } else {
    for (double& value : into) {
      value = *from != 0 ? 1.0 : 0.0;
      from += mask_.column_stride;
    }
  }
}

void BoxMaskRows::enter_band(int64_t upper, int64_t lower) {
  if (band_end_ == upper) {
    upper_.swap(lower_);
  } else {
    read_cells(upper, upper_);
  }
  read_cells(lower, lower_);
  band_ = upper;
  band_end_ = lower;
  mixed_.clear();
  some_ = false;
  bool before = false;
  int64_t begin = 0;  // of pixels that are alike, `before`
  for (const Run& run : runs_) {
    const auto left = static_cast<size_t>(run.left);
    const auto right = static_cast<size_t>(run.right);
    const int inside = (upper_[left] > 0.5) + (upper_[right] > 0.5) + (lower_[left] > 0.5) + (lower_[right] > 0.5);
    if (inside != 0 && inside != 4) mixed_.push_back({run, false, run.end});  // all of its pixels left of the edge
    const bool some = inside != 0;
    some_ = some_ || some;
    if (some == before) continue;
    std::memset(pattern_.data() + begin, before, static_cast<size_t>(run.begin - begin));
    before = some;
    begin = run.begin;
  }
  std::memset(pattern_.data() + begin, before, static_cast<size_t>(runs_.back().end - begin));
}

/// The pattern of one run between cells that disagree. `slide_` never falls along it, and so neither does the sample,
/// or it never rises.
void BoxMaskRows::move_edge(MixedRun& run, double fraction) {
  const auto left = static_cast<size_t>(run.left);
  const auto right = static_cast<size_t>(run.right);
  const double from = upper_[left] + (lower_[left] - upper_[left]) * fraction;
  const double to = upper_[right] + (lower_[right] - upper_[right]) * fraction;
  const auto inside = [&](int64_t x) { return from + (to - from) * slide_[static_cast<size_t>(x)] > 0.5; };
  const bool rises = to > from;
  if (rises != run.rises) {
    run.rises = rises;
    run.edge = run.begin;
    std::memset(pattern_.data() + run.begin, rises, static_cast<size_t>(run.end - run.begin));
  }
  while (run.edge > run.begin && inside(run.edge - 1) == rises) {
    --run.edge;
    pattern_[static_cast<size_t>(run.edge)] = rises;
  }
  while (run.edge < run.end && inside(run.edge) != rises) {
    pattern_[static_cast<size_t>(run.edge)] = !rises;
    ++run.edge;
  }
}

const uint8_t* BoxMaskRows::row(int64_t y) {
  const double low = mask_.extent[1];
  const double high = mask_.extent[3];
  if (runs_.empty() || !centre_inside(y, low, high)) return nullptr;
  const Taps taps = taps_at(y, low, high, mask_.height);
  if (taps.lower != band_) enter_band(taps.lower, taps.upper);
  if (!some_) return nullptr;
  for (MixedRun& run : mixed_) move_edge(run, taps.fraction);
  return pattern_.data();
}

bool covers_a_pixel(const BoxMask& mask, int64_t height, int64_t width) {
  // Clamped before they become whole numbers: an extent may reach far beyond the image.
  const auto pixel = [](double edge, int64_t side) {
    return static_cast<int64_t>(std::clamp(edge, 0.0, static_cast<double>(side)));
  };
  const Window window{pixel(std::floor(static_cast<double>(mask.extent[0])), width),
                      pixel(std::floor(static_cast<double>(mask.extent[1])), height),
                      pixel(std::ceil(static_cast<double>(mask.extent[2])), width),
                      pixel(std::ceil(static_cast<double>(mask.extent[3])), height)};
  if (window.x0 >= window.x1 || window.y0 >= window.y1) return false;
  if (surely_covered(mask, (window.x0 + window.x1) / 2, (window.y0 + window.y1) / 2)) return true;  // nearly always
  BoxMaskRows rows;
  rows.start(mask, window);
  for (int64_t y = window.y0; y < window.y1; ++y) {
    const uint8_t* row = rows.row(y);
    if (row != nullptr && std::memchr(row, 1, static_cast<size_t>(window.x1 - window.x0)) != nullptr) return true;
  }
  return false;
}

}  // namespace graftsdk
