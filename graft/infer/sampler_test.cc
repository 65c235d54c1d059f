#include "graft/infer/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "graft/base/error.h"
#include "graft/base/random.h"

namespace graft {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

// The steps as the specification words them, each on a plain vector of all tokens; -infinity is "removed".
std::vector<double> plain(std::vector<double> z, const std::vector<int32_t>& history, const SamplingOptions& o,
                          const std::vector<int32_t>& banned) {
  const double removed = -std::numeric_limits<double>::infinity();
  for (double& v : z) v = std::isnan(v) ? removed : v;
  for (const auto& [id, bias] : o.logit_bias) z[static_cast<size_t>(id)] += bias;
  for (const int32_t id : banned) z[static_cast<size_t>(id)] = removed;
  const size_t first = o.repeat_last_n > 0 && history.size() > static_cast<size_t>(o.repeat_last_n)
                           ? history.size() - static_cast<size_t>(o.repeat_last_n)
                           : 0;
  for (size_t id = 0; id < z.size(); ++id) {
    const auto count =
        std::count(history.begin() + static_cast<ptrdiff_t>(first), history.end(), static_cast<int32_t>(id));
    if (count == 0) continue;
    z[id] = z[id] > 0 ? z[id] / o.repetition_penalty : z[id] * o.repetition_penalty;
    z[id] -= o.frequency_penalty * static_cast<double>(count) + o.presence_penalty;
  }
  std::vector<size_t> order(z.size());
  for (size_t i = 0; i < z.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return z[a] > z[b]; });
  if (o.temperature == 0) {
    for (size_t i = 0; i < z.size(); ++i) z[i] = i == order[0] ? 0 : removed;
    return z;
  }
  for (double& v : z) v /= o.temperature;
  const auto probabilities = [&] {
    std::vector<double> p(z.size());
    double sum = 0;
    for (size_t i = 0; i < z.size(); ++i) sum += p[i] = std::exp(z[i] - z[order[0]]);
    for (double& v : p) v /= sum;
    return p;
  };
  if (o.top_k > 0) {
    for (size_t i = static_cast<size_t>(o.top_k); i < order.size(); ++i) z[order[i]] = removed;
  }
  if (o.top_p < 1) {
    const std::vector<double> p = probabilities();
    double mass = 0;
    for (const size_t id : order) {
      if (mass >= o.top_p) z[id] = removed;
      mass += p[id];
    }
  }
  if (o.min_p > 0) {
    const std::vector<double> p = probabilities();
    for (size_t i = 0; i < z.size(); ++i) {
      if (p[i] < o.min_p * p[order[0]]) z[i] = removed;
    }
  }
  std::vector<double> p = probabilities();
  for (double& v : p) v = std::log(v);
  return p;
}

void check(const std::string& what, const std::vector<float>& logits, const std::vector<int32_t>& history,
           const SamplingOptions& o, const std::vector<int32_t>& banned = {}) {
  SCOPED_TRACE(what);
  const std::vector<double> want = plain({logits.begin(), logits.end()}, history, o, banned);
  const Distribution got = process_logits(logits, history, o, banned);
  size_t kept = 0;
  for (const double v : want) kept += std::isinf(v) ? 0 : 1;
  ASSERT_EQ(got.candidates.size(), kept);
  for (size_t i = 0; i < got.candidates.size(); ++i) {
    const auto& [id, logprob] = got.candidates[i];
    ASSERT_TRUE(i == 0 || got.candidates[i - 1].first < id);
    EXPECT_NEAR(logprob, want[static_cast<size_t>(id)], 4e-6)
        << id;  // bias, penalties and temperature are each rounded to f32, at values up to 32
  }
}

std::vector<float> random_logits(size_t n, uint64_t seed) {
  const RandomStream stream(seed, 4);
  std::vector<float> z(n);
  for (size_t i = 0; i < n; ++i) z[i] = stream.uniform(i) * 10 - 5;
  return z;
}

