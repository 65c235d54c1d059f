#include "graft/graph/autodiff.h"

#include "graft/base/error.h"
#include "graft/graph/ops.h"

namespace graft {

GradientBuilder::GradientBuilder(Graph& graph)
    : graph_(graph), needs_(graph.values().size(), 0), gradients_(graph.values().size()) {
  for (size_t i = 0; i < graph.values().size(); ++i) needs_[i] = graph.values()[i].trainable ? 1 : 0;
  for (const Node& node : graph.nodes()) {
    bool any = false;
    for (Value input : node.inputs) any = any || needs(input);
    if (!any) continue;
    for (Value output : node.outputs) needs_[static_cast<size_t>(output.id)] = 1;
  }
}

Value GradientBuilder::gradient(Value value) const {
  return value && static_cast<size_t>(value.id) < gradients_.size() ? gradients_[static_cast<size_t>(value.id)]
                                                                    : Value{};
}

void GradientBuilder::add(Value value, Value gradient) {
  Value& slot = gradients_[static_cast<size_t>(value.id)];
  slot = slot ? graft::add(graph_, slot, gradient) : gradient;
}

Value GradientBuilder::take(Value value) {
  const Value taken = gradient(value);
  if (taken) gradients_[static_cast<size_t>(value.id)] = {};
  return taken;
}

Value GradientBuilder::parameter_gradient(Value parameter) const {
  return parameter ? graph_.info(parameter).gradient : Value{};
}

void build_gradients(Graph& graph) {
  GradientBuilder builder(graph);
  const size_t num_forward = graph.nodes().size();
  graph.set_backward(true);
  for (size_t i = num_forward; i-- > 0;) {
    const Node node = graph.nodes()[i];  // a copy: rules append nodes
    bool wanted = false;
    for (Value input : node.inputs) wanted = wanted || builder.needs(input);
    if (!wanted) continue;
    GRAFT_CHECK(node.op->gradient != nullptr, "{}: the op '{}' has no gradient, and a trained parameter lies below it",
                node.name, node.op->name);
    graph.set_scope(node.name, node.segment);
    node.op->gradient(builder, node);
  }
  graph.set_backward(false);
}

}  // namespace graft
