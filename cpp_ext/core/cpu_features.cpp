#include "core/cpu_features.hpp"

namespace graftsdk {

std::vector<std::string> cpu_features() {
  std::vector<std::string> found;
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  found.emplace_back("x86_64");
  // __builtin_cpu_supports takes a literal only, hence no loop.
  if (__builtin_cpu_supports("sse4.2")) found.emplace_back("sse4.2");
  if (__builtin_cpu_supports("avx")) found.emplace_back("avx");
  if (__builtin_cpu_supports("avx2")) found.emplace_back("avx2");
  if (__builtin_cpu_supports("fma")) found.emplace_back("fma");
  if (__builtin_cpu_supports("avx512f")) found.emplace_back("avx512f");
  if (__builtin_cpu_supports("avx512bw")) found.emplace_back("avx512bw");
  if (__builtin_cpu_supports("avx512dq")) found.emplace_back("avx512dq");
  if (__builtin_cpu_supports("avx512vl")) found.emplace_back("avx512vl");
  if (__builtin_cpu_supports("avx512vnni")) found.emplace_back("avx512vnni");
#elif defined(__aarch64__)
  found.emplace_back("aarch64");
  found.emplace_back("neon");
#else
  found.emplace_back("generic");
#endif
  return found;
}

}  // namespace graftsdk
