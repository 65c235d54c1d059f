#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/norm.h"

namespace graft {
namespace {

struct Attr {
  double eps = 1e-6;
  int64_t groups = 1;
};

// [rows, groups * features] seen as [rows * groups, features].
template <typename T>
View<T, 2> grouped(View<T, 2> x, int64_t groups) {
  return x.data() == nullptr ? x : View<T, 2>(x.data(), x.extent(0) * groups, x.extent(1) / groups);
}

template <typename T>
void run_norm(const Run& run, const Node& node) {
  const Attr& attr = node.attr<Attr>();
  rms_norm<T>(run.context(), grouped(run.view<const T>(node.inputs[0]), attr.groups), run.span<const T>(node.inputs[1]),
              attr.eps, grouped(run.view<T>(node.outputs[0]), attr.groups), run.span<T>(node.outputs[1]));
}

// inputs: dy, x, weight, rrms, residual gradient or none, dweight or none
template <typename T>
void run_backward(const Run& run, const Node& node) {
  const int64_t groups = node.attr<Attr>().groups;
  const auto in = [&](size_t i) { return grouped(run.view<const T>(node.inputs[i]), groups); };
  rms_norm_backward<T>(run.context(), in(0), in(1), run.span<const T>(node.inputs[2]),
                       run.span<const T>(node.inputs[3]), in(4), grouped(run.view<T>(node.outputs[0]), groups),
                       run.span<T>(node.inputs[5]));
}

const Op kRmsNormBackward = {.name = "rms_norm_backward", .run = typed<run_backward<float>, run_backward<double>>};

void gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]);
  if (!dy) return;
  const Value x = node.inputs[0], weight = node.inputs[1];
  const Value residual = b.take(x);  // what reaches x past the norm is added in the same pass
  Node& backward =
      b.graph().add_node(kRmsNormBackward, {dy, x, weight, node.outputs[1], residual, b.parameter_gradient(weight)},
                         node.attributes, {b.graph().shape(x)});
  backward.in_place = {{0, residual ? 4 : 0}};
  if (b.needs(x)) b.add(x, backward.outputs[0]);
}

const Op kRmsNorm = {
    .name = "rms_norm", .run = typed<run_norm<float>, run_norm<double>>, .gradient = gradient, .kernel = "rms_norm"};

}  // namespace

Value rms_norm(Graph& g, Value x, Value weight, double eps, int64_t groups) {
  const Shape shape = g.shape(x);
  GRAFT_CHECK(groups > 0 && shape.columns % groups == 0 && g.shape(weight).fixed_rows == shape.columns / groups,
              "rms_norm: weight is {}, expected [{}, 1] for x {} in {} groups", to_string(g.shape(weight)),
              shape.columns / groups, to_string(shape), groups);
  Shape rrms = shape;
  rrms.columns = groups;
  return g.add_node(kRmsNorm, {x, weight}, Attr{eps, groups}, {shape, rrms}, "norm").outputs[0];
}

}  // namespace graft
