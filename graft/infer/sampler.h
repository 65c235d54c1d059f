#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace graft {

// kLcg64: state <- state * 6364136223846793005 + 1, u = high 32 bits / 2^32, started at seed + line: the generator of a public reference.
enum class SamplerRng { kPhilox, kLcg64 };

// How a token is chosen from logits. Neutral values skip a step.
struct SamplingOptions {
  std::map<int32_t, double> logit_bias;  // added first; -infinity bans
  double repetition_penalty = 1.0;  // z > 0 -> z / penalty, z <= 0 -> z * penalty, once per distinct id of the history
  double frequency_penalty = 0.0;   // z - f * count
  double presence_penalty = 0.0;    // z - g * [count > 0]
  int64_t repeat_last_n = 0;        // how much of the history the penalties see; 0: all
  double temperature = 0.0;         // 0: greedy, the lowest id on ties
  int64_t top_k = 0;                // the k largest, ties by lower id; 0: off
  double top_p = 1.0;               // the smallest descending prefix with mass >= p
  double min_p = 0.0;               // drop below min_p * largest probability
  SamplerRng rng = SamplerRng::kPhilox;
  void validate() const;  // one Error names every fault
};

// What remains of a row of logits: candidates with their log-probabilities, renormalised (f64 sums, the same bits on every CPU).
struct Distribution {
  std::vector<std::pair<int32_t, double>> candidates;  // id ascending; log-probability
};

// Applies every step in this order: bias, repetition, frequency and presence, temperature, top-k, top-p, min-p, renormalise. `history` is
// prompt + generated. Steps up to the temperature are rounded to f32 one by one, as PyTorch does on f32 logits, so that candidates and ties are the
// same there; masses and normalisation are f64. `banned` ids are removed first (end tokens before min-tokens). Greedy leaves one candidate.
Distribution process_logits(std::span<const float> logits, std::span<const int32_t> history,
                            const SamplingOptions& options, std::span<const int32_t> banned = {});

// The largest logit's id; the lowest on ties. NaN is never chosen unless all are NaN (then 0).
int32_t argmax(std::span<const float> logits);

// Draws of one answer: inverse CDF over ids ascending with counter-based numbers named by (seed, line, draw).
class Sampler {
 public:
  Sampler(uint64_t seed, uint64_t line, SamplerRng rng);
  int32_t draw(const Distribution& distribution);

 private:
  double uniform();
  uint64_t seed_, line_, draws_ = 0, lcg_;
  SamplerRng rng_;
};

}  // namespace graft