SamplingOptions at_temperature(double temperature = 1) {
  SamplingOptions o;
  o.temperature = temperature;
  return o;
}

TEST(Sampler, EachStepAlone) {
  const std::vector<float> z = random_logits(50, 1);
  const std::vector<int32_t> history = {3, 3, 7, 20, 3, 49, 7};
  SamplingOptions o = at_temperature();
  check("nothing", z, history, o);
  o.logit_bias = {{4, 2.5}, {9, -std::numeric_limits<double>::infinity()}};
  check("bias", z, history, o);
  check("banned", z, history, at_temperature(), {1, 2, 49});
  o = at_temperature(), o.repetition_penalty = 1.3;
  check("repetition", z, history, o);
  o = at_temperature(), o.frequency_penalty = 0.4;
  check("frequency", z, history, o);
  o = at_temperature(), o.presence_penalty = -0.7;
  check("presence", z, history, o);
  o.repetition_penalty = 0.8, o.repeat_last_n = 3;
  check("last 3", z, history, o);
  for (const double t : {0.0, 0.3, 2.0}) check("temperature", z, history, at_temperature(t));
  for (const int64_t k : {1, 2, 10, 49, 50, 51, 1000}) {
    o = at_temperature(), o.top_k = k;
    check("top-k", z, history, o);
  }
  for (const double p : {1e-9, 0.2, 0.5, 0.9, 0.999999, 1.0, 2.0}) {
    o = at_temperature(), o.top_p = p;
    check("top-p", z, history, o);
  }
  for (const double p : {0.01, 0.3, 1.0}) {
    o = at_temperature(), o.min_p = p;
    check("min-p", z, history, o);
  }
}

TEST(Sampler, AllStepsInTheirOrder) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    const RandomStream stream(seed, 2);
    const std::vector<float> z = random_logits(60, seed);
    std::vector<int32_t> history;
    for (uint64_t i = 0; i < 30; ++i) history.push_back(static_cast<int32_t>(stream.word(i) % 60));
    SamplingOptions o;
    o.logit_bias = {{5, 1.5}, {6, -2.0}};
    o.repetition_penalty = 1 + static_cast<double>(stream.uniform(100)),
    o.frequency_penalty = 0.3 * static_cast<double>(stream.uniform(101));
    o.presence_penalty = 0.5, o.repeat_last_n = 20, o.temperature = 0.5 + static_cast<double>(stream.uniform(102));
    o.top_k = 20, o.top_p = 0.8, o.min_p = 0.05;
    check(fmt::format("seed {}", seed), z, history, o, {1, 2});
  }
}

TEST(Sampler, TiesGoToTheLowerId) {
  const std::vector<float> z = {1, 3, 3, 2, 3, 2};
  EXPECT_EQ(argmax(z), 1);
  EXPECT_EQ(process_logits(z, {}, at_temperature(0)).candidates[0].first, 1);
  SamplingOptions o = at_temperature();
  o.top_k = 2;
  const Distribution d = process_logits(z, {}, o);
  ASSERT_EQ(d.candidates.size(), 2u);
  EXPECT_EQ(d.candidates[0].first, 1);
  EXPECT_EQ(d.candidates[1].first, 2);
  o = at_temperature(), o.top_p = 0.5;
  EXPECT_EQ(process_logits(z, {}, o).candidates.back().first, 2);
}

