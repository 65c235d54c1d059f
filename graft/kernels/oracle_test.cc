// Every kernel of the registry against a float64 oracle on random shapes and values, with a random variant and number of threads, in
// memory of any alignment.

#include <array>
#include <cstdlib>
#include <limits>

#include "graft/kernels/oracle_test_util.h"
#include "graft/kernels/registry.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

using oracle::Draw, oracle::Oracle, oracle::Want;

std::vector<Oracle> oracles() {
  std::vector<Oracle> all;
  for (const auto some : {oracle::vector_oracles, oracle::order_oracles, oracle::training_oracles,
                          oracle::attention_oracles, oracle::scientific_oracles}) {
    const auto rows = some();
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

bool agrees(double got, double want, double relative, double absolute) {
  if (got == want || (got != got && want != want)) return true;
  if (got != got || want != want) return false;
  if (relative > 0) absolute += 0x1p-148;  // two steps of the subnormals
  constexpr double kLargest = std::numeric_limits<float>::max();
  if (std::isinf(got) || std::isinf(want)) {  // rounding may reach infinity, or not quite
    return relative > 0 && std::signbit(got) == std::signbit(want) &&
           std::min(std::fabs(got), std::fabs(want)) >= kLargest * (1 - 2 * relative - 0x1p-24);
  }
  return std::fabs(got - want) <= absolute + relative * std::fabs(want);
}

// A thing of a call in memory of another alignment.
class Shifted {
 public:
  std::byte* add(size_t bytes, size_t offset) {
    memory_.emplace_back(bytes + 128);
    std::byte* start = memory_.back().data();
    return start + (64 - reinterpret_cast<uintptr_t>(start) % 64) + offset;
  }

 private:
  std::vector<std::vector<std::byte>> memory_;
};

// Moves inputs and outputs to addresses aligned to their elements alone.
void shift(const KernelInfo& kernel, KernelCall& call, Draw& draw, Shifted& memory) {
  const auto offset = [&](DType dtype) { return static_cast<size_t>(draw.range(0, 15) * (dtype_bits(dtype) / 8)); };
  kernel.prepare(call);
  for (const auto& [name, t] : call.outputs())
    call.borrow_output(name, t.dtype, t.shape, memory.add(t.bytes(), offset(t.dtype)));
  std::vector<std::string> names;
  for (const auto& [name, t] : call.inputs()) names.push_back(name);
  for (const std::string& name : names) {
    const KernelTensor& t = call.inputs().at(name);
    std::byte* to = memory.add(t.bytes(), offset(t.dtype));
    std::copy_n(t.data.data(), t.bytes(), to);
    call.borrow_input(name, DType(t.dtype), std::vector<int64_t>(t.shape), to);
  }
}

std::string describe(const KernelCall& call) {
  std::string text;
  for (const auto& [name, t] : call.inputs()) text += fmt::format(" {} [{}]", name, fmt::join(t.shape, ", "));
  for (const auto& [name, value] : call.parameters()) text += fmt::format(" {}={}", name, value);
  return text;
}

void check_cases(uint64_t first, int64_t cases) {
  const std::vector<Oracle> all = oracles();
  const std::vector<CpuLevel> levels = cpu_levels_available();
  const CpuLevel top = cpu_level();
  const std::vector<int> threads = test::thread_counts();
  std::vector<std::unique_ptr<ThreadPool>> pools;
  std::vector<std::unique_ptr<Context>> contexts;
  for (const int n : threads) {
    pools.push_back(std::make_unique<ThreadPool>(n));
    contexts.push_back(std::make_unique<Context>(*pools.back()));
  }
  for (uint64_t number = first; number < first + static_cast<uint64_t>(cases); ++number) {
    const Oracle& o = all[number % all.size()];
    const KernelInfo& kernel = *find_kernel(o.kernel);
    Draw draw(number);
    KernelCall call;
    o.draw(draw, call);
    Shifted memory;
    const std::string what = fmt::format("case {}: {}{}", number, o.kernel, describe(call));
    try {
      if (draw.chance(0.5)) shift(kernel, call, draw, memory);
      const oracle::Wants wants = o.want(call);
      Context& context = *contexts[static_cast<size_t>(draw.range(0, static_cast<int64_t>(threads.size()) - 1))];
      set_cpu_level(levels[static_cast<size_t>(draw.range(0, static_cast<int64_t>(levels.size()) - 1))]);
      context.reserve(kernel.prepare(call));
      kernel.run(context, call);
      for (const Want& want : wants) {
        const auto found = call.outputs().find(want.name);
        ASSERT_NE(found, call.outputs().end()) << what << ": no " << want.name;
        const KernelTensor& got = found->second;
        ASSERT_EQ(static_cast<size_t>(got.size()), want.values.size()) << what << ": " << want.name;
        for (size_t i = 0; i < want.values.size(); ++i) {
          const double g = oracle::value_at(got, i);
          if (agrees(g, want.values[i], want.relative, want.absolute)) continue;
          ADD_FAILURE() << what << " (" << cpu_level_name(cpu_level()) << "): " << want.name << "[" << i << "] is "
                        << fmt::format("{:.9g}, expected {:.9g} within {:.3g}", g, want.values[i],
                                       want.absolute + want.relative * std::fabs(want.values[i]));
          break;
        }
      }
    } catch (const Error& e) {
      ADD_FAILURE() << what << ": " << e.what();
    }
  }
  set_cpu_level(top);
}

TEST(Oracle, EveryKernelHasOne) {
  const std::vector<Oracle> all = oracles();
  for (const Oracle& o : all) EXPECT_NE(find_kernel(o.kernel), nullptr) << o.kernel;
  for (const KernelInfo& kernel : kernel_registry()) {
    EXPECT_EQ(std::ranges::count(all, kernel.name, &Oracle::kernel), 1) << kernel.name;
  }
}

// Builds that run slowly (test_support.h) take a part.
TEST(Oracle, KernelsAgreeOnRandomCalls) { check_cases(0, std::getenv("GRAFT_TEST_THREADS") != nullptr ? 230 : 1000); }
TEST(SlowOracle, KernelsAgreeOnTenThousandRandomCalls) { check_cases(1000, 9000); }

}  // namespace
}  // namespace graft
