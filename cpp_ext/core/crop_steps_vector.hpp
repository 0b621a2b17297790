// The steps of crop_steps.hpp in GCC's and clang's vector types: included by one translation unit for each instruction
// set. Everything here has internal linkage and nothing comes from the standard library: a function that the linker
// shared between the units could carry AVX2 into the baseline.

#pragma once

#include <stdint.h>

#include "core/crop_steps.hpp"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace graftsdk {
namespace {

typedef float Float4 __attribute__((vector_size(16)));
typedef float Float8 __attribute__((vector_size(32)));

inline Float8 load8(const float* from) {
  Float8 value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

inline void store8(float* to, Float8 value) { __builtin_memcpy(to, &value, sizeof value); }

inline Float8 pair(const float* low, const float* high) {
  Float4 a;
  Float4 b;
  __builtin_memcpy(&a, low, sizeof a);
  __builtin_memcpy(&b, high, sizeof b);
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
}

inline Float8 bytes8(const uint8_t* from) {
#if defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from));
  return reinterpret_cast<Float8>(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)));
#else
  typedef int32_t Int4 __attribute__((vector_size(16)));
  Int4 low = {from[0], from[1], from[2], from[3]};
  Int4 high = {from[4], from[5], from[6], from[7]};
#if defined(__SSE2__)
  uint64_t packed;
  __builtin_memcpy(&packed, from, sizeof packed);
  typedef uint8_t Byte16 __attribute__((vector_size(16)));
  typedef long long Long2 __attribute__((vector_size(16)));
  const Byte16 zero = {};
  const Byte16 bytes = reinterpret_cast<Byte16>(Long2{static_cast<long long>(packed), 0});
  typedef uint16_t Short8 __attribute__((vector_size(16)));
  const Short8 wide = reinterpret_cast<Short8>(
      __builtin_shufflevector(bytes, zero, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23));
  const Short8 none = {};
  low = reinterpret_cast<Int4>(__builtin_shufflevector(wide, none, 0, 8, 1, 9, 2, 10, 3, 11));
  high = reinterpret_cast<Int4>(__builtin_shufflevector(wide, none, 4, 12, 5, 13, 6, 14, 7, 15));
#endif
  return __builtin_shufflevector(__builtin_convertvector(low, Float4), __builtin_convertvector(high, Float4), 0, 1, 2,
                                 3, 4, 5, 6, 7);
#endif
}

void load(const uint8_t* pixels, const uint8_t* covered, uint8_t fill, int64_t width, uint8_t* row) {
  int64_t x = 0;
#if defined(__AVX2__)
  // 24 bytes are 8 pixels: bytes 0..15 for the lower lane, 8..23 for the upper one.
  const __m256i order = _mm256_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1,  //
                                         4, 5, 6, -1, 7, 8, 9, -1, 10, 11, 12, -1, 13, 14, 15, -1);
  const __m256i fills = _mm256_set1_epi32(fill * 0x010101);
  for (; x + 8 <= width; x += 8) {
    const uint8_t* at = pixels + 3 * x;
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at + 8));
    __m256i value = _mm256_shuffle_epi8(_mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1), order);
    if (covered != nullptr) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(covered + x));
      const __m256i outside = _mm256_cmpeq_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_setzero_si256());
      value = _mm256_blendv_epi8(value, fills, outside);
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + 4 * x), value);
  }
#endif
  for (; x < width; ++x) {
    const bool inside = covered == nullptr || covered[x] != 0;
    const uint8_t* at = pixels + 3 * x;
    uint8_t* to = row + 4 * x;
    to[0] = inside ? at[0] : fill;
    to[1] = inside ? at[1] : fill;
    to[2] = inside ? at[2] : fill;
    to[3] = 0;
  }
}

template <bool kTwo>
void combine_rows(const uint8_t* const* rows, const float* weights, int64_t count, bool more, int64_t width,
                  float* row) {
  constexpr int64_t kStep = 4 * CropSteps::kPixels;
  for (int64_t x = 0; x < 4 * width; x += kStep) {
    Float8 sum[4] = {};
    if (more) {
      for (int64_t k = 0; k < 4; ++k) sum[k] = load8(row + x + 8 * k);
    }
    if (kTwo) {
      for (int64_t k = 0; k < 4; ++k) sum[k] = weights[0] * bytes8(rows[0] + x + 8 * k);
      for (int64_t k = 0; k < 4; ++k) sum[k] += weights[1] * bytes8(rows[1] + x + 8 * k);
    } else {
      for (int64_t i = 0; i < count; ++i) {
        const uint8_t* from = rows[i] + x;
        for (int64_t k = 0; k < 4; ++k) sum[k] += weights[i] * bytes8(from + 8 * k);
      }
    }
    for (int64_t k = 0; k < 4; ++k) store8(row + x + 8 * k, sum[k]);
  }
}

void combine(const uint8_t* const* rows, const float* weights, int64_t count, bool more, int64_t width, float* row) {
  if (count == 2 && !more) {
    combine_rows<true>(rows, weights, count, more, width, row);
  } else {
    combine_rows<false>(rows, weights, count, more, width, row);
  }
}

template <bool kTwo>
void spread_row(const float* row, const int64_t* first, const float* weights, int64_t taps, int64_t width,
                const float* scale, const float* bias, float* const* planes) {
  const Float8 scales = pair(scale, scale);
  const Float8 biases = pair(bias, bias);
  const int64_t steps = kTwo ? 2 : taps;
  for (int64_t x = 0; x < width; x += 8, first += 8) {
    Float8 value[4];  // pixels x + k and x + k + 4
    for (int64_t k = 0; k < 4; ++k, weights += 8 * steps) {
      const float* low = row + 4 * first[k];
      const float* high = row + 4 * first[k + 4];
      Float8 sum = load8(weights) * pair(low, high);
      for (int64_t t = 1; t < steps; ++t) sum += load8(weights + 8 * t) * pair(low + 4 * t, high + 4 * t);
      value[k] = sum * scales + biases;
    }
    const Float8 a = __builtin_shufflevector(value[0], value[1], 0, 8, 1, 9, 4, 12, 5, 13);
    const Float8 b = __builtin_shufflevector(value[2], value[3], 0, 8, 1, 9, 4, 12, 5, 13);
    const Float8 c = __builtin_shufflevector(value[0], value[1], 2, 10, 3, 11, 6, 14, 7, 15);
    const Float8 d = __builtin_shufflevector(value[2], value[3], 2, 10, 3, 11, 6, 14, 7, 15);
    const Float8 channels[3] = {__builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13),
                                __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15),
                                __builtin_shufflevector(c, d, 0, 1, 8, 9, 4, 5, 12, 13)};
    if (x + 8 <= width) {
      for (int64_t k = 0; k < 3; ++k) store8(planes[k] + x, channels[k]);
    } else {
      for (int64_t k = 0; k < 3; ++k) {
        float rest[8];
        store8(rest, channels[k]);
        for (int64_t i = 0; i < width - x; ++i) planes[k][x + i] = rest[i];
      }
    }
  }
}

void spread(const float* row, const int64_t* first, const float* weights, int64_t taps, int64_t width,
            const float* scale, const float* bias, float* const* planes) {
  if (taps == 2) {
    spread_row<true>(row, first, weights, taps, width, scale, bias, planes);
  } else {
    spread_row<false>(row, first, weights, taps, width, scale, bias, planes);
  }
}

}  // namespace
}  // namespace graftsdk
