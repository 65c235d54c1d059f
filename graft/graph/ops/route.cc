#include <algorithm>
#include <cmath>

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/moe_route.h"

namespace graft {
namespace {

enum Output : size_t { kProbabilities, kWeights, kExperts, kLse, kOffsets, kRows, kStatistics };

template <typename T>
void run_route(const Run& run, const Node& node) {
  const RouteAttr& attr = node.attr<RouteAttr>();
  const auto out = [&](size_t i) { return node.outputs[i]; };
  RouteArgs<T> args;
  args.logits = run.view<const T>(node.inputs[0]);
  const int64_t tokens = args.logits.extent(0), experts = args.logits.extent(1);
  args.top_k = attr.top_k;
  args.renormalize = attr.renormalize;
  if (attr.capacity_factor > 0) {
    args.capacity = std::max<int64_t>(
        1, static_cast<int64_t>(std::ceil(attr.capacity_factor * static_cast<double>(tokens * attr.top_k) /
                                          static_cast<double>(experts))));
  }
  args.probabilities = run.view<T>(out(kProbabilities));
  args.weights = run.view<T>(out(kWeights));
  args.experts = run.view<int32_t>(out(kExperts));
  args.lse = run.span<T>(out(kLse));
  args.offsets = run.span<int32_t>(out(kOffsets));
  args.rows = run.span<int32_t>(out(kRows));
  args.statistics = run.span<T>(out(kStatistics));
  route<T>(run.context(), args);
}

// inputs: probabilities, weights, experts, lse, dweights or none, dstatistics or none
template <typename T>
void run_backward(const Run& run, const Node& node) {
  RouteBackwardArgs<T> args;
  args.probabilities = run.view<const T>(node.inputs[0]);
  args.weights = run.view<const T>(node.inputs[1]);
  args.experts = run.view<const int32_t>(node.inputs[2]);
  args.lse = run.span<const T>(node.inputs[3]);
  args.renormalize = node.attr<RouteAttr>().renormalize;
  args.dweights = run.view<const T>(node.inputs[4]);
  args.dstatistics = run.span<const T>(node.inputs[5]);
  args.dlogits = run.view<T>(node.outputs[0]);
  route_backward<T>(run.context(), args);
}

const Op kRouteBackward = {.name = "route_backward", .run = typed<run_backward<float>, run_backward<double>>};

void gradient(GradientBuilder& b, const Node& node) {
  const auto out = [&](size_t i) { return node.outputs[i]; };
  const Value dweights = b.gradient(out(kWeights)), dstatistics = b.gradient(out(kStatistics));
  if ((!dweights && !dstatistics) || !b.needs(node.inputs[0])) return;
  b.add(node.inputs[0],
        b.graph()
            .add_node(kRouteBackward,
                      {out(kProbabilities), out(kWeights), out(kExperts), out(kLse), dweights, dstatistics},
                      node.attributes, {b.graph().shape(node.inputs[0])})
            .outputs[0]);
}

const Op kRoute = {.name = "route", .run = typed<run_route<float>, run_route<double>>, .gradient = gradient};

// inputs: scale, values, then the statistics of each layer. outputs, with train: their gradients.
template <typename T>
void run_loss(const Run& run, const Node& node) {
  const RouterLossAttr& attr = node.attr<RouterLossAttr>();
  const double scale = run.span<const double>(node.inputs[0])[0];
  const auto values = run.span<double>(node.inputs[1]);
  const size_t layers = node.inputs.size() - 2, experts = static_cast<size_t>(attr.num_experts);
  const auto statistics = [&](size_t layer) { return run.span<const T>(node.inputs[layer + 2]); };
  const auto mean = [&](size_t layer, size_t e) { return static_cast<double>(statistics(layer)[e]); };
  const auto share = [&](size_t layer, size_t e) { return static_cast<double>(statistics(layer)[experts + 2 + e]); };
  const double e_count = static_cast<double>(experts), l_count = static_cast<double>(layers);
  double aux = 0, z = 0, dropped = 0;
  for (size_t l = 0; l < layers; ++l) {
    z += static_cast<double>(statistics(l)[experts]);
    dropped += static_cast<double>(statistics(l)[experts + 1]) / l_count;
    for (size_t e = 0; e < experts; ++e) {
      values[RouterLossAttr::kShares + l * experts + e] = share(l, e);
      if (!attr.joint) aux += e_count * share(l, e) * mean(l, e);
    }
  }
  const double joint_scale = e_count * static_cast<double>(attr.top_k) / l_count;
  for (size_t e = 0; e < experts && attr.joint; ++e) {
    double shares = 0, means = 0;
    for (size_t l = 0; l < layers; ++l) shares += share(l, e) / l_count, means += mean(l, e);
    aux += joint_scale * shares * means;
  }
  values[RouterLossAttr::kAux] = aux, values[RouterLossAttr::kZ] = z, values[RouterLossAttr::kDropped] = dropped;
  for (size_t l = 0; l < node.outputs.size(); ++l) {
    const auto d = run.span<T>(node.outputs[l]);
    std::fill(d.begin(), d.end(), T{0});
    for (size_t e = 0; e < experts; ++e) {
      double slope = e_count * share(l, e);
      if (attr.joint) {
        slope = 0;
        for (size_t other = 0; other < layers; ++other) slope += joint_scale * share(other, e) / l_count;
      }
      d[e] = static_cast<T>(scale * attr.aux_coef * slope);
    }
    d[experts] = static_cast<T>(scale * attr.z_coef);
  }
}

void loss_gradient(GradientBuilder& b, const Node& node) {
  for (size_t l = 0; l < node.outputs.size(); ++l) {
    if (b.needs(node.inputs[l + 2])) b.add(node.inputs[l + 2], node.outputs[l]);
  }
}

const Op kRouterLoss = {
    .name = "router_loss", .run = typed<run_loss<float>, run_loss<double>>, .gradient = loss_gradient};

}  // namespace

Routing route(Graph& g, Value logits, const RouteAttr& attr) {
  const Shape z = g.shape(logits);
  GRAFT_CHECK(attr.top_k >= 1 && attr.top_k <= z.columns, "route: {} of {} experts are to be chosen, logits are {}",
              attr.top_k, z.columns, to_string(z));
  Shape chosen = z, one = z;
  chosen.columns = attr.top_k, one.columns = 1;
  const std::vector<Value> out =
      g.add_node(kRoute, {logits}, attr,
                 {z, chosen, chosen, one, fixed_shape(z.columns + 1, 1), chosen, fixed_shape(2 * z.columns + 2, 1)},
                 "route")
          .outputs;
  for (const size_t i : {size_t{kExperts}, size_t{kOffsets}, size_t{kRows}}) g.info(out[i]).dtype = DType::kI32;
  return {logits, out[kWeights], out[kExperts], out[kOffsets], out[kRows], out[kStatistics]};
}

void router_loss(Graph& g, const std::vector<Value>& statistics, Value scale, Value values,
                 const RouterLossAttr& attr) {
  const int64_t layers = static_cast<int64_t>(statistics.size());
  const Shape each = fixed_shape(2 * attr.num_experts + 2, 1);
  const Shape held = fixed_shape(RouterLossAttr::kShares + layers * attr.num_experts, 1);
  GRAFT_CHECK(g.shape(values) == held, "router_loss: values are {}, expected {} for {} layers of {} experts",
              to_string(g.shape(values)), to_string(held), layers, attr.num_experts);
  std::vector<Value> inputs = {scale, values};
  std::vector<Shape> outputs;
  for (const Value s : statistics) {
    GRAFT_CHECK(g.shape(s) == each, "router_loss: statistics are {}, expected {} for {} experts", to_string(g.shape(s)),
                to_string(each), attr.num_experts);
    inputs.push_back(s);
    if (attr.train && (attr.aux_coef != 0 || attr.z_coef != 0)) outputs.push_back(each);
  }
  g.add_node(kRouterLoss, std::move(inputs), attr, std::move(outputs), "router_loss");
}

}  // namespace graft
