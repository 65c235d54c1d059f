#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "graft/base/error.h"
#include "graft/models/decoder.h"

namespace graft {

inline constexpr char kEmbedTokens[] = "model.embed_tokens";

inline std::string layer_name(int64_t layer) { return fmt::format("model.layers.{}", layer); }

// Creates parameters as the graph asks for them and notes them by name.
class DecoderBuilder {
 public:
  explicit DecoderBuilder(const DecoderOptions& options) : options_(options) {
    out_.graph = Graph(options.dtype);
    out_.adapter_parameters.resize(options.adapters.size());
    Graph& g = out_.graph;
    out_.ids = g.bound("ids", {Rows::kTokens, 0, 1, 0}, DType::kI32);
    out_.positions = g.bound("positions", {Rows::kTokens, 0, 1, 0}, DType::kI32);
    out_.sequence_offsets = g.bound("sequence_offsets", {Rows::kSequences, 0, 1, 1}, DType::kI32);
    if (options.adapter_rows) {
      out_.adapter_offsets =
          g.bound("adapter_offsets", fixed_shape(static_cast<int64_t>(options.adapters.size()) + 1, 1), DType::kI32);
    }
    for (const AdapterSites& sites : options.adapters) {
      auto& by_path = sites_.emplace_back();
      for (const AdapterSites::Module& module : sites.modules) by_path[module.path] = &module;
    }
    context_.compute = options.compute;
    context_.adapter_offsets = out_.adapter_offsets;
    if (options.dropout > 0) {
      out_.row_keys = g.bound("row_keys", {Rows::kTokens, 0, 1, 0}, DType::kU64);
      context_.dropout = {options.dropout, options.dropout_at_rank, options.seed, out_.row_keys};
    }
  }

  Graph& g() { return out_.graph; }
  const LinearContext& context() const { return context_; }
  const DecoderOptions& options() const { return options_; }
  DecoderGraph& out() { return out_; }

  // A vector of the base: a norm's weight or a bias.
  Value vector(const std::string& name, int64_t size) {
    Value& value = out_.parameters[name];
    if (value) return value;
    value = g().bound(name, fixed_shape(size, 1));
    if (options_.train_base) g().set_trainable(value);
    return value;
  }

  // A norm's weight, or the copy of it that the adapter trains.
  Value norm(const std::string& path, int64_t size) {
    if (const Value saved = saved_module(path, size, 1)) return saved;
    return vector(path + ".weight", size);
  }

  Value matrix(const std::string& path, int64_t rows, int64_t columns) {
    if (const Value saved = saved_module(path, rows, columns)) return saved;
    return base_matrix(path, rows, columns);
  }

  // The base's own tensor even where an adapter saves a copy: a tied head stays tied to the base's embedding, as in PEFT.
  Value base_matrix(const std::string& path, int64_t rows, int64_t columns) {
    Value& value = out_.parameters[path + ".weight"];
    if (value) return value;
    value = options_.base_rows ? g().bound(path + ".weight", fixed_shape(rows, columns))
                               : g().weight(path + ".weight", rows, columns);
    if (options_.train_base) g().set_trainable(value);
    return value;
  }

  Linear linear_layer(const std::string& path, int64_t out_features, int64_t in_features, bool bias) {
    Linear layer;
    layer.name = path.substr(path.rfind('.') + 1);
    layer.weight = matrix(path, out_features, in_features);
    if (bias) layer.bias = vector(path + ".bias", out_features);
    add_adapters(layer, path, out_features, in_features);
    return layer;
  }

