#include <algorithm>

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/ops/row_slots.h"
#include "graft/graph/plan.h"
#include "graft/kernels/elementwise.h"
#include "graft/kernels/gemm.h"

namespace graft {
namespace {

struct Attr {
  struct Output {
    int weight = -1, bias = -1, residual = -1;  // input indices
    std::vector<int> b;                         // per slot
    std::vector<double> scaling;                // per slot, of the adapter (for the gradient of h)
    int64_t column = 0;                         // of this target in h
  };
  Compute compute = Compute::kF32;
  std::vector<Output> outputs;
};
constexpr size_t kX = 0, kH = 1, kOffsets = 2;

// Kept per thread and reserved by prepare, so that running allocates nothing.
template <typename T>
struct Lists {
  std::vector<MatmulOutput<T>> outputs;
  std::vector<LoraTerm<T>> terms;
  std::vector<MatmulSource<T>> sources;
};
template <typename T>
Lists<T>& lists() {
  thread_local Lists<T> lists;
  return lists;
}
template <typename T>
void reserve(const Node& node) {
  lists<T>().outputs.reserve(node.inputs.size());
  lists<T>().terms.reserve(node.inputs.size());
  lists<T>().sources.reserve(node.inputs.size());
}
void prepare(const Graph& g, const Node& node, const RunSizes&) {
  g.dtype() == DType::kF64 ? reserve<double>(node) : reserve<float>(node);
}

// The part of h that target `out` and slot `slot` use.
template <typename T>
View<T, 2> slot_rows(View<T, 2> h, int64_t begin, int64_t end, int64_t column, int64_t rank) {
  return View<T, 2>(h.row(begin) + column, {end - begin, rank}, {h.stride(0), 1});
}

template <typename T>
void run_forward(const Run& run, const Node& node) {
  const Attr& attr = node.attr<Attr>();
  const auto in = [&](int i) { return i < 0 ? Value{} : node.inputs[static_cast<size_t>(i)]; };
  const auto x = run.view<const T>(node.inputs[kX]);
  const auto h = run.view<const T>(node.inputs[kH]);
  const RowSlots slots(run, node.inputs[kOffsets], x.extent(0));
  std::vector<MatmulOutput<T>>& outputs = lists<T>().outputs;
  std::vector<LoraTerm<T>>& terms =
      lists<T>().terms;  // one per B at most: it never grows while the outputs hold spans into it
  outputs.clear();
  terms.clear();
  for (size_t i = 0; i < attr.outputs.size(); ++i) {
    const auto& spec = attr.outputs[i];
    MatmulOutput<T> out;
    out.w = run.operand<T>(in(spec.weight));
    out.bias = run.span<const T>(in(spec.bias));
    out.residual = run.view<const T>(in(spec.residual));
    out.y = run.view<T>(node.outputs[i]);
    const size_t first = terms.size();
    for (int64_t s = 0; s < slots.count() && s < static_cast<int64_t>(spec.b.size()); ++s) {
      const int b = spec.b[static_cast<size_t>(s)];
      const auto [begin, end] = slots.range(s);
      if (b < 0 || begin == end) continue;
      const auto rows = run.view<const T>(in(b));
      terms.push_back({begin, end, slot_rows(h, begin, end, spec.column, rows.extent(1)), rows});
    }
    out.terms = std::span<const LoraTerm<T>>(terms.data() + first, terms.size() - first);
    outputs.push_back(out);
  }
  matmul_nt<T>(run.context(), attr.compute, x, outputs);
}

// inputs: the gradient that reached x before or none, then (dy, weight) pairs. output: dx.
template <typename T>
void run_dx(const Run& run, const Node& node) {
  const auto before = run.view<const T>(node.inputs[0]);
  const auto dx = run.view<T>(node.outputs[0]);
  if (before.data() != nullptr && before.data() != dx.data()) std::copy_n(before.data(), before.size(), dx.data());
  std::vector<MatmulSource<T>>& sources = lists<T>().sources;
  sources.clear();
  for (size_t i = 1; i < node.inputs.size(); i += 2) {
    sources.push_back({run.view<const T>(node.inputs[i]), run.operand<T>(node.inputs[i + 1])});
  }
  matmul_nn<T>(run.context(), node.attr<Attr>().compute, sources, before.data() != nullptr, dx);
}

// inputs: dy, x, dw.
template <typename T>
void run_dw(const Run& run, const Node& node) {
  matmul_tn<T>(run.context(), run.view<const T>(node.inputs[0]), run.view<const T>(node.inputs[1]), T{1}, true,
               run.view<T>(node.inputs[2]));
}

// inputs: dy, dbias.
template <typename T>
void run_dbias(const Run& run, const Node& node) {
  sum_rows<T>(run.context(), run.view<const T>(node.inputs[0]), run.span<T>(node.inputs[1]));
}

// inputs: h, offsets, then dy per target, then (B, dB) per target and slot. output: dh, times the scaling: the gradient of x A^T.
template <typename T>
void run_dh(const Run& run, const Node& node) {
  const Attr& attr = node.attr<Attr>();
  const auto h = run.view<const T>(node.inputs[0]);
  const auto dh = run.view<T>(node.outputs[0]);
  const RowSlots slots(run, node.inputs[1], h.extent(0));
  std::fill_n(dh.data(), dh.size(), T{0});  // columns and rows without an adapter
  size_t pair = 2 + attr.outputs.size();
  for (size_t t = 0; t < attr.outputs.size(); ++t) {
    const auto& spec = attr.outputs[t];
    const auto dy = run.view<const T>(node.inputs[2 + t]);
    for (size_t s = 0; s < spec.b.size(); ++s, pair += 2) {
      if (spec.b[s] < 0 || static_cast<int64_t>(s) >= slots.count()) continue;
      const auto [begin, end] = slots.range(static_cast<int64_t>(s));
      if (begin == end || dy.data() == nullptr) continue;
      const auto b = run.view<const T>(node.inputs[pair]);
      const View<const T, 2> dy_rows(dy.row(begin), {end - begin, dy.extent(1)}, dy.strides());
      if (const Value db = node.inputs[pair + 1]) {
        matmul_tn<T>(run.context(), dy_rows, slot_rows(h, begin, end, spec.column, b.extent(1)), T{1}, true,
                     run.view<T>(db));
      }
      const auto target = slot_rows(dh, begin, end, spec.column, b.extent(1));
      MatmulSource<T> source;
      source.dy = dy_rows;
      source.w.rows = b;
      matmul_nn<T>(run.context(), Compute::kF32, std::span<const MatmulSource<T>>(&source, 1), false, target);
      const T scaling = static_cast<T>(spec.scaling[s]);
      for (int64_t i = 0; i < target.extent(0); ++i) {
        for (int64_t j = 0; j < target.extent(1); ++j) target(i, j) *= scaling;
      }
    }
  }
}

ScratchNeed scratch(const Graph& g, const Node& node, const RunSizes& capacity, int threads) {
  ScratchNeed need;
  const Shape& x = g.shape(node.inputs[0] ? node.inputs[0] : node.outputs[0]);
  const int64_t rows = x.rows(capacity);
  for (Value input : node.inputs) {
    if (!input || g.info(input).kind == ValueKind::kActivation || g.shape(input).kind != Rows::kFixed) continue;
    const Shape& w = g.shape(input);
    need.merge(matmul_scratch(threads, rows, w.columns, w.fixed_rows));
    need.merge(matmul_scratch(threads, rows, w.fixed_rows, w.columns));
    need.merge(matmul_scratch(threads, w.fixed_rows, rows, w.columns));
  }
  return need;
}

double forward_flops(const Graph& g, const Node& node, const RunSizes& sizes) {
  const Attr& attr = node.attr<Attr>();
  double sum = 0;
  for (size_t i = 0; i < attr.outputs.size(); ++i) {
    double summed = static_cast<double>(g.shape(node.inputs[kX]).columns);
    for (const int b : attr.outputs[i].b) {  // every row has one adapter
      if (b >= 0) {
        summed += static_cast<double>(g.shape(node.inputs[static_cast<size_t>(b)]).columns) /
                  static_cast<double>(attr.outputs[i].b.size());
      }
    }
    sum += summed * static_cast<double>(g.shape(node.outputs[i]).columns);
  }
  return 2.0 * static_cast<double>(g.shape(node.inputs[kX]).rows(sizes)) * sum;
}
// Of dh = dy B and dB = dy^T h.
double dh_flops(const Graph& g, const Node& node, const RunSizes& sizes) {
  const Attr& attr = node.attr<Attr>();
  double sum = 0;
  size_t pair = 2 + attr.outputs.size();
  for (const auto& spec : attr.outputs) {
    for (size_t s = 0; s < spec.b.size(); ++s, pair += 2) {
      if (spec.b[s] < 0) continue;
      const Shape& b = g.shape(node.inputs[pair]);
      sum += static_cast<double>(b.fixed_rows * b.columns * (node.inputs[pair + 1] ? 2 : 1)) /
             static_cast<double>(spec.b.size());
    }
  }
  return 2.0 * static_cast<double>(g.shape(node.inputs[0]).rows(sizes)) * sum;
}
double dx_flops(const Graph& g, const Node& node, const RunSizes& sizes) {
  double sum = 0;
  for (size_t i = 1; i < node.inputs.size(); i += 2) sum += static_cast<double>(g.shape(node.inputs[i]).columns);
  return 2.0 * static_cast<double>(g.shape(node.outputs[0]).elements(sizes)) * sum;
}
double dw_flops(const Graph& g, const Node& node, const RunSizes& sizes) {
  return 2.0 * static_cast<double>(g.shape(node.inputs[0]).elements(sizes)) *
         static_cast<double>(g.shape(node.inputs[1]).columns);
}

const Op kDx = {.name = "projections_dx",
                .run = typed<run_dx<float>, run_dx<double>>,
                .scratch = scratch,
                .flops = dx_flops,
                .prepare = prepare};
const Op kDw = {
    .name = "weight_gradient", .run = typed<run_dw<float>, run_dw<double>>, .scratch = scratch, .flops = dw_flops};
const Op kDbias = {.name = "bias_gradient", .run = typed<run_dbias<float>, run_dbias<double>>};
const Op kDh = {
    .name = "lora_up_backward", .run = typed<run_dh<float>, run_dh<double>>, .scratch = scratch, .flops = dh_flops};

void gradient(GradientBuilder& b, const Node& node) {
  Graph& g = b.graph();
  const Attr attr = node.attr<Attr>();
  const auto in = [&](int i) { return i < 0 ? Value{} : node.inputs[static_cast<size_t>(i)]; };
  const Value x = node.inputs[kX], h = node.inputs[kH];
  std::vector<Value> dys;
  bool any = false;
  for (Value output : node.outputs) {
    dys.push_back(b.gradient(output));
    any = any || static_cast<bool>(dys.back());
  }
  if (!any) return;
  if (b.needs(h)) {
    std::vector<Value> inputs = {h, node.inputs[kOffsets]};
    inputs.insert(inputs.end(), dys.begin(), dys.end());
    for (const auto& spec : attr.outputs) {
      for (const int i : spec.b) {
        inputs.push_back(in(i));
        inputs.push_back(b.parameter_gradient(in(i)));
      }
    }
    b.add(h, g.add_node(kDh, std::move(inputs), attr, {g.shape(h)}).outputs[0]);
  }
  std::vector<Value> inputs = {Value{}};
  for (size_t i = 0; i < attr.outputs.size(); ++i) {
    if (!dys[i]) continue;
    const Value weight = in(attr.outputs[i].weight);
    if (const Value dw = b.parameter_gradient(weight)) g.add_node(kDw, {dys[i], x, dw}, {}, {});
    if (const Value dbias = b.parameter_gradient(in(attr.outputs[i].bias))) g.add_node(kDbias, {dys[i], dbias}, {}, {});
    inputs.push_back(dys[i]);
    inputs.push_back(weight);
  }
  if (b.needs(x)) {
    inputs[0] = b.take(x);
    const bool in_place = static_cast<bool>(inputs[0]);
    Node& backward = g.add_node(kDx, std::move(inputs), Attr{attr.compute, {}}, {g.shape(x)});
    if (in_place) backward.in_place = {{0, 0}};
    b.add(x, backward.outputs[0]);
  }
  // Last: the residual's gradient is dy itself, and whoever folds it in may overwrite it.
  for (size_t i = 0; i < attr.outputs.size(); ++i) {
    const Value residual = in(attr.outputs[i].residual);
    if (dys[i] && b.needs(residual)) b.add(residual, dys[i]);
  }
}

const Op kProjections = {
    .name = "projections",
    .run = typed<run_forward<float>, run_forward<double>>,
    .gradient = gradient,
    .scratch = scratch,
    .flops = forward_flops,
    .prepare = prepare,
};

}  // namespace

std::vector<Value> projections(Graph& g, Compute compute, Value x, const std::vector<Projection>& outputs, Value h,
                               Value adapter_offsets) {
  Attr attr;
  attr.compute = compute;
  std::vector<Value> inputs = {x, h, adapter_offsets};
  std::vector<Shape> shapes;
  const auto put = [&](Value value) {
    if (!value) return -1;
    inputs.push_back(value);
    return static_cast<int>(inputs.size()) - 1;
  };
  int64_t column = 0;
  for (const Projection& p : outputs) {
    const Shape w = g.shape(p.weight);
    GRAFT_CHECK(w.columns == g.shape(x).columns, "linear: weight '{}' is {}, expected [out, {}] for x {}",
                g.info(p.weight).name, to_string(w), g.shape(x).columns, to_string(g.shape(x)));
    GRAFT_CHECK(!p.bias || g.shape(p.bias).fixed_rows == w.fixed_rows, "linear: bias '{}' is {}, expected [{}, 1]",
                g.info(p.bias).name, to_string(g.shape(p.bias)), w.fixed_rows);
    Shape y = g.shape(x);
    y.columns = w.fixed_rows;
    GRAFT_CHECK(!p.residual || g.shape(p.residual) == y, "linear: residual is {}, expected {}",
                to_string(g.shape(p.residual)), to_string(y));
    Attr::Output out;
    out.weight = put(p.weight);
    out.bias = put(p.bias);
    out.residual = put(p.residual);
    out.column = column;
    int64_t width = 0;
    for (const AdapterPair& adapter : p.adapters) {
      out.b.push_back(put(adapter.b));
      out.scaling.push_back(adapter.scaling);
      if (!adapter.b) continue;
      GRAFT_CHECK(g.shape(adapter.b).fixed_rows == w.fixed_rows, "linear: B is {}, expected [{}, rank]",
                  to_string(g.shape(adapter.b)), w.fixed_rows);
      width = std::max(width, g.shape(adapter.b).columns);
    }
    column += width;
    attr.outputs.push_back(std::move(out));
    shapes.push_back(y);
  }
  GRAFT_CHECK(column == (h ? g.shape(h).columns : 0), "linear: h is {}, the adapters' ranks add up to {}",
              h ? to_string(g.shape(h)) : "none", column);
  return g.add_node(kProjections, std::move(inputs), std::move(attr), std::move(shapes)).outputs;
}

}  // namespace graft
