#include "core/mask_crop.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <stdexcept>
#include <thread>

#include "core/crop_steps.hpp"
#include "core/resize_table.hpp"

namespace graftsdk {

namespace {

// Source rows that are kept while output rows share them. A window of more taps is summed in pieces, and its rows are
// read again for the next output row: bounds memory at 64 rows of the widest image.
constexpr int64_t kRows = 64;

const CropSteps& steps_for(const std::string& level) {
  const std::vector<std::string> levels = mask_crop_levels();
  if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
    throw std::invalid_argument("level: expected one that this CPU has, found " + level.substr(0, 40));
  }
#if defined(GRAFTSDK_AVX2)
  if (level == "avx2") return kAvx2Steps;
#endif
  return kBaselineSteps;
}

int64_t round_up(int64_t value) {
  return checked_sum(value, CropSteps::kPixels - 1) / CropSteps::kPixels * CropSteps::kPixels;
}

/// Vectors only grow: a value that an earlier crop left behind is multiplied by 0, so it has to be finite.
template <typename T>
void grow(std::vector<T>& values, int64_t size) {
  if (values.size() < static_cast<size_t>(size)) values.resize(static_cast<size_t>(size));
}

/// Cuts crops one after another; each thread has its own.
class Cutter {
 public:
  Cutter(const ImageView& image, const CropMasks& masks, const CropShape& shape, const CropSteps& steps)
      : image_(image), masks_(masks), shape_(shape), steps_(steps) {
    // Channels that run backwards are a plain order too.
    bool reverse = shape.reverse;
    if (image_.channel_stride == -1) {
      image_.data -= 2;
      image_.channel_stride = 1;
      reverse = !reverse;
    }
    for (int channel = 0; channel < 3; ++channel) {
      const int plane = reverse ? 2 - channel : channel;
      plane_[channel] = plane;
      scale_[channel] = static_cast<float>(1.0 / (255.0 * shape.std[plane]));
      bias_[channel] = static_cast<float>(-shape.mean[plane] / shape.std[plane]);
    }
  }

  void cut(size_t index, const Box& box, float* crop) {
    window_ = crop_window(box, image_.height, image_.width, shape_.pad);
    const int64_t source_height = window_.y1 - window_.y0;
    const int64_t source_width = window_.x1 - window_.x0;
    if (source_height < 1 || source_width < 1) throw std::invalid_argument("a box covers no pixel of the image");
    index_ = index;
    if (!masks_.boxes.empty()) box_rows_.start(masks_.boxes[index], window_);

    Placement inner{0, 0, shape_.height, shape_.width};
    if (shape_.letterbox) {
      inner = letterbox_placement(source_height, source_width, shape_.height, shape_.width);
      fill_border(inner, crop);
    }
    const ResizeTable down = resize_table(source_height, inner.height, shape_.antialias);
    const ResizeTable across = resize_table(source_width, inner.width, shape_.antialias);
    pack_weights(across, inner.width);
    make_room(source_width, std::min(down.taps, kRows), across.taps);
    for (int64_t y = 0; y < inner.height; ++y) {
      sum_rows(down, y, source_width);
      const int64_t at = (inner.top + y) * shape_.width + inner.left;
      const int64_t plane = shape_.height * shape_.width;
      float* const planes[3] = {crop + plane_[0] * plane + at, crop + plane_[1] * plane + at,
                                crop + plane_[2] * plane + at};
      steps_.spread(sum_.data(), first_.data(), weights_.data(), across.taps, inner.width, scale_, bias_, planes);
    }
  }

 private:
  void fill_border(const Placement& inner, float* crop) const {
    for (int64_t plane = 0; plane < 3; ++plane) {
      const double normal = (static_cast<double>(shape_.fill) / 255.0 - shape_.mean[plane]) / shape_.std[plane];
      const auto value = static_cast<float>(normal);
      for (int64_t y = 0; y < shape_.height; ++y) {
        float* row = crop + (plane * shape_.height + y) * shape_.width;
        if (y < inner.top || y >= inner.top + inner.height) {
          std::fill(row, row + shape_.width, value);
        } else {
          std::fill(row, row + inner.left, value);
          std::fill(row + inner.left + inner.width, row + shape_.width, value);
        }
      }
    }
  }

  /// The table in the order in which `spread` reads it: eight outputs at a time, as pairs (k, k + 4), each weight four
  /// times. Outputs beyond the last one have weight 0.
  void pack_weights(const ResizeTable& across, int64_t width) {
    const int64_t outputs = round_up(width);
    first_.assign(static_cast<size_t>(outputs), 0);
    std::copy(across.first.begin(), across.first.end(), first_.begin());
    const auto taps = static_cast<size_t>(across.taps);
    weights_.assign(static_cast<size_t>(checked_product(checked_product(outputs, across.taps), 4)), 0.0f);
    for (size_t x = 0; x < static_cast<size_t>(width); ++x) {
      const size_t couple = x / 8 * 4 + x % 4;
      for (size_t tap = 0; tap < taps; ++tap) {
        float* to = weights_.data() + (couple * taps + tap) * 8 + (x % 8 / 4) * 4;
        std::fill(to, to + 4, across.weights[x * taps + tap]);
      }
    }
  }

  void make_room(int64_t width, int64_t rows, int64_t taps) {
    row_size_ = checked_product(round_up(width), 4);
    grow(rows_, checked_product(row_size_, rows));
    held_.assign(static_cast<size_t>(rows), -1);
    grow(sum_, checked_product(checked_sum(round_up(width), taps), 4));
    grow(pixels_, checked_product(width, 3));
    grow(covered_, width);
  }

