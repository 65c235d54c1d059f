#include "graft/infer/engine.h"

#include <algorithm>

#include "graft/base/error.h"

namespace graft {
namespace {

constexpr int64_t kBlock = 64;  // keys of a cache block (kernels/attention.h)
constexpr size_t kMaxPlans = 4;

bool same_sites(const AdapterSites& a, const AdapterSites& b) {
  return a.saved_modules == b.saved_modules && std::equal(a.modules.begin(), a.modules.end(), b.modules.begin(),
                                                          b.modules.end(), [](const auto& x, const auto& y) {
                                                            return x.path == y.path && x.rank == y.rank &&
                                                                   x.scaling == y.scaling && x.dora == y.dora;
                                                          });
}

}  // namespace

KvCache::KvCache(const ModelConfig& config, int64_t max_length) : max_length_(max_length) {
  const int64_t blocks = (max_length + kBlock - 1) / kBlock, width = config.num_key_value_heads * config.head_dim;
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    buffers_.emplace_back(static_cast<size_t>(blocks * kBlock * width) * sizeof(float));
    keys_.push_back(buffers_.back().as<float>().data());
    buffers_.emplace_back(static_cast<size_t>(blocks * kBlock * width) * sizeof(float));
    values_.push_back(buffers_.back().as<float>().data());
  }
}

size_t KvCache::bytes_per_token(const ModelConfig& config) {
  return static_cast<size_t>(2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim) *
         sizeof(float);
}

Engine::Engine(Context& context, const Model& model, const AdapterWeights* adapter, const EngineOptions& options)
    : context_(&context), model_(&model), adapter_(adapter), options_(options) {
  if (options_.max_length <= 0) options_.max_length = model.config().max_position_embeddings;
  rope_ = model.rope_table(options_.max_length);
  set_adapter(adapter);
}

std::unique_ptr<Engine::Compiled> Engine::compile(const AdapterSites& sites) {
  auto compiled = std::make_unique<Compiled>();
  compiled->sites = sites;
  DecoderOptions d;
  d.compute = options_.compute;
  d.output = DecoderOutput::kLastLogits;
  d.adapters = {sites};
  compiled->graph = model_->family().build(model_->config(), d);
  PlanOptions p;
  p.capacity.tokens = std::max(options_.chunk_tokens, options_.max_sequences);
  p.capacity.sequences = options_.max_sequences;
  p.capacity.labels = options_.max_sequences;
  p.capacity.max_length = options_.max_length;
  p.num_threads = context_->num_threads();
  compiled->plan = Plan::compile(compiled->graph.graph, p);
  model_->bind(compiled->plan, compiled->graph);
  return compiled;
}

// Brings the plan for adapters of this kind to the back.
void Engine::use(const AdapterSites& sites) {
  const auto found =
      std::find_if(plans_.begin(), plans_.end(), [&](const auto& c) { return same_sites(c->sites, sites); });
  if (found != plans_.end()) {
    std::rotate(found, found + 1, plans_.end());
    return;
  }
  plans_.push_back(compile(sites));
  if (plans_.size() > kMaxPlans) plans_.erase(plans_.begin());
  Plan& plan = plans_.back()->plan;
  if (plan.arena_bytes() > arena_.bytes()) {
    arena_ = Buffer(plan.arena_bytes());
    for (auto& other : plans_) other->plan.prepare(*context_, arena_.data());
  } else {
    plan.prepare(*context_, arena_.data());
  }
}

void Engine::set_adapter(const AdapterWeights* adapter) {
  static const AdapterSites kNone;
  adapter_ = adapter;
  use(adapter != nullptr ? adapter->sites : kNone);
  if (adapter != nullptr) adapter->bind(plans_.back()->plan, plans_.back()->graph);
}

