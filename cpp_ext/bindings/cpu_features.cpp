#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "core/cpu_features.hpp"

namespace graftsdk {

void register_cpu_features(pybind11::module_& module) {
  module.def("cpu_features", &cpu_features,
             "Instruction sets of the running CPU, in a fixed order: list[str], the architecture first.");
}

}  // namespace graftsdk
