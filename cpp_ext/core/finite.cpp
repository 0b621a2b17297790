#include "core/finite.hpp"

#include <cstring>

namespace graftsdk {

bool all_finite(const float* values, int64_t count) {
  // Of NaN and infinity alone all bits of the exponent are set: one more carries into the sign's place.
  constexpr uint32_t kExponent = 0x7f800000;
  constexpr uint32_t kOne = 0x00800000;
  uint32_t carried = 0;
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof bits);
    carried |= (bits & kExponent) + kOne;
  }
  return (carried >> 31) == 0;
}

}  // namespace graftsdk
