// The kernel against a plain double loop over full-frame values, on exactly sized heap blocks, so that sanitizers see
// any read or write outside; and many threads on one image.

#include "core/mask_crop.hpp"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <random>
#include <stdexcept>
#include <thread>
#include <vector>

#include "core/resize_table.hpp"

using namespace graftsdk;

namespace {

int failures = 0;

void expect(bool holds, const char* what) {
  if (holds) return;
  std::printf("failed: %s\n", what);
  ++failures;
}

struct Picture {
  Picture(int64_t high, int64_t wide, unsigned seed) : height(high), width(wide) {
    std::mt19937 random(seed);
    pixels.resize(static_cast<size_t>(height * width * 3));
    for (auto& value : pixels) value = static_cast<uint8_t>(random());
    mask.resize(static_cast<size_t>(height * width));
    for (auto& value : mask) value = static_cast<uint8_t>(random() % 3);
    cells.resize(7 * 5);
    for (auto& value : cells) value = static_cast<float>(random() % 5) / 4.0f;
  }
  ImageView view() const { return {pixels.data(), height, width, width * 3, 3, 1}; }
  FrameMask frame() const { return {mask.data(), width, 1}; }
  BoxMask box() const {
    const auto* data = reinterpret_cast<const uint8_t*>(cells.data());
    return {data, true, 7, 5, 5 * 4, 4, {-3.5f, 2.25f, static_cast<float>(width) - 2.5f, 60.0f}};
  }

