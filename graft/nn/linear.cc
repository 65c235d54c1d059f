#include "graft/nn/linear.h"

#include "graft/base/error.h"

namespace graft {
namespace {

bool has_adapters(const Linear& layer) {
  for (const AdapterPair& adapter : layer.adapters) {
    if (adapter.a) return true;
  }
  return false;
}

Value down(Graph& g, const LinearContext& context, Value x, const std::vector<std::vector<AdapterPair>>& adapters,
           const std::string& site) {
  const Dropout& d = context.dropout;
  if (d.p > 0 && !d.at_rank) x = dropout(g, x, d.row_keys, d.p, d.seed, site);
  Value h = lora_down(g, x, adapters, context.adapter_offsets);
  if (d.p > 0 && d.at_rank) h = dropout(g, h, d.row_keys, d.p, d.seed, site);
  return h;
}

std::vector<Value> together(Graph& g, const LinearContext& context, Value x, const std::vector<Linear>& layers,
                            Value residual) {
  std::vector<std::vector<AdapterPair>> adapters;
  bool any = false;
  for (const Linear& layer : layers) {
    adapters.push_back(layer.adapters);
    any = any || has_adapters(layer);
  }
  const std::string site = g.scope() + "." + layers.front().name;
  const Value h = any ? down(g, context, x, adapters, site) : Value{};
  std::vector<Projection> outputs;
  for (const Linear& layer : layers) {
    const bool dora = static_cast<bool>(layer.magnitude);
    outputs.push_back({layer.weight, dora ? Value{} : layer.bias, dora ? Value{} : residual,
                       has_adapters(layer) ? layer.adapters : std::vector<AdapterPair>{}});
  }
  std::vector<Value> ys = projections(g, context.compute, x, outputs, h, context.adapter_offsets);
  for (size_t i = 0; i < layers.size(); ++i) {
    if (!layers[i].magnitude) continue;
    GRAFT_CHECK(layers[i].adapters.size() == 1, "{}: DoRA takes one adapter, {} were given", site,
                layers[i].adapters.size());
    const Value norm = dora_norm(g, layers[i].weight, layers[i].adapters[0]);
    ys[i] = column_scale(g, ys[i], layers[i].magnitude, norm, layers[i].bias);
    if (residual) ys[i] = add(g, ys[i], residual);
  }
  return ys;
}

}  // namespace

std::vector<Value> linears(Graph& g, const LinearContext& context, Value x, const std::vector<Linear>& layers) {
  // Each layer draws its own mask, as PEFT does, and then shares no LoRA product.
  if (context.dropout.p == 0) return together(g, context, x, layers, {});
  std::vector<Value> ys;
  for (const Linear& layer : layers) ys.push_back(together(g, context, x, {layer}, {}).front());
  return ys;
}

Value linear(Graph& g, const LinearContext& context, Value x, const Linear& layer, Value residual) {
  return together(g, context, x, {layer}, residual).front();
}

Value lora_rows(Graph& g, const LinearContext& context, Value x, const Linear& layer) {
  return has_adapters(layer) ? down(g, context, x, {layer.adapters}, g.scope() + "." + layer.name) : Value{};
}

}  // namespace graft
