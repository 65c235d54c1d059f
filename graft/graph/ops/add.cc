#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/elementwise.h"

namespace graft {
namespace {

template <typename T>
void run_add(const Run& run, const Node& node) {
  add<T>(run.context(), run.view<const T>(node.inputs[0]), run.view<const T>(node.inputs[1]),
         run.view<T>(node.outputs[0]));
}

void gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]);
  for (Value input : node.inputs) {
    if (dy && b.needs(input)) b.add(input, dy);
  }
}

const Op kAdd = {
    .name = "add", .run = typed<run_add<float>, run_add<double>>, .gradient = gradient, .kernel = "map_add"};

}  // namespace

Value add(Graph& g, Value a, Value b) {
  GRAFT_CHECK(g.shape(a) == g.shape(b), "add: {} and {}, expected equal shapes", to_string(g.shape(a)),
              to_string(g.shape(b)));
  Node& node = g.add_node(kAdd, {a, b}, {}, {g.shape(a)}, "add");
  node.in_place = {{0, 0}};
  return node.outputs[0];
}

}  // namespace graft
