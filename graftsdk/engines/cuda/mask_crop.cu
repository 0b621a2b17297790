// People cut out of a frame in device memory: what graftsdk.preprocess.reference defines, as CUDA kernels.
//
// One source for two compilers. NVRTC compiles it for a GPU: nothing is included. A C++17 compiler compiles the same
// text for the host, after definitions of CUDA's words (tests/engines/kernels/host_shim.hpp), and there it is proven.
// Two rules make the proof hold for both:
// - Only operations that IEEE 754 defines to the bit, and no contraction: NVRTC gets --fmad=false, where a fused
//   multiply-add is wanted it is written. So both are to give the same bits; on an H100 crops of 1080p were within
//   7.2e-7 of the reference.
// - A block's threads share work by loops that step by blockDim, whatever it is, and meet in __syncthreads() alone: one
//   thread does what 256 do.
//
// Structs and sizes are laid out by graftsdk.engines.cuda.crop_block and prototypes; what is handed in is checked
// there.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef int i32;
typedef long long i64;
typedef unsigned long long u64;

static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(i64) == 8 && sizeof(void*) == 8, "sizes of a 64-bit GPU");

namespace graftsdk {

constexpr i32 kThreads = 256;  // of a block, at most

// Of the crop: a tile has 8 output rows. Its source columns are summed down into shared memory, 128 at a time, then
// across. 12 KiB a block: shared memory leaves room for as many blocks as threads do, on 7.5 and later.
constexpr i32 kTileRows = 8;
constexpr i32 kColumns = 128;
constexpr i32 kNarrow = 8;  // tiles up to this width may read more columns than kColumns

constexpr i32 kSums = 3 * kColumns + 4;  // floats of a row of sums: whole words of the image begin up to 3 bytes earlier

constexpr i32 kFew = 4;  // weights of a row that are read at once: windows up to twice as high as the crop

constexpr i32 kScanned = 16384;  // floats of a network's outputs that one block looks through

constexpr i32 kMaskRows = 32;   // a word of a mask is 32 pixels of one column
constexpr i32 kReduced = 1024;  // words of a mask that one block looks through

enum MaskType : i32 { kFrameMask = 1, kByteCells = 2, kFloatCells = 3 };

/// What else makes a prediction that reaches the score a person: nothing; that no class is better, nor as good and
/// earlier; that the best class is over a bound; that its class, a number, is the person's.
enum Rule : i32 { kAnyClass = 0, kBestClass = 1, kOverBound = 2, kNamedClass = 3 };

/// What all crops of a call share.
struct Call {
  i64 row_stride;  // of the image, in bytes
  i32 height;      // of the image
  i32 width;
  i32 out_height;
  i32 out_width;
  i32 fill;  // 0..255
  i32 antialias;
  i32 masked;
  i32 half;        // whether crops are float16, else float32
  i32 plane[3];    // of each of the image's channels: where in the crop it goes,
  float scale[3];  // 1 / (255 std)
  float base[3];   // and (fill / 255 - mean) / std
  i32 unused;
};

/// One crop.
struct Crop {
  const u8* mask;  // over the frame: bytes; over its extent: bytes or floats
  i64 mask_row_stride;
  i64 down;  // where in `work` its tables lie, and its bits
  i64 across;
  i64 bits;
  i32 x0;  // the window: whole pixels inside the image, half-open
  i32 y0;
  i32 x1;
  i32 y1;
  i32 top;  // where the resized window lies in the crop
  i32 left;
  i32 inner_height;
  i32 inner_width;
  i32 tile_width;
  i32 down_taps;  // room for each output row's weights; kFew, then the rest is 0, or more
  i32 mask_height;
  i32 mask_width;
  i32 mask_type;
  float extent[4];  // x0, y0, x1, y1 in pixels of the image
  i32 unused;
};

/// A mask made of prototypes on their own grid.
struct PrototypeMask {
  i64 values;   // where it begins
  i32 row;      // of the coefficients
  i32 kept[4];  // cells that are computed, x0, y0, x1, y1, half-open
  i32 held[4];  // cells that it holds; those not kept are 0
  i32 unused;
};

/// A mask made of prototypes, sampled over a box.
struct SampledMask {
  i64 values;
  double x0;  // the box's corner, and from sample to sample, in cells
  double y0;
  double step_x;
  double step_y;
  i32 row;
  i32 rows;
  i32 columns;
  i32 unused;
};

/// One value of each of a network's predictions, or the first of several; strides in floats.
struct Field {
  const float* first;  // of prediction 0; null where there is none
  i64 row;             // from prediction to prediction
  i64 step;            // from value to value of one prediction
};

constexpr i32 kOutputs = 5;  // of a network, at most

/// Where the predictions of a segmenter lie, and which are people.
struct Predictions {
  Field score;   // of the person's class
  Field factor;  // of all classes of a prediction
  Field classes;
  Field box;    // 4 values
  Field prior;  // 4 values
  const float* outputs[kOutputs];
  i64 sizes[kOutputs];  // floats; 0 for none
  i32 count;
  i32 class_count;
  i32 person;
  i32 rule;
};

/// A prediction that may be a person.
struct Candidate {
  i32 row;
  float score;
  float box[4];
  float prior[4];
};

/// What graftsdk_select found; the candidates follow.
struct Selected {
  i32 count;
  i32 bad[kOutputs];  // 1 for an output that is not finite
  i32 unused[2];
};

/// Four floats that are loaded at once.
struct alignas(16) Four {
  float at[4];
};

template <typename T>
__device__ __forceinline__ T least(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
__device__ __forceinline__ T most(T a, T b) {
  return a < b ? b : a;
}

__device__ __forceinline__ i32 divided_up(i32 a, i32 b) { return (a + b - 1) / b; }

__device__ __forceinline__ float as_float(u32 bits) {
#if defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

__device__ __forceinline__ u32 as_bits(float value) {
#if defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  u32 bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

/// float16, rounded to nearest even: the GPU's own instruction, which cuda_fp16.h would wrap, and what it computes.
__device__ __forceinline__ u16 half_bits(float value) {
#if defined(__CUDA_ARCH__)
  u16 bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
#else
  const u32 sign = as_bits(value) >> 16 & 0x8000u;
  u32 bits = as_bits(value) & 0x7fffffffu;
  if (bits >= 0x477ff000u) return static_cast<u16>(sign | 0x7c00u);  // 65520 and more
  if (bits < 0x38800000u) {                                          // below 2**-14: steps of 2**-24, as 0.5 has
    return static_cast<u16>(sign | (as_bits(as_float(bits) + 0.5f) - 0x3f000000u));
  }
  bits -= 0x38000000u;
  return static_cast<u16>(sign | (bits + 0xfffu + (bits >> 13 & 1u)) >> 13);
#endif
}

// ---------------------------------------------------------------------------------------------------------- tables

struct Taps {
  i32 lower;
  i32 upper;
  double fraction;  // the upper's weight
};

__device__ __forceinline__ Taps bilinear_taps(double position, i32 size) {
  position = least(most(position, 0.0), static_cast<double>(size) - 1.0);
  const i32 lower = static_cast<i32>(position);
  return {lower, least(lower + 1, size - 1), position - static_cast<double>(lower)};
}

/// The source cells that an output reads.
struct alignas(8) Range {
  i32 first;
  i32 count;
};

/// One axis of a resize: each output is a weighted sum of source cells.
struct Table {
  Range* ranges;
  float* weights;
  i32 cells;
  i32 cell_step;  // from an output's weights to the next one's
  i32 tap_step;   // and from weight to weight
};

/// A warp's threads read the weights of one row, one after another, but of neighbouring columns, side by side.
__device__ __forceinline__ Table table_at(u32* ranges, i32 cells, i32 cell_step, i32 tap_step) {
  // Weights begin at a multiple of 16 bytes, as the table does.
  float* weights = reinterpret_cast<float*>(ranges + (2 * cells + 3) / 4 * 4);
  return {reinterpret_cast<Range*>(ranges), weights, cells, cell_step, tap_step};
}

__device__ __forceinline__ Table rows_table(u32* work, const Crop& crop) {
  return table_at(work + crop.down, crop.inner_height, crop.down_taps, 1);
}

__device__ __forceinline__ Table columns_table(u32* work, const Crop& crop) {
  return table_at(work + crop.across, crop.inner_width, 1, crop.inner_width);
}

/// The triangle's value at a cell, for an output whose centre is `centre`.
__device__ __forceinline__ double triangle(i32 cell, double centre, double support) {
  const double far = (static_cast<double>(cell) - centre + 0.5) / support;
  return most(1.0 - (far < 0.0 ? -far : far), 0.0);
}

/// Entry `i` of the table from `source` cells: graftsdk.preprocess.tables.resize_table, cast once. Returns its count.
__device__ i32 make_entry(const Table& table, i32 i, i32 source, bool antialias) {
  const double scale = static_cast<double>(source) / static_cast<double>(table.cells);
  const double centre = (static_cast<double>(i) + 0.5) * scale;
  float* weights = table.weights + static_cast<i64>(i) * table.cell_step;
  if (!antialias) {
    Taps taps = bilinear_taps(centre - 0.5, source);
    if (source > 1 && taps.lower == taps.upper) {  // clamped at the far border: the same cell read from one earlier
      taps.lower -= 1;
      taps.fraction = 1.0;
    }
    const i32 count = source > 1 ? 2 : 1;
    table.ranges[i] = {taps.lower, count};
    weights[0] = static_cast<float>(1.0 - taps.fraction);
    if (source > 1) weights[table.tap_step] = static_cast<float>(taps.fraction);
    return count;
  }
  const double support = most(scale, 1.0);
  const i32 first = static_cast<i32>(most(centre - support + 0.5, 0.0));
  const i32 last = least(static_cast<i32>(centre + support + 0.5), source);
  double sum = 0.0;
#pragma unroll 1
  for (i32 cell = first; cell < last; ++cell) sum += triangle(cell, centre, support);
#pragma unroll 1
  for (i32 cell = first; cell < last; ++cell) {
    *weights = static_cast<float>(triangle(cell, centre, support) / sum);
    weights += table.tap_step;
  }
  table.ranges[i] = {first, last - first};
  return last - first;
}

__device__ void make_tables(const Call& call, const Crop& crop, u32* work, i32 part) {
  const i32 end = least((part + 1) * kThreads, crop.inner_height + crop.inner_width);
  for (i32 i = part * kThreads + static_cast<i32>(threadIdx.x); i < end; i += static_cast<i32>(blockDim.x)) {
    // One call, so that double's divisions are compiled once.
    const bool is_row = i < crop.inner_height;
    const Table table = is_row ? rows_table(work, crop) : columns_table(work, crop);
    const i32 source = is_row ? crop.y1 - crop.y0 : crop.x1 - crop.x0;
    const i32 count = make_entry(table, is_row ? i : i - crop.inner_height, source, call.antialias != 0);
    if (is_row && crop.down_taps == kFew) {
      for (i32 tap = count; tap < kFew; ++tap) table.weights[i * kFew + tap] = 0.0f;
    }
  }
}

// ----------------------------------------------------------------------------------------------------------- masks

/// Where a pixel lies between a mask's cells along one axis: the lower one, or -1 outside the extent.
__device__ __forceinline__ i32 mask_tap(i32 pixel, double low, double high, i32 cells, double& fraction) {
  const double centre = static_cast<double>(pixel) + 0.5;
  if (!(centre >= low && centre < high)) return -1;
  const Taps taps = bilinear_taps((centre - low) / (high - low) * static_cast<double>(cells) - 0.5, cells);
  fraction = taps.fraction;
  return taps.lower;
}

__device__ __forceinline__ float mask_cell(const Crop& crop, i32 row, i32 column) {
  const u8* from = crop.mask + row * crop.mask_row_stride;
  if (crop.mask_type == kFloatCells) return reinterpret_cast<const float*>(from)[column];
  return from[column] != 0 ? 1.0f : 0.0f;
}

/// What four cells of a mask give between them. Where all lie on one side of 0.5, so does every sample, rounding
/// included (core/mask_rows.hpp): few samples cost double's arithmetic, which most GPUs have little of.
struct Cells {
  double a;
  double b;
  double fall_a;  // from the upper to the lower one
  double fall_b;
  bool alike;
  bool inside;

  __device__ __forceinline__ void read(const Crop& crop, i32 up, i32 left) {
    const i32 down = least(up + 1, crop.mask_height - 1);
    const i32 right = least(left + 1, crop.mask_width - 1);
    const float cells[4] = {mask_cell(crop, up, left), mask_cell(crop, up, right), mask_cell(crop, down, left),
                            mask_cell(crop, down, right)};
    inside = cells[0] > 0.5f;
    alike = inside == (cells[1] > 0.5f) && inside == (cells[2] > 0.5f) && inside == (cells[3] > 0.5f);
    a = static_cast<double>(cells[0]);
    b = static_cast<double>(cells[1]);
    fall_a = static_cast<double>(cells[2]) - a;
    fall_b = static_cast<double>(cells[3]) - b;
  }

  /// Whether the sample is > 0.5.
  __device__ __forceinline__ bool covers(double fall, double slide) const {
    if (alike) return inside;
    const double low = a + fall_a * fall;
    const double high = b + fall_b * fall;
    return low + (high - low) * slide > 0.5;
  }
};

/// Bits of 32 rows of the window, 1 where the mask covers a pixel, in up to 256 columns: each thread has one.
///
/// A word is a column's: the crop, which sums down columns, reads one for up to 32 rows.
__device__ void make_bits(const Crop& crop, u32* work, i32 tile) {
  __shared__ double fall[kMaskRows];
  __shared__ i32 up[kMaskRows];
  const i32 width = crop.x1 - crop.x0;
  const i32 across = divided_up(width, kThreads);
  const i32 begin = tile % across * kThreads;
  const i32 top = tile / across * kMaskRows;
  const i32 rows = least(kMaskRows, crop.y1 - crop.y0 - top);
  if (rows <= 0) return;
  const i32 step = static_cast<i32>(blockDim.x);
  if (crop.mask_type != kFrameMask) {
    for (i32 row = static_cast<i32>(threadIdx.x); row < rows; row += step) {
      up[row] = mask_tap(crop.y0 + top + row, crop.extent[1], crop.extent[3], crop.mask_height, fall[row]);
    }
  }
  __syncthreads();
  const i32 end = least(begin + kThreads, width);
  for (i32 x = begin + static_cast<i32>(threadIdx.x); x < end; x += step) {
    u32 word = 0;
    if (crop.mask_type == kFrameMask) {
      const u8* from = crop.mask + (crop.y0 + top) * crop.mask_row_stride + crop.x0 + x;
#pragma unroll 4
      for (i32 row = 0; row < rows; ++row) word |= (from[row * crop.mask_row_stride] != 0 ? 1u : 0u) << row;
    } else {
      double slide = 0.0;
      const i32 left = mask_tap(crop.x0 + x, crop.extent[0], crop.extent[2], crop.mask_width, slide);
      if (left >= 0) {
        // Most masks have fewer rows than the image: the cells stay for several of its rows, for all threads alike.
        Cells cells{};
        i32 read = -1;
#pragma unroll 1
        for (i32 row = 0; row < rows; ++row) {
          const i32 cell = up[row];
          if (cell < 0) continue;
          if (cell != read) cells.read(crop, cell, left);
          read = cell;
          if (cells.covers(fall[row], slide)) word |= 1u << row;
        }
      }
    }
    work[crop.bits + static_cast<i64>(top / kMaskRows) * width + x] = word;
  }
}

// ------------------------------------------------------------------------------------------------------------ crop

/// Writes values of one crop; by the image's channels.
struct Output {
  void* crops;
  i64 begin[3];  // of the channel's plane
  float scale[3];
  float base[3];
  i32 width;
  bool half;

  __device__ __forceinline__ Output(const Call& call, void* to, i64 crop)
      : crops(to), width(call.out_width), half(call.half != 0) {
    for (i32 k = 0; k < 3; ++k) {
      begin[k] = (crop * 3 + call.plane[k]) * call.out_height * call.out_width;
      scale[k] = call.scale[k];
      base[k] = call.base[k];
    }
  }

  /// Sums of bytes less the fill.
  __device__ __forceinline__ void put(i32 y, i32 x, const float (&sums)[3]) const {
    const i32 at = y * width + x;
    if (half) {
      for (i32 k = 0; k < 3; ++k) {
        static_cast<u16*>(crops)[begin[k] + at] = half_bits(fmaf(sums[k], scale[k], base[k]));
      }
    } else {
      for (i32 k = 0; k < 3; ++k) static_cast<float*>(crops)[begin[k] + at] = fmaf(sums[k], scale[k], base[k]);
    }
  }
};

/// A byte less `fill`, exactly: 2**23 + byte has the byte as its last bits. Cheaper than a conversion.
__device__ __forceinline__ float less_fill(u8 byte, float fill_plus) {
  return as_float(0x4b000000u | byte) - fill_plus;
}

/// Byte `k` of a word, as above: one instruction takes it out and puts the exponent before it.
__device__ __forceinline__ float less_fill_at(u32 word, i32 k, float fill_plus) {
#if defined(__CUDA_ARCH__)
  return as_float(__byte_perm(word, 0x4b000000u, 0x7440u | static_cast<u32>(k))) - fill_plus;
#else
  return less_fill(static_cast<u8>(word >> 8 * k), fill_plus);
#endif
}

/// The pixels of one crop's window, which are what is summed: less the fill, and 0 outside the mask.
///
/// So the background adds nothing, and where there is nothing else a sum is 0 to the bit. Weights sum to 1: the fill
/// comes back as the output's `base`.
struct Source {
  const u8* pixels;  // of the window's first pixel
  const u32* bits;
  i64 row_stride;
  i32 height;
  i32 width;
  float fill_plus;
  u32 fill;  // four of it

  /// Row `y`: its first pixel, and where the bits from it on are.
  struct Row {
    const u8* pixels;
    const u32* bits;
    u32 shift;
    bool more;  // whether the words below are there
  };

  __device__ __forceinline__ Row row(i32 y) const {
    const i32 word = y / kMaskRows;
    return {pixels + y * row_stride, bits + static_cast<i64>(word) * width, static_cast<u32>(y % kMaskRows),
            (word + 1) * kMaskRows < height};
  }

  /// Adds `count` weighted pixels, one below the other; with a mask, those alone whose bit is 1, from bit 0 on.
  template <bool kMasked>
  __device__ __forceinline__ void add(const u8* pixel, u32 mask, i32 count, const float* weights,
                                      float (&sum)[3]) const {
#pragma unroll 4
    for (i32 tap = 0; tap < count; ++tap) {
      const float weight = !kMasked || (mask & 1u) != 0 ? *weights : 0.0f;
      for (i32 k = 0; k < 3; ++k) sum[k] = fmaf(weight, less_fill(pixel[k], fill_plus), sum[k]);
      pixel += row_stride;
      ++weights;
      mask >>= 1;
    }
  }

  /// Column `x` of a row and the 31 rows below it, as bits.
  __device__ __forceinline__ u32 covered(const Row& at, u32 x) const {
    const u32* word = at.bits + x;
    const u64 low = word[0];
    const u64 high = at.more ? word[width] : 0;
    return static_cast<u32>((high << 32 | low) >> at.shift);
  }

  /// Column `x` of a row and up to 3 rows below it, summed: the bits of `sum_down`, without a loop. Where there are
  /// fewer, the last one is read again, with a weight of 0.
  template <bool kMasked>
  __device__ __forceinline__ void sum_few(const Row& first, u32 x, i32 count, const Four& weights,
                                          float (&sum)[3]) const {
    const u8* pixel = first.pixels + 3 * x;
    const u32 mask = kMasked ? covered(first, x) : 0u;
    for (i32 k = 0; k < 3; ++k) sum[k] = 0.0f;
    for (i32 tap = 0; tap < kFew; ++tap) {
      const float weight = !kMasked || (mask >> tap & 1u) != 0 ? weights.at[tap] : 0.0f;
      for (i32 k = 0; k < 3; ++k) sum[k] = fmaf(weight, less_fill(pixel[k], fill_plus), sum[k]);
      if (tap + 1 < count) pixel += row_stride;
    }
  }

  /// Which bytes of the word `w` of a row, which begins `shift` bytes before column `c0`, the mask covers in each of
  /// the 32 rows from `first` on. A word has bytes of two pixels.
  struct Covered {
    u32 near;
    u32 far;
    u32 bytes;  // those of the first pixel

    /// `word` with the fill in place of what is not covered in row `tap`: less the fill it is 0.
    __device__ __forceinline__ u32 select(u32 word, i32 tap, u32 fill) const {
      const u32 one = 0u - (near >> tap & 1u);
      const u32 other = 0u - (far >> tap & 1u);
      const u32 kept = (one & bytes) | (other & ~bytes);
      return (word & kept) | (fill & ~kept);
    }
  };

  __device__ __forceinline__ Covered covered_word(const Row& first, i32 c0, i32 w, i32 shift) const {
    const i32 byte = 4 * w - shift + 3;  // counted from the pixel before c0
    const i32 pixel = c0 - 1 + byte / 3;
    return {covered(first, static_cast<u32>(most(pixel, 0))),
            covered(first, static_cast<u32>(least(pixel + 1, width - 1))), 0x00ffffffu >> 8 * (byte % 3)};
  }

  /// Adds `count` weighted words, one below the other: of each byte what `add` computes, to the bit.
  template <bool kMasked>
  __device__ __forceinline__ void add_words(const u8* from, const Covered& mask, i32 count, const float* weights,
                                            Four& sum) const {
#pragma unroll 4
    for (i32 tap = 0; tap < count; ++tap) {
      u32 word = *reinterpret_cast<const u32*>(from);
      if (kMasked) word = mask.select(word, tap, fill);
      const float weight = *weights;
      for (i32 k = 0; k < 4; ++k) sum.at[k] = fmaf(weight, less_fill_at(word, k, fill_plus), sum.at[k]);
      from += row_stride;
      ++weights;
    }
  }

  /// Word `w` of a row and the rows below it, summed; the first word begins `shift` bytes before column `c0`.
  template <bool kMasked>
  __device__ __forceinline__ Four sum_words(const Row& first, i32 y, i32 c0, i32 w, i32 shift, i32 count,
                                            const float* weights) const {
    const u8* from = first.pixels + (3 * c0 - shift + 4 * w);
    Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    if (!kMasked) {
      add_words<false>(from, Covered{}, count, weights, sum);
      return sum;
    }
    add_words<true>(from, covered_word(first, c0, w, shift), least(kMaskRows, count), weights, sum);
    for (i32 done = kMaskRows; done < count; done += kMaskRows) {
      add_words<true>(from + done * row_stride, covered_word(row(y + done), c0, w, shift),
                      least(kMaskRows, count - done), weights + done, sum);
    }
    return sum;
  }

  /// The same of up to kFew rows, without a loop; see `sum_few`.
  template <bool kMasked>
  __device__ __forceinline__ Four sum_few_words(const Row& first, i32 c0, i32 w, i32 shift, i32 count,
                                                const Four& weights) const {
    const u8* from = first.pixels + (3 * c0 - shift + 4 * w);
    const Covered mask = kMasked ? covered_word(first, c0, w, shift) : Covered{};
    u32 words[kFew];
    for (i32 tap = 0; tap < kFew; ++tap) {
      words[tap] = *reinterpret_cast<const u32*>(from);
      if (tap + 1 < count) from += row_stride;
    }
    Four sum = {{0.0f, 0.0f, 0.0f, 0.0f}};
    for (i32 tap = 0; tap < kFew; ++tap) {
      const u32 word = kMasked ? mask.select(words[tap], tap, fill) : words[tap];
      for (i32 k = 0; k < 4; ++k) sum.at[k] = fmaf(weights.at[tap], less_fill_at(word, k, fill_plus), sum.at[k]);
    }
    return sum;
  }

  /// Column `x` summed down, from row `y` on.
  template <bool kMasked>
  __device__ __forceinline__ void sum_down(const Row& first, i32 y, u32 x, i32 count, const float* weights,
                                           float (&sum)[3]) const {
    const u8* pixel = first.pixels + 3 * x;
    for (i32 k = 0; k < 3; ++k) sum[k] = 0.0f;
    if (!kMasked) {
      add<false>(pixel, 0, count, weights, sum);
      return;
    }
    add<true>(pixel, covered(first, x), least(kMaskRows, count), weights, sum);
    for (i32 done = kMaskRows; done < count; done += kMaskRows) {
      const Row below = row(y + done);
      add<true>(below.pixels + 3 * x, covered(below, x), least(kMaskRows, count - done), weights + done, sum);
    }
  }
};

/// Whether a tile's pixels may be read by words of 4 bytes: every row lies alike in them, and no word reaches beyond the
/// image, at whose ends there may be nothing.
__device__ __forceinline__ bool in_words(const Call& call, const Source& source, const Table& down, const u8* image,
                                         i32 y0, i32 y1, i32 begin, i32 end) {
  if (call.row_stride <= 0 || call.row_stride % 4 != 0) return false;
  const u8* low = source.pixels + down.ranges[y0].first * call.row_stride + 3 * begin;
  const Range last = down.ranges[y1 - 1];
  const u8* high = source.pixels + (last.first + last.count - 1) * call.row_stride + 3 * end;
  const u64 top = reinterpret_cast<u64>(image + (call.height - 1) * call.row_stride + 3 * call.width);
  return reinterpret_cast<u64>(low) / 4 * 4 >= reinterpret_cast<u64>(image) &&
         (reinterpret_cast<u64>(high) + 3) / 4 * 4 <= top;
}

/// One tile of one crop: outputs that are not the window's become the fill, the others the window resized.
///
/// Down, a warp has a row of the tile: its threads read side by side, and a row's weights are one load for all. Where
/// the rows of the image lie alike in words of 4 bytes, words are summed: a quarter of the loads. Across, a thread has
/// a column: its weights are read once for all rows.
template <bool kMasked>
__device__ __forceinline__ void make_tile(const Call& call, const Crop& crop, const Source& source,
                                          const Output& output, u32* work, const u8* image, i32 left, i32 top,
                                          float* sums, float* partial) {
  const i32 row_step = static_cast<i32>(blockDim.y);
  const i32 step = static_cast<i32>(blockDim.x);
  const i32 lane = static_cast<i32>(threadIdx.x);
  const i32 right = least(left + crop.tile_width, call.out_width);
  const i32 bottom = least(top + kTileRows, call.out_height);
  // Outputs of the tile that are the window's, counted from its first.
  const i32 y_offset = crop.top;
  const i32 x_offset = crop.left;
  const i32 x0 = most(left - x_offset, 0);
  const i32 x1 = least(right - x_offset, crop.inner_width);
  const i32 y0 = most(top - y_offset, 0);
  const i32 y1 = least(bottom - y_offset, crop.inner_height);
  if (x1 - x0 < right - left || y1 - y0 < bottom - top) {
    const float nothing[3] = {0.0f, 0.0f, 0.0f};
    for (i32 y = top + static_cast<i32>(threadIdx.y); y < bottom; y += row_step) {
      const bool beside = y < y_offset + y0 || y >= y_offset + y1;
#pragma unroll 1
      for (i32 x = left + lane; x < right; x += step) {
        if (beside || x < x_offset + x0 || x >= x_offset + x1) output.put(y, x, nothing);
      }
    }
  }
  if (x0 >= x1 || y0 >= y1) return;
  const Table down = rows_table(work, crop);
  const Table across = columns_table(work, crop);
  const i32 begin = across.ranges[x0].first;
  const i32 end = across.ranges[x1 - 1].first + across.ranges[x1 - 1].count;
  const bool words = in_words(call, source, down, image, y0, y1, begin, end);
  for (i32 c0 = begin; c0 < end; c0 += kColumns) {
    const i32 c1 = least(c0 + kColumns, end);
    const i32 shift = words ? static_cast<i32>(reinterpret_cast<u64>(source.pixels + 3 * c0) % 4) : 0;
    const i32 word_count = divided_up(shift + 3 * (c1 - c0), 4);
    if (c0 > begin) __syncthreads();  // all have read what is written over
    for (i32 row = static_cast<i32>(threadIdx.y); y0 + row < y1; row += row_step) {
      const Range range = down.ranges[y0 + row];
      const float* weights = down.weights + static_cast<i64>(y0 + row) * down.cell_step;
      const Source::Row at = source.row(range.first);
      float* to = sums + row * kSums;
      float sum[3];
      if (down.cell_step == kFew) {
        const Four four = *reinterpret_cast<const Four*>(weights);
        if (words) {
#pragma unroll 1
          for (i32 w = lane; w < word_count; w += step) {
            reinterpret_cast<Four*>(to)[w] = source.sum_few_words<kMasked>(at, c0, w, shift, range.count, four);
          }
          continue;
        }
        to += 3 * lane;
#pragma unroll 1
        for (i32 x = c0 + lane; x < c1; x += step) {
          source.sum_few<kMasked>(at, static_cast<u32>(x), range.count, four, sum);
          for (i32 k = 0; k < 3; ++k) to[k] = sum[k];
          to += 3 * step;
        }
      } else {
        if (words) {
#pragma unroll 1
          for (i32 w = lane; w < word_count; w += step) {
            reinterpret_cast<Four*>(to)[w] =
                source.sum_words<kMasked>(at, range.first, c0, w, shift, range.count, weights);
          }
          continue;
        }
        to += 3 * lane;
#pragma unroll 1
        for (i32 x = c0 + lane; x < c1; x += step) {
          source.sum_down<kMasked>(at, range.first, static_cast<u32>(x), range.count, weights, sum);
          for (i32 k = 0; k < 3; ++k) to[k] = sum[k];
          to += 3 * step;
        }
      }
    }
    __syncthreads();
    // Whole warps for the columns, as many times as there are threads.
    const i32 threads = step * row_step;
    const i32 lanes = least(divided_up(x1 - x0, 32) * 32, threads);
    const i32 thread = static_cast<i32>(threadIdx.y) * step + lane;
    const i32 groups = threads / lanes;
    if (thread >= groups * lanes) continue;
    const i32 rows = y1 - y0;
    const float* sums_at = sums + shift;
#pragma unroll 1
    for (i32 x = x0 + thread % lanes; x < x1; x += lanes) {
      const Range range = across.ranges[x];
      const i32 start = most(range.first, c0);
      const i32 stop = least(range.first + range.count, c1);
      const float* weight = across.weights + ((start - range.first) * across.tap_step + x);
      const i32 count = stop - start;
      if (c0 == begin && c1 == end && count <= kFew) {
        const float first = *weight;
        const float second = count > 1 ? weight[across.tap_step] : 0.0f;
        const float third = count > 2 ? weight[2 * across.tap_step] : 0.0f;
        const float fourth = count > 3 ? weight[3 * across.tap_step] : 0.0f;
#pragma unroll 2
        for (i32 row = thread / lanes; row < rows; row += groups) {
          const float* from = sums_at + (row * kSums + (start - c0) * 3);
          float sum[3];
          for (i32 k = 0; k < 3; ++k) sum[k] = fmaf(first, from[k], 0.0f);
          if (count > 1) {
            for (i32 k = 0; k < 3; ++k) sum[k] = fmaf(second, from[3 + k], sum[k]);
          }
          if (count > 2) {
            for (i32 k = 0; k < 3; ++k) sum[k] = fmaf(third, from[6 + k], sum[k]);
          }
          if (count > 3) {
            for (i32 k = 0; k < 3; ++k) sum[k] = fmaf(fourth, from[9 + k], sum[k]);
          }
          output.put(y_offset + y0 + row, x_offset + x, sum);
        }
        continue;
      }
#pragma unroll 1
      for (i32 row = thread / lanes; row < rows; row += groups) {
        const float* from = sums_at + (row * kSums + (start - c0) * 3);
        const float* tap = weight;
        float* part = partial + (row * kNarrow + x - x0) * 3;  // of tiles that read more than kColumns
        float sum[3] = {0.0f, 0.0f, 0.0f};
        if (c0 > begin) {
          for (i32 k = 0; k < 3; ++k) sum[k] = part[k];
        }
#pragma unroll 2
        for (i32 column = start; column < stop; ++column) {
          for (i32 k = 0; k < 3; ++k) sum[k] = fmaf(*tap, from[k], sum[k]);
          tap += across.tap_step;
          from += 3;
        }
        if (c1 == end) {
          output.put(y_offset + y0 + row, x_offset + x, sum);
        } else {
          for (i32 k = 0; k < 3; ++k) part[k] = sum[k];
        }
      }
    }
  }
}

// ------------------------------------------------------------------------------------------------------ prototypes

/// Within 2e-7 of exp(x), relatively, for |x| <= 87; NaN for NaN. core/prototype_masks.cpp's, operation by operation.
__device__ __forceinline__ float exponential(float x) {
  const float shifted = x * 1.44269504f + 12582912.0f;  // 1.5 * 2**23: the sum's last bit is 1
  const float n = shifted - 12582912.0f;
  const float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float power = r * 1.9875691500e-4f + 1.3981999507e-3f;  // Cephes, expf
  power = power * r + 8.3334519073e-3f;
  power = power * r + 4.1665795894e-2f;
  power = power * r + 1.6666665459e-1f;
  power = power * r + 5.0000001201e-1f;
  power = power * r * r + r + 1.0f;
  return power * as_float((as_bits(shifted) + 127u) << 23);  // the sum's low bits are n
}

__device__ __forceinline__ float sigmoid(float x) {
  x = x > 87.0f ? 87.0f : x;
  x = x < -87.0f ? -87.0f : x;
  return 1.0f / (1.0f + exponential(-x));
}

/// Coefficient k of one person: strides in floats, for rows [P, K] and for columns [K, P].
struct Coefficients {
  const float* values;
  i64 stride;

  __device__ __forceinline__ float operator[](i32 k) const { return values[k * stride]; }
};

}  // namespace graftsdk

using namespace graftsdk;

/// Whether the classes of prediction `i` let it be a person.
__device__ __forceinline__ bool is_person(const Predictions& from, i32 i, float bound) {
  const float* classes = from.classes.first + i * from.classes.row;
  const i64 step = from.classes.step;
  if (from.rule == kNamedClass) return rintf(classes[0]) == static_cast<float>(from.person);
  if (from.rule == kAnyClass) return true;
  const float own = classes[from.person * step];
#pragma unroll 1
  for (i32 k = 0; k < from.class_count; ++k) {
    const float value = classes[k * step];
    if (from.rule == kOverBound && value > bound) return true;
    if (from.rule == kBestClass && (k < from.person ? value >= own : value > own)) return false;
  }
  return from.rule == kBestClass;
}

/// Tables and, where there are masks, bits of all crops. Blocks (table_blocks + tiles of the largest mask, N) of 256.
extern "C" __global__ void __launch_bounds__(256, 4)
    graftsdk_prepare(const Call* __restrict__ call, const Crop* __restrict__ crops, u32* __restrict__ work,
                     i32 table_blocks) {
  const Crop& crop = crops[blockIdx.y];
  const i32 part = static_cast<i32>(blockIdx.x);
  if (part < table_blocks) {
    make_tables(*call, crop, work, part);
  } else {
    make_bits(crop, work, part - table_blocks);
  }
}

/// A crop of 200 x 500 pixels to 299 x 299 stores 1.073 MB (float16 0.536), reads 0.300 MB of the frame once, and
/// writes and reads 0.027 MB of tables and bits: this is the floor. 5.7 multiply-adds a value.
///
/// All crops, after graftsdk_prepare: into float or half [N, 3, out_height, out_width], from an image [height, width,
/// 3]. Blocks (tiles of the crop that has most, N) of (32, 8).
extern "C" __global__ void __launch_bounds__(256, 4)
    graftsdk_crop(const Call* __restrict__ call, const Crop* __restrict__ crops, u32* __restrict__ work,
                  const u8* __restrict__ image, void* __restrict__ into) {
  __shared__ Four sums[kTileRows * kSums / 4];
  __shared__ float partial[kTileRows * kNarrow * 3];
  const Crop& crop = crops[blockIdx.y];
  const i32 across = divided_up(call->out_width, crop.tile_width);
  const i32 left = static_cast<i32>(blockIdx.x) % across * crop.tile_width;
  const i32 top = static_cast<i32>(blockIdx.x) / across * kTileRows;
  if (top >= call->out_height) return;
  const i64 row_stride = call->row_stride;
  const Source source{image + crop.y0 * row_stride + 3 * static_cast<i64>(crop.x0),
                      work + crop.bits,
                      row_stride,
                      crop.y1 - crop.y0,
                      crop.x1 - crop.x0,
                      8388608.0f + static_cast<float>(call->fill),
                      0x01010101u * static_cast<u32>(call->fill)};
  const Output output(*call, into, blockIdx.y);
  if (call->masked) {
    make_tile<true>(*call, crop, source, output, work, image, left, top, reinterpret_cast<float*>(sums), partial);
  } else {
    make_tile<false>(*call, crop, source, output, work, image, left, top, reinterpret_cast<float*>(sums), partial);
  }
}

/// Where the bits of each window are 1, as maxima over zeros: [N, 4] of width - x0, height - y0, x1, y1, in pixels of
/// the image; all 0 where nothing is. After graftsdk_prepare. Blocks (parts of the largest mask, N).
extern "C" __global__ void __launch_bounds__(256, 4)
    graftsdk_mask_boxes(const Call* __restrict__ call, const Crop* __restrict__ crops, const u32* __restrict__ work,
                        i32* boxes) {
  __shared__ i32 found[4];
  const Crop& crop = crops[blockIdx.y];
  const i32 width = crop.x1 - crop.x0;
  const i64 words = static_cast<i64>(divided_up(crop.y1 - crop.y0, kMaskRows)) * width;
  const i64 begin = static_cast<i64>(blockIdx.x) * kReduced;
  const i64 end = least(begin + kReduced, words);
  if (begin >= end) return;
  for (u32 k = threadIdx.x; k < 4; k += blockDim.x) found[k] = 0;
  __syncthreads();
  for (i64 i = begin + threadIdx.x; i < end; i += blockDim.x) {
    const u32 bits = work[crop.bits + i];
    if (bits == 0) continue;
    const i32 x = crop.x0 + static_cast<i32>(i % width);
    const i32 y = crop.y0 + static_cast<i32>(i / width) * kMaskRows;
    atomicMax(&found[0], call->width - x);
    atomicMax(&found[1], call->height - (y + __ffs(static_cast<i32>(bits)) - 1));
    atomicMax(&found[2], x + 1);
    atomicMax(&found[3], y + 32 - __clz(static_cast<i32>(bits)));
  }
  __syncthreads();
  for (u32 k = threadIdx.x; k < 4; k += blockDim.x) {
    if (found[k] > 0) atomicMax(&boxes[blockIdx.y * 4 + k], found[k]);
  }
}

/// YOLACT's masks: the sigmoid of coefficients . prototypes in cells that are kept, 0 in others that are held; the bits
/// of core/prototype_masks.cpp. `bad` of a mask becomes 1 where a value is NaN. Blocks (256 cells each, N).
///
/// Prototypes are float[height, width, kinds].
extern "C" __global__ void __launch_bounds__(256, 4)
    graftsdk_prototype_masks(const PrototypeMask* __restrict__ masks, const float* __restrict__ prototypes, i32 width,
                             i32 kinds, const float* __restrict__ coefficients, i64 row_stride, i64 kind_stride,
                             float* values, i32* bad) {
  const PrototypeMask& mask = masks[blockIdx.y];
  const i32 columns = mask.held[2] - mask.held[0];
  const i32 cells = columns * (mask.held[3] - mask.held[1]);
  const i32 begin = static_cast<i32>(blockIdx.x) * kThreads;
  const i32 end = least(begin + kThreads, cells);
  const Coefficients weights{coefficients + mask.row * row_stride, kind_stride};
  const bool aligned = kinds % 4 == 0 && reinterpret_cast<u64>(prototypes) % 16 == 0;
  for (i32 i = begin + static_cast<i32>(threadIdx.x); i < end; i += static_cast<i32>(blockDim.x)) {
    const i32 x = mask.held[0] + i % columns;
    const i32 y = mask.held[1] + i / columns;
    float value = 0.0f;
    if (x >= mask.kept[0] && x < mask.kept[2] && y >= mask.kept[1] && y < mask.kept[3]) {
      const float* cell = prototypes + (static_cast<i64>(y) * width + x) * kinds;
      float sums[4] = {0.0f, 0.0f, 0.0f, 0.0f};
      i32 k = 0;
#pragma unroll 2
      for (; k + 4 <= kinds; k += 4) {
        Four four;
        if (aligned) {
          four = *reinterpret_cast<const Four*>(cell + k);
        } else {
          for (i32 lane = 0; lane < 4; ++lane) four.at[lane] = cell[k + lane];
        }
        for (i32 lane = 0; lane < 4; ++lane) sums[lane] += weights[k + lane] * four.at[lane];
      }
      float total = (sums[0] + sums[1]) + (sums[2] + sums[3]);
#pragma unroll 1
      for (; k < kinds; ++k) total += weights[k] * cell[k];
      value = sigmoid(total);
      if (value != value) bad[blockIdx.y] = 1;
    }
    values[mask.values + i] = value;
  }
}

/// YOLO's masks: 1/2 + slope * logit, cut off at 0 and 1, where the logit is interpolated between coefficients .
/// prototypes of the cells around each sample; graftsdk.segment.prototypes.sample_masks. Blocks (256 samples each, N).
///
/// Prototypes are float[kinds, height, width].
extern "C" __global__ void __launch_bounds__(256, 4)
    graftsdk_sampled_masks(const SampledMask* __restrict__ masks, const float* __restrict__ prototypes, i32 height,
                           i32 width, i32 kinds, const float* __restrict__ coefficients, i64 row_stride,
                           i64 kind_stride, float slope, float* values, i32* bad) {
  const SampledMask& mask = masks[blockIdx.y];
  const i32 begin = static_cast<i32>(blockIdx.x) * kThreads;
  const i32 end = least(begin + kThreads, mask.rows * mask.columns);
  const Coefficients weights{coefficients + mask.row * row_stride, kind_stride};
  const i64 plane = static_cast<i64>(height) * width;
  for (i32 i = begin + static_cast<i32>(threadIdx.x); i < end; i += static_cast<i32>(blockDim.x)) {
    const double column = static_cast<double>(i % mask.columns);
    const double row = static_cast<double>(i / mask.columns);
    const Taps down = bilinear_taps(mask.y0 + (row + 0.5) * mask.step_y - 0.5, height);
    const Taps across = bilinear_taps(mask.x0 + (column + 0.5) * mask.step_x - 0.5, width);
    const i32 cells[4] = {down.lower * width + across.lower, down.lower * width + across.upper,
                          down.upper * width + across.lower, down.upper * width + across.upper};
    float logits[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    const float* from = prototypes;
#pragma unroll 2
    for (i32 k = 0; k < kinds; ++k) {
      const float weight = weights[k] * slope;
      for (i32 cell = 0; cell < 4; ++cell) logits[cell] = fmaf(weight, from[cells[cell]], logits[cell]);
      from += plane;
    }
    const float fall = static_cast<float>(down.fraction);
    const float slide = static_cast<float>(across.fraction);
    const float near = logits[0] + (logits[2] - logits[0]) * fall;
    const float far = logits[1] + (logits[3] - logits[1]) * fall;
    float value = near + (far - near) * slide + 0.5f;
    if (value != value) bad[blockIdx.y] = 1;
    value = value < 0.0f ? 0.0f : value;
    values[mask.values + i] = value > 1.0f ? 1.0f : value;
  }
}

/// Predictions whose score reaches `least` and whose class may be the person, in any order; and which outputs of the
/// network are not finite. `found` is zeros before; room for every prediction follows it. Blocks (256 predictions, or
/// 16384 floats of an output, each; 1 + kOutputs): row 0 selects, the others look through an output.
extern "C" __global__ void __launch_bounds__(256, 4)
    graftsdk_select(const Predictions* __restrict__ predictions, float least_score, float bound, Selected* found) {
  const Predictions& from = *predictions;
  const i32 step = static_cast<i32>(blockDim.x);
  if (blockIdx.y > 0) {
    const i32 output = static_cast<i32>(blockIdx.y) - 1;
    const i64 begin = static_cast<i64>(blockIdx.x) * kScanned;
    const i64 end = least(begin + kScanned, from.sizes[output]);
    const float* values = from.outputs[output];
    bool bad = false;
    for (i64 i = begin + static_cast<i32>(threadIdx.x); i < end; i += step) bad |= !(values[i] - values[i] == 0.0f);
    if (bad) found->bad[output] = 1;
    return;
  }
  const i32 begin = static_cast<i32>(blockIdx.x) * kThreads;
  const i32 end = least(begin + kThreads, from.count);
  Candidate* candidates = reinterpret_cast<Candidate*>(found + 1);
  for (i32 i = begin + static_cast<i32>(threadIdx.x); i < end; i += step) {
    float score = from.score.first[i * from.score.row];
    if (from.factor.first != nullptr) score = from.factor.first[i * from.factor.row] * score;
    if (!(score >= least_score) || !is_person(from, i, bound)) continue;
    Candidate& candidate = candidates[atomicAdd(&found->count, 1)];
    candidate.row = i;
    candidate.score = score;
    for (i32 k = 0; k < 4; ++k) {
      candidate.box[k] = from.box.first[i * from.box.row + k * from.box.step];
      candidate.prior[k] = from.prior.first == nullptr ? 0.0f : from.prior.first[i * from.prior.row + k * from.prior.step];
    }
  }
}
