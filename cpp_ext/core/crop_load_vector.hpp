// The first step of crop_steps.hpp: pixels into planes. Under the same rules as crop_steps_vector.hpp, which includes
// it.

#pragma once

#include <stddef.h>
#include <stdint.h>

#include "core/crop_steps.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace graftsdk {
namespace {

#if defined(__AVX2__)
/// For each channel and each of three vectors of 16 bytes (48 are 16 pixels): where the channel's bytes lie in it.
struct Order {
  int8_t at[3][3][32];
};

constexpr Order part_order() {
  Order order{};
  for (int channel = 0; channel < 3; ++channel) {
    for (int vector = 0; vector < 3; ++vector) {
      for (int i = 0; i < 32; ++i) {
        const int from = 3 * (i % 16) + channel - 16 * vector;
        order.at[channel][vector][i] = static_cast<int8_t>(from >= 0 && from < 16 ? from : -1);
      }
    }
  }
  return order;
}

constexpr Order kOrder = part_order();

/// A block: 32 pixels, 16 in each lane.
inline void part(const uint8_t* pixels, const uint8_t* covered, __m256i fills, uint8_t* row, int64_t stride) {
  __m256i bytes[3];
  for (int64_t k = 0; k < 3; ++k) {
    const auto* low = reinterpret_cast<const __m128i*>(pixels + 16 * k);
    const auto* high = reinterpret_cast<const __m128i*>(pixels + 48 + 16 * k);
    bytes[k] = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(low)), _mm_loadu_si128(high), 1);
  }
  __m256i outside = _mm256_setzero_si256();
  if (covered != nullptr) {
    outside = _mm256_cmpeq_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(covered)), outside);
  }
  for (int64_t channel = 0; channel < 3; ++channel) {
    __m256i found[3];
    for (int64_t k = 0; k < 3; ++k) {
      const auto* order = reinterpret_cast<const __m256i*>(kOrder.at[channel][k]);
      found[k] = _mm256_shuffle_epi8(bytes[k], _mm256_loadu_si256(order));
    }
    __m256i value = _mm256_or_si256(_mm256_or_si256(found[0], found[1]), found[2]);
    if (covered != nullptr) value = _mm256_blendv_epi8(value, fills, outside);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + channel * stride), value);
  }
}
#endif

void load(const uint8_t* pixels, const uint8_t* covered, uint8_t fill, int64_t width, int64_t readable, uint8_t* row,
          int64_t stride) {
#if defined(__AVX2__)
  constexpr int64_t kBlock = CropSteps::kBlock;
  const __m256i fills = _mm256_set1_epi8(static_cast<char>(fill));
  int64_t x = 0;
  for (; x < width && x + kBlock <= readable; x += kBlock) {
    part(pixels + 3 * x, covered == nullptr ? nullptr : covered + x, fills, row + x, stride);
  }
  if (x >= width) return;
  uint8_t few[3 * kBlock] = {};
  uint8_t which[kBlock] = {};
  const auto rest = static_cast<size_t>(width - x);
  __builtin_memcpy(few, pixels + 3 * x, 3 * rest);
  if (covered != nullptr) __builtin_memcpy(which, covered + x, rest);
  part(few, covered == nullptr ? nullptr : which, fills, row + x, stride);
#else
  static_cast<void>(readable);
  for (int64_t x = 0; x < width; ++x) {
    const bool inside = covered == nullptr || covered[x] != 0;
    const uint8_t* at = pixels + 3 * x;
    row[x] = inside ? at[0] : fill;
    row[x + stride] = inside ? at[1] : fill;
    row[x + 2 * stride] = inside ? at[2] : fill;
  }
#endif
}

}  // namespace
}  // namespace graftsdk
