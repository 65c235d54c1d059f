#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graft/formats/model_config.h"

namespace graft {

// Sees the load of every expert after each update and says once where a router has collapsed: nearly every token goes to one expert, so that
// the others learn nothing. With E experts, K for each token, an expert's share of the tokens is K times its share of the assignments; even is
// K / E. Collapsed: over kUpdates updates the mean share is within a tenth of the way from all tokens to an even load.
class RouterWatch {
 public:
  static constexpr int64_t kUpdates = 20;
  explicit RouterWatch(const ModelConfig& config);
  // shares: of the assignments, layer by layer (RouterFigures). The warning, one line; the first time only.
  std::optional<std::string> add(std::span<const double> shares);

 private:
  int64_t experts_ = 0, top_k_ = 0, updates_ = 0;
  std::vector<int64_t> layers_;   // those with experts
  std::vector<double> share_of_;  // sums over the updates of a window, as `shares`
  bool said_ = false;
};

}  // namespace graft
