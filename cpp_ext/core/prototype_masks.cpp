#include "core/prototype_masks.hpp"

#include <algorithm>
#include <cstring>

namespace graftsdk {

namespace {

// Four lanes, which every CPU has: with them 20 masks wait for the prototypes' cache lines, not for the arithmetic.
typedef float Float4 __attribute__((vector_size(16)));
typedef int32_t Int4 __attribute__((vector_size(16)));

Float4 load(const float* from) {
  Float4 value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

/// Within 2e-7 of exp(x), relatively, for |x| <= 87; NaN for NaN.
Float4 exponential(Float4 x) {
  // x = n ln 2 + r with |r| <= ln 2 / 2; ln 2 in two parts (Cody and Waite), the first of few bits: n times it is
  // exact.
  constexpr float kRound = 12582912.0f;  // 1.5 * 2**23: the sum's last bit is 1
  const Float4 shifted = x * 1.44269504f + kRound;
  const Float4 n = shifted - kRound;
  const Float4 r = x - n * 0.693359375f + n * 2.12194440e-4f;
  Float4 power = r * 1.9875691500e-4f + 1.3981999507e-3f;  // Cephes, expf
  power = power * r + 8.3334519073e-3f;
  power = power * r + 4.1665795894e-2f;
  power = power * r + 1.6666665459e-1f;
  power = power * r + 5.0000001201e-1f;
  power = power * r * r + r + 1.0f;
  Int4 bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  const Int4 exponent = (bits + 127) << 23;  // the sum's low bits are n
  Float4 scale;
  std::memcpy(&scale, &exponent, sizeof scale);
  return power * scale;
}

Float4 sigmoid(Float4 x) {
  constexpr float kMost = 87.0f;
  const Float4 high = Float4{} + kMost;
  x = x > high ? high : x;
  x = x < -high ? -high : x;
  return 1.0f / (1.0f + exponential(-x));
}

/// The sums of four cells that follow one another.
Float4 four_sums(const float* cells, const float* coefficients, int64_t kinds) {
  Float4 sums[4] = {};
  int64_t k = 0;
  for (; k + 4 <= kinds; k += 4) {
    const Float4 weights = load(coefficients + k);
    for (int64_t cell = 0; cell < 4; ++cell) sums[cell] += weights * load(cells + cell * kinds + k);
  }
  // (0 + 1) + (2 + 3) of each: the four are turned, then added.
  const Float4 low[2] = {__builtin_shufflevector(sums[0], sums[1], 0, 2, 4, 6),
                         __builtin_shufflevector(sums[2], sums[3], 0, 2, 4, 6)};
  const Float4 high[2] = {__builtin_shufflevector(sums[0], sums[1], 1, 3, 5, 7),
                          __builtin_shufflevector(sums[2], sums[3], 1, 3, 5, 7)};
  const Float4 pairs[2] = {low[0] + high[0], low[1] + high[1]};
  Float4 total =
      __builtin_shufflevector(pairs[0], pairs[1], 0, 2, 4, 6) + __builtin_shufflevector(pairs[0], pairs[1], 1, 3, 5, 7);
  for (; k < kinds; ++k) {
    for (int64_t cell = 0; cell < 4; ++cell) total[cell] += coefficients[k] * cells[cell * kinds + k];
  }
  return total;
}

/// `next`: from here to the same cells of the next row, which are asked for.
void mask_row(const float* cells, const float* coefficients, int64_t kinds, int64_t count, int64_t next, float* row) {
  int64_t x = 0;
  for (; x + 4 <= count; x += 4) {
    for (int64_t at = next + x * kinds; at < next + (x + 4) * kinds; at += 16) __builtin_prefetch(cells + at);
    const Float4 values = sigmoid(four_sums(cells + x * kinds, coefficients, kinds));
    std::memcpy(row + x, &values, sizeof values);
  }
  for (; x < count; ++x) {
    const float* cell = cells + x * kinds;
    Float4 sum = {};
    int64_t k = 0;
    for (; k + 4 <= kinds; k += 4) sum += load(coefficients + k) * load(cell + k);
    float total = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    for (; k < kinds; ++k) total += coefficients[k] * cell[k];
    row[x] = sigmoid(Float4{total})[0];
  }
}

}  // namespace

Window with_ring(const Window& kept, const Prototypes& prototypes) {
  return {std::max<int64_t>(kept.x0 - 1, 0), std::max<int64_t>(kept.y0 - 1, 0), std::min(kept.x1 + 1, prototypes.width),
          std::min(kept.y1 + 1, prototypes.height)};
}

void prototype_mask(const Prototypes& prototypes, const float* coefficients, const Window& kept, const Window& held,
                    float* mask) {
  const int64_t width = held.x1 - held.x0;
  std::fill(mask, mask + (held.y1 - held.y0) * width, 0.0f);
  for (int64_t y = kept.y0; y < kept.y1; ++y) {
    const float* cells = prototypes.values + (y * prototypes.width + kept.x0) * prototypes.kinds;
    float* row = mask + (y - held.y0) * width + (kept.x0 - held.x0);
    const int64_t next = y + 1 < kept.y1 ? prototypes.width * prototypes.kinds : 0;
    mask_row(cells, coefficients, prototypes.kinds, kept.x1 - kept.x0, next, row);
  }
}

}  // namespace graftsdk