TEST(Sampler, NanAndInfinity) {
  EXPECT_EQ(argmax(std::vector<float>{kNan, -1, 2, kNan}), 2);
  EXPECT_EQ(argmax(std::vector<float>{kNan, kNan}), 0);
  EXPECT_EQ(process_logits(std::vector<float>{kNan, -1, 2, kNan}, {}, at_temperature(0)).candidates[0].first, 2);
  check("NaN and -infinity are never chosen", {kNan, -1, 2, -kInf, 1}, {}, at_temperature());
  const Distribution d = process_logits(std::vector<float>{0, kInf, 2, kInf}, {}, at_temperature(0.7));
  ASSERT_EQ(d.candidates.size(), 2u);
  EXPECT_EQ(d.candidates[0].first, 1);
  EXPECT_NEAR(d.candidates[0].second, std::log(0.5), 1e-15);
  EXPECT_THROW(process_logits(std::vector<float>{kNan, kNan}, {}, at_temperature(0)), Error);
  EXPECT_THROW(process_logits(std::vector<float>{1, 2}, {}, at_temperature(), std::vector<int32_t>{0, 1}), Error);
}

TEST(Sampler, IdsOutsideTheVocabularyAreIgnored) {
  SamplingOptions o = at_temperature();
  o.logit_bias = {{-1, 5.0}, {100, 5.0}};
  o.repetition_penalty = 2;
  const std::vector<float> z = {1, 2, 3};
  const std::vector<int32_t> history = {-5, 3, 2}, banned = {7, -1};
  EXPECT_EQ(process_logits(z, history, o, banned).candidates.size(), 3u);
}

TEST(Sampler, Lcg64DrawsAreThePublicGenerators) {
  const Distribution d = process_logits(random_logits(20, 5), {}, at_temperature());
  Sampler sampler(40, 2, SamplerRng::kLcg64);
  uint64_t state = 42;
  for (int i = 0; i < 200; ++i) {
    state = state * 6364136223846793005u + 1;
    const double u = static_cast<double>(state >> 32) / 4294967296.0;
    double mass = 0;
    int32_t want = d.candidates.back().first;
    for (const auto& [id, logprob] : d.candidates) {
      mass += std::exp(logprob);
      if (u < mass) {
        want = id;
        break;
      }
    }
    ASSERT_EQ(sampler.draw(d), want) << i;
  }
}

TEST(Sampler, PhiloxDrawsFollowTheDistribution) {
  const Distribution d = process_logits(std::vector<float>{0, 1, 2, 0.5f}, {}, at_temperature());
  std::vector<int> counts(4);
  Sampler sampler(1, 0, SamplerRng::kPhilox), again(1, 0, SamplerRng::kPhilox), line(1, 1, SamplerRng::kPhilox),
      seed(2, 0, SamplerRng::kPhilox);
  int same_line = 0, same_seed = 0;
  for (int i = 0; i < 20000; ++i) {
    const int32_t id = sampler.draw(d);
    ++counts[static_cast<size_t>(id)];
    ASSERT_EQ(again.draw(d), id);
    same_line += line.draw(d) == id, same_seed += seed.draw(d) == id;
  }
  double agree = 0;
  for (const auto& [id, logprob] : d.candidates) {
    const double p = std::exp(logprob);
    EXPECT_NEAR(counts[static_cast<size_t>(id)] / 20000.0, p, 5 * std::sqrt(p * (1 - p) / 20000))
        << id;  // five standard deviations
    agree += p * p;
  }
  // Other lines and seeds are independent: they agree as often as chance has it.
  EXPECT_NEAR(same_line / 20000.0, agree, 0.02);
  EXPECT_NEAR(same_seed / 20000.0, agree, 0.02);
}

TEST(Sampler, FaultsAreNamedTogether) {
  SamplingOptions o;
  o.temperature = -1, o.top_p = 0, o.min_p = 2, o.repetition_penalty = 0, o.top_k = -1,
  o.logit_bias = {{1, std::nan("")}};
  try {
    o.validate();
    FAIL() << "no error";
  } catch (const Error& e) {
    for (const char* word : {"temperature", "top_p", "min_p", "repetition_penalty", "top_k", "logit_bias"}) {
      EXPECT_NE(std::string(e.what()).find(word), std::string::npos) << word;
    }
  }
}

}  // namespace
}  // namespace graft
