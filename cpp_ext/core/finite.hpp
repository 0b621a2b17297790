#pragma once

#include <cstdint>

namespace graftsdk {

/// Whether none of `count` values is NaN or infinite. All are read, at the speed of memory.
bool all_finite(const float* values, int64_t count);

}  // namespace graftsdk
