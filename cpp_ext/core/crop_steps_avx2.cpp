#include "core/crop_steps_vector.hpp"

namespace graftsdk {
const CropSteps kAvx2Steps = kSteps;
}
