#include "graft/models/decoder_builder.h"

namespace graft {
namespace {

struct Paths {
  std::string router, experts, shared, shared_gate;
  ExpertNames names;
  explicit Paths(const ModelConfig& c, int64_t layer) : names(expert_names(c)) {
    const std::string block = layer_name(layer) + "." + names.block + ".";
    router = block + "gate", experts = block + "experts.", shared = block + "shared_expert.";
    shared_gate = block + "shared_expert_gate";
  }
  std::string expert(int64_t e, const std::string& name) const { return fmt::format("{}{}.{}", experts, e, name); }
};

bool has_shared_gate(const ModelConfig& c) { return c.model_type == "qwen2_moe"; }

ExpertProjection projection(DecoderBuilder& b, const std::string& path, int64_t out, int64_t in) {
  const Linear layer = b.linear_layer(path, out, in, false);
  if (layer.adapters.empty()) return {layer.weight, {}};
  GRAFT_CHECK(layer.adapters.size() == 1, "{}: an adapter on experts cannot share a batch with others", path);
  GRAFT_CHECK_HINT(!layer.magnitude, "leave the experts out of the targets, or leave out --dora",
                   "{}: DoRA on experts is not supported", path);
  GRAFT_CHECK_HINT(b.context().dropout.p == 0, "use --dropout 0, or leave the experts out of the targets",
                   "{}: LoRA dropout on experts is not supported", path);
  return {layer.weight, layer.adapters[0]};
}

}  // namespace

bool has_experts(const ModelConfig& c, int64_t layer) {
  return c.moe && c.moe->sparse_layers[static_cast<size_t>(layer)];
}

void add_expert_modules(const ModelConfig& c, int64_t layer, std::vector<LinearModule>& modules) {
  const Paths paths(c, layer);
  const MoeConfig& moe = *c.moe;
  modules.push_back({paths.router, moe.num_experts, c.hidden_size, ModuleKind::kRouter});
  for (int64_t e = 0; e < moe.num_experts; ++e) {
    const int64_t width = moe.moe_intermediate_size;
    modules.push_back({paths.expert(e, paths.names.gate), width, c.hidden_size, ModuleKind::kExpert});
    modules.push_back({paths.expert(e, paths.names.up), width, c.hidden_size, ModuleKind::kExpert});
    modules.push_back({paths.expert(e, paths.names.down), c.hidden_size, width, ModuleKind::kExpert});
  }
  const int64_t width = moe.shared_expert_intermediate_size;
  if (width == 0) return;
  modules.push_back({paths.shared + "gate_proj", width, c.hidden_size});
  modules.push_back({paths.shared + "up_proj", width, c.hidden_size});
  modules.push_back({paths.shared + "down_proj", c.hidden_size, width});
  if (has_shared_gate(c)) modules.push_back({paths.shared_gate, 1, c.hidden_size, ModuleKind::kRouter});
}

Value expert_block(DecoderBuilder& b, const ModelConfig& c, int64_t layer, Value x) {
  Graph& g = b.g();
  const Paths paths(c, layer);
  const MoeConfig& moe = *c.moe;
  const int64_t hidden = c.hidden_size;
  const Value n = rms_norm(g, x, b.norm(layer_name(layer) + ".post_attention_layernorm", hidden), c.rms_norm_eps);
  LinearContext exact = b.context();
  exact.compute = Compute::kF32;  // a choice must not hang on rounded operands
  RouteAttr attr;
  attr.top_k = moe.num_experts_per_tok, attr.renormalize = moe.norm_topk_prob;
  attr.capacity_factor = moe.capacity_factor;
  const Routing routing =
      route(g, linear(g, exact, n, b.linear_layer(paths.router, moe.num_experts, hidden, false)), attr);
  if (b.options().keep_routers) {
    for (const Value v : {routing.logits, routing.weights, routing.experts}) g.keep(v);
  }
  b.out().routers.push_back({layer, routing});
  std::vector<ExpertWeights> weights;
  for (int64_t e = 0; e < moe.num_experts; ++e) {
    const int64_t width = moe.moe_intermediate_size;
    weights.push_back({projection(b, paths.expert(e, paths.names.gate), width, hidden),
                       projection(b, paths.expert(e, paths.names.up), width, hidden),
                       projection(b, paths.expert(e, paths.names.down), hidden, width)});
  }
  Value rest = x;
  if (const int64_t width = moe.shared_expert_intermediate_size; width > 0) {
    const bool gated = has_shared_gate(c);
    rest = gated_mlp(b, c, paths.shared, width, false, n, gated ? Value{} : x);
    if (gated) rest = row_gate(g, rest, linear(g, exact, n, b.linear_layer(paths.shared_gate, 1, hidden, false)), x);
  }
  return experts(g, b.context().compute, n, routing, weights, rest);
}

}  // namespace graft
