#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/embedding.h"
#include "graft/kernels/gemm.h"

namespace graft {
namespace {

struct Attr {
  double scaling = 0;
  int32_t frozen = -1;
};

template <typename T>
void scale(double scaling, View<T, 2> x) {
  for (int64_t i = 0; i < x.size(); ++i) x.data()[i] *= static_cast<T>(scaling);
}

// inputs: ids, x, A, B; outputs: y, h = scaling * A[ids].
template <typename T>
void run_forward(const Run& run, const Node& node) {
  const auto h = run.view<T>(node.outputs[1]);
  embedding<T>(run.context(), run.span<const int32_t>(node.inputs[0]), run.operand<T>(node.inputs[2]), h);
  scale(node.attr<Attr>().scaling, h);
  MatmulOutput<T> out;
  out.w = run.operand<T>(node.inputs[3]);
  out.residual = run.view<const T>(node.inputs[1]);
  out.y = run.view<T>(node.outputs[0]);
  matmul_nt<T>(run.context(), Compute::kF32, run.view<const T>(node.outputs[1]),
               std::span<const MatmulOutput<T>>(&out, 1));
}

// inputs: ids, h, dy, B, dA or none, dB or none; output: dh.
template <typename T>
void run_backward(const Run& run, const Node& node) {
  const auto dy = run.view<const T>(node.inputs[2]);
  const auto dh = run.view<T>(node.outputs[0]);
  if (node.inputs[5]) {
    matmul_tn<T>(run.context(), dy, run.view<const T>(node.inputs[1]), T{1}, true, run.view<T>(node.inputs[5]));
  }
  const MatmulSource<T> source{dy, run.operand<T>(node.inputs[3])};
  matmul_nn<T>(run.context(), Compute::kF32, std::span<const MatmulSource<T>>(&source, 1), false, dh);
  scale(node.attr<Attr>().scaling, dh);
  if (node.inputs[4]) {
    embedding_backward<T>(run.context(), run.span<const int32_t>(node.inputs[0]), run.view<const T>(node.outputs[0]),
                          run.view<T>(node.inputs[4]), node.attr<Attr>().frozen);
  }
}

ScratchNeed scratch(const Graph& g, const Node& node, const RunSizes& capacity, int threads) {
  const Shape& b = g.shape(node.inputs[3]);
  ScratchNeed need = matmul_scratch(threads, capacity.tokens, b.columns, b.fixed_rows);
  need.merge(matmul_scratch(threads, capacity.tokens, b.fixed_rows, b.columns));
  need.merge(matmul_scratch(threads, b.fixed_rows, capacity.tokens, b.columns));
  need.merge(embedding_backward_scratch(threads, capacity.tokens));
  return need;
}

const Op kBackward = {
    .name = "lora_embedding_backward", .run = typed<run_backward<float>, run_backward<double>>, .scratch = scratch};

void gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]);
  if (!dy) return;
  const Value da = b.parameter_gradient(node.inputs[2]), db = b.parameter_gradient(node.inputs[3]);
  if (da || db) {
    b.graph().add_node(kBackward, {node.inputs[0], node.outputs[1], dy, node.inputs[3], da, db}, node.attributes,
                       {b.graph().shape(node.outputs[1])});
  }
  if (b.needs(node.inputs[1])) b.add(node.inputs[1], dy);
}

const Op kLoraEmbedding = {.name = "lora_embedding",
                           .run = typed<run_forward<float>, run_forward<double>>,
                           .gradient = gradient,
                           .scratch = scratch};

}  // namespace

Value lora_embedding(Graph& g, Value ids, Value x, const AdapterPair& adapter, int32_t frozen) {
  const Shape &a = g.shape(adapter.a), &b = g.shape(adapter.b);
  GRAFT_CHECK(a.columns == b.columns && b.fixed_rows == g.shape(x).columns,
              "lora_embedding: A is {}, B is {}, expected [vocab, rank] and [{}, rank] for x {}", to_string(a),
              to_string(b), g.shape(x).columns, to_string(g.shape(x)));
  Shape h = g.shape(x);
  h.columns = a.columns;
  Node& node = g.add_node(kLoraEmbedding, {ids, x, adapter.a, adapter.b}, Attr{adapter.scaling, frozen},
                          {g.shape(x), h}, "lora_embedding");
  node.in_place = {{0, 1}};
  return node.outputs[0];
}

}  // namespace graft