  int64_t height;
  int64_t width;
  std::vector<uint8_t> pixels;
  std::vector<uint8_t> mask;
  std::vector<float> cells;
};

CropShape shape_of(int64_t height, int64_t width, bool antialias, bool letterbox) {
  CropShape shape;
  shape.height = height;
  shape.width = width;
  for (int channel = 0; channel < 3; ++channel) {
    shape.mean[channel] = 0.4 + 0.1 * channel;
    shape.std[channel] = 0.2;
  }
  shape.fill = 77;
  shape.reverse = true;
  shape.antialias = antialias;
  shape.letterbox = letterbox;
  return shape;
}

double sample(const BoxMask& mask, int64_t y, int64_t x) {
  const double e[4] = {mask.extent[0], mask.extent[1], mask.extent[2], mask.extent[3]};
  const double row = static_cast<double>(y) + 0.5;
  const double column = static_cast<double>(x) + 0.5;
  if (row < e[1] || row >= e[3] || column < e[0] || column >= e[2]) return 0.0;
  const Taps down = bilinear_taps((row - e[1]) / (e[3] - e[1]) * static_cast<double>(mask.height) - 0.5, mask.height);
  const Taps across =
      bilinear_taps((column - e[0]) / (e[2] - e[0]) * static_cast<double>(mask.width) - 0.5, mask.width);
  const auto cell = [&](int64_t i, int64_t j) {
    float value = 0.0f;
    std::memcpy(&value, mask.data + i * mask.row_stride + j * mask.column_stride, sizeof value);
    return static_cast<double>(value);
  };
  const auto line = [&](int64_t j) {
    return cell(down.lower, j) + (cell(down.upper, j) - cell(down.lower, j)) * down.fraction;
  };
  return line(across.lower) + (line(across.upper) - line(across.lower)) * across.fraction;
}

/// One value of one crop, straight from the definition.
double value_at(const Picture& picture, const CropMasks& masks, const Window& window, const CropShape& shape,
                const ResizeTable& down, const ResizeTable& across, int64_t channel, int64_t y, int64_t x) {
  double sum = 0.0;
  for (int64_t i = 0; i < down.count[static_cast<size_t>(y)]; ++i) {
    for (int64_t j = 0; j < across.count[static_cast<size_t>(x)]; ++j) {
      const int64_t row = window.y0 + down.first[static_cast<size_t>(y)] + i;
      const int64_t column = window.x0 + across.first[static_cast<size_t>(x)] + j;
      bool inside = true;
      if (!masks.boxes.empty()) inside = sample(masks.boxes[0], row, column) > 0.5;
      if (!masks.frames.empty()) inside = picture.mask[static_cast<size_t>(row * picture.width + column)] != 0;
      const uint8_t pixel = picture.pixels[static_cast<size_t>((row * picture.width + column) * 3 + 2 - channel)];
      sum += static_cast<double>(down.weights[static_cast<size_t>(y * down.taps + i)]) *
             static_cast<double>(across.weights[static_cast<size_t>(x * across.taps + j)]) *
             (inside ? pixel : shape.fill);
    }
  }
  return (sum / 255.0 - shape.mean[channel]) / shape.std[channel];
}

void compare(const Picture& picture, const Box& box, const CropMasks& masks, const CropShape& shape) {
  const Window window = crop_window(box, picture.height, picture.width, shape.pad);
  const int64_t high = window.y1 - window.y0;
  const int64_t wide = window.x1 - window.x0;
  Placement inner{0, 0, shape.height, shape.width};
  if (shape.letterbox) inner = letterbox_placement(high, wide, shape.height, shape.width);
  const ResizeTable down = resize_table(high, inner.height, shape.antialias);
  const ResizeTable across = resize_table(wide, inner.width, shape.antialias);
  std::vector<std::vector<float>> found;
  for (const std::string& level : mask_crop_levels()) {
    std::vector<float> crop(static_cast<size_t>(3 * shape.height * shape.width), NAN);
    mask_crop(picture.view(), {box}, masks, shape, 1, level, crop.data());
    found.push_back(crop);
  }
  for (const auto& crop : found) expect(crop == found[0], "every level gives the same values");
  double worst = 0.0;
  for (int64_t channel = 0; channel < 3; ++channel) {
    for (int64_t y = 0; y < shape.height; ++y) {
      for (int64_t x = 0; x < shape.width; ++x) {
        const bool within =
            y >= inner.top && y < inner.top + inner.height && x >= inner.left && x < inner.left + inner.width;
        const double expected =
            within ? value_at(picture, masks, window, shape, down, across, channel, y - inner.top, x - inner.left)
                   : (shape.fill / 255.0 - shape.mean[channel]) / shape.std[channel];
        const float value = found[0][static_cast<size_t>((channel * shape.height + y) * shape.width + x)];
        const double error = std::fabs(static_cast<double>(value) - expected);
        if (!(error <= worst)) worst = error;  // a NaN too
      }
    }
  }
  expect(worst < 1e-5, "within 1e-5 of the definition");
}

void test_definition() {
  for (const int64_t width : {16, 17, 23, 25, 70}) {
    const Picture picture(67, width, static_cast<unsigned>(width));
    const auto wide = static_cast<double>(width);
    for (const Box& box : {Box{0, 0, wide, 67}, Box{-5, 10.5, 9.25, 90}, Box{wide - 1, 66, wide, 67}}) {
      for (int kind = 0; kind < 3; ++kind) {
        CropMasks masks;
        if (kind == 1) masks.frames = {picture.frame()};
        if (kind == 2) masks.boxes = {picture.box()};
        for (int form = 0; form < 4; ++form) {
          compare(picture, box, masks, shape_of(9, 11, form % 2 == 0, form / 2 == 0));
          compare(picture, box, masks, shape_of(80, 75, form % 2 == 0, form / 2 == 0));
        }
      }
    }
  }
}

/// What a mask may leave out: nothing is computed there.
enum class Form { kEmpty, kFull, kPixel, kCorners, kBand, kPillar, kRing, kStripes, kLastColumn, kCount };

bool covers(Form form, int64_t y, int64_t x, int64_t height, int64_t width) {
  const bool middle = y > height / 3 && y < height * 2 / 3 && x > width / 3 && x < width * 2 / 3;
  switch (form) {
    case Form::kFull:
      return true;
    case Form::kPixel:
      return y == height / 2 && x == width / 3;
    case Form::kCorners:
      return (y == 0 || y == height - 1) && (x == 0 || x == width - 1);
    case Form::kBand:
      return y >= height / 2 && y < height / 2 + 3;
    case Form::kPillar:
      return x >= width / 2 && x < width / 2 + 3;
    case Form::kRing:
      return !middle && y > 3 && y < height - 9 && x > 2 && x < width - 5;
    case Form::kStripes:
      return y % 13 == 5;
    case Form::kLastColumn:
      return x == width - 1;
    default:
      return false;
  }
}

void test_forms() {
  for (const int64_t width : {16, 33, 100}) {
    Picture picture(90, width, static_cast<unsigned>(width));
    const auto wide = static_cast<double>(width);
    for (int i = 0; i < static_cast<int>(Form::kCount); ++i) {
      for (int64_t y = 0; y < picture.height; ++y) {
        for (int64_t x = 0; x < width; ++x) {
          picture.mask[static_cast<size_t>(y * width + x)] = covers(static_cast<Form>(i), y, x, picture.height, width);
        }
      }
      for (size_t cell = 0; cell < picture.cells.size(); ++cell) {
        const auto at = static_cast<int64_t>(cell);
        picture.cells[cell] = covers(static_cast<Form>(i), at / 5, at % 5, 7, 5) ? 0.9f : 0.2f;
      }
      CropMasks masks[2];
      masks[0].frames = {picture.frame()};
      masks[1].boxes = {picture.box()};
      for (const CropMasks& kind : masks) {
        for (int form = 0; form < 4; ++form) {
          // From 100 to 75, 40, 26 and 11 columns, and from 16 up: each way of reading a row.
          for (const int64_t side : {75, 40, 26, 11}) {
            compare(picture, {0, 0, wide, 90}, kind, shape_of(20, side, form % 2 == 0, form / 2 == 0));
          }
          compare(picture, {2, 1, wide - 3, 80}, kind, shape_of(50, 18, form % 2 == 0, form / 2 == 0));
        }
      }
    }
  }
}

/// Nothing covered: one value, the same as that of a letterbox's border.
void test_the_fill() {
  Picture picture(60, 50, 2);
  picture.mask.assign(picture.mask.size(), 0);
  CropMasks masks;
  masks.frames = {picture.frame()};
  for (const bool letterbox : {true, false}) {
    const CropShape shape = shape_of(30, 45, true, letterbox);
    std::vector<float> crop(3 * 30 * 45, NAN);
    mask_crop(picture.view(), {{0, 0, 50, 60}}, masks, shape, 1, mask_crop_levels().back(), crop.data());
    for (size_t i = 0; i < crop.size(); ++i) {
      const size_t channel = i / (30 * 45);
      const double expected = (shape.fill / 255.0 - shape.mean[channel]) / shape.std[channel];
      expect(crop[i] == static_cast<float>(expected), "a person who covers nothing is the fill");
    }
  }
}

/// A mask over the image and one with cells of a pixel each decide alike: the same bits.
void test_both_kinds() {
  Picture picture(64, 80, 4);
  for (size_t i = 0; i < picture.mask.size(); ++i) {
    const auto at = static_cast<int64_t>(i);
    picture.mask[i] = covers(Form::kRing, at / 80, at % 80, 64, 80);
  }
  CropMasks masks[2];
  masks[0].frames = {picture.frame()};
  masks[1].boxes = {{picture.mask.data(), false, 64, 80, 80, 1, {0.0f, 0.0f, 80.0f, 64.0f}}};
  std::vector<std::vector<float>> found;
  for (const CropMasks& kind : masks) {
    found.emplace_back(3 * 40 * 90);
    mask_crop(picture.view(), {{1, 2, 77, 61}}, kind, shape_of(40, 90, true, false), 1, "baseline",
              found.back().data());
  }
  expect(found[0] == found[1], "both kinds of masks give the same values");
}

/// Crops of many sizes one after another: nothing of one is left in the next.
void test_one_after_another() {
  const Picture picture(90, 120, 6);
  const std::vector<Box> boxes{{0, 0, 120, 90}, {5, 5, 9, 80}, {0, 0, 120, 6}, {50, 3, 110, 70}, {7, 7, 8, 8}};
  CropMasks masks;
  masks.frames.assign(boxes.size(), picture.frame());
  for (const bool antialias : {true, false}) {
    const CropShape shape = shape_of(30, 28, antialias, true);
    const size_t size = 3 * 30 * 28;
    std::vector<float> together(size * boxes.size(), NAN);
    mask_crop(picture.view(), boxes, masks, shape, 1, mask_crop_levels().back(), together.data());
    for (size_t i = 0; i < boxes.size(); ++i) {
      CropMasks one;
      one.frames = {picture.frame()};
      std::vector<float> alone(size, NAN);
      mask_crop(picture.view(), {boxes[i]}, one, shape, 1, mask_crop_levels().back(), alone.data());
      expect(std::memcmp(alone.data(), together.data() + i * size, size * sizeof(float)) == 0,
             "a crop does not depend on those before it");
    }
  }
}

void test_long_windows() {  // more taps than source rows are kept
  Picture picture(700, 40, 3);
  compare(picture, {0, 0, 40, 700}, {}, shape_of(4, 3, true, false));
  CropMasks masks;
  masks.frames = {picture.frame()};
  for (const Form form : {Form::kEmpty, Form::kPillar, Form::kStripes, Form::kBand}) {
    for (size_t i = 0; i < picture.mask.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      picture.mask[i] = covers(form, at / 40, at % 40, 700, 40);
    }
    compare(picture, {0, 0, 40, 700}, masks, shape_of(4, 30, true, false));
  }
}

void test_refusals() {
  const Picture picture(20, 20, 1);
  const CropShape shape = shape_of(8, 8, true, false);
  std::vector<float> crops(2 * 3 * 8 * 8);
  bool thrown = false;
  try {
    mask_crop(picture.view(), {{0, 0, 9, 9}}, {}, shape, 1, "none", crops.data());
  } catch (const std::invalid_argument&) {
    thrown = true;
  }
  expect(thrown, "an unknown level is refused");
  for (const int64_t threads : {1, 2}) {
    thrown = false;
    try {
      mask_crop(picture.view(), {{0, 0, 9, 9}, {30, 0, 40, 9}}, {}, shape, threads, "baseline", crops.data());
    } catch (const std::invalid_argument&) {
      thrown = true;
    }
    expect(thrown, "a box outside comes back as an exception of the caller's thread");
  }
  thrown = false;
  try {
    checked_product(INT64_MAX / 2, 3);
  } catch (const std::overflow_error&) {
    thrown = true;
  }
  expect(thrown, "a product that does not fit is refused");
}

void test_many_threads() {  // 16 threads share an image, each call has threads of its own
  const Picture picture(120, 90, 5);
  const std::vector<Box> boxes(12, Box{3, 4, 80, 115});
  CropMasks masks;
  masks.boxes.assign(boxes.size(), picture.box());
  const CropShape shape = shape_of(24, 20, true, true);
  const size_t size = boxes.size() * 3 * 24 * 20;
  std::vector<float> alone(size);
  mask_crop(picture.view(), boxes, masks, shape, 1, "baseline", alone.data());
  std::vector<std::vector<float>> found(16, std::vector<float>(size));
  std::vector<std::thread> callers;
  for (auto& crops : found) {
    callers.emplace_back([&] {
      for (int round = 0; round < 4; ++round) {
        mask_crop(picture.view(), boxes, masks, shape, 3, mask_crop_levels().back(), crops.data());
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  for (const auto& crops : found) expect(crops == alone, "threads change nothing");
}

}  // namespace

int main(int count, char** arguments) {
  const bool threads_only = count > 1 && std::strcmp(arguments[1], "threads") == 0;
  if (!threads_only) {
    test_definition();
    test_forms();
    test_the_fill();
    test_both_kinds();
    test_one_after_another();
    test_long_windows();
    test_refusals();
  }
  test_many_threads();
  return failures == 0 ? 0 : 1;
}
