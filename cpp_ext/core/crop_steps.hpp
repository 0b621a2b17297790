#pragma once

#include <cstdint>

namespace graftsdk {

/// One row of the three planes of a crop: value = x * scale + bias where the person is, else `fill`. By channel in the
/// image's order; the fourth of scale and bias is never used.
struct OutputRow {
  float* planes[3];
  int64_t width;
  int64_t next;  // from here to the plane's next row; 0 in the last one
  float scale[4];
  float bias[4];
  float fill[3];
};

/// The inner loops of a crop, compiled once for each instruction set. All levels give the same bits: every one
/// multiplies, then adds, in the order of the taps.
///
/// A row is three planes, one a channel, in the image's order; `stride` is the distance from one to the next in values.
/// Ranges of pixels and of outputs start at a multiple of `kGroup`, and rows have room for one up to the next.
struct CropSteps {
  static constexpr int64_t kGroup = 16;
  static constexpr int64_t kBlock = 32;   // pixels that `load` takes at once
  static constexpr int64_t kWindows = 4;  // of `pick`

  /// Outputs of one vector of `pick`: 8 or 16; 0 where the instruction set has no cheap permutation, and no `pick`.
  int64_t lanes;

  /// `width` pixels of three bytes -> three planes; where `covered` (null: everywhere) is 0, `fill`. Reads not a byte
  /// beyond `readable` pixels, of which there are at least `width`. Writes whole blocks.
  void (*load)(const uint8_t* pixels, const uint8_t* covered, uint8_t fill, int64_t width, int64_t readable,
               uint8_t* row, int64_t stride);

  /// row[x] = sum over i of weights[i] * rows[i][x], for pixels begin..end-1. `more`: added to row.
  void (*combine)(const uint8_t* const* rows, int64_t rows_stride, const float* weights, int64_t count, bool more,
                  int64_t begin, int64_t end, float* row, int64_t stride);

  /// pixels[x] = the three channels of row[x] and a 0, for pixels begin..end-1.
  void (*weave)(const float* row, int64_t stride, int64_t begin, int64_t end, float* pixels);

  /// x = sum over t of weights[x * taps + t] * pixels[first[x] + t] for outputs begin..end-1; the others are filled.
  /// `pixels` is finite for `taps` pixels from each `first` on.
  void (*spread)(const float* pixels, const int64_t* first, const float* weights, int64_t taps, int64_t begin,
                 int64_t end, const OutputRow& output);

  /// The same from a row, by permuting neighbours: output x reads pixel base[x / lanes] + index[x] + t, and every index
  /// is below windows * lanes. Reads that many pixels from base + t on. `windows`: 1, 2 or kWindows. `weights` as
  /// `Columns` packs them: `lanes` of each tap; all in whole groups.
  void (*pick)(const float* row, int64_t stride, const int64_t* base, const int32_t* index, const float* weights,
               int64_t taps, int64_t windows, int64_t begin, int64_t end, const OutputRow& output);
};

extern const CropSteps kBaselineSteps;
#if defined(GRAFTSDK_X86)
extern const CropSteps kAvx2Steps;
extern const CropSteps kAvx512Steps;
#endif

}  // namespace graftsdk
