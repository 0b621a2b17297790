#pragma once

#include <algorithm>
#include <cstdint>

namespace graftsdk {

/// Half-open; empty where begin >= end.
struct Span {
  int64_t begin;
  int64_t end;

  bool empty() const { return begin >= end; }
};

/// The smallest span that holds both.
inline Span joined(Span a, Span b) {
  if (a.empty()) return b;
  if (b.empty()) return a;
  return {std::min(a.begin, b.begin), std::max(a.end, b.end)};
}

}  // namespace graftsdk
