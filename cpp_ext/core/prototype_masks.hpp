#pragma once

#include <cstdint>

#include "core/mask_rows.hpp"

namespace graftsdk {

/// float[height][width][kinds].
struct Prototypes {
  const float* values;
  int64_t height;
  int64_t width;
  int64_t kinds;
};

/// The window with one cell more on each side that is not the frame's border.
Window with_ring(const Window& kept, const Prototypes& prototypes);

/// One mask, float[held], into `mask`: sigmoid(coefficients . prototypes) in the cells of `kept`, 0 in the others of
/// `held`, which holds it; both lie inside the frame. Within 3e-7 of the sigmoid of the sum that is computed; NaN where
/// that is. Sums are of floats, in four lanes, in the order of the prototypes: the same bits on every machine.
void prototype_mask(const Prototypes& prototypes, const float* coefficients, const Window& kept, const Window& held,
                    float* mask);

}  // namespace graftsdk
