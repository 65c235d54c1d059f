#include "graft/kernels/embedding.h"

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"

namespace graft {
namespace {

template <typename T>
void run_embedding(const Run& run, const Node& node) {
  embedding<T>(run.context(), run.span<const int32_t>(node.inputs[0]), run.operand<T>(node.inputs[1]),
               run.view<T>(node.outputs[0]));
}
template <typename T>
void run_backward(const Run& run, const Node& node) {
  embedding_backward<T>(run.context(), run.span<const int32_t>(node.inputs[0]), run.view<const T>(node.inputs[1]),
                        run.view<T>(node.inputs[2]), node.attr<int32_t>());
}
template <typename T>
void run_gather(const Run& run, const Node& node) {
  gather_rows<T>(run.context(), run.span<const int32_t>(node.inputs[1]), run.view<const T>(node.inputs[0]),
                 run.view<T>(node.outputs[0]));
}
template <typename T>
void run_scatter(const Run& run, const Node& node) {
  scatter_rows<T>(run.context(), run.span<const int32_t>(node.inputs[1]), run.view<const T>(node.inputs[0]),
                  run.view<T>(node.outputs[0]));
}

const Op kEmbeddingBackward = {
    .name = "embedding_backward",
    .run = typed<run_backward<float>, run_backward<double>>,
    .scratch = [](const Graph&, const Node&, const RunSizes& capacity,
                  int threads) { return embedding_backward_scratch(threads, capacity.tokens); },
};
const Op kScatterRows = {.name = "scatter_rows", .run = typed<run_scatter<float>, run_scatter<double>>};

void embedding_gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]), dtable = b.parameter_gradient(node.inputs[1]);
  if (dy && dtable) b.graph().add_node(kEmbeddingBackward, {node.inputs[0], dy, dtable}, node.attributes, {});
}
void gather_gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]), x = node.inputs[0];
  if (dy) b.add(x, b.graph().add_node(kScatterRows, {dy, node.inputs[1]}, {}, {b.graph().shape(x)}).outputs[0]);
}

const Op kEmbedding = {
    .name = "embedding", .run = typed<run_embedding<float>, run_embedding<double>>, .gradient = embedding_gradient};
const Op kGatherRows = {
    .name = "gather_rows", .run = typed<run_gather<float>, run_gather<double>>, .gradient = gather_gradient};

Shape rows_of(const Graph& g, Value indices, int64_t columns, const char* op) {
  Shape shape = g.shape(indices);
  GRAFT_CHECK(shape.columns == 1, "{}: indices are {}, expected one column", op, to_string(shape));
  shape.columns = columns;
  return shape;
}

}  // namespace

Value embedding(Graph& g, Value ids, Value table, int32_t frozen) {
  g.set_rule(ids, {.kind = IndexRule::Kind::kBelow, .limit = g.shape(table).fixed_rows});
  return g.add_node(kEmbedding, {ids, table}, frozen, {rows_of(g, ids, g.shape(table).columns, "embedding")}, "embed")
      .outputs[0];
}

Value gather_rows(Graph& g, Value x, Value rows) {
  const Shape& from = g.shape(x);
  const auto kind = from.kind == Rows::kFixed ? IndexRule::Kind::kBelow : IndexRule::Kind::kRow;
  g.set_rule(rows, {.kind = kind, .limit = from.fixed_rows, .rows = from.kind});
  return g.add_node(kGatherRows, {x, rows}, {}, {rows_of(g, rows, g.shape(x).columns, "gather_rows")}, "gather")
      .outputs[0];
}

}  // namespace graft
