#include "graft/train/router_watch.h"

#include <gtest/gtest.h>

namespace graft {
namespace {

// Layers 0 and 2 of three have four experts, two for each token.
ModelConfig watched_model() {
  ModelConfig config;
  config.moe.emplace();
  config.moe->num_experts = 4, config.moe->num_experts_per_tok = 2;
  config.moe->sparse_layers = {true, false, true};
  return config;
}

TEST(RouterWatch, SaysOnceWhichLayerAndShare) {
  RouterWatch watch(watched_model());
  // Shares of assignments: expert 1 of layer 2 has 98 % of the tokens.
  const std::vector<double> shares = {0.25, 0.25, 0.25, 0.25, 0.2, 0.49, 0.21, 0.1};
  for (int64_t i = 1; i < RouterWatch::kUpdates; ++i) EXPECT_EQ(watch.add(shares), std::nullopt) << i;
  const std::optional<std::string> said = watch.add(shares);
  ASSERT_TRUE(said.has_value());
  for (const char* word : {"layer 2", "98.0 %", "expert 1", "50.0 %", "20 updates", "--aux-coef"}) {
    EXPECT_NE(said->find(word), std::string::npos) << word << ": " << *said;
  }
  for (int64_t i = 0; i < 3 * RouterWatch::kUpdates; ++i) EXPECT_EQ(watch.add(shares), std::nullopt) << i;
}

TEST(RouterWatch, UnevenIsNotCollapsed) {
  RouterWatch watch(watched_model());
  const std::vector<double> uneven = {0.45, 0.25, 0.25, 0.05, 0.46, 0.5, 0.02, 0.02},
                            most = {0.25, 0.25, 0.25, 0.25, 0.3, 0.5, 0.1, 0.1};
  // A few collapsed updates among others are no collapse: the mean counts.
  for (int64_t i = 0; i < 4 * RouterWatch::kUpdates; ++i) {
    std::vector<double> shares = i % 3 == 0 ? uneven : most;
    if (i % 3 == 1) shares = std::vector<double>(8, 0.25);
    EXPECT_EQ(watch.add(shares), std::nullopt) << i;
  }
}

TEST(RouterWatch, NothingToChooseFromCannotCollapse) {
  ModelConfig config = watched_model();
  config.moe->num_experts = 2;
  RouterWatch all(config);
  RouterWatch dense{ModelConfig{}};
  for (int64_t i = 0; i < 2 * RouterWatch::kUpdates; ++i) {
    EXPECT_EQ(all.add(std::vector<double>(4, 0.5)), std::nullopt);  // both experts get every token
    EXPECT_EQ(dense.add({}), std::nullopt);
  }
}

}  // namespace
}  // namespace graft