  void add_adapters(Linear& layer, const std::string& path, int64_t out_features, int64_t in_features) {
    bool any = false;
    for (size_t slot = 0; slot < options_.adapters.size(); ++slot) {
      AdapterPair adapter;
      if (const AdapterSites::Module* module = site(slot, path)) {
        any = true;
        adapter.a = adapter_parameter(slot, path + ".lora_A", module->rank, in_features);
        adapter.b = adapter_parameter(slot, path + ".lora_B", out_features, module->rank);
        adapter.scaling = module->scaling;
        if (module->dora) {
          GRAFT_CHECK(options_.adapters.size() == 1, "{}: a DoRA adapter cannot share a batch with others", path);
          layer.magnitude = adapter_parameter(slot, path + ".lora_magnitude_vector", out_features, 1);
        }
      }
      layer.adapters.push_back(adapter);
    }
    if (!any) layer.adapters.clear();
  }

  // The adapter of the embedding: A by token, [vocab, rank]; with DoRA a magnitude per feature.
  struct EmbeddingAdapter {
    AdapterPair pair;
    Value magnitude;
  };
  EmbeddingAdapter embedding_adapter(int64_t vocab, int64_t hidden) {
    EmbeddingAdapter adapter;
    for (size_t slot = 0; slot < options_.adapters.size(); ++slot) {
      const AdapterSites::Module* module = site(slot, kEmbedTokens);
      if (module == nullptr) continue;
      GRAFT_CHECK(options_.adapters.size() == 1, "{}: an adapter on the embedding cannot share a batch with others",
                  kEmbedTokens);
      adapter.pair.a = adapter_parameter(slot, kEmbedTokens + std::string(".lora_A"), vocab, module->rank);
      adapter.pair.b = adapter_parameter(slot, kEmbedTokens + std::string(".lora_B"), hidden, module->rank);
      adapter.pair.scaling = module->scaling;
      if (module->dora)
        adapter.magnitude = adapter_parameter(slot, kEmbedTokens + std::string(".lora_magnitude_vector"), hidden, 1);
    }
    return adapter;
  }

 private:
  // Experts make tens of thousands of modules: no search in a list.
  const AdapterSites::Module* site(size_t slot, std::string_view path) const {
    const auto found = sites_[slot].find(path);
    return found == sites_[slot].end() ? nullptr : found->second;
  }

  Value adapter_parameter(size_t slot, const std::string& name, int64_t rows, int64_t columns) {
    const Value value = g().bound(name, fixed_shape(rows, columns));
    out_.adapter_parameters[slot][name] = value;
    if (options_.train_adapter && slot == 0) g().set_trainable(value);
    return value;
  }

  // modules_to_save: the adapter holds the whole tensor, in rows.
  Value saved_module(const std::string& path, int64_t rows, int64_t columns) {
    for (size_t slot = 0; slot < options_.adapters.size(); ++slot) {
      if (!options_.adapters[slot].saves(path)) continue;
      GRAFT_CHECK(options_.adapters.size() == 1, "{}: an adapter with modules_to_save cannot share a batch with others",
                  path);
      Value& value = out_.adapter_parameters[slot][path + ".weight"];
      if (value) return value;
      value = g().bound(path + ".weight", fixed_shape(rows, columns));
      if (options_.train_adapter) g().set_trainable(value);
      return value;
    }
    return {};
  }

  const DecoderOptions& options_;
  std::vector<std::unordered_map<std::string_view, const AdapterSites::Module*>> sites_;  // per slot
  DecoderGraph out_;
  LinearContext context_;
};

// The feed-forward part of a layer with experts (moe.md 2.7; transformers Mixtral, Qwen2-MoE, Qwen3-MoE): x + the chosen experts of norm(x),
// and the shared expert where there is one. Router and statistics are noted in the graph.
Value expert_block(DecoderBuilder& b, const ModelConfig& c, int64_t layer, Value x);
bool has_experts(const ModelConfig& c, int64_t layer);
// The modules of such a layer, router and experts.
void add_expert_modules(const ModelConfig& c, int64_t layer, std::vector<LinearModule>& modules);

// x + down(silu(gate(n)) * up(n)) below `path`, inner size `width`; residual may be none.
Value gated_mlp(DecoderBuilder& b, const ModelConfig& c, const std::string& path, int64_t width, bool bias, Value n,
                Value residual);

}  // namespace graft
