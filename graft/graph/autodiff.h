#pragma once

#include <vector>

#include "graft/graph/graph.h"

namespace graft {

// What an op's gradient rule works with. Rules are asked only for nodes that a trained parameter reaches, and ask in turn what is
// needed, so that a frozen weight never costs a gradient.
class GradientBuilder {
 public:
  explicit GradientBuilder(Graph& graph);

  Graph& graph() { return graph_; }
  // True if the value depends on a trained parameter, or is one.
  bool needs(Value value) const { return value && needs_[static_cast<size_t>(value.id)] != 0; }
  // The gradient that reached an output or an intermediate so far; none if nothing did.
  Value gradient(Value value) const;
  // Adds a contribution; a second one is summed by an `add` node.
  void add(Value value, Value gradient);
  // For rules that fold what arrived before into their own result: takes it out (the rule then adds the sum).
  Value take(Value value);
  // The bound buffer a trained parameter's gradient is added to; none if it is frozen.
  Value parameter_gradient(Value parameter) const;

 private:
  friend void build_gradients(Graph& graph);
  Graph& graph_;
  std::vector<char> needs_;
  std::vector<Value> gradients_;
};

// Appends the backward pass to the graph. Ops without inputs that need a gradient are skipped; the sources are ops whose rule starts a
// gradient by itself (the loss). Throws Error if a trained parameter is reached through an op without a gradient rule.
void build_gradients(Graph& graph);

}  // namespace graft
