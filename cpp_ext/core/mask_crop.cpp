#include "core/mask_crop.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <stdexcept>
#include <thread>

#include "core/columns.hpp"
#include "core/crop_steps.hpp"
#include "core/resize_table.hpp"
#include "core/source_rows.hpp"

namespace graftsdk {

namespace {

// Source rows that are kept while output rows share them. A window of more taps is summed in pieces, and its rows are
// read again for the next output row: bounds memory at 64 rows of the widest image.
constexpr int64_t kRows = 64;

// Output rows from now whose source rows are asked for: of 600 rows resized to 299, one crop took 0.153 ms instead of
// 0.168 with AVX2, 0.131 instead of 0.150 with AVX-512.
constexpr int64_t kAhead = 2;

const CropSteps& steps_for(const std::string& level) {
  const std::vector<std::string> levels = mask_crop_levels();
  if (std::find(levels.begin(), levels.end(), level) == levels.end()) {
    throw std::invalid_argument("level: expected one that this CPU has, found " + level.substr(0, 40));
  }
#if defined(GRAFTSDK_X86)
  if (level == "avx2") return kAvx2Steps;
  if (level == "avx512") return kAvx512Steps;
#endif
  return kBaselineSteps;
}

/// Cuts crops one after another; each thread has its own.
///
/// Nothing is computed where an output reads no pixel of the person: beside the mask, above and below it.
class Cutter {
 public:
  Cutter(const ImageView& image, const CropMasks& masks, const CropShape& shape, const CropSteps& steps)
      : image_(in_order(image)),
        shape_(shape),
        steps_(steps),
        rows_(image_, masks, steps, shape.fill),
        columns_(steps) {
    // Channels that run backwards are a plain order too.
    const bool reverse = shape.reverse != (image.channel_stride == -1);
    for (int channel = 0; channel < 3; ++channel) {
      const int plane = reverse ? 2 - channel : channel;
      plane_[channel] = plane;
      output_.scale[channel] = static_cast<float>(1.0 / (255.0 * shape.std[plane]));
      output_.bias[channel] = static_cast<float>(-shape.mean[plane] / shape.std[plane]);
      output_.fill[channel] = static_cast<float>((shape.fill / 255.0 - shape.mean[plane]) / shape.std[plane]);
    }
  }

  void cut(size_t index, const Box& box, float* crop) {
    const Window window = crop_window(box, image_.height, image_.width, shape_.pad);
    const int64_t height = window.y1 - window.y0;
    width_ = window.x1 - window.x0;
    if (height < 1 || width_ < 1) throw std::invalid_argument("a box covers no pixel of the image");
    inner_ = {0, 0, shape_.height, shape_.width};
    if (shape_.letterbox) {
      inner_ = letterbox_placement(height, width_, shape_.height, shape_.width);
      fill_border(crop);
    }
    output_.width = inner_.width;
    down_ = resize_table(height, inner_.height, shape_.antialias);
    columns_.start(resize_table(width_, inner_.width, shape_.antialias), width_, inner_.width);
    rows_.start(index, window, std::min(down_.taps, kRows));
    // Values only grow: what an earlier crop left behind is multiplied by 0, so it has to be finite.
    const auto room = static_cast<size_t>(checked_product(columns_.stride(), 3));
    if (sum_.size() < room) sum_.resize(room);
    person_ = {0, width_};
    for (int64_t y = 0; y < inner_.height; ++y) write_row(y, crop);
  }

 private:
  static ImageView in_order(ImageView image) {
    if (image.channel_stride == -1) {
      image.data -= 2;
      image.channel_stride = 1;
    }
    return image;
  }

  float* row_of(float* crop, int channel, int64_t y) const {
    return crop + (plane_[channel] * shape_.height + y) * shape_.width;
  }

  void fill_border(float* crop) const {
    for (int channel = 0; channel < 3; ++channel) {
      for (int64_t y = 0; y < shape_.height; ++y) {
        float* row = row_of(crop, channel, y);
        const bool within = y >= inner_.top && y < inner_.top + inner_.height;
        std::fill(row, row + (within ? inner_.left : shape_.width), output_.fill[channel]);
        if (within) std::fill(row + inner_.left + inner_.width, row + shape_.width, output_.fill[channel]);
      }
    }
  }

  void write_row(int64_t y, float* crop) {
    const Span outputs = sum_rows(y);
    for (int channel = 0; channel < 3; ++channel) {
      output_.planes[channel] = row_of(crop, channel, inner_.top + y) + inner_.left;
    }
    output_.next = y + 1 < inner_.height ? shape_.width : 0;
    columns_.write(sum_.data(), outputs, output_);
  }

  /// The weighted sum of output row `y`'s source rows, where outputs need it: the outputs that read the person.
  Span sum_rows(int64_t y) {
    const auto at = static_cast<size_t>(y);
    const int64_t first = down_.first[at];
    const int64_t count = down_.count[at];
    const float* weights = down_.weights.data() + y * down_.taps;
    const uint8_t* rows[kRows];
    if (count > rows_.capacity()) {  // more than can be looked at before the first is summed
      const Span outputs{0, inner_.width};
      for (int64_t done = 0; done < count; done += rows_.capacity()) {
        const int64_t part = std::min(rows_.capacity(), count - done);
        for (int64_t i = 0; i < part; ++i) rows[i] = rows_.row(first + done + i).planes;
        combine(rows, weights + done, part, done > 0, outputs);
      }
      return outputs;
    }
    const auto ahead = static_cast<size_t>(std::min(y + kAhead, inner_.height - 1));
    rows_.expect(down_.first[ahead], down_.first[ahead] + down_.count[ahead], person_);
    Span covered{0, 0};
    for (int64_t i = 0; i < count; ++i) {
      const SourceRows::Row& row = rows_.row(first + i);
      rows[i] = row.planes;
      covered = joined(covered, row.covered);
    }
    person_ = covered;
    const Span outputs = columns_.reached(covered);
    if (!outputs.empty()) combine(rows, weights, count, false, outputs);
    return outputs;
  }

  void combine(const uint8_t* const* rows, const float* weights, int64_t count, bool more, Span outputs) {
    const Span pixels = columns_.needed(outputs);
    steps_.combine(rows, rows_.stride(), weights, count, more, pixels.begin, pixels.end, sum_.data(),
                   columns_.stride());
  }

  const ImageView image_;
  const CropShape& shape_;
  const CropSteps& steps_;
  int plane_[3] = {};  // of each channel in the image's order
  OutputRow output_{};

  SourceRows rows_;
  Columns columns_;
  int64_t width_ = 0;
  Placement inner_{};
  ResizeTable down_;
  Span person_{};           // where the last output row had the person
  std::vector<float> sum_;  // an output row before it is resized across
};

}  // namespace

std::vector<std::string> mask_crop_levels() {
  std::vector<std::string> levels{"baseline"};
#if defined(GRAFTSDK_X86)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2")) levels.emplace_back("avx2");
  // Of 260x600 pixels to 299x299, one crop took 0.134 ms instead of 0.154, antialiased 0.173 instead of 0.208.
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl")) {
    levels.emplace_back("avx512");
  }
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