  /// Output row `y` before it is spread: the weighted sum of source rows.
  void sum_rows(const ResizeTable& down, int64_t y, int64_t width) {
    const auto at = static_cast<size_t>(y);
    const int64_t count = down.count[at];
    const float* weights = down.weights.data() + y * down.taps;
    const auto capacity = static_cast<int64_t>(held_.size());
    for (int64_t done = 0; done < count; done += capacity) {
      const int64_t part = std::min(capacity, count - done);
      const uint8_t* rows[kRows];
      for (int64_t i = 0; i < part; ++i) rows[i] = source_row(down.first[at] + done + i, width);
      steps_.combine(rows, weights + done, part, done > 0, width, sum_.data());
    }
  }

  /// Row `row` of the window, masked, four bytes a pixel.
  const uint8_t* source_row(int64_t row, int64_t width) {
    const int64_t slot = row % static_cast<int64_t>(held_.size());
    uint8_t* to = rows_.data() + slot * row_size_;
    if (held_[static_cast<size_t>(slot)] != row) {
      held_[static_cast<size_t>(slot)] = row;
      steps_.load(pixel_row(row, width), covered_row(row, width), shape_.fill, width, to);
    }
    return to;
  }

  const uint8_t* pixel_row(int64_t row, int64_t width) {
    const uint8_t* from = image_.data + (window_.y0 + row) * image_.row_stride + window_.x0 * image_.column_stride;
    if (image_.column_stride == 3 && image_.channel_stride == 1) return from;
    uint8_t* to = pixels_.data();
    for (int64_t x = 0; x < width; ++x) {
      for (int64_t channel = 0; channel < 3; ++channel) {
        *to++ = from[x * image_.column_stride + channel * image_.channel_stride];
      }
    }
    return pixels_.data();
  }

  const uint8_t* covered_row(int64_t row, int64_t width) {
    const int64_t y = window_.y0 + row;
    if (!masks_.boxes.empty()) {
      box_rows_.row(y, covered_.data());
      return covered_.data();
    }
    if (masks_.frames.empty()) return nullptr;
    const FrameMask& mask = masks_.frames[index_];
    const uint8_t* from = mask.data + y * mask.row_stride + window_.x0 * mask.column_stride;
    if (mask.column_stride == 1) return from;
    for (int64_t x = 0; x < width; ++x) covered_[static_cast<size_t>(x)] = from[x * mask.column_stride];
    return covered_.data();
  }

  ImageView image_;
  const CropMasks& masks_;
  const CropShape& shape_;
  const CropSteps& steps_;
  int plane_[3] = {};    // of each channel in the image's order
  float scale_[4] = {};  // value = x * scale + bias; the fourth is never used
  float bias_[4] = {};

  size_t index_ = 0;
  Window window_{};
  BoxMaskRows box_rows_;
  int64_t row_size_ = 0;
  std::vector<uint8_t> rows_;  // source rows, each in the slot row % number of slots
  std::vector<int64_t> held_;  // which one a slot holds
  std::vector<float> sum_;     // an output row before it is spread
  std::vector<int64_t> first_;
  std::vector<float> weights_;
  std::vector<uint8_t> pixels_;  // a row of an image with other strides
  std::vector<uint8_t> covered_;
};

}  // namespace

std::vector<std::string> mask_crop_levels() {
  std::vector<std::string> levels{"baseline"};
#if defined(GRAFTSDK_AVX2)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) levels.emplace_back("avx2");
#endif
  return levels;
}

Window crop_window(const Box& box, int64_t height, int64_t width, double pad) {
  const double wide = pad * (box.x1 - box.x0);
  const double high = pad * (box.y1 - box.y0);
  const auto clamp = [](double value, int64_t most) -> int64_t {
    if (!(value > 0.0)) return 0;  // a NaN too
    return value < static_cast<double>(most) ? static_cast<int64_t>(value) : most;
  };
  return {clamp(std::floor(box.x0 - wide), width), clamp(std::floor(box.y0 - high), height),
          clamp(std::ceil(box.x1 + wide), width), clamp(std::ceil(box.y1 + high), height)};
}

void mask_crop(const ImageView& image, const std::vector<Box>& boxes, const CropMasks& masks, const CropShape& shape,
               int64_t threads, const std::string& level, float* crops) {
  const CropSteps& steps = steps_for(level);
  const int64_t size = checked_product(checked_product(shape.height, shape.width), 3);
  const auto count = static_cast<int64_t>(boxes.size());
  checked_product(checked_product(size, static_cast<int64_t>(sizeof(float))), count);

  std::atomic<int64_t> next{0};
  const auto workers = static_cast<size_t>(std::max<int64_t>(1, std::min(threads, count)));
  std::vector<std::exception_ptr> failures(workers);
  const auto work = [&](size_t worker) noexcept {
    try {
      Cutter cutter(image, masks, shape, steps);
      for (int64_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
        cutter.cut(static_cast<size_t>(i), boxes[static_cast<size_t>(i)], crops + i * size);
      }
    } catch (...) {
      failures[worker] = std::current_exception();
      next.store(count);
    }
  };
  std::vector<std::thread> others;
  others.reserve(workers - 1);
  try {
    for (size_t worker = 1; worker < workers; ++worker) others.emplace_back(work, worker);
  } catch (const std::exception&) {
    // The system has no more threads or no memory for one: those that started do all the work.
  }
  work(0);
  for (std::thread& other : others) other.join();
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace graftsdk
