#pragma once

#include <string>
#include <vector>

namespace graftsdk {

/// Instruction sets of the running CPU that change which kernels a compiled graph uses,
/// in a fixed order: part of the engine cache's key.
std::vector<std::string> cpu_features();

}  // namespace graftsdk
