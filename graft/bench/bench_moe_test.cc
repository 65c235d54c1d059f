#include "graft/bench/bench_moe.h"

#include <gtest/gtest.h>

#include <numeric>
#include <set>

#include "graft/base/error.h"
#include "graft/models/decoder.h"

namespace graft {
namespace {

// spec/moe.md, section 1.
TEST(BenchMoe, ParameterCounts) {
  const std::vector<std::string_view> types = supported_model_types();
  for (const auto& [name, want] :
       {std::pair<const char*, int64_t>{"tiny", 542528}, {"small", 7134464}, {"full", 6882678528}}) {
    const ModelConfig config = parse_model_config(moe_config(name), name, types);
    int64_t parameters = 0;
    for (const ExpectedTensor& t : decoder_tensors(config)) {
      parameters += std::accumulate(t.shape.begin(), t.shape.end(), int64_t{1}, std::multiplies<>());
    }
    EXPECT_EQ(parameters, want) << name;
  }
  EXPECT_THROW(moe_config("large"), Error);
}

TEST(BenchMoe, TwentyTwoScenariosOnFiveAxes) {
  std::set<std::string> ids, axes;
  for (const MoeScenario& s : moe_scenarios()) ids.insert(s.id), axes.insert(s.axis);
  EXPECT_EQ(ids.size(), 22u);
  EXPECT_EQ(axes.size(), 5u);
  EXPECT_EQ(find_moe_scenario("nothing"), nullptr);
  EXPECT_EQ(find_moe_scenario("dispatch_cold")->seq, 8);
}

// Operations a token: the dense layer's are those of the two experts, but for the router.
TEST(BenchMoe, LayersOfTheSameOperations) {
  const Json experts = moe_config("layer_experts"), dense = moe_config("layer_dense");
  EXPECT_EQ(experts["num_experts_per_tok"].get<int64_t>() * experts["intermediate_size"].get<int64_t>(),
            dense["intermediate_size"].get<int64_t>());
}

}  // namespace
}  // namespace graft
