#pragma once

#include <cstdint>
#include <vector>

namespace graftsdk {

/// Boxes by falling score: double[count][4], x0, y0, x1, y1, finite.
struct RankedBoxes {
  const double* edges;
  int64_t count;
};

/// Non-maximum suppression: places of the boxes that stay, rising. A box goes where its intersection over union with an
/// earlier one that stays is greater than `threshold`, 0..1; where the union is empty the IoU is 0. Ends when `limit`
/// boxes stay.
std::vector<int64_t> suppress(const RankedBoxes& boxes, double threshold, int64_t limit);

/// The places of some boxes, rising.
struct FastKept {
  std::vector<int64_t> kept;
  std::vector<int64_t> cut;
};

/// YOLACT's fast NMS. `kept`: of the first `top`, those whose IoU with none of the earlier ones is greater than
/// `threshold`, whether these stay or not. `cut`: of all others, those whose IoU with none of the first `top` is.
FastKept suppress_fast(const RankedBoxes& boxes, double threshold, int64_t top);

}  // namespace graftsdk
