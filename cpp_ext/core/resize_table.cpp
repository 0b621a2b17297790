#include "core/resize_table.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace graftsdk {

int64_t checked_product(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_mul_overflow(a, b, &result)) throw std::overflow_error("a size does not fit 64 bits");
  return result;
}

int64_t checked_sum(int64_t a, int64_t b) {
  int64_t result = 0;
  if (__builtin_add_overflow(a, b, &result)) throw std::overflow_error("a size does not fit 64 bits");
  return result;
}

Taps bilinear_taps(double position, int64_t size) {
  position = std::min(std::max(position, 0.0), static_cast<double>(size) - 1.0);
  const auto lower = static_cast<int64_t>(position);
  return {lower, std::min(lower + 1, size - 1), position - static_cast<double>(lower)};
}

namespace {

ResizeTable plain_table(int64_t source, int64_t target) {
  ResizeTable table;
  table.taps = source == 1 ? 1 : 2;
  const auto cells = static_cast<size_t>(target);
  table.first.resize(cells);
  table.count.assign(cells, table.taps);
  table.weights.assign(static_cast<size_t>(checked_product(target, table.taps)), 1.0f);
  if (source == 1) return table;
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  for (size_t i = 0; i < cells; ++i) {
    Taps taps = bilinear_taps((static_cast<double>(i) + 0.5) * scale - 0.5, source);
    if (taps.lower == taps.upper) {  // clamped at the far border: the same cell read from one earlier
      taps.lower -= 1;
      taps.fraction = 1.0;
    }
    table.first[i] = taps.lower;
    table.weights[2 * i] = static_cast<float>(1.0 - taps.fraction);
    table.weights[2 * i + 1] = static_cast<float>(taps.fraction);
  }
  return table;
}

}  // namespace

ResizeTable resize_table(int64_t source, int64_t target, bool antialias) {
  if (source < 1 || target < 1) throw std::invalid_argument("a resize needs at least one cell on each side");
  if (!antialias) return plain_table(source, target);
  const double scale = static_cast<double>(source) / static_cast<double>(target);
  const double support = std::max(scale, 1.0);
  const auto cells = static_cast<size_t>(target);
  ResizeTable table;
  table.first.resize(cells);
  table.count.resize(cells);
  for (size_t i = 0; i < cells; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    table.first[i] = static_cast<int64_t>(std::max(centre - support + 0.5, 0.0));
    table.count[i] = std::min(static_cast<int64_t>(centre + support + 0.5), source) - table.first[i];
    table.taps = std::max(table.taps, table.count[i]);
  }
  table.weights.assign(static_cast<size_t>(checked_product(target, table.taps)), 0.0f);
  std::vector<double> row(static_cast<size_t>(table.taps));
  for (size_t i = 0; i < cells; ++i) {
    const double centre = (static_cast<double>(i) + 0.5) * scale;
    const auto count = static_cast<size_t>(table.count[i]);
    double sum = 0.0;
    for (size_t tap = 0; tap < count; ++tap) {
      const double cell = static_cast<double>(table.first[i] + static_cast<int64_t>(tap));
      row[tap] = std::max(1.0 - std::fabs((cell - centre + 0.5) / support), 0.0);
      sum += row[tap];
    }
    float* weights = table.weights.data() + i * static_cast<size_t>(table.taps);
    for (size_t tap = 0; tap < count; ++tap) weights[tap] = static_cast<float>(row[tap] / sum);
  }
  return table;
}

Placement letterbox_placement(int64_t source_height, int64_t source_width, int64_t height, int64_t width) {
  int64_t inner_height = height;
  int64_t inner_width = width;
  if (checked_product(height, source_width) <= checked_product(width, source_height)) {
    inner_width = std::max<int64_t>(1, (2 * source_width * height + source_height) / (2 * source_height));
  } else {
    inner_height = std::max<int64_t>(1, (2 * source_height * width + source_width) / (2 * source_width));
  }
  return {(height - inner_height) / 2, (width - inner_width) / 2, inner_height, inner_width};
}

}  // namespace graftsdk
