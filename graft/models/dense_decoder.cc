#include <cmath>

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/models/decoder.h"

namespace graft {
namespace {

const char* const kEmbedTokens = "model.embed_tokens";

std::string layer_name(int64_t layer) { return fmt::format("model.layers.{}", layer); }

// Creates parameters as the graph asks for them and notes them by name.
class Builder {
 public:
  explicit Builder(const DecoderOptions& options) : options_(options) {
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
    context_.compute = options.compute;
    context_.adapter_offsets = out_.adapter_offsets;
    if (options.dropout > 0) {
      out_.row_keys = g.bound("row_keys", {Rows::kTokens, 0, 1, 0}, DType::kU64);
      context_.dropout = {options.dropout, options.dropout_at_rank, options.seed, out_.row_keys};
    }
  }

  Graph& g() { return out_.graph; }
  const LinearContext& context() const { return context_; }
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
    value = g().weight(path + ".weight", rows, columns);
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
      if (const AdapterSites::Module* module = options_.adapters[slot].find(path)) {
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
      const AdapterSites::Module* module = options_.adapters[slot].find(kEmbedTokens);
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
  DecoderGraph out_;
  LinearContext context_;
};

Value attention_block(Builder& b, const ModelConfig& c, int64_t layer, Value x) {
  Graph& g = b.g();
  const std::string path = layer_name(layer) + ".self_attn.";
  const int64_t q_width = c.num_attention_heads * c.head_dim, kv_width = c.num_key_value_heads * c.head_dim;
  const Value n = rms_norm(g, x, b.norm(layer_name(layer) + ".input_layernorm", c.hidden_size), c.rms_norm_eps);
  std::vector<Value> qkv = linears(g, b.context(), n,
                                   {b.linear_layer(path + "q_proj", q_width, c.hidden_size, c.qkv_bias),
                                    b.linear_layer(path + "k_proj", kv_width, c.hidden_size, c.qkv_bias),
                                    b.linear_layer(path + "v_proj", kv_width, c.hidden_size, c.qkv_bias)});
  if (c.qk_norm) {
    qkv[0] = rms_norm(g, qkv[0], b.norm(path + "q_norm", c.head_dim), c.rms_norm_eps, c.num_attention_heads);
    qkv[1] = rms_norm(g, qkv[1], b.norm(path + "k_norm", c.head_dim), c.rms_norm_eps, c.num_key_value_heads);
  }
  const Value q = rope(g, qkv[0], b.out().positions, c.head_dim, c.rope_interleaved);
  const Value k = rope(g, qkv[1], b.out().positions, c.head_dim, c.rope_interleaved);
  AttentionAttr attr;
  attr.num_heads = c.num_attention_heads, attr.num_kv_heads = c.num_key_value_heads, attr.head_dim = c.head_dim;
  attr.window = c.layer_windows.empty() ? 0 : c.layer_windows[static_cast<size_t>(layer)];
  attr.layer = layer;
  attr.scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  const Value o = attention(g, q, k, qkv[2], b.out().sequence_offsets, attr);
  return linear(g, b.context(), o, b.linear_layer(path + "o_proj", c.hidden_size, q_width, c.o_bias), x);
}

Value mlp_block(Builder& b, const ModelConfig& c, int64_t layer, Value x) {
  Graph& g = b.g();
  const std::string path = layer_name(layer) + ".mlp.";
  const Value n =
      rms_norm(g, x, b.norm(layer_name(layer) + ".post_attention_layernorm", c.hidden_size), c.rms_norm_eps);
  const std::vector<Value> gate_up =
      linears(g, b.context(), n,
              {b.linear_layer(path + "gate_proj", c.intermediate_size, c.hidden_size, c.mlp_bias),
               b.linear_layer(path + "up_proj", c.intermediate_size, c.hidden_size, c.mlp_bias)});
  return linear(g, b.context(), swiglu(g, gate_up[0], gate_up[1]),
                b.linear_layer(path + "down_proj", c.hidden_size, c.intermediate_size, c.mlp_bias), x);
}

// The output head on rows of x: logits, or the loss.
void add_head(Builder& b, const ModelConfig& c, const DecoderOptions& options, Value x) {
  Graph& g = b.g();
  DecoderGraph& out = b.out();
  Linear head;
  head.name = "lm_head";
  bool saved = false;
  for (const AdapterSites& adapter : options.adapters) saved = saved || adapter.saves("lm_head");
  head.weight = c.tie_word_embeddings && !saved ? b.base_matrix("model.embed_tokens", c.vocab_size, c.hidden_size)
                                                : b.matrix("lm_head", c.vocab_size, c.hidden_size);
  b.add_adapters(head, "lm_head", c.vocab_size, c.hidden_size);
  GRAFT_CHECK(head.adapters.empty() || options.output == DecoderOutput::kLogits || !options.adapter_rows,
              "lm_head: an adapter on the output head cannot share a batch with others");
  if (options.output == DecoderOutput::kLogits) {
    out.logits = linear(g, b.context(), x, head);
    g.keep(out.logits);
    return;
  }
  out.label_rows = g.bound("label_rows", {Rows::kLabels, 0, 1, 0}, DType::kI32);
  const Value tokens = x;
  x = gather_rows(g, x, out.label_rows);
  if (options.output == DecoderOutput::kLastLogits) {
    out.logits = linear(g, b.context(), x, head);
    g.keep(out.logits);
    return;
  }
  out.labels = g.bound("labels", {Rows::kLabels, 0, 1, 0}, DType::kI32);
  out.label_weights = g.bound("label_weights", {Rows::kLabels, 0, 1, 0}, DType::kF64);
  out.loss = g.bound("loss", fixed_shape(1, 1), DType::kF64);
  HeadLossAttr attr;
  attr.label_smoothing = options.label_smoothing;
  attr.compute = options.compute;
  attr.chunk_rows = options.head_chunk_rows;
  attr.train = options.output == DecoderOutput::kTrain;
  // Dropout draws by the keys of tokens, so with it the small product runs on all of them.
  const bool by_token = b.context().dropout.p > 0 && !head.adapters.empty();
  const Value h = by_token ? gather_rows(g, lora_rows(g, b.context(), tokens, head), out.label_rows)
                           : lora_rows(g, b.context(), x, head);
  if (h) attr.lora_scaling = head.adapters[0].scaling;
  out.nll = head_loss(g, x, head.weight, out.labels, out.label_weights, out.loss, h, h ? head.adapters[0].b : Value{},
                      attr, head.magnitude, head.magnitude ? dora_norm(g, head.weight, head.adapters[0]) : Value{});
  g.keep(out.nll);
}

}  // namespace

const AdapterSites::Module* AdapterSites::find(std::string_view path) const {
  for (const Module& module : modules) {
    if (module.path == path) return &module;
  }
  return nullptr;
}

bool AdapterSites::saves(std::string_view path) const {
  for (const std::string& module : saved_modules) {
    if (module == path) return true;
  }
  return false;
}

std::vector<LinearModule> dense_decoder_modules(const ModelConfig& c) {
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  std::vector<LinearModule> modules;
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = layer_name(i);
    modules.push_back({layer + ".self_attn.q_proj", q, c.hidden_size});
    modules.push_back({layer + ".self_attn.k_proj", kv, c.hidden_size});
    modules.push_back({layer + ".self_attn.v_proj", kv, c.hidden_size});
    modules.push_back({layer + ".self_attn.o_proj", c.hidden_size, q});
    modules.push_back({layer + ".mlp.gate_proj", c.intermediate_size, c.hidden_size});
    modules.push_back({layer + ".mlp.up_proj", c.intermediate_size, c.hidden_size});
    modules.push_back({layer + ".mlp.down_proj", c.hidden_size, c.intermediate_size});
  }
  modules.push_back({"lm_head", c.vocab_size, c.hidden_size, true});
  return modules;
}

std::vector<ExpectedTensor> dense_decoder_tensors(const ModelConfig& c) {
  std::vector<ExpectedTensor> tensors;
  const auto add_tensor = [&](std::string name, std::vector<int64_t> shape, std::string dims) {
    tensors.push_back({std::move(name), std::move(shape), std::move(dims), false});
  };
  add_tensor("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, "vocab_size, hidden_size");
  const auto words = [](std::string_view module) -> std::pair<std::string, std::string> {  // out, in
    if (module == "q_proj") return {"num_attention_heads * head_dim", "hidden_size"};
    if (module == "k_proj" || module == "v_proj") return {"num_key_value_heads * head_dim", "hidden_size"};
    if (module == "o_proj") return {"hidden_size", "num_attention_heads * head_dim"};
    if (module == "down_proj") return {"hidden_size", "intermediate_size"};
    return {"intermediate_size", "hidden_size"};
  };
  for (const LinearModule& m : dense_decoder_modules(c)) {
    if (m.is_head) continue;
    const std::string name = m.path.substr(m.path.rfind('.') + 1);
    const auto [out, in] = words(name);
    add_tensor(m.path + ".weight", {m.out_features, m.in_features}, out + ", " + in);
    const bool mlp = m.path.find(".mlp.") != std::string::npos;
    if (mlp ? c.mlp_bias : name == "o_proj" ? c.o_bias : c.qkv_bias) {
      add_tensor(m.path + ".bias", {m.out_features}, out);
    }
  }
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    add_tensor(layer_name(i) + ".input_layernorm.weight", {c.hidden_size}, "hidden_size");
    add_tensor(layer_name(i) + ".post_attention_layernorm.weight", {c.hidden_size}, "hidden_size");
    if (c.qk_norm) {
      add_tensor(layer_name(i) + ".self_attn.q_norm.weight", {c.head_dim}, "head_dim");
      add_tensor(layer_name(i) + ".self_attn.k_norm.weight", {c.head_dim}, "head_dim");
    }
  }
  add_tensor("model.norm.weight", {c.hidden_size}, "hidden_size");
  if (!c.tie_word_embeddings) add_tensor("lm_head.weight", {c.vocab_size, c.hidden_size}, "vocab_size, hidden_size");
  return tensors;
}

DecoderGraph build_dense_decoder(const ModelConfig& config, const DecoderOptions& options) {
  Builder b(options);
  Graph& g = b.g();
  // Looking the pad token up does not train its row, as in transformers.
  const auto pad = static_cast<int32_t>(config.pad_token_id.value_or(-1));
  const Value table = b.matrix(kEmbedTokens, config.vocab_size, config.hidden_size);
  Value x = embedding(g, b.out().ids, table, pad);
  if (const auto adapter = b.embedding_adapter(config.vocab_size, config.hidden_size); adapter.pair.a) {
    x = lora_embedding(g, b.out().ids, x, adapter.pair, pad);
    if (adapter.magnitude) x = column_scale(g, x, adapter.magnitude, dora_column_norm(g, table, adapter.pair), {});
  }
  const auto note = [&](Value hidden) {
    if (options.keep_hidden) g.keep(hidden);
    b.out().hidden.push_back(hidden);
  };
  note(x);
  for (int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    g.set_scope(layer_name(layer) + ".self_attn", static_cast<int>(layer));
    x = attention_block(b, config, layer, x);
    g.set_scope(layer_name(layer) + ".mlp", static_cast<int>(layer));
    x = mlp_block(b, config, layer, x);
    if (layer + 1 < config.num_hidden_layers) note(x);
  }
  g.set_scope("model");
  x = rms_norm(g, x, b.norm("model.norm", config.hidden_size), config.rms_norm_eps);
  note(x);
  g.set_scope("lm_head");
  add_head(b, config, options, x);
  if (options.output == DecoderOutput::kTrain) build_gradients(g);
  return std::move(b.out());
}

}  // namespace graft
