#include "core/suppress.hpp"

#include <algorithm>
#include <limits>

namespace graftsdk {

namespace {

constexpr int64_t kBlock = 8;  // boxes that are compared before the answer is looked at

struct Box {
  double x0;
  double y0;
  double x1;
  double y1;
  double area;
};

Box box_at(const RankedBoxes& boxes, int64_t place) {
  const double* edges = boxes.edges + 4 * place;
  const double width = std::max(edges[2] - edges[0], 0.0);
  const double height = std::max(edges[3] - edges[1], 0.0);
  return {edges[0], edges[1], edges[2], edges[3], width * height};
}

/// Boxes that suppress, in columns: the loop over them has no branch, and the compiler makes vectors of it.
class Better {
 public:
  void add(const Box& box) {
    x0_.push_back(box.x0);
    y0_.push_back(box.y0);
    x1_.push_back(box.x1);
    y1_.push_back(box.y1);
    area_.push_back(box.area);
  }

  bool suppress(const Box& box, double threshold) const {
    const auto count = static_cast<int64_t>(area_.size());
    int64_t begin = 0;
    for (; begin + kBlock <= count; begin += kBlock) {
      if (over(box, threshold, begin, begin + kBlock)) return true;
    }
    return over(box, threshold, begin, count);
  }

 private:
  bool over(const Box& box, double threshold, int64_t begin, int64_t end) const {
    constexpr double kLeast = std::numeric_limits<double>::denorm_min();  // in place of a union of 0
    int64_t found = 0;
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const double width = std::max(std::min(box.x1, x1_[i]) - std::max(box.x0, x0_[i]), 0.0);
      const double height = std::max(std::min(box.y1, y1_[i]) - std::max(box.y0, y0_[i]), 0.0);
      const double shared = width * height;
      const double whole = std::max(area_[i] + box.area - shared, kLeast);
      found |= shared / whole > threshold;
    }
    return found != 0;
  }

  std::vector<double> x0_;
  std::vector<double> y0_;
  std::vector<double> x1_;
  std::vector<double> y1_;
  std::vector<double> area_;
};

}  // namespace

std::vector<int64_t> suppress(const RankedBoxes& boxes, double threshold, int64_t limit) {
  std::vector<int64_t> kept;
  Better better;
  for (int64_t place = 0; place < boxes.count && static_cast<int64_t>(kept.size()) < limit; ++place) {
    const Box box = box_at(boxes, place);
    if (better.suppress(box, threshold)) continue;
    better.add(box);
    kept.push_back(place);
  }
  return kept;
}

FastKept suppress_fast(const RankedBoxes& boxes, double threshold, int64_t top) {
  FastKept found;
  Better better;
  for (int64_t place = 0; place < boxes.count; ++place) {
    const Box box = box_at(boxes, place);
    if (!better.suppress(box, threshold)) (place < top ? found.kept : found.cut).push_back(place);
    if (place < top) better.add(box);
  }
  return found;
}

}  // namespace graftsdk
