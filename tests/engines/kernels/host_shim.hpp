// CUDA's words for a C++ compiler: mask_crop.cu compiles after them as it is.
//
// A block's threads run one after the other as one thread by default (blockDim is 1: the source's loops do the rest),
// or as threads of the host with a barrier for __syncthreads(), which shows a missing one.

#pragma once

#include <pthread.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <thread>
#include <vector>

struct Dim3 {
  unsigned x = 1;
  unsigned y = 1;
  unsigned z = 1;
};

inline thread_local Dim3 threadIdx, blockIdx, blockDim;

namespace host {

inline std::mutex one_launch;  // shared memory is static
inline pthread_barrier_t barrier;
inline bool threaded = false;

inline void sync() {
  if (threaded) pthread_barrier_wait(&barrier);
}

template <typename Kernel>
void blocks_of_thread(Dim3 grid, Dim3 block, Dim3 thread, const Kernel& kernel) {
  threadIdx = thread;
  blockDim = block;
  for (unsigned y = 0; y < grid.y; ++y) {
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = {x, y, 0};
      kernel();
      sync();
    }
  }
}

template <typename Kernel>
void launch(Dim3 grid, Dim3 block, const Kernel& kernel) {
  const std::lock_guard<std::mutex> lock(one_launch);
  if (!threaded) return blocks_of_thread(grid, {1, 1, 1}, {0, 0, 0}, kernel);
  pthread_barrier_init(&barrier, nullptr, block.x * block.y);
  std::vector<std::thread> threads;
  for (unsigned y = 0; y < block.y; ++y) {
    for (unsigned x = 0; x < block.x; ++x) {
      threads.emplace_back([=, &kernel] { blocks_of_thread(grid, block, {x, y, 0}, kernel); });
    }
  }
  for (std::thread& thread : threads) thread.join();
  pthread_barrier_destroy(&barrier);
}

}  // namespace host

#define __global__
#define __device__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __syncthreads host::sync

inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __clz(int bits) { return bits == 0 ? 32 : __builtin_clz(static_cast<unsigned>(bits)); }

inline int atomicMax(int* at, int value) {
  int found = __atomic_load_n(at, __ATOMIC_RELAXED);
  while (found < value && !__atomic_compare_exchange_n(at, &found, value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return found;
}

inline int atomicAdd(int* at, int value) { return __atomic_fetch_add(at, value, __ATOMIC_RELAXED); }
