#include "core/crop_steps_vector.hpp"

namespace graftsdk {
const CropSteps kAvx512Steps = kSteps;
}
