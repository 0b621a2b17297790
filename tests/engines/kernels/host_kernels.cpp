// The kernels of mask_crop.cu as functions of the host, called as graftsdk.engines.cuda.host calls kernels: with the
// sizes of the grid and of a block first.

#include "host_shim.hpp"

#include "mask_crop.cu"

#define GRID unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz
#define LAUNCH(...) host::launch({gx, gy, gz}, {bx, by, bz}, [&] { __VA_ARGS__; })

extern "C" {

void host_graftsdk_prepare(GRID, const Call* call, const Crop* crops, u32* work, i32 table_blocks) {
  LAUNCH(graftsdk_prepare(call, crops, work, table_blocks));
}

void host_graftsdk_crop(GRID, const Call* call, const Crop* crops, u32* work, const u8* image, void* into) {
  LAUNCH(graftsdk_crop(call, crops, work, image, into));
}

void host_graftsdk_mask_boxes(GRID, const Call* call, const Crop* crops, const u32* work, i32* boxes) {
  LAUNCH(graftsdk_mask_boxes(call, crops, work, boxes));
}

void host_graftsdk_prototype_masks(GRID, const PrototypeMask* masks, const float* prototypes, i32 width, i32 kinds,
                                   const float* coefficients, i64 row_stride, i64 kind_stride, float* values,
                                   i32* bad) {
  LAUNCH(graftsdk_prototype_masks(masks, prototypes, width, kinds, coefficients, row_stride, kind_stride, values, bad));
}

void host_graftsdk_sampled_masks(GRID, const SampledMask* masks, const float* prototypes, i32 height, i32 width,
                                 i32 kinds, const float* coefficients, i64 row_stride, i64 kind_stride, float slope,
                                 float* values, i32* bad) {
  LAUNCH(graftsdk_sampled_masks(masks, prototypes, height, width, kinds, coefficients, row_stride, kind_stride, slope,
                                values, bad));
}

void host_graftsdk_select(GRID, const Predictions* predictions, float least_score, float bound, Selected* found) {
  LAUNCH(graftsdk_select(predictions, least_score, bound, found));
}

void host_threads(int on) { host::threaded = on != 0; }

i32 host_sizes(i32 which) {
  const i32 sizes[] = {sizeof(Call), sizeof(Crop), sizeof(PrototypeMask), sizeof(SampledMask),
                       sizeof(Predictions), sizeof(Candidate), sizeof(Selected)};
  return sizes[which];
}

u16 host_half_bits(float value) { return half_bits(value); }
}
