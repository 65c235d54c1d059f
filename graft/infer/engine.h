#pragma once

#include <memory>
#include <span>
#include <vector>

#include "graft/graph/plan.h"
#include "graft/models/adapter.h"
#include "graft/models/model.h"

namespace graft {

// Keys and values of one sequence, every layer, f32: keys in blocks [.][kv_heads][D][64] and values in rows, as attention reads them. Sized for a
// length; pages are taken only as it fills. Going back is cheap: set_length to less.
class KvCache {
 public:
  KvCache(const ModelConfig& config, int64_t max_length);
  int64_t length() const { return length_; }
  int64_t max_length() const { return max_length_; }
  void set_length(int64_t length) { length_ = length; }
  std::span<float* const> key_blocks() const { return keys_; }
  std::span<float* const> value_rows() const { return values_; }
  static size_t bytes_per_token(const ModelConfig& config);

 private:
  std::vector<Buffer> buffers_;
  std::vector<float*> keys_, values_;
  int64_t length_ = 0, max_length_;
};

struct EngineOptions {
  Compute compute = Compute::kF32;
  int64_t max_length = 0;      // longest sequence; 0: the model's maximum
  int64_t max_sequences = 1;   // fed at once
  int64_t chunk_tokens = 512;  // a longer prompt goes through in pieces: the bits do not change
};

// New tokens of one sequence: with a cache they continue it, without one they are the whole sequence.
struct Feed {
  KvCache* cache = nullptr;
  std::span<const int32_t> ids;
};

// A model (perhaps with an adapter) compiled for generation. The adapter can be exchanged: a base without one is another plan on the same weights
// and the same arena, made once.
class Engine {
 public:
  Engine(Context& context, const Model& model, const AdapterWeights* adapter, const EngineOptions& options);

  // Runs the new tokens of every sequence; logits of each one's last token, [feeds, vocab], valid until the next call.
  View<const float, 2> forward(std::span<const Feed> feeds);

  // Exchanges the adapter (null: the base). It is a change of pointers where the last few were of the same kind: none, or the same modules with
  // the same ranks and scalings.
  void set_adapter(const AdapterWeights* adapter);
  const Model& model() const { return *model_; }
  const EngineOptions& options() const { return options_; }

 private:
  // A plan per kind of adapter.
  struct Compiled {
    AdapterSites sites;
    DecoderGraph graph;
    Plan plan;
  };
  void use(const AdapterSites& sites);
  std::unique_ptr<Compiled> compile(const AdapterSites& sites);
  View<const float, 2> run(std::span<const Feed> feeds, bool cached, int64_t num_logits);

  Context* context_;
  const Model* model_;
  const AdapterWeights* adapter_;
  EngineOptions options_;
  std::vector<std::unique_ptr<Compiled>> plans_;  // the one in use last
  Buffer arena_;                                  // of all plans: one runs at a time
  RopeTable rope_;
  std::vector<int32_t> ids_, positions_, offsets_, label_rows_;
  std::vector<CachedSequence> cache_;
};

}  // namespace graft
