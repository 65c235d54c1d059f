#include "graft/train/router_watch.h"

#include <fmt/format.h>

#include <algorithm>

namespace graft {

RouterWatch::RouterWatch(const ModelConfig& config) {
  if (!config.moe) return;
  experts_ = config.moe->num_experts, top_k_ = config.moe->num_experts_per_tok;
  for (size_t i = 0; i < config.moe->sparse_layers.size(); ++i) {
    if (config.moe->sparse_layers[i]) layers_.push_back(static_cast<int64_t>(i));
  }
  share_of_.assign(layers_.size() * static_cast<size_t>(experts_), 0.0);
}

std::optional<std::string> RouterWatch::add(std::span<const double> shares) {
  if (said_ || experts_ <= top_k_ || shares.size() != share_of_.size() || shares.empty()) return std::nullopt;
  for (size_t i = 0; i < shares.size(); ++i) share_of_[i] += shares[i] * static_cast<double>(top_k_);
  if (++updates_ < kUpdates) return std::nullopt;
  const auto busiest = std::max_element(share_of_.begin(), share_of_.end());
  const double share = *busiest / static_cast<double>(kUpdates),
               even = static_cast<double>(top_k_) / static_cast<double>(experts_);
  const auto at = static_cast<int64_t>(busiest - share_of_.begin());
  updates_ = 0;
  std::fill(share_of_.begin(), share_of_.end(), 0.0);
  if (!(share >= 1 - 0.1 * (1 - even))) return std::nullopt;
  said_ = true;
  return fmt::format(
      "the router of layer {} has collapsed: over {} updates it sent {:.1f} % of the tokens to expert {} ({:.1f} % is "
      "even); a larger --aux-coef spreads them",
      layers_[static_cast<size_t>(at / experts_)], kUpdates, 100 * share, at % experts_, 100 * even);
}

}  // namespace graft
