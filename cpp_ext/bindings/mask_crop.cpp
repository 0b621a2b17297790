#include "core/mask_crop.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "core/resize_table.hpp"

namespace py = pybind11;

namespace graftsdk {

namespace {

// Bounds that keep every product of sizes far from 64 bits; the checks in Python are tighter.
constexpr int64_t kMaxSide = int64_t{1} << 24;
constexpr int64_t kMaxThreads = 1024;

[[noreturn]] void refuse(const std::string& name, const std::string& expected) {
  throw py::value_error(name + ": expected " + expected);
}

/// An array of exactly this dtype in native byte order: nothing is converted. `kind` as numpy's, size in bytes.
bool has_type(const py::array& array, char kind, py::ssize_t size) {
  const py::dtype type = array.dtype();
  const char order = type.byteorder();
  return type.kind() == kind && type.itemsize() == size && (order == '=' || order == '|');
}

bool is_bytes(const py::array& array) { return has_type(array, 'u', 1) || has_type(array, 'b', 1); }

const uint8_t* bytes_of(const py::array& array) { return static_cast<const uint8_t*>(array.data()); }

void check_side(const py::array& array, py::ssize_t axis, const std::string& name) {
  if (array.shape(axis) < 1 || array.shape(axis) > kMaxSide) refuse(name, "sides from 1 to 2**24");
}

ImageView image_view(const py::array& image) {
  if (image.ndim() != 3 || image.shape(2) != 3 || !has_type(image, 'u', 1)) refuse("image", "uint8[H, W, 3]");
  check_side(image, 0, "image");
  check_side(image, 1, "image");
  return {bytes_of(image), image.shape(0), image.shape(1), image.strides(0), image.strides(1), image.strides(2)};
}

std::vector<Box> box_list(const py::array& boxes) {
  if (boxes.ndim() != 2 || boxes.shape(1) != 4 || !has_type(boxes, 'f', 8) || !(boxes.flags() & py::array::c_style)) {
    refuse("boxes", "a contiguous float64[N, 4]");
  }
  std::vector<Box> list(static_cast<size_t>(boxes.shape(0)));
  static_assert(sizeof(Box) == 4 * sizeof(double));
  if (!list.empty()) std::memcpy(list.data(), boxes.data(), list.size() * sizeof(Box));
  return list;
}

void add_frames(const py::array& masks, const ImageView& image, size_t count, CropMasks& into) {
  if (masks.ndim() != 3 || !is_bytes(masks) || masks.shape(1) != image.height || masks.shape(2) != image.width ||
      static_cast<size_t>(masks.shape(0)) != count) {
    refuse("masks", "bool or uint8[N, H, W], one for each box and of the image's size");
  }
  for (py::ssize_t i = 0; i < masks.shape(0); ++i) {
    into.frames.push_back({bytes_of(masks) + i * masks.strides(0), masks.strides(1), masks.strides(2)});
  }
}

void add_boxes(const std::vector<py::array>& arrays, const py::array& extents, size_t count, CropMasks& into) {
  if (extents.ndim() != 2 || extents.shape(1) != 4 || !has_type(extents, 'f', 4) || arrays.size() != count ||
      static_cast<size_t>(extents.shape(0)) != count || !(extents.flags() & py::array::c_style)) {
    refuse("masks", "one array for each box, and as many extents, a contiguous float32[N, 4]");
  }
  for (size_t i = 0; i < count; ++i) {
    const py::array& array = arrays[i];
    const bool is_float = has_type(array, 'f', 4);
    if (array.ndim() != 2 || !(is_float || is_bytes(array))) refuse("masks", "arrays bool, uint8 or float32[h, w]");
    check_side(array, 0, "masks");
    check_side(array, 1, "masks");
    BoxMask mask{bytes_of(array), is_float, array.shape(0), array.shape(1), array.strides(0), array.strides(1), {}};
    std::memcpy(mask.extent, bytes_of(extents) + i * sizeof mask.extent, sizeof mask.extent);
    into.boxes.push_back(mask);
  }
}

/// The caller's array, or a new one: float32[boxes, 3, height, width], contiguous, aligned and writeable.
py::array output(const std::optional<py::array>& out, py::ssize_t boxes, const CropShape& shape) {
  const std::vector<py::ssize_t> sizes{boxes, 3, shape.height, shape.width};
  if (!out) {
    checked_product(checked_product(checked_product(shape.height, shape.width), 12), boxes);
    return py::array(py::dtype::of<float>(), sizes);
  }
  const int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  bool fits = has_type(*out, 'f', 4) && out->writeable() && (out->flags() & needed) == needed && out->ndim() == 4;
  for (py::ssize_t axis = 0; fits && axis < 4; ++axis) fits = out->shape(axis) == sizes[static_cast<size_t>(axis)];
  if (!fits) refuse("out", "a contiguous, aligned and writeable float32[N, 3, H, W]");
  return *out;
}

py::array native_mask_crop(const py::array& image, const py::array& boxes, const std::optional<py::array>& masks,
                           const std::optional<std::vector<py::array>>& arrays, const std::optional<py::array>& extents,
                           std::array<int64_t, 2> size, std::array<double, 3> mean, std::array<double, 3> std,
                           int64_t fill, bool reverse, bool antialias, bool letterbox, double pad, int64_t threads,
                           const std::optional<py::array>& out, const std::optional<std::string>& level) {
  const ImageView view = image_view(image);
  const std::vector<Box> list = box_list(boxes);
  CropMasks crop_masks;
  if (arrays.has_value() != extents.has_value() || (masks && arrays)) {
    refuse("masks", "masks over the image, or arrays with their extents, or neither");
  }
  if (masks) add_frames(*masks, view, list.size(), crop_masks);
  if (arrays) add_boxes(*arrays, *extents, list.size(), crop_masks);
  CropShape shape;
  for (int64_t side : size) {
    if (side < 1 || side > kMaxSide) refuse("size", "sides from 1 to 2**24");
  }
  if (fill < 0 || fill > 255) refuse("fill", "an integer from 0 to 255");
  if (threads < 1 || threads > kMaxThreads) refuse("threads", "an integer from 1 to 1024");
  shape.height = size[0];
  shape.width = size[1];
  for (size_t i = 0; i < 3; ++i) {
    if (!(std[i] > 0.0)) refuse("std", "positive numbers");
    shape.mean[i] = mean[i];
    shape.std[i] = std[i];
  }
  shape.fill = static_cast<uint8_t>(fill);
  shape.reverse = reverse;
  shape.antialias = antialias;
  shape.letterbox = letterbox;
  shape.pad = pad;
  const std::string chosen = level ? *level : mask_crop_levels().back();
  py::array crops = output(out, boxes.shape(0), shape);
  auto* data = static_cast<float*>(crops.mutable_data());
  {
    // The arguments keep every array alive; none of Python's objects is touched in here.
    const py::gil_scoped_release release;
    mask_crop(view, list, crop_masks, shape, threads, chosen, data);
  }
  return crops;
}

py::tuple native_resize_table(int64_t source, int64_t target, bool antialias) {
  if (source < 1 || source > kMaxSide || target < 1 || target > kMaxSide) refuse("sizes", "numbers from 1 to 2**24");
  const ResizeTable table = resize_table(source, target, antialias);
  const py::array_t<float> weights({static_cast<py::ssize_t>(target), static_cast<py::ssize_t>(table.taps)},
                                   table.weights.data());
  return py::make_tuple(py::array_t<int64_t>(target, table.first.data()),
                        py::array_t<int64_t>(target, table.count.data()), weights);
}

}  // namespace

void register_mask_crop(py::module_& module) {
  module.def("mask_crop", &native_mask_crop,
             "float32[N, 3, H, W]: the crops that graftsdk.preprocess.mask_crop_reference defines, within float32.\n\n"
             "Arrays are taken as they are: another dtype, byte order or shape is a ValueError. `masks` uint8 or\n"
             "bool[N, H, W], or `arrays` and `extents` of BoxMasks, or none of them: no background is filled. Written\n"
             "into `out` where given. `level`: one of mask_crop_levels(), the best by default; the bits are the same.",
             py::arg("image").noconvert(), py::arg("boxes").noconvert(), py::arg("masks").noconvert() = py::none(),
             py::arg("arrays").noconvert() = py::none(), py::arg("extents").noconvert() = py::none(), py::kw_only(),
             py::arg("size"), py::arg("mean"), py::arg("std"), py::arg("fill"), py::arg("reverse"),
             py::arg("antialias"), py::arg("letterbox"), py::arg("pad"), py::arg("threads") = 1,
             py::arg("out").noconvert() = py::none(), py::arg("level") = py::none());
  module.def("mask_crop_levels", &mask_crop_levels,
             "list[str]: instruction sets that mask_crop can use on this CPU, the best one last.");
  module.def("resize_table", &native_resize_table, py::arg("source"), py::arg("target"), py::arg("antialias"),
             "(first int64[out], count int64[out], weights float32[out, taps]): tables.resize_table, as mask_crop\n"
             "computes it.");
}

}  // namespace graftsdk
