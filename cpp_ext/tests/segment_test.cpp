// The search for NaN and infinity, suppression and masks of prototypes against plain loops, on exactly sized heap
// blocks, so that sanitizers see any read or write outside.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "core/finite.hpp"
#include "core/prototype_masks.hpp"
#include "core/suppress.hpp"

using namespace graftsdk;

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

void check_finite() {
  const float inf = std::numeric_limits<float>::infinity();
  const float bad[] = {inf, -inf, std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::quiet_NaN(),
                       std::numeric_limits<float>::signaling_NaN()};
  const float most = std::numeric_limits<float>::max();
  const float good[] = {0.0f, -0.0f, most, -most, std::numeric_limits<float>::denorm_min(), 1.0f};
  expect(all_finite(nullptr, 0), "nothing is finite");
  for (size_t count = 1; count < 40; ++count) {
    for (size_t place = 0; place < count; ++place) {
      std::vector<float> values(count);
      for (size_t i = 0; i < count; ++i) values[i] = good[i % 6];
      expect(all_finite(values.data(), static_cast<int64_t>(count)), "finite values");
      for (float value : bad) {
        values[place] = value;
        expect(!all_finite(values.data(), static_cast<int64_t>(count)), "a value that is not finite");
      }
    }
  }
}

double overlap(const double* a, const double* b) {
  const double width = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]), 0.0);
  const double height = std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]), 0.0);
  const double shared = width * height;
  const double areas =
      std::max(a[2] - a[0], 0.0) * std::max(a[3] - a[1], 0.0) + std::max(b[2] - b[0], 0.0) * std::max(b[3] - b[1], 0.0);
  return areas > shared ? shared / (areas - shared) : 0.0;
}

void check_suppress(std::mt19937& random) {
  // Whole coordinates: equal boxes, boxes without area, IoUs that hit the threshold exactly.
  std::uniform_int_distribution<int> place(0, 8);
  for (int64_t count : {0, 1, 7, 8, 9, 40, 100}) {
    std::vector<double> edges;
    for (int64_t i = 0; i < 4 * count; ++i) edges.push_back(place(random));
    const RankedBoxes boxes{edges.data(), count};
    const auto over = [&](int64_t a, int64_t b, double most) {
      return overlap(edges.data() + 4 * a, edges.data() + 4 * b) > most;
    };
    for (double threshold : {0.0, 0.25, 0.5, 1.0}) {
      for (int64_t limit : {int64_t{0}, int64_t{1}, int64_t{5}, int64_t{1000}}) {
        std::vector<int64_t> greedy;
        FastKept fast;
        for (int64_t i = 0; i < count; ++i) {
          const auto goes = [&](int64_t other) { return over(other, i, threshold); };
          if (static_cast<int64_t>(greedy.size()) < limit && std::none_of(greedy.begin(), greedy.end(), goes)) {
            greedy.push_back(i);
          }
          bool gone = false;
          for (int64_t other = 0; other < std::min(i, limit); ++other) gone = gone || goes(other);
          if (!gone) (i < limit ? fast.kept : fast.cut).push_back(i);
        }
        expect(suppress(boxes, threshold, limit) == greedy, "greedy suppression");
        const FastKept found = suppress_fast(boxes, threshold, limit);
        expect(found.kept == fast.kept && found.cut == fast.cut, "fast suppression");
      }
    }
  }
}

void check_masks(std::mt19937& random) {
  std::normal_distribution<float> normal;
  for (int64_t kinds : {1, 3, 4, 7, 32}) {
    const int64_t height = 9;
    const int64_t width = 11;
    std::vector<float> values(static_cast<size_t>(height * width * kinds));
    for (float& value : values) value = 3.0f * normal(random);
    std::vector<float> coefficients(static_cast<size_t>(kinds));
    for (float& value : coefficients) value = normal(random);
    const Prototypes frame{values.data(), height, width, kinds};
    for (int64_t x0 = 0; x0 < width; ++x0) {
      for (int64_t x1 = x0 + 1; x1 <= width; ++x1) {
        const int64_t y0 = (x0 + x1) % height;
        const Window kept{x0, y0, x1, std::min(y0 + 1 + x1 % 4, height)};
        const Window held = with_ring(kept, frame);
        expect(held.x0 == std::max<int64_t>(x0 - 1, 0) && held.x1 == std::min(x1 + 1, width) &&
                   held.y0 == std::max<int64_t>(kept.y0 - 1, 0) && held.y1 == std::min(kept.y1 + 1, height),
               "a ring inside the frame");
        std::vector<float> mask(static_cast<size_t>((held.x1 - held.x0) * (held.y1 - held.y0)), -1.0f);
        prototype_mask(frame, coefficients.data(), kept, held, mask.data());
        size_t at = 0;
        for (int64_t y = held.y0; y < held.y1; ++y) {
          for (int64_t x = held.x0; x < held.x1; ++x, ++at) {
            const bool inside = x >= kept.x0 && x < kept.x1 && y >= kept.y0 && y < kept.y1;
            double sum = 0.0;
            for (int64_t k = 0; k < kinds; ++k) {
              sum += static_cast<double>(coefficients[static_cast<size_t>(k)]) *
                     static_cast<double>(values[static_cast<size_t>((y * width + x) * kinds + k)]);
            }
            const double expected = inside ? 1.0 / (1.0 + std::exp(-sum)) : 0.0;
            expect(inside ? std::abs(static_cast<double>(mask[at]) - expected) < 5e-6 : mask[at] == 0.0f, "a mask");
          }
        }
      }
    }
  }
}

