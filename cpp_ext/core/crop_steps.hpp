#pragma once

#include <cstdint>

namespace graftsdk {

/// The inner loops of a crop, compiled once for each instruction set. All levels give the same bits: every one
/// multiplies, then adds, in the order of the taps.
///
/// A row is pixels of four values: three channels in the image's order and one that is never used, so that a pixel is
/// one vector of four floats. Rows have room for a multiple of `kPixels` pixels.
struct CropSteps {
  static constexpr int64_t kPixels = 8;

  /// Three bytes a pixel -> four; where `covered` (null: everywhere) is 0, `fill`. Reads `width` pixels, not a byte
  /// beyond.
  void (*load)(const uint8_t* pixels, const uint8_t* covered, uint8_t fill, int64_t width, uint8_t* row);

  /// row[x] = sum over i of weights[i] * rows[i][x], for `width` pixels rounded up to kPixels. `more`: added to row.
  void (*combine)(const uint8_t* const* rows, const float* weights, int64_t count, bool more, int64_t width,
                  float* row);

  /// planes[c][x] = scale[c] * sum over t of weights(x, t) * row[first[x] + t] + bias[c], for `width` pixels.
  /// `weights` as `pack_weights` lays them out; `first` has a multiple of kPixels entries; `row` is finite for `taps`
  /// pixels from each of them on.
  void (*spread)(const float* row, const int64_t* first, const float* weights, int64_t taps, int64_t width,
                 const float* scale, const float* bias, float* const* planes);
};

extern const CropSteps kBaselineSteps;
#if defined(GRAFTSDK_AVX2)
extern const CropSteps kAvx2Steps;
#endif

}  // namespace graftsdk
