#include <pybind11/pybind11.h>

namespace graftsdk {
void register_cpu_features(pybind11::module_& module);
void register_mask_crop(pybind11::module_& module);
void register_segment(pybind11::module_& module);
}  // namespace graftsdk

PYBIND11_MODULE(_native, module) {
  module.doc() = "Native kernels of graftsdk; each is registered by one file of cpp_ext/bindings.";
  graftsdk::register_cpu_features(module);
  graftsdk::register_mask_crop(module);
  graftsdk::register_segment(module);
}
