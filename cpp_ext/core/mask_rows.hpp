#pragma once

#include <cstdint>
#include <vector>

namespace graftsdk {

/// Whole pixels inside the image, half-open.
struct Window {
  int64_t x0;
  int64_t y0;
  int64_t x1;
  int64_t y1;
};

/// A mask over the whole image: nonzero bytes are the person's. Strides in bytes, of either sign.
struct FrameMask {
  const uint8_t* data;
  int64_t row_stride;
  int64_t column_stride;
};

/// A mask of its own resolution over its extent, as graftsdk.preprocess.BoxMasks defines it. Strides in bytes.
struct BoxMask {
  const uint8_t* data;
  bool is_float;  // float32 in 0..1; else bytes, of which nonzero count as 1
  int64_t height;
  int64_t width;
  int64_t row_stride;
  int64_t column_stride;
  float extent[4];  // x0, y0, x1, y1 in pixels of the image
};

/// Rows of a box mask at the pixels of a window: the reference's decisions exactly, in double.
///
/// Between four neighbouring cells that all lie on one side of 0.5 every sample lies on that side too, rounding
/// included: both lerps are monotone, and where both ends are > 0.5 their difference is exact (Sterbenz). Only pixels
/// between cells that disagree are computed: the covered ones lie at one end, whose edge moves little from row to row
/// and is walked to.
class BoxMaskRows {
 public:
  /// Both stay where they are while rows are read.
  void start(const BoxMask& mask, const Window& window);

  /// x1 - x0 bytes, 1 where the mask covers row `y` of the image, else 0, and kSlack more; null where it covers
  /// nothing. They stay until the next call.
  const uint8_t* row(int64_t y);
  static constexpr int64_t kSlack = 32;

 private:
  struct Run {  // pixels of the window between the centres of two neighbouring cells
    int64_t begin;
    int64_t end;
    int64_t left;  // cells, counted from first_cell_
    int64_t right;
  };
  struct MixedRun : Run {
    bool rises;    // whether its right end is the covered one
    int64_t edge;  // pixel behind the left part
  };

  void read_cells(int64_t row, std::vector<double>& into) const;
  void move_edge(MixedRun& run, double fraction);
  void enter_band(int64_t upper, int64_t lower);

  BoxMask mask_{};
  Window window_{};
  int64_t first_cell_ = 0;
  int64_t band_ = -1;      // the upper row of cells that pattern_ and mixed_ belong to
  int64_t band_end_ = -1;  // and the lower one
  bool some_ = false;      // whether the band covers anything at all
  std::vector<Run> runs_;
  std::vector<MixedRun> mixed_;  // runs whose pixels have to be computed
  std::vector<double> slide_;    // of each pixel, the right cell's weight
  std::vector<double> upper_;    // cells of the rows above and below
  std::vector<double> lower_;
  std::vector<uint8_t> pattern_;  // a row of the window; all other runs are decided
};

/// Whether the mask covers a pixel of an image of this size.
bool covers_a_pixel(const BoxMask& mask, int64_t height, int64_t width);

}  // namespace graftsdk