void check_sigmoid() {
  // One prototype: the logit is its value. 7 columns: lanes of four, and what is left of them.
  const float inf = std::numeric_limits<float>::infinity();
  std::vector<float> logits{0.0f, inf, -inf, 3e38f, -3e38f, 88.0f, -88.0f};
  for (int i = -900; i < 906; ++i) logits.push_back(static_cast<float>(i) * 0.1f);
  logits.resize(logits.size() / 7 * 7);
  const auto rows = static_cast<int64_t>(logits.size() / 7);
  const Prototypes frame{logits.data(), rows, 7, 1};
  const Window all{0, 0, 7, rows};
  const float one = 1.0f;
  std::vector<float> mask(logits.size());
  prototype_mask(frame, &one, all, all, mask.data());
  for (size_t i = 0; i < mask.size(); ++i) {
    const double exact = 1.0 / (1.0 + std::exp(-static_cast<double>(logits[i])));
    expect(std::abs(static_cast<double>(mask[i]) - exact) < 3e-7 && mask[i] >= 0.0f && mask[i] <= 1.0f, "a sigmoid");
  }
  expect(mask[0] == 0.5f && mask[1] == 1.0f, "the sigmoid of 0 is 0.5, far out it is 1");
  for (size_t place = 0; place < 7; ++place) {
    std::vector<float> row(7, 1.0f);
    row[place] = std::numeric_limits<float>::quiet_NaN();
    prototype_mask({row.data(), 1, 7, 1}, &one, {0, 0, 7, 1}, {0, 0, 7, 1}, mask.data());
    for (size_t i = 0; i < 7; ++i) expect(std::isnan(mask[i]) == (i == place), "NaN stays, alone");
  }
}

void check_covering(std::mt19937& random) {
  // Values around one half, extents that reach beyond the image or lie between pixels: now and then one pixel, or none.
  std::uniform_real_distribution<float> value(0.0f, 0.56f);
  std::uniform_real_distribution<float> edge(-4.0f, 14.0f);
  const int64_t height = 9;
  const int64_t width = 11;
  int covered = 0;
  for (int round = 0; round < 2000; ++round) {
    const int64_t rows = 1 + round % 3;
    const int64_t columns = 1 + round % 4;
    std::vector<float> cells(static_cast<size_t>(rows * columns));
    for (float& cell : cells) cell = value(random);
    BoxMask mask{reinterpret_cast<const uint8_t*>(cells.data()), true, rows, columns, columns * 4, 4, {}};
    for (int axis = 0; axis < 2; ++axis) {
      const float a = edge(random);
      const float b = edge(random);
      mask.extent[axis] = std::min(a, b);
      mask.extent[axis + 2] = std::max(a, b) + 0.01f;
    }
    bool some = false;
    BoxMaskRows reader;
    reader.start(mask, {0, 0, width, height});
    for (int64_t y = 0; y < height; ++y) {
      const uint8_t* row = reader.row(y);
      some = some || (row != nullptr && std::find(row, row + width, 1) != row + width);
    }
    expect(covers_a_pixel(mask, height, width) == some, "whether a mask covers a pixel");
    covered += some;
  }
  expect(covered > 200 && covered < 1800, "masks of both kinds");
  const float one = 1.0f;
  const auto covers = [&](float x0, float y0, float x1, float y1) {
    return covers_a_pixel({reinterpret_cast<const uint8_t*>(&one), true, 1, 1, 4, 4, {x0, y0, x1, y1}}, height, width);
  };
  expect(covers(-1e30f, -1e30f, 1e30f, 1e30f) && covers(10.4f, 8.4f, 10.6f, 8.6f), "far beyond, and the last pixel");
  expect(!covers(11.0f, 0.0f, 1e30f, 9.0f) && !covers(0.0f, -5.0f, 11.0f, 0.0f), "outside");
  expect(!covers(4.6f, 0.0f, 5.4f, 9.0f) && !covers(-3e38f, 3e38f, -2e38f, 3.1e38f), "between pixels, and far away");
}

}  // namespace

int main() {
  std::mt19937 random(0);
  check_finite();
  check_suppress(random);
  check_masks(random);
  check_sigmoid();
  check_covering(random);
  if (failures == 0) std::printf("ok\n");
  return failures == 0 ? 0 : 1;
}
