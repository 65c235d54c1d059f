#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/activation.h"

namespace graft {
namespace {

template <typename T>
void run_swiglu(const Run& run, const Node& node) {
  swiglu<T>(run.context(), run.view<const T>(node.inputs[0]), run.view<const T>(node.inputs[1]),
            run.view<T>(node.outputs[0]));
}
template <typename T>
void run_backward(const Run& run, const Node& node) {
  swiglu_backward<T>(run.context(), run.view<const T>(node.inputs[0]), run.view<const T>(node.inputs[1]),
                     run.view<const T>(node.inputs[2]), run.view<T>(node.outputs[0]), run.view<T>(node.outputs[1]));
}

const Op kSwigluBackward = {.name = "swiglu_backward", .run = typed<run_backward<float>, run_backward<double>>};

void gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]);
  if (!dy) return;
  const Shape shape = b.graph().shape(dy);
  Node& backward = b.graph().add_node(kSwigluBackward, {dy, node.inputs[0], node.inputs[1]}, {}, {shape, shape});
  backward.in_place = {{0, 0}, {1, 2}};
  const std::vector<Value> grads = backward.outputs;
  for (size_t i = 0; i < 2; ++i) {
    if (b.needs(node.inputs[i])) b.add(node.inputs[i], grads[i]);
  }
}

const Op kSwiglu = {.name = "swiglu", .run = typed<run_swiglu<float>, run_swiglu<double>>, .gradient = gradient};

}  // namespace

Value swiglu(Graph& g, Value gate, Value up) {
  GRAFT_CHECK(g.shape(gate) == g.shape(up), "swiglu: gate is {}, up is {}, expected equal shapes",
              to_string(g.shape(gate)), to_string(g.shape(up)));
  return g.add_node(kSwiglu, {gate, up}, {}, {g.shape(gate)}, "swiglu").outputs[0];
}

}  // namespace graft
