#include <cmath>

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/models/decoder_builder.h"

namespace graft {
namespace {

Value attention_block(DecoderBuilder& b, const ModelConfig& c, int64_t layer, Value x) {
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

Value mlp_block(DecoderBuilder& b, const ModelConfig& c, int64_t layer, Value x) {
  const Value n =
      rms_norm(b.g(), x, b.norm(layer_name(layer) + ".post_attention_layernorm", c.hidden_size), c.rms_norm_eps);
  return gated_mlp(b, c, layer_name(layer) + ".mlp.", c.intermediate_size, c.mlp_bias, n, x);
}

// The routers' losses and what is reported of them, from the statistics of all layers.
void add_router_loss(DecoderBuilder& b, const ModelConfig& c, const DecoderOptions& options) {
  DecoderGraph& out = b.out();
  if (out.routers.empty()) return;
  RouterLossAttr attr;
  attr.num_experts = c.moe->num_experts, attr.top_k = c.moe->num_experts_per_tok;
  attr.aux_coef = options.aux_coef, attr.z_coef = options.z_coef, attr.joint = options.aux_joint;
  attr.train = options.output == DecoderOutput::kTrain;
  const auto layers = static_cast<int64_t>(out.routers.size());
  out.router_scale = b.g().bound("router_scale", fixed_shape(1, 1), DType::kF64);
  out.router_values =
      b.g().bound("router_values", fixed_shape(RouterLossAttr::kShares + layers * attr.num_experts, 1), DType::kF64);
  std::vector<Value> statistics;
  for (const RouterValues& r : out.routers) statistics.push_back(r.routing.statistics);
  router_loss(b.g(), statistics, out.router_scale, out.router_values, attr);
}

// The output head on rows of x: logits, or the loss.
void add_head(DecoderBuilder& b, const ModelConfig& c, const DecoderOptions& options, Value x) {
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

Value gated_mlp(DecoderBuilder& b, const ModelConfig& c, const std::string& path, int64_t width, bool bias, Value n,
                Value residual) {
  Graph& g = b.g();
  const std::vector<Value> gate_up = linears(g, b.context(), n,
                                             {b.linear_layer(path + "gate_proj", width, c.hidden_size, bias),
                                              b.linear_layer(path + "up_proj", width, c.hidden_size, bias)});
  return linear(g, b.context(), swiglu(g, gate_up[0], gate_up[1]),
                b.linear_layer(path + "down_proj", c.hidden_size, width, bias), residual);
}

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

std::vector<LinearModule> decoder_modules(const ModelConfig& c) {
  const int64_t q = c.num_attention_heads * c.head_dim, kv = c.num_key_value_heads * c.head_dim;
  std::vector<LinearModule> modules;
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const std::string layer = layer_name(i);
    modules.push_back({layer + ".self_attn.q_proj", q, c.hidden_size});
    modules.push_back({layer + ".self_attn.k_proj", kv, c.hidden_size});
    modules.push_back({layer + ".self_attn.v_proj", kv, c.hidden_size});
    modules.push_back({layer + ".self_attn.o_proj", c.hidden_size, q});
    if (has_experts(c, i)) {
      add_expert_modules(c, i, modules);
      continue;
    }
    modules.push_back({layer + ".mlp.gate_proj", c.intermediate_size, c.hidden_size});
    modules.push_back({layer + ".mlp.up_proj", c.intermediate_size, c.hidden_size});
    modules.push_back({layer + ".mlp.down_proj", c.hidden_size, c.intermediate_size});
  }
  modules.push_back({"lm_head", c.vocab_size, c.hidden_size, ModuleKind::kHead});
  return modules;
}

std::vector<ExpectedTensor> decoder_tensors(const ModelConfig& c) {
  std::vector<ExpectedTensor> tensors;
  const auto add_tensor = [&](std::string name, std::vector<int64_t> shape, std::string dims) {
    tensors.push_back({std::move(name), std::move(shape), std::move(dims), false});
  };
  add_tensor("model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, "vocab_size, hidden_size");
  const auto words = [](const LinearModule& m) -> std::pair<std::string, std::string> {  // out, in
    const std::string name = m.path.substr(m.path.rfind('.') + 1);
    if (m.kind == ModuleKind::kRouter) return {name == "shared_expert_gate" ? "1" : "num_experts", "hidden_size"};
    if (name == "q_proj") return {"num_attention_heads * head_dim", "hidden_size"};
    if (name == "k_proj" || name == "v_proj") return {"num_key_value_heads * head_dim", "hidden_size"};
    if (name == "o_proj") return {"hidden_size", "num_attention_heads * head_dim"};
    const std::string inner = m.path.find(".shared_expert.") != std::string::npos ? "shared_expert_intermediate_size"
                              : m.kind == ModuleKind::kExpert                     ? "expert's intermediate size"
                                                                                  : "intermediate_size";
    if (name == "down_proj" || name == "w2") return {"hidden_size", inner};
    return {inner, "hidden_size"};
  };
  for (const LinearModule& m : decoder_modules(c)) {
    if (m.kind == ModuleKind::kHead) continue;
    const std::string name = m.path.substr(m.path.rfind('.') + 1);
    const auto [out, in] = words(m);
    add_tensor(m.path + ".weight", {m.out_features, m.in_features}, out + ", " + in);
    const bool mlp = m.path.find(".self_attn.") == std::string::npos;
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

DecoderGraph build_decoder(const ModelConfig& config, const DecoderOptions& options) {
  DecoderBuilder b(options);
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
    x = has_experts(config, layer) ? expert_block(b, config, layer, x) : mlp_block(b, config, layer, x);
    if (layer + 1 < config.num_hidden_layers) note(x);
  }
  g.set_scope("model");
  x = rms_norm(g, x, b.norm("model.norm", config.hidden_size), config.rms_norm_eps);
  note(x);
  if (options.output == DecoderOutput::kLoss || options.output == DecoderOutput::kTrain) {
    add_router_loss(b, config, options);
  }
  g.set_scope("lm_head");
  add_head(b, config, options, x);
  if (options.output == DecoderOutput::kTrain) build_gradients(g);
  return std::move(b.out());
}

}  // namespace graft
