#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/mask_rows.hpp"

namespace graftsdk {

/// uint8[height, width, 3]; strides in bytes, of either sign.
struct ImageView {
  const uint8_t* data;
  int64_t height;
  int64_t width;
  int64_t row_stride;
  int64_t column_stride;
  int64_t channel_stride;
};

struct Box {
  double x0;
  double y0;
  double x1;
  double y1;
};

/// What a crop is: graftsdk.plan.CropSpec as numbers.
struct CropShape {
  int64_t height = 0;
  int64_t width = 0;
  double mean[3] = {};  // in the output's channel order
  double std[3] = {};
  uint8_t fill = 0;
  bool reverse = false;  // the output's channels are the image's in the other order
  bool antialias = true;
  bool letterbox = false;
  double pad = 0.0;
};

/// The masks of all crops: whole-image ones, ones with extents, or none (both empty).
struct CropMasks {
  std::vector<FrameMask> frames;
  std::vector<BoxMask> boxes;
};

/// Instruction sets that `mask_crop` can use on this CPU, the best one last.
std::vector<std::string> mask_crop_levels();

/// The pixels that a box covers once padded: floor, ceiling, clamped to the image.
Window crop_window(const Box& box, int64_t height, int64_t width, double pad);

/// One crop a box, float32[boxes, 3, height, width], into `crops`: graftsdk.preprocess.reference defines it.
///
/// The caller has checked that all views lie in memory that stays, that there are as many masks as boxes or none, and
/// that `crops` is large enough. Results depend neither on `threads` nor on `level`, one of mask_crop_levels(). Where
/// nothing is covered, a value is float32((fill / 255 - mean) / std) to the bit: in an output row, all groups of 16
/// outputs that read none of the columns between its source rows' first and last covered pixels, widened to 16s.
/// Throws std::invalid_argument for an unknown level or a box without a pixel, std::overflow_error and std::bad_alloc.
void mask_crop(const ImageView& image, const std::vector<Box>& boxes, const CropMasks& masks, const CropShape& shape,
               int64_t threads, const std::string& level, float* crops);

}  // namespace graftsdk
