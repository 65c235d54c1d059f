#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/moe_route.h"

namespace graft {
namespace {

template <typename T>
void run_gate(const Run& run, const Node& node) {
  row_gate<T>(run.context(), run.view<const T>(node.inputs[0]), run.span<const T>(node.inputs[1]),
              run.view<const T>(node.inputs[2]), run.view<T>(node.outputs[0]));
}
// inputs: dy, x, z
template <typename T>
void run_backward(const Run& run, const Node& node) {
  row_gate_backward<T>(run.context(), run.view<const T>(node.inputs[0]), run.view<const T>(node.inputs[1]),
                       run.span<const T>(node.inputs[2]), run.view<T>(node.outputs[0]), run.span<T>(node.outputs[1]));
}

const Op kRowGateBackward = {.name = "row_gate_backward", .run = typed<run_backward<float>, run_backward<double>>};

void gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]), x = node.inputs[0], z = node.inputs[1];
  if (!dy) return;
  const std::vector<Value> grads =
      b.graph().add_node(kRowGateBackward, {dy, x, z}, {}, {b.graph().shape(x), b.graph().shape(z)}).outputs;
  if (b.needs(x)) b.add(x, grads[0]);
  if (b.needs(z)) b.add(z, grads[1]);
  if (b.needs(node.inputs[2])) b.add(node.inputs[2], dy);  // last: whoever folds it in may overwrite it
}

const Op kRowGate = {.name = "row_gate", .run = typed<run_gate<float>, run_gate<double>>, .gradient = gradient};

}  // namespace

Value row_gate(Graph& g, Value x, Value z, Value residual) {
  Shape one = g.shape(x);
  one.columns = 1;
  GRAFT_CHECK(g.shape(z) == one, "row_gate: the gate is {}, expected {} for x {}", to_string(g.shape(z)),
              to_string(one), to_string(g.shape(x)));
  GRAFT_CHECK(!residual || g.shape(residual) == g.shape(x), "row_gate: residual is {}, expected {}",
              to_string(g.shape(residual)), to_string(g.shape(x)));
  return g.add_node(kRowGate, {x, z, residual}, {}, {g.shape(x)}, "gate").outputs[0];
}

}  // namespace graft
