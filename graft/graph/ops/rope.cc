#include "graft/kernels/rope.h"

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"

namespace graft {
namespace {

struct Attr {
  int64_t head_dim = 0;
  bool interleaved = false, inverse = false;
};

template <typename T>
void run_rope(const Run& run, const Node& node) {
  const Attr& attr = node.attr<Attr>();
  const auto x = run.view<const T>(node.inputs[0]);
  const auto y = run.view<T>(node.outputs[0]);
  const int64_t heads = x.extent(1) / attr.head_dim;
  rope<T>(run.context(), View<const T, 3>(x.data(), x.extent(0), heads, attr.head_dim),
          run.span<const int32_t>(node.inputs[1]), *run.inputs().rope, attr.interleaved, attr.inverse,
          View<T, 3>(y.data(), x.extent(0), heads, attr.head_dim));
}

void gradient(GradientBuilder& b, const Node& node);

const Op kRope = {
    .name = "rope", .run = typed<run_rope<float>, run_rope<double>>, .gradient = gradient, .kernel = "rope_apply"};

void gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]);
  if (!dy) return;
  Attr attr = node.attr<Attr>();
  attr.inverse = !attr.inverse;
  Node& backward = b.graph().add_node(kRope, {dy, node.inputs[1]}, attr, {b.graph().shape(dy)});
  backward.in_place = {{0, 0}};
  b.add(node.inputs[0], backward.outputs[0]);
}

}  // namespace

Value rope(Graph& g, Value x, Value positions, int64_t head_dim, bool interleaved) {
  GRAFT_CHECK(head_dim > 0 && head_dim % 2 == 0 && g.shape(x).columns % head_dim == 0,
              "rope: x is {}, expected a multiple of head_dim {} (even)", to_string(g.shape(x)), head_dim);
  GRAFT_CHECK(g.shape(positions).kind == g.shape(x).kind && g.shape(positions).columns == 1,
              "rope: positions is {}, expected one column and the rows of x {}", to_string(g.shape(positions)),
              to_string(g.shape(x)));
  g.set_rule(positions, {.kind = IndexRule::Kind::kPosition});
  Node& node = g.add_node(kRope, {x, positions}, Attr{head_dim, interleaved, false}, {g.shape(x)}, "rope");
  node.in_place = {{0, 0}};
  return node.outputs[0];
}

}  // namespace graft
