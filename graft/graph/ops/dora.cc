#include "graft/kernels/dora.h"

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/elementwise.h"

namespace graft {
namespace {

template <typename T>
void run_norm(const Run& run, const Node& node) {
  graft::dora_norm<T>(run.context(), run.operand<T>(node.inputs[0]), run.view<const T>(node.inputs[1]),
                      run.view<const T>(node.inputs[2]), static_cast<T>(node.attr<double>()),
                      run.span<T>(node.outputs[0]));
}

const Op kDoraNorm = {
    .name = "dora_norm",
    .run = typed<run_norm<float>, run_norm<double>>,
    .gradient = [](GradientBuilder&, const Node&) {},  // a constant, as in the paper
    .scratch =
        [](const Graph& g, const Node& node, const RunSizes&, int threads) {
          return dora_norm_scratch(threads, g.shape(node.inputs[0]).columns, g.shape(node.inputs[1]).fixed_rows);
        },
};

template <typename T>
void run_column_norm(const Run& run, const Node& node) {
  graft::dora_column_norm<T>(run.context(), run.operand<T>(node.inputs[0]), run.view<const T>(node.inputs[1]),
                             run.view<const T>(node.inputs[2]), static_cast<T>(node.attr<double>()),
                             run.span<T>(node.outputs[0]));
}

const Op kDoraColumnNorm = {
    .name = "dora_column_norm",
    .run = typed<run_column_norm<float>, run_column_norm<double>>,
    .gradient = [](GradientBuilder&, const Node&) {},
    .scratch =
        [](const Graph& g, const Node& node, const RunSizes&, int) {
          return dora_column_norm_scratch(g.shape(node.inputs[0]).columns, g.shape(node.inputs[1]).columns);
        },
};

// inputs: z, magnitude, norm, bias or none
template <typename T>
void run_scale(const Run& run, const Node& node) {
  graft::column_scale<T>(run.context(), run.view<const T>(node.inputs[0]), run.span<const T>(node.inputs[1]),
                         run.span<const T>(node.inputs[2]), run.span<const T>(node.inputs[3]),
                         run.view<T>(node.outputs[0]));
}
// inputs: dy, z, magnitude, norm, dmagnitude or none, dbias or none
template <typename T>
void run_scale_backward(const Run& run, const Node& node) {
  column_scale_backward<T>(run.context(), run.view<const T>(node.inputs[0]), run.view<const T>(node.inputs[1]),
                           run.span<const T>(node.inputs[2]), run.span<const T>(node.inputs[3]),
                           run.view<T>(node.outputs[0]), run.span<T>(node.inputs[4]), run.span<T>(node.inputs[5]));
}

const Op kColumnScaleBackward = {.name = "column_scale_backward",
                                 .run = typed<run_scale_backward<float>, run_scale_backward<double>>};

void scale_gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]);
  if (!dy) return;
  Node& backward = b.graph().add_node(kColumnScaleBackward,
                                      {dy, node.inputs[0], node.inputs[1], node.inputs[2],
                                       b.parameter_gradient(node.inputs[1]), b.parameter_gradient(node.inputs[3])},
                                      {}, {b.graph().shape(dy)});
  backward.in_place = {{0, 0}};
  if (b.needs(node.inputs[0])) b.add(node.inputs[0], backward.outputs[0]);
}

const Op kColumnScale = {
    .name = "column_scale", .run = typed<run_scale<float>, run_scale<double>>, .gradient = scale_gradient};

struct DropoutAttr {
  double p;
  RandomStream stream;
};

template <typename T>
void run_dropout(const Run& run, const Node& node) {
  const DropoutAttr& attr = node.attr<DropoutAttr>();
  graft::dropout<T>(run.context(), attr.stream, run.inputs().update, run.span<const uint64_t>(node.inputs[1]), attr.p,
                    run.view<const T>(node.inputs[0]), run.view<T>(node.outputs[0]));
}

void dropout_gradient(GradientBuilder& b, const Node& node);
const Op kDropout = {
    .name = "dropout", .run = typed<run_dropout<float>, run_dropout<double>>, .gradient = dropout_gradient};

void dropout_gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]), x = node.inputs[0];
  if (!dy || !b.needs(x)) return;
  Node& backward = b.graph().add_node(kDropout, {dy, node.inputs[1]}, node.attributes, {b.graph().shape(x)});
  backward.in_place = {{0, 0}};
  b.add(x, backward.outputs[0]);
}

}  // namespace

Value dora_norm(Graph& g, Value weight, const AdapterPair& adapter) {
  const Shape &w = g.shape(weight), &a = g.shape(adapter.a), &b = g.shape(adapter.b);
  GRAFT_CHECK(a.columns == w.columns && b.fixed_rows == w.fixed_rows && a.fixed_rows == b.columns,
              "dora_norm: A {} and B {} do not fit the weight {}", to_string(a), to_string(b), to_string(w));
  const int64_t out = w.fixed_rows;
  return g.add_node(kDoraNorm, {weight, adapter.a, adapter.b}, adapter.scaling, {fixed_shape(out, 1)}, "norm")
      .outputs[0];
}

Value dora_column_norm(Graph& g, Value table, const AdapterPair& adapter) {
  const Shape &w = g.shape(table), &a = g.shape(adapter.a), &b = g.shape(adapter.b);
  GRAFT_CHECK(a.fixed_rows == w.fixed_rows && b.fixed_rows == w.columns && a.columns == b.columns,
              "dora_column_norm: A {} and B {} do not fit the table {}", to_string(a), to_string(b), to_string(w));
  const int64_t hidden = w.columns;
  return g.add_node(kDoraColumnNorm, {table, adapter.a, adapter.b}, adapter.scaling, {fixed_shape(hidden, 1)}, "norm")
      .outputs[0];
}

Value column_scale(Graph& g, Value z, Value magnitude, Value norm, Value bias) {
  const auto check = [&](const char* what, Value vector) {
    GRAFT_CHECK(!vector || g.shape(vector) == fixed_shape(g.shape(z).columns, 1),
                "column_scale: {} is {}, expected [{}, 1] for z {}", what, to_string(g.shape(vector)),
                g.shape(z).columns, to_string(g.shape(z)));
  };
  check("magnitude", magnitude), check("norm", norm), check("bias", bias);
  return g.add_node(kColumnScale, {z, magnitude, norm, bias}, {}, {g.shape(z)}, "magnitude").outputs[0];
}

Value dropout(Graph& g, Value x, Value row_keys, double p, uint64_t seed, const std::string& stream) {
  GRAFT_CHECK(p >= 0 && p < 1, "dropout: p is {}, expected [0, 1)", p);
  GRAFT_CHECK(g.shape(row_keys).kind == g.shape(x).kind && g.shape(row_keys).columns == 1,
              "dropout: row_keys is {}, expected one column and the rows of x {}", to_string(g.shape(row_keys)),
              to_string(g.shape(x)));
  return g
      .add_node(kDropout, {x, row_keys}, DropoutAttr{p, RandomStream(seed, stream_hash(stream))}, {g.shape(x)},
                "dropout")
      .outputs[0];
}

}  // namespace graft
