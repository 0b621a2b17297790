#include "core/columns.hpp"

#include <algorithm>

namespace graftsdk {

namespace {

constexpr int64_t kGroup = CropSteps::kGroup;

int64_t round_up(int64_t value) { return checked_sum(value, kGroup - 1) / kGroup * kGroup; }

}  // namespace

void Columns::start(const ResizeTable& table, int64_t source, int64_t target) {
  source_ = source;
  target_ = target;
  taps_ = table.taps;
  // Permutations read that much from the last pixel's last tap on.
  stride_ = checked_sum(checked_sum(round_up(source), taps_), CropSteps::kWindows * kGroup);
  const auto outputs = static_cast<size_t>(round_up(target));
  first_.assign(outputs, table.first.back());
  std::copy(table.first.begin(), table.first.end(), first_.begin());
  const auto pixels = static_cast<size_t>(source);
  reaching_.resize(pixels);
  beyond_.resize(pixels);
  int64_t reaching = 0;
  int64_t beyond = 0;
  for (int64_t x = 0; x < source; ++x) {
    while (reaching < target && first_[static_cast<size_t>(reaching)] + taps_ <= x) ++reaching;
    while (beyond < target && first_[static_cast<size_t>(beyond)] <= x) ++beyond;
    reaching_[static_cast<size_t>(x)] = reaching;
    beyond_[static_cast<size_t>(x)] = beyond;
  }
  picks_ = steps_.lanes > 0 && pack(table);
  if (picks_) return;
  weights_ = table.weights;
  const auto room = static_cast<size_t>(checked_product(stride_, 4));
  if (pixels_.size() < room) pixels_.resize(room);
}

/// The table in the order in which `pick` reads it. False where outputs of one vector lie so far apart that `spread` is
/// faster, which costs as much however far they are.
bool Columns::pack(const ResizeTable& table) {
  const auto lanes = static_cast<size_t>(steps_.lanes);
  const auto taps = static_cast<size_t>(taps_);
  const int64_t most = taps_ > 4 ? 2 : CropSteps::kWindows;
  windows_ = 1;
  base_.resize(first_.size() / lanes);
  index_.resize(first_.size());
  for (size_t x = 0; x < first_.size(); x += lanes) {
    const int64_t base = first_[x];
    const int64_t last = first_[x + lanes - 1] - base;
    while (last >= windows_ * steps_.lanes) windows_ *= 2;
    if (windows_ > most) return false;
    base_[x / lanes] = base;
    for (size_t k = 0; k < lanes; ++k) index_[x + k] = static_cast<int32_t>(first_[x + k] - base);
  }
  weights_.assign(static_cast<size_t>(checked_product(round_up(target_), taps_)), 0.0f);
  for (size_t x = 0; x < static_cast<size_t>(target_); ++x) {
    float* to = weights_.data() + x / lanes * lanes * taps + x % lanes;
    for (size_t tap = 0; tap < taps; ++tap) to[tap * lanes] = table.weights[x * taps + tap];
  }
  return true;
}

Span Columns::reached(Span span) const {
  if (span.empty()) return {0, 0};
  const int64_t begin = reaching_[static_cast<size_t>(span.begin)];
  const int64_t end = beyond_[static_cast<size_t>(span.end - 1)];
  if (begin >= end) return {0, 0};  // a resize that leaves pixels out
  return {begin / kGroup * kGroup, std::min(round_up(end), target_)};
}

Span Columns::needed(Span outputs) const {
  if (outputs.empty()) return {0, 0};
  const int64_t last = first_[static_cast<size_t>(outputs.end - 1)] + taps_;
  return {first_[static_cast<size_t>(outputs.begin)] / kGroup * kGroup, round_up(std::min(last, source_))};
}

void Columns::write(const float* row, Span outputs, const OutputRow& output) {
  if (picks_) {
    steps_.pick(row, stride_, base_.data(), index_.data(), weights_.data(), taps_, windows_, outputs.begin, outputs.end,
                output);
    return;
  }
  const Span pixels = needed(outputs);
  steps_.weave(row, stride_, pixels.begin, pixels.end, pixels_.data());
  steps_.spread(pixels_.data(), first_.data(), weights_.data(), taps_, outputs.begin, outputs.end, output);
}

}  // namespace graftsdk
