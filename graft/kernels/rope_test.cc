#include "graft/kernels/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "graft/base/cpu.h"
#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/kernels/attention_test_data.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

using test::random_values;
using test::Runner;

// The f32 tensors of a safetensors file by name (a trusted fixture; the format layer stands above this one).
class Tensors {
 public:
  explicit Tensors(const std::string& path) : bytes_(read_file(path)) {
    uint64_t n = 0;
    std::memcpy(&n, bytes_.data(), 8);
    header_ = Json::parse(bytes_.begin() + 8, bytes_.begin() + 8 + static_cast<int64_t>(n));
    begin_ = 8 + n;
  }
  std::vector<float> operator[](const std::string& name) const {
    const auto& offsets = header_.at(name).at("data_offsets");
    const size_t from = offsets.at(0).get<size_t>(), to = offsets.at(1).get<size_t>();
    std::vector<float> values((to - from) / 4);
    std::memcpy(values.data(), bytes_.data() + begin_ + from, to - from);
    return values;
  }

 private:
  std::string bytes_;
  Json header_;
  size_t begin_ = 0;
};

RopeParameters parameters_of(const Json& c) {
  using Type = RopeParameters::Type;
  RopeParameters p;
  const Json& scaling = c.at("rope_scaling");
  const std::string type = scaling.at("rope_type");
  p.type = type == "linear"    ? Type::kLinear
           : type == "dynamic" ? Type::kDynamic
           : type == "llama3"  ? Type::kLlama3
           : type == "yarn"    ? Type::kYarn
                               : Type::kDefault;
  p.theta = c.at("rope_theta");
  p.head_dim = c.at("head_dim");
  p.max_position_embeddings = c.at("max_position_embeddings");
  p.factor = scaling.value("factor", 1.0);
  p.low_freq_factor = scaling.value("low_freq_factor", 1.0);
  p.high_freq_factor = scaling.value("high_freq_factor", 4.0);
  p.beta_fast = scaling.value("beta_fast", 32.0);
  p.beta_slow = scaling.value("beta_slow", 1.0);
  p.mscale = scaling.value("mscale", 0.0);
  p.mscale_all_dim = scaling.value("mscale_all_dim", 0.0);
  p.original_max_position_embeddings = scaling.value("original_max_position_embeddings", int64_t{0});
  return p;
}

TEST(Rope, TablesMatchTransformers) {
  GRAFT_NEEDS_FIXTURES();
  const std::string folder = test::fixtures() + "/golden/rope/";
  const Tensors golden(folder + "rope.safetensors");
  const Json cases = read_json(folder + "rope.json").at("cases");
  int tested = 0;
  for (const auto& [name, c] : cases.items()) {
    if (c.at("rope_scaling").at("rope_type") == "longrope") continue;
    const int64_t length = c.at("length"), d = c.at("head_dim");
    const RopeTable table = make_rope_table(parameters_of(c), length, length);
    EXPECT_NEAR(table.attention_scaling, c.at("attention_scaling").get<double>(), 1e-12) << name;
    const std::vector<float> cos = golden[name + ".cos"], sin = golden[name + ".sin"],
                             inv_freq = golden[name + ".inv_freq"];
    double worst = 0;
    for (int64_t p = 0; p < length; ++p) {
      for (int64_t i = 0; i < d; ++i) {  // the golden tables hold both halves
        const size_t ours = static_cast<size_t>(p * d / 2 + i % (d / 2)), theirs = static_cast<size_t>(p * d + i);
        worst = std::max({worst, std::abs(static_cast<double>(table.cos[ours] - cos[theirs])),
                          std::abs(static_cast<double>(table.sin[ours] - sin[theirs]))});
      }
    }
    EXPECT_LE(worst, 2e-6) << name;  // the bound of the fixtures' README
    for (size_t i = 0; i < inv_freq.size(); ++i) EXPECT_NEAR(table.inv_freq[i] / inv_freq[i], 1, 2e-7) << name;
    ++tested;
  }
  EXPECT_GE(tested, 20);
}

TEST(Rope, TableIsSineOfTheF32Angle) {
  RopeParameters p;
  p.theta = 1e6;
  p.head_dim = 64;
  const RopeTable table = make_rope_table(p, 5000);
  for (size_t position = 0; position < 5000; position += 7) {
    for (size_t i = 0; i < 32; ++i) {
      const float angle = static_cast<float>(position) * table.inv_freq[i];
      EXPECT_NEAR(table.sin[position * 32 + i], std::sin(static_cast<double>(angle)),
                  6e-8);  // half a unit in the last place of 1
      EXPECT_NEAR(table.cos[position * 32 + i], std::cos(static_cast<double>(angle)), 6e-8);
    }
  }
}

