#include "graft/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/random.h"
#include "graft/kernels/math.h"

namespace graft {
namespace {

constexpr const char* kNoToken = "sampling: no token is left: all logits are NaN or banned";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Candidates = std::vector<std::pair<int32_t, double>>;

// Descending by value, then ascending by id.
bool better(const std::pair<int32_t, double>& a, const std::pair<int32_t, double>& b) {
  return a.second > b.second || (a.second == b.second && a.first < b.first);
}

// log of the sum of exp, over candidates in their order.
double log_sum(const Candidates& c) {
  double largest = -kInfinity;
  for (const auto& [id, z] : c) largest = std::max(largest, z);
  double sum = 0;
  for (const auto& [id, z] : c) sum += exp_f64(z - largest);
  return largest + log_f64(sum);
}

void keep_top_p(Candidates& c, double p) {
  std::sort(c.begin(), c.end(), better);
  const double all = log_sum(c);
  double mass = 0;
  size_t kept = 0;
  while (kept < c.size()) {
    mass += exp_f64(c[kept].second - all);
    ++kept;
    if (mass >= p) break;
  }
  c.resize(kept);
}

}  // namespace

void SamplingOptions::validate() const {
  std::vector<std::string> faults;
  const auto check = [&](bool ok, const char* name, double value, const char* expected) {
    if (!ok) faults.push_back(fmt::format("{} is {}, expected {}", name, value, expected));
  };
  check(repetition_penalty > 0 && std::isfinite(repetition_penalty), "repetition_penalty", repetition_penalty, "> 0");
  check(std::isfinite(frequency_penalty), "frequency_penalty", frequency_penalty, "a number");
  check(std::isfinite(presence_penalty), "presence_penalty", presence_penalty, "a number");
  check(temperature >= 0 && std::isfinite(temperature), "temperature", temperature, ">= 0");
  check(top_k >= 0, "top_k", static_cast<double>(top_k), ">= 0");
  check(top_p > 0, "top_p", top_p, "> 0 (1 or more is off)");
  check(min_p >= 0 && min_p <= 1, "min_p", min_p, "0 to 1");
  for (const auto& [id, bias] : logit_bias) {
    check(!std::isnan(bias) && bias != kInfinity, "logit_bias", bias, "a number, or -infinity to ban");
  }
  check(repeat_last_n >= 0, "repeat_last_n", static_cast<double>(repeat_last_n), ">= 0");
  GRAFT_CHECK(faults.empty(), "sampling: {}", fmt::join(faults, "; "));
}

int32_t argmax(std::span<const float> logits) {
  // Sixteen running maxima, which the compiler keeps in vectors: a vocabulary is long, and greedy decoding does nothing else with it.
  constexpr size_t kLanes = 16;
  float most[kLanes];
  std::fill(std::begin(most), std::end(most), -std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t j = 0; j < kLanes; ++j) most[j] = logits[i + j] > most[j] ? logits[i + j] : most[j];  // false for NaN
  }
  for (; i < logits.size(); ++i) most[0] = logits[i] > most[0] ? logits[i] : most[0];
  const float largest = *std::max_element(std::begin(most), std::end(most));
  const auto found = std::find(logits.begin(), logits.end(), largest);
  return found == logits.end() ? 0 : static_cast<int32_t>(found - logits.begin());
}

namespace {

// The largest logit takes everything; no list of all tokens is made.
Distribution greedy(std::span<const float> z) {
  const int32_t id = argmax(z);
  GRAFT_CHECK(!z.empty() && z[static_cast<size_t>(id)] > -std::numeric_limits<float>::infinity(),
              kNoToken);  // false for NaN too
  return {{{id, 0.0}}};
}

}  // namespace

