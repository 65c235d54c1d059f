#pragma once

#include <utility>

#include "graft/graph/plan.h"

namespace graft {

// Row ranges of adapter slots: from adapter_offsets i32 [slots + 1] where they are bound, else one slot with all rows.
class RowSlots {
 public:
  RowSlots(const Run& run, Value offsets, int64_t rows) : rows_(rows) {
    if (offsets) offsets_ = run.span<const int32_t>(offsets);
  }
  int64_t count() const { return offsets_.empty() ? 1 : static_cast<int64_t>(offsets_.size()) - 1; }
  std::pair<int64_t, int64_t> range(int64_t slot) const {
    if (offsets_.empty()) return {0, rows_};
    return {offsets_[static_cast<size_t>(slot)], offsets_[static_cast<size_t>(slot) + 1]};
  }

 private:
  std::span<const int32_t> offsets_;
  int64_t rows_;
};

}  // namespace graft
