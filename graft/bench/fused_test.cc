#include "graft/bench/fused.h"

#include <gtest/gtest.h>

#include <cmath>

#include "graft/base/float16.h"

namespace graft {
namespace {

// The single kernels round between their steps: a few units of the largest value's last place, and as many again for sums.
TEST(Fused, EveryFusedKernelIsItsSingleKernels) {
  ThreadPool pool(2);
  Context context(pool);
  int fused = 0;
  for (const KernelInfo& kernel : kernel_registry()) {
    const bool knows = Unfused::knows(kernel);
    if (kernel.domain == "fused_custom" || kernel.domain == "fused_map_reduce") {
      EXPECT_TRUE(knows) << kernel.name;
    }
    if (!knows) continue;
    ++fused;
    for (const uint64_t seed : {2, 3}) {  // Adam clips by value, by norm
      for (const int64_t size : {1000, 20001}) {
        KernelCall call;
        kernel.example(call, size, seed);
        context.reserve(kernel.prepare(call));
        const Unfused unfused(kernel, call, context);
        kernel.run(context, call);
        unfused.run(context);
        EXPECT_FALSE(unfused.results.empty()) << kernel.name;
        for (const Unfused::Result& r : unfused.results) {
          const KernelTensor& got = call.outputs().at(r.output);
          ASSERT_EQ(got.size(), r.tensor->size()) << kernel.name << " " << r.output;
          const std::span<const float> a = got.data.as<float>(), b = r.tensor->data.as<float>();
          double largest = 0;
          for (int64_t i = 0; i < got.size(); ++i) {
            if (std::isfinite(b[static_cast<size_t>(i)]))
              largest = std::max(largest, static_cast<double>(std::fabs(b[static_cast<size_t>(i)])));
          }
          for (size_t i = 0; i < static_cast<size_t>(got.size()); ++i) {
            if (a[i] == b[i]) continue;
            ASSERT_NEAR(a[i], b[i], 4e-6 * largest) << kernel.name << " " << r.output << " " << i;
          }
        }
        EXPECT_LT(kernel.bytes(call), unfused.bytes()) << kernel.name;
      }
    }
  }
  EXPECT_GE(fused, 10);
}

TEST(Fused, TimingSaysWhatIsSaved) {
  ThreadPool pool(1);
  const KernelInfo& kernel = *find_kernel("fused_layernorm_dropout_residual");
  KernelCall call;
  kernel.example(call, 4096, 1);
  const FusedTiming t = time_fused(pool, kernel, call, 0);
  EXPECT_EQ(t.steps, "layer_norm, map_fma");
  EXPECT_EQ(t.bytes, 13 * 4096);
  EXPECT_EQ(t.unfused_bytes, 24 * 4096);
  EXPECT_GT(t.ns, 0);
  EXPECT_GT(t.unfused_ns, 0);
}

}  // namespace
}  // namespace graft
