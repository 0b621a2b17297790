#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "core/finite.hpp"
#include "core/mask_rows.hpp"
#include "core/prototype_masks.hpp"
#include "core/resize_table.hpp"
#include "core/suppress.hpp"

namespace py = pybind11;

namespace graftsdk {

namespace {

constexpr int64_t kMaxSide = int64_t{1} << 24;  // keeps every product of sizes far from 64 bits

/// A contiguous, aligned array of exactly this type in native byte order: nothing is converted.
template <typename T>
const T* plain(const py::array& array, py::ssize_t dimensions, const char* name, const char* expected) {
  const int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  const py::dtype type = array.dtype();
  const bool fits = type.is(py::dtype::of<T>()) || type.equal(py::dtype::of<T>());
  if (!fits || (array.flags() & needed) != needed || (dimensions >= 0 && array.ndim() != dimensions)) {
    throw py::value_error(std::string(name) + ": expected a contiguous, aligned " + expected);
  }
  return static_cast<const T*>(array.data());
}

bool native_all_finite(const py::array& values) {
  const float* data = plain<float>(values, -1, "values", "float32 array");
  const int64_t count = values.size();
  const py::gil_scoped_release release;
  return all_finite(data, count);
}

RankedBoxes ranked(const py::array& boxes) {
  const double* edges = plain<double>(boxes, 2, "boxes", "float64[N, 4]");
  if (boxes.shape(1) != 4) throw py::value_error("boxes: expected a contiguous, aligned float64[N, 4]");
  return {edges, boxes.shape(0)};
}

py::array_t<int64_t> as_array(const std::vector<int64_t>& places) {
  return py::array_t<int64_t>(static_cast<py::ssize_t>(places.size()), places.data());
}

py::array_t<int64_t> native_suppress(const py::array& boxes, double iou_threshold, int64_t limit) {
  const RankedBoxes list = ranked(boxes);
  std::vector<int64_t> kept;
  {
    const py::gil_scoped_release release;
    kept = suppress(list, iou_threshold, limit);
  }
  return as_array(kept);
}

py::tuple native_suppress_fast(const py::array& boxes, double iou_threshold, int64_t top) {
  const RankedBoxes list = ranked(boxes);
  FastKept found;
  {
    const py::gil_scoped_release release;
    found = suppress_fast(list, iou_threshold, top);
  }
  return py::make_tuple(as_array(found.kept), as_array(found.cut));
}

std::vector<Window> window_list(const py::array& windows, const Prototypes& prototypes) {
  static_assert(sizeof(Window) == 4 * sizeof(int64_t));
  const int64_t* data = plain<int64_t>(windows, 2, "windows", "int64[N, 4]");
  if (windows.shape(1) != 4) throw py::value_error("windows: expected a contiguous, aligned int64[N, 4]");
  std::vector<Window> list(static_cast<size_t>(windows.shape(0)));
  if (!list.empty()) std::memcpy(list.data(), data, list.size() * sizeof(Window));
  for (const Window& window : list) {
    if (window.x0 < 0 || window.y0 < 0 || window.x0 >= window.x1 || window.y0 >= window.y1 ||
        window.x1 > prototypes.width || window.y1 > prototypes.height) {
      throw py::value_error("windows: expected x0 < x1 and y0 < y1 inside the prototypes");
    }
  }
  return list;
}

py::tuple native_prototype_masks(const py::array& prototypes, const py::array& coefficients, const py::array& windows) {
  const float* values = plain<float>(prototypes, 3, "prototypes", "float32[h, w, K]");
  for (py::ssize_t axis = 0; axis < 3; ++axis) {
    if (prototypes.shape(axis) > kMaxSide) throw py::value_error("prototypes: expected sides up to 2**24");
  }
  const Prototypes frame{values, prototypes.shape(0), prototypes.shape(1), prototypes.shape(2)};
  const float* weights = plain<float>(coefficients, 2, "coefficients", "float32[N, K]");
  const std::vector<Window> kept = window_list(windows, frame);
  if (coefficients.shape(0) != windows.shape(0) || coefficients.shape(1) != frame.kinds) {
    throw py::value_error("coefficients: expected as many rows as windows, and as many columns as prototypes");
  }
  std::vector<Window> held;
  int64_t total = 0;
  for (const Window& window : kept) {
    held.push_back(with_ring(window, frame));
    const Window& ringed = held.back();
    total = checked_sum(total, checked_product(ringed.y1 - ringed.y0, ringed.x1 - ringed.x0));
  }
  checked_product(total, sizeof(float));
  py::array_t<float> masks(total);
  py::array_t<int64_t> cells({static_cast<py::ssize_t>(held.size()), py::ssize_t{4}});
  if (!held.empty()) std::memcpy(cells.mutable_data(), held.data(), held.size() * sizeof(Window));
  float* mask = masks.mutable_data();
  {
    const py::gil_scoped_release release;
    for (size_t i = 0; i < kept.size(); ++i) {
      prototype_mask(frame, weights + static_cast<int64_t>(i) * frame.kinds, kept[i], held[i], mask);
      mask += (held[i].y1 - held[i].y0) * (held[i].x1 - held[i].x0);
    }
  }
  return py::make_tuple(masks, cells);
}

py::array_t<bool> native_covering(const py::array& values, const py::array& shapes, const py::array& extents,
                                  int64_t height, int64_t width) {
  const float* cells = plain<float>(values, 1, "values", "float32[T]");
  const int64_t* sides = plain<int64_t>(shapes, 2, "shapes", "int64[N, 2]");
  const float* edges = plain<float>(extents, 2, "extents", "float32[N, 4]");
  if (shapes.shape(1) != 2 || extents.shape(1) != 4 || shapes.shape(0) != extents.shape(0)) {
    throw py::value_error("shapes, extents: expected int64[N, 2] and float32[N, 4]");
  }
  if (height < 0 || height > kMaxSide || width < 0 || width > kMaxSide) {
    throw py::value_error("height, width: expected sides up to 2**24");
  }
  std::vector<BoxMask> masks;
  int64_t used = 0;
  for (py::ssize_t i = 0; i < shapes.shape(0); ++i) {
    BoxMask mask{nullptr, true, sides[2 * i], sides[2 * i + 1], 0, sizeof(float), {}};
    if (mask.height < 1 || mask.height > kMaxSide || mask.width < 1 || mask.width > kMaxSide) {
      throw py::value_error("shapes: expected sides from 1 to 2**24");
    }
    const int64_t begin = used;
    used = checked_sum(used, mask.height * mask.width);
    if (used > values.size()) throw py::value_error("values: expected as many as the shapes have cells");
    mask.data = reinterpret_cast<const uint8_t*>(cells + begin);
    mask.row_stride = mask.width * static_cast<int64_t>(sizeof(float));
    std::memcpy(mask.extent, edges + 4 * i, sizeof mask.extent);
    for (const float edge : mask.extent) {
      if (!std::isfinite(edge)) throw py::value_error("extents: expected finite numbers");
    }
    masks.push_back(mask);
  }
  py::array_t<bool> covers(shapes.shape(0));
  bool* found = covers.mutable_data();
  {
    const py::gil_scoped_release release;
    for (const BoxMask& mask : masks) *found++ = covers_a_pixel(mask, height, width);
  }
  return covers;
}

}  // namespace

void register_segment(py::module_& module) {
  module.def("all_finite", &native_all_finite, py::arg("values").noconvert(),
             "Whether a contiguous float32 array holds neither NaN nor infinity: bool.");
  module.def(
      "covering", &native_covering, py::arg("values").noconvert(), py::arg("shapes").noconvert(),
      py::arg("extents").noconvert(), py::arg("height"), py::arg("width"),
      "bool[N]: which masks cover a pixel of an image [height, width], as BoxMasks decides it. `values` float32[T]:\n"
      "the masks' cells, one mask after the other; `shapes` int64[N, 2]: rows, columns; `extents` float32[N, 4].");
  module.def("suppress", &native_suppress, py::arg("boxes").noconvert(), py::arg("iou_threshold"), py::arg("limit"),
             "int64[K]: which of float64[N, 4] boxes by falling score stay, as graftsdk.segment.nms.suppress says.");
  module.def("suppress_fast", &native_suppress_fast, py::arg("boxes").noconvert(), py::arg("iou_threshold"),
             py::arg("top"),
             "(int64[K], int64[M]): likewise those that stay and those that lose their place to `top` alone, as\n"
             "graftsdk.segment.nms.suppress_fast says.");
  module.def(
      "prototype_masks", &native_prototype_masks, py::arg("prototypes").noconvert(),
      py::arg("coefficients").noconvert(), py::arg("windows").noconvert(),
      "(float32[T], int64[N, 4]): sigmoid(coefficients @ prototypes) in each window (xyxy, cells, half-open) and\n"
      "0 in a ring of one cell around it, inside the frame, one after the other; and the windows with their\n"
      "rings. `prototypes` float32[h, w, K], `coefficients` float32[N, K].");
}

}  // namespace graftsdk
