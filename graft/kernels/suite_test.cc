// Every row of the registry: the same bits from every variant and thread count on hostile and odd inputs.

#include "graft/kernels/map.h"
#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

// All outputs of a call, as the bytes' values.
std::vector<float> outputs_of(const KernelInfo& kernel, Context& context, KernelCall& call) {
  context.reserve(kernel.prepare(call));
  kernel.run(context, call);
  std::vector<float> all;
  for (const auto& [name, tensor] : call.outputs()) {
    if (tensor.dtype == DType::kF32) {
      const auto values = tensor.data.as<float>();
      all.insert(all.end(), values.begin(), values.begin() + tensor.size());
    } else {
      for (size_t i = 0; i < tensor.bytes(); ++i) all.push_back(static_cast<float>(tensor.data.as<uint8_t>()[i]));
    }
  }
  return all;
}

KernelCall example(const KernelInfo& kernel, int64_t size, bool hostile) {
  KernelCall call;
  kernel.example(call, size, 7);
  if (!hostile) return call;
  KernelCall other;
  for (const auto& [name, text] : call.parameters()) other.set_parameter(name, text);
  for (const auto& [name, tensor] : call.inputs()) {
    KernelTensor& t = other.add_input(name, tensor.dtype, tensor.shape);
    if (tensor.dtype == DType::kF32) {
      const std::vector<float> values = test::hostile_values(tensor.size(), stream_hash(name));
      std::copy(values.begin(), values.end(), t.data.as<float>().begin());
    } else {
      std::copy_n(tensor.data.data(), tensor.bytes(), t.data.data());
    }
  }
  return other;
}

TEST(Suite, EveryVariantAndThreadCountGivesTheSameBits) {
  // The last is more than a task. Builds that run slowly (test_support.h) take a part of the sizes.
  const bool slow = std::getenv("GRAFT_TEST_THREADS") != nullptr;
  const std::vector<int64_t> sizes =
      slow ? std::vector<int64_t>{7, 20001} : std::vector<int64_t>{1, 7, 1000, 4097, 20001};
  for (const KernelInfo& kernel : kernel_registry()) {
    for (const int64_t size : sizes) {
      for (const bool hostile : {false, true}) {
        KernelCall call = example(kernel, size, hostile);
        const auto run = [&](Context& context) { return outputs_of(kernel, context, call); };
        test::expect_same_bits(run, fmt::format("{} of {}{}", kernel.name, size, hostile ? ", hostile" : ""), {},
                               !kernel.outside_contract.empty());
      }
    }
  }
}

TEST(Suite, NamesAreUniqueAndFound) {
  for (const KernelInfo& kernel : kernel_registry()) EXPECT_EQ(find_kernel(kernel.name), &kernel) << kernel.name;
  EXPECT_EQ(find_kernel("reduce_nothing"), nullptr);
}

TEST(Suite, BytesAndFlopsAreThoseOfTheSpecification) {
  KernelCall call;
  find_kernel("map_fma")->example(call, 1000, 1);
  EXPECT_EQ(find_kernel("map_fma")->bytes(call), 16000);
  EXPECT_EQ(find_kernel("map_fma")->flops(call), 2000);
}

// Streaming stores start at 4 Mi elements; an output that is not aligned has single lanes before them.
TEST(Suite, LargeMapsStoreEveryElement) {
  constexpr int64_t kSize = (int64_t{4} << 20) + 77;
  KernelCall call;
  const KernelInfo& kernel = *find_kernel("map_abs");
  kernel.example(call, kSize, 3);
  test::TestContext t(3);
  kernel.prepare(call);
  kernel.run(t.context, call);
  const auto x = call.in<float>("x");
  const auto y = call.out<float>("y");
  for (size_t i = 0; i < x.size(); ++i) ASSERT_EQ(y[i], std::fabs(x[i])) << i;
}

TEST(Suite, EdgeValues) {
  test::TestContext t(2);
  const auto run = [&](std::string_view name, std::vector<float> values) {
    KernelCall call;
    KernelTensor& x = call.add_input("x", DType::kF32, {static_cast<int64_t>(values.size())});
    std::copy(values.begin(), values.end(), x.data.as<float>().begin());
    return outputs_of(*find_kernel(name), t.context, call);
  };
  EXPECT_EQ(run("reduce_sum", {}), std::vector<float>{0});
  EXPECT_TRUE(std::isnan(run("reduce_mean", {})[0]));
  EXPECT_THROW(run("reduce_max", {}), Error);
  EXPECT_TRUE(std::isnan(run("reduce_var", {})[0]));
  EXPECT_EQ(run("reduce_var", {5}), std::vector<float>{0});
  EXPECT_TRUE(std::isnan(run("reduce_max", {1, NAN, INFINITY})[0]));
  EXPECT_EQ(run("reduce_min", {3, -INFINITY, 2}), std::vector<float>{-INFINITY});
  EXPECT_EQ(run("map_sigmoid", {-200, 200}), (std::vector<float>{0, 1}));
  EXPECT_EQ(run("map_log", {0, 1, INFINITY}), (std::vector<float>{-INFINITY, 0, INFINITY}));
  EXPECT_EQ(run("map_tanh", {INFINITY, -INFINITY, -0.0f}), (std::vector<float>{1, -1, 0}));
  EXPECT_TRUE(std::isnan(run("map_gelu", {NAN})[0]));
}

TEST(Suite, NanIsUnequalToAllOnEveryVariant) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> a = {nan, nan, 1, 1, 0}, b = {nan, 1, nan, 1, -0.0f};
  const std::pair<Comparison, std::vector<uint8_t>> wants[] = {{Comparison::kNe, {1, 1, 1, 0, 0}},
                                                               {Comparison::kEq, {0, 0, 0, 1, 1}},
                                                               {Comparison::kGe, {0, 0, 0, 1, 1}},
                                                               {Comparison::kLt, {0, 0, 0, 0, 0}}};
  test::TestContext t(1);
  const CpuLevel top = cpu_level();
  for (const CpuLevel level : cpu_levels_available()) {
    set_cpu_level(level);
    for (const auto& [op, want] : wants) {
      std::vector<uint8_t> mask(a.size());
      map_compare(t.context, a, b, op, mask);
      EXPECT_EQ(mask, want) << cpu_level_name(level);
    }
  }
  set_cpu_level(top);
}

}  // namespace
}  // namespace graft