TEST(Rope, NtkStretchesTheLongestWave) {
  RopeParameters p;
  p.head_dim = 16;
  p.type = RopeParameters::Type::kNtk;
  p.factor = 4;
  const RopeTable plain = make_rope_table({.theta = 10000, .head_dim = 16}, 2), ntk = make_rope_table(p, 2);
  EXPECT_FLOAT_EQ(ntk.inv_freq.front(), 1);
  EXPECT_FLOAT_EQ(ntk.inv_freq.back(), plain.inv_freq.back() / 4);
}

struct RopeCase {
  int64_t tokens, heads, head_dim, rotary;
};

template <typename T>
std::vector<T> rotate(Runner& runner, const RopeCase& c, const std::vector<T>& x, const RopeTable& table,
                      bool interleaved, bool inverse, bool in_place) {
  std::vector<int32_t> positions(static_cast<size_t>(c.tokens));
  for (size_t i = 0; i < positions.size(); ++i) positions[i] = static_cast<int32_t>(i * 7 % 50);
  std::vector<T> y = in_place ? x : std::vector<T>(x.size(), T(77));
  rope<T>(runner.context, View<const T, 3>(in_place ? y.data() : x.data(), c.tokens, c.heads, c.head_dim), positions,
          table, interleaved, inverse, View<T, 3>(y.data(), c.tokens, c.heads, c.head_dim));
  return y;
}

TEST(Rope, SameBitsInEveryVariant) {
  const CpuLevel top = cpu_level();
  Runner one(1), seven(7);
  for (const RopeCase& c : {RopeCase{1, 1, 2, 2}, RopeCase{5, 3, 16, 16}, RopeCase{33, 2, 24, 24},
                            RopeCase{600, 14, 64, 64}, RopeCase{9, 5, 80, 32}, RopeCase{3, 2, 128, 128}}) {
    const RopeTable table = make_rope_table({.theta = 10000, .head_dim = c.rotary}, 50);
    const std::vector<float> x = random_values<float>("x", 3, c.tokens * c.heads * c.head_dim);
    for (int options = 0; options < 4; ++options) {
      const bool interleaved = options % 2 != 0, inverse = options / 2 != 0;
      set_cpu_level(CpuLevel::kScalar);
      const std::vector<float> want = rotate(one, c, x, table, interleaved, inverse, false);
      set_cpu_level(top);
      for (CpuLevel level : cpu_levels_available()) {
        set_cpu_level(level);
        for (const bool in_place : {false, true}) {
          EXPECT_EQ(want, rotate(seven, c, x, table, interleaved, inverse, in_place))
              << cpu_level_name(level) << " " << options;
        }
        set_cpu_level(top);
      }
    }
  }
}

TEST(Rope, RotatesPairsAndBack) {
  Runner runner(2);
  const RopeCase c{20, 3, 10, 6};
  const RopeTable table = make_rope_table({.theta = 100, .head_dim = 6}, 50);
  const std::vector<double> x = random_values<double>("x", 5, c.tokens * c.heads * c.head_dim);
  for (const bool interleaved : {false, true}) {
    const std::vector<double> y = rotate(runner, c, x, table, interleaved, false, false);
    for (int64_t t = 0; t < c.tokens; ++t) {
      for (int64_t i = 0; i < 3; ++i) {
        const size_t at = static_cast<size_t>((t * c.heads + 1) * c.head_dim),
                     a = at + static_cast<size_t>(interleaved ? 2 * i : i),
                     b = at + static_cast<size_t>(interleaved ? 2 * i + 1 : i + 3),
                     entry = static_cast<size_t>(t * 7 % 50 * 3 + i);
        const double co = table.cos[entry], si = table.sin[entry];
        EXPECT_NEAR(y[a], x[a] * co - x[b] * si, 1e-15);
        EXPECT_NEAR(y[b], x[b] * co + x[a] * si, 1e-15);
      }
      for (int64_t e = 6; e < 10; ++e) {
        EXPECT_EQ(y[static_cast<size_t>((t * c.heads + 1) * 10 + e)],
                  x[static_cast<size_t>((t * c.heads + 1) * 10 + e)]);
      }
    }
    const std::vector<double> back = rotate(runner, c, y, table, interleaved, true, true);
    for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(back[i], x[i], 3e-7);  // cos^2 + sin^2 of f32 tables
  }
}

}  // namespace
}  // namespace graft
