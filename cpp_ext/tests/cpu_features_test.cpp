#include <algorithm>
#include <cstdio>

#include "core/cpu_features.hpp"

namespace {
bool has(const std::vector<std::string>& names, const char* name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}
}  // namespace

int main() {
  const auto names = graftsdk::cpu_features();
  if (names.empty()) return std::puts("no architecture reported"), 1;
  if (names != graftsdk::cpu_features()) return std::puts("two calls differ"), 1;
  // Each level contains the one below it, or the detection is wrong.
  if (has(names, "avx512f") && !has(names, "avx2")) return std::puts("avx512f without avx2"), 1;
  if (has(names, "avx2") && !has(names, "avx")) return std::puts("avx2 without avx"), 1;
  return 0;
}