Distribution process_logits(std::span<const float> logits, std::span<const int32_t> history, const SamplingOptions& o,
                            std::span<const int32_t> banned) {
  const bool penalties = o.repetition_penalty != 1.0 || o.frequency_penalty != 0 || o.presence_penalty != 0;
  if (o.temperature == 0 && o.logit_bias.empty() && banned.empty() && !penalties) return greedy(logits);
  std::vector<float> z(logits.begin(), logits.end());
  const auto in_range = [&](int32_t id) { return id >= 0 && static_cast<size_t>(id) < z.size(); };
  for (const auto& [id, bias] : o.logit_bias) {
    if (in_range(id)) z[static_cast<size_t>(id)] += static_cast<float>(bias);
  }
  for (const int32_t id : banned) {
    if (in_range(id)) z[static_cast<size_t>(id)] = -std::numeric_limits<float>::infinity();
  }
  if (o.repeat_last_n > 0 && static_cast<int64_t>(history.size()) > o.repeat_last_n) {
    history = history.last(static_cast<size_t>(o.repeat_last_n));
  }
  if (penalties) {
    std::unordered_map<int32_t, int64_t> counts;
    for (const int32_t id : history) {
      if (in_range(id)) ++counts[id];
    }
    const auto penalty = static_cast<float>(o.repetition_penalty);
    for (const auto& [id, count] : counts) {
      float& value = z[static_cast<size_t>(id)];
      value = value > 0 ? value / penalty : value * penalty;
      value -= static_cast<float>(o.frequency_penalty * static_cast<double>(count) + o.presence_penalty);
    }
  }
  if (o.temperature == 0) return greedy(z);
  Distribution d;
  Candidates& c = d.candidates;
  for (size_t i = 0; i < z.size(); ++i) {
    if (!std::isnan(z[i]) && z[i] != -std::numeric_limits<float>::infinity()) {
      c.emplace_back(static_cast<int32_t>(i), z[i]);
    }
  }
  GRAFT_CHECK(!c.empty(), kNoToken);
  // An infinite logit takes everything; several share it.
  if (std::any_of(c.begin(), c.end(), [](const auto& candidate) { return candidate.second == kInfinity; })) {
    std::erase_if(c, [](const auto& candidate) { return candidate.second != kInfinity; });
    for (auto& [id, value] : c) value = 0;
  }
  const auto temperature = static_cast<float>(o.temperature);
  // A temperature near 0 would overflow f32.
  const bool fits =
      temperature >= std::numeric_limits<float>::min() && std::all_of(c.begin(), c.end(), [&](const auto& candidate) {
        return std::isfinite(static_cast<float>(candidate.second) / temperature);
      });
  for (auto& [id, value] : c) value = fits ? static_cast<float>(value) / temperature : value / o.temperature;
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < c.size()) {
    std::nth_element(c.begin(), c.begin() + o.top_k - 1, c.end(), better);
    c.resize(static_cast<size_t>(o.top_k));
  }
  if (o.top_p < 1) keep_top_p(c, o.top_p);
  if (o.min_p > 0) {
    double largest = -kInfinity;
    for (const auto& [id, value] : c) largest = std::max(largest, value);
    const double limit = largest + log_f64(o.min_p);
    std::erase_if(c, [&](const auto& candidate) { return candidate.second < limit; });
  }
  std::sort(c.begin(), c.end());
  const double all = log_sum(c);
  for (auto& [id, value] : c) value -= all;
  return d;
}

Sampler::Sampler(uint64_t seed, uint64_t line, SamplerRng rng)
    : seed_(seed), line_(line), lcg_(seed + line), rng_(rng) {}

double Sampler::uniform() {
  if (rng_ == SamplerRng::kLcg64) {
    lcg_ = lcg_ * 6364136223846793005u + 1u;
    return static_cast<double>(lcg_ >> 32) * 0x1p-32;
  }
  return RandomStream(seed_, stream_hash("sample") + line_).uniform53(draws_++);
}

int32_t Sampler::draw(const Distribution& distribution) {
  if (distribution.candidates.size() == 1) return distribution.candidates[0].first;
  const double u = uniform();
  double mass = 0;
  for (const auto& [id, logprob] : distribution.candidates) {
    mass += exp_f64(logprob);
    if (u < mass) return id;
  }
  return distribution.candidates.back().first;
}

}  // namespace graft
