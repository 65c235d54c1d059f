// The maps with exp, log and their kin over the bit patterns of f32: one hash for each, the same on every variant and every CPU.

#include <array>
#include <bit>
#include <thread>

#include "graft/kernels/map.h"
#include "graft/kernels/test_support.h"

namespace graft {
namespace {

constexpr uint64_t kAllBits = uint64_t{1} << 32;

// Of the bits in order; NaN counts as one pattern.
class Hash {
 public:
  void add(std::span<const float> y) {  // a multiple of 16
    for (size_t i = 0; i < y.size(); i += 16) {
      for (size_t j = 0; j < 16; ++j) {
        const uint32_t bits = y[i + j] != y[i + j] ? 0x7FC00000u : std::bit_cast<uint32_t>(y[i + j]);
        lanes_[j] = (lanes_[j] ^ bits) * 0x9E3779B97F4A7C15u;
        lanes_[j] ^= lanes_[j] >> 29;
      }
    }
  }
  uint64_t value() const {
    uint64_t h = 0;
    for (const uint64_t lane : lanes_) h = (h ^ lane) * 0x100000001B3u;
    return h;
  }

 private:
  std::array<uint64_t, 16> lanes_{};
};

using Map = void (*)(Context&, std::span<const float>, std::span<float>);

// Every stride-th pattern; the last one fills up.
uint64_t hash_of(Context& context, Map map, uint64_t stride) {
  constexpr size_t kBatch = 1 << 18;
  std::vector<float> x(kBatch), y(kBatch);
  Hash hash;
  for (uint64_t bits = 0; bits < kAllBits;) {
    for (float& v : x) {
      v = std::bit_cast<float>(static_cast<uint32_t>(std::min(bits, kAllBits - 1)));
      bits += stride;
    }
    map(context, x, y);
    hash.add(y);
  }
  return hash.value();
}

struct Recorded {
  std::string_view name;
  Map map;
  uint64_t sampled;  // recorded on x86-64
};
constexpr uint64_t kHashStride = 9973;  // prime: exponents and signs are all met
constexpr Recorded kMaps[] = {
    {"map_exp", [](Context& c, std::span<const float> x, std::span<float> y) { map_exp(c, x, y); },
     9309131537565422377u},
    {"map_log", [](Context& c, std::span<const float> x, std::span<float> y) { map_log(c, x, y); },
     14659410970855549207u},
    {"map_sigmoid", [](Context& c, std::span<const float> x, std::span<float> y) { map_sigmoid(c, x, y); },
     9978193248121760948u},
    {"map_tanh", [](Context& c, std::span<const float> x, std::span<float> y) { map_tanh(c, x, y); },
     18216747884741295580u},
    {"map_softplus", [](Context& c, std::span<const float> x, std::span<float> y) { map_softplus(c, x, y); },
     4797857091826048742u},
    {"map_elu", [](Context& c, std::span<const float> x, std::span<float> y) { map_elu(c, x, 1, y); },
     3133303161490887735u},
    {"map_gelu, tanh",
     [](Context& c, std::span<const float> x, std::span<float> y) { map_gelu(c, x, GeluForm::kTanh, y); },
     13387771896790386792u},
    {"map_gelu, erf",
     [](Context& c, std::span<const float> x, std::span<float> y) { map_gelu(c, x, GeluForm::kErf, y); },
     14862242676060812171u},
    {"map_silu", [](Context& c, std::span<const float> x, std::span<float> y) { map_silu(c, x, y); },
     4687067942879372050u},
    {"map_mish", [](Context& c, std::span<const float> x, std::span<float> y) { map_mish(c, x, y); },
     18137773580620089340u},
};

void check_hashes(Context& context, uint64_t stride) {
  const CpuLevel top = cpu_level();
  for (const Recorded& r : kMaps) {
    uint64_t want = r.sampled;
    for (const CpuLevel level : cpu_levels_available()) {  // scalar is the first
      set_cpu_level(level);
      const uint64_t got = hash_of(context, r.map, stride);
      if (stride != kHashStride && level == CpuLevel::kScalar) want = got;
      EXPECT_EQ(got, want) << r.name << ", " << cpu_level_name(level);
    }
  }
  set_cpu_level(top);
}

TEST(MapHash, TranscendentalMapsGiveTheSameBitsEverywhere) {
  test::TestContext t(1);
  check_hashes(t.context, kHashStride);
}
TEST(SlowMapHash, TranscendentalMapsGiveTheSameBitsEverywhereOverAllInputs) {
  test::TestContext t(static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  check_hashes(t.context, 1);
}

}  // namespace
}  // namespace graft
