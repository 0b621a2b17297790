#pragma once

#include <cstdint>
#include <vector>

namespace graftsdk {

/// a * b and a + b of sizes that are not negative. Throws std::overflow_error where the result does not fit.
int64_t checked_product(int64_t a, int64_t b);
int64_t checked_sum(int64_t a, int64_t b);

/// One axis of a resize, as graftsdk/preprocess/tables.py defines it: output cell i is the weighted sum of `count[i]`
/// source cells from `first[i]` on. Computed in double, cast once.
struct ResizeTable {
  std::vector<int64_t> first;
  std::vector<int64_t> count;  // at least 1; first + count never passes the source's end
  std::vector<float> weights;  // [out, taps], 0 from `count` on
  int64_t taps = 0;            // the largest count
};

/// The bilinear table from `source` to `target` cells, both at least 1.
ResizeTable resize_table(int64_t source, int64_t target, bool antialias);

/// Lower cell and the upper's weight at a position (0 = centre of cell 0), clamped to `size` cells.
struct Taps {
  int64_t lower;
  int64_t upper;
  double fraction;
};
Taps bilinear_taps(double position, int64_t size);

/// Where a source that keeps its aspect lies inside a target: the tighter side fills it, the rest is split.
struct Placement {
  int64_t top;
  int64_t left;
  int64_t height;
  int64_t width;
};
Placement letterbox_placement(int64_t source_height, int64_t source_width, int64_t height, int64_t width);

}  // namespace graftsdk