View<const float, 2> Engine::run(std::span<const Feed> feeds, bool cached, int64_t num_logits) {
  ids_.clear(), positions_.clear(), cache_.clear();
  offsets_.assign(1, 0);
  label_rows_.clear();
  RunInputs inputs;
  for (const Feed& feed : feeds) {
    const int64_t begin = cached ? feed.cache->length() : 0, count = static_cast<int64_t>(feed.ids.size());
    if (cached) {
      cache_.push_back(
          {static_cast<int64_t>(ids_.size()), count, begin, feed.cache->key_blocks(), feed.cache->value_rows()});
    }
    for (int64_t i = 0; i < count; ++i) {
      ids_.push_back(feed.ids[static_cast<size_t>(i)]);
      positions_.push_back(static_cast<int32_t>(begin + i));
    }
    offsets_.push_back(static_cast<int32_t>(ids_.size()));
    if (num_logits > 0) label_rows_.push_back(static_cast<int32_t>(ids_.size()) - 1);
    inputs.sizes.max_length = std::max(inputs.sizes.max_length, begin + count);
  }
  Plan& plan = plans_.back()->plan;
  const DecoderGraph& graph = plans_.back()->graph;
  inputs.sizes.tokens = static_cast<int64_t>(ids_.size());
  inputs.sizes.sequences = static_cast<int64_t>(feeds.size());
  inputs.sizes.labels = static_cast<int64_t>(label_rows_.size());
  inputs.cache = cache_;
  inputs.rope = &rope_;
  plan.bind(graph.ids, ids_.data());
  plan.bind(graph.positions, positions_.data());
  plan.bind(graph.sequence_offsets, offsets_.data());
  plan.bind(graph.label_rows, label_rows_.data());
  plan.run(*context_, inputs);
  if (cached) {
    for (const Feed& feed : feeds) feed.cache->set_length(feed.cache->length() + static_cast<int64_t>(feed.ids.size()));
  }
  return plan.read<float>(graph.logits, inputs.sizes);
}

View<const float, 2> Engine::forward(std::span<const Feed> feeds) {
  GRAFT_CHECK(!feeds.empty() && static_cast<int64_t>(feeds.size()) <= options_.max_sequences,
              "engine: {} sequences, expected 1 to {}", feeds.size(), options_.max_sequences);
  const bool cached = feeds.front().cache != nullptr;
  int64_t tokens = 0;
  for (const Feed& feed : feeds) {
    GRAFT_CHECK(!feed.ids.empty(), "engine: a sequence without new tokens");
    GRAFT_CHECK((feed.cache != nullptr) == cached, "engine: sequences with and without a cache in one call");
    const int64_t end = (cached ? feed.cache->length() : 0) + static_cast<int64_t>(feed.ids.size());
    GRAFT_CHECK_HINT(end <= options_.max_length, "shorten the prompt, or take a model with a longer context",
                     "the sequence has {} tokens, the limit is {}", end, options_.max_length);
    GRAFT_CHECK(!cached || end <= feed.cache->max_length(),
                "the key-value cache is full: {} tokens and {} new ones, it holds {}", feed.cache->length(),
                feed.ids.size(), feed.cache->max_length());
    tokens += static_cast<int64_t>(feed.ids.size());
  }
  const int64_t capacity = plans_.back()->plan.capacity().tokens;
  if (tokens <= capacity) return run(feeds, cached, 1);
  if (!cached) {  // without a cache everything runs at once: a plan for it
    options_.chunk_tokens = tokens;
    plans_.clear();
    set_adapter(adapter_);
    return run(feeds, cached, 1);
  }
  // All but the last tokens of each sequence in pieces that fit, then the last together.
  std::vector<Feed> last;
  for (const Feed& feed : feeds) {
    std::span<const int32_t> ids = feed.ids;
    while (ids.size() > 1) {
      const size_t count = std::min(ids.size() - 1, static_cast<size_t>(capacity));
      const Feed piece{feed.cache, ids.first(count)};
      run(std::span<const Feed>(&piece, 1), true, 0);
      ids = ids.subspan(count);
    }
    last.push_back({feed.cache, ids});
  }
  return run(last, true, 1);
}

}  // namespace graft
