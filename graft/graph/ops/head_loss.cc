#include <algorithm>

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/loss.h"

namespace graft {
namespace {

enum Input : size_t { kX, kHead, kLabels, kWeights, kLoss, kH, kB, kDHead, kDB, kMagnitude, kNorm, kDMagnitude };
enum Output : size_t { kNll, kDx, kDh };

// Rows at once: no more than the plan can have, so that scratch and run agree.
int64_t chunk_rows(const Node& node, const RunSizes& capacity) {
  return std::min(node.attr<HeadLossAttr>().chunk_rows, std::max<int64_t>(1, capacity.labels));
}

template <typename T>
void run_head_loss(const Run& run, const Node& node) {
  const HeadLossAttr& attr = node.attr<HeadLossAttr>();
  HeadLossArgs<T> args;
  args.x = run.view<const T>(node.inputs[kX]);
  args.head = run.operand<T>(node.inputs[kHead]);
  args.labels = run.span<const int32_t>(node.inputs[kLabels]);
  args.weights = run.span<const double>(node.inputs[kWeights]);
  args.label_smoothing = attr.label_smoothing;
  args.compute = attr.compute;
  args.chunk_rows = chunk_rows(node, run.capacity());
  args.nll = run.span<T>(node.outputs[kNll]);
  if (node.inputs[kH]) {
    args.lora.row_end = args.x.extent(0);
    args.lora.h = run.view<const T>(node.inputs[kH]);
    args.lora.b = run.view<const T>(node.inputs[kB]);
  }
  if (node.inputs[kMagnitude]) {
    args.magnitude = run.span<const T>(node.inputs[kMagnitude]);
    args.norm = run.span<const T>(node.inputs[kNorm]);
  }
  if (attr.train) {
    args.dmagnitude = run.span<T>(node.inputs[kDMagnitude]);
    args.dx = run.view<T>(node.outputs[kDx]);
    args.dhead = run.view<T>(node.inputs[kDHead]);
    if (node.inputs[kH]) {
      args.dlora_h = run.view<T>(node.outputs[kDh]);
      args.dlora_b = run.view<T>(node.inputs[kDB]);
    }
  }
  run.span<double>(node.inputs[kLoss])[0] = head_cross_entropy<T>(run.context(), args);
  if (attr.train && node.inputs[kH]) {
    const T scaling = static_cast<T>(attr.lora_scaling);
    for (T& d : run.span<T>(node.outputs[kDh])) d *= scaling;  // lora_down expects the gradient of x A^T
  }
}

void gradient(GradientBuilder& b, const Node& node) {
  if (!node.attr<HeadLossAttr>().train) return;
  if (b.needs(node.inputs[kX])) b.add(node.inputs[kX], node.outputs[kDx]);
  if (node.inputs[kH] && b.needs(node.inputs[kH])) b.add(node.inputs[kH], node.outputs[kDh]);
}

const Op kHeadLoss = {
    .name = "head_loss",
    .run = typed<run_head_loss<float>, run_head_loss<double>>,
    .gradient = gradient,
    .scratch =
        [](const Graph& g, const Node& node, const RunSizes& capacity, int threads) {
          const Shape& head = g.shape(node.inputs[kHead]);
          const int64_t rank = node.inputs[kB] ? g.shape(node.inputs[kB]).columns : 0;
          return head_cross_entropy_scratch(threads, head.columns, head.fixed_rows, chunk_rows(node, capacity), rank,
                                            static_cast<bool>(node.inputs[kMagnitude]));
        },
    .flops =
        [](const Graph& g, const Node& node, const RunSizes& sizes) {
          const Shape& head = g.shape(node.inputs[kHead]);
          return (node.attr<HeadLossAttr>().train ? 4.0 : 2.0) * static_cast<double>(sizes.labels) *
                 static_cast<double>(head.columns) * static_cast<double>(head.fixed_rows);
        },
};

}  // namespace

Value head_loss(Graph& g, Value x, Value head, Value labels, Value weights, Value loss, Value h, Value lora_b,
                const HeadLossAttr& attr, Value magnitude, Value norm) {
  const Shape shape = g.shape(x);
  GRAFT_CHECK(g.shape(head).columns == shape.columns, "head_loss: head is {}, expected [vocab, {}] for x {}",
              to_string(g.shape(head)), shape.columns, to_string(shape));
  Shape one = shape;
  one.columns = 1;
  GRAFT_CHECK(g.shape(labels) == one && g.shape(weights) == one, "head_loss: labels are {}, weights {}, expected {}",
              to_string(g.shape(labels)), to_string(g.shape(weights)), to_string(one));
  GRAFT_CHECK(
      !h || (g.shape(lora_b).fixed_rows == g.shape(head).fixed_rows && g.shape(lora_b).columns == g.shape(h).columns),
      "head_loss: B is {}, expected [{}, {}]", to_string(g.shape(lora_b)), g.shape(head).fixed_rows,
      g.shape(h).columns);
  g.set_rule(labels, {.kind = IndexRule::Kind::kBelow, .limit = g.shape(head).fixed_rows});
  const Shape column = fixed_shape(g.shape(head).fixed_rows, 1);
  GRAFT_CHECK(!magnitude || (g.shape(magnitude) == column && norm && g.shape(norm) == column),
              "head_loss: magnitude is {}, norm {}, expected {}", to_string(g.shape(magnitude)),
              norm ? to_string(g.shape(norm)) : "none", to_string(column));
  std::vector<Shape> outputs = {one};
  std::vector<Value> inputs = {x, head, labels, weights, loss, h, lora_b, {}, {}, magnitude, norm, {}};
  if (attr.train) {
    outputs.push_back(shape);
    inputs[kDHead] = g.info(head).gradient;
    if (magnitude) inputs[kDMagnitude] = g.info(magnitude).gradient;
    if (h) {
      outputs.push_back(g.shape(h));
      inputs[kDB] = g.info(lora_b).gradient;
    }
  }
  return g.add_node(kHeadLoss, std::move(inputs), attr, std::move(outputs), "loss").outputs[0];
}

}  // namespace graft
