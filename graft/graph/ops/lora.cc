#include <algorithm>
#include <array>

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/ops/row_slots.h"
#include "graft/graph/plan.h"
#include "graft/kernels/gemm.h"

namespace graft {
namespace {

struct LoraDownAttr {
  struct Target {
    int64_t column = 0, width = 0;
    std::vector<int> a;  // input index per slot, -1: the slot has no adapter here
    std::vector<double> scaling;
  };
  std::vector<Target> targets;
};

// Kept per thread and reserved by prepare, so that running allocates nothing.
template <typename T>
struct Lists {
  std::vector<MatmulOutput<T>> outputs;
  std::vector<MatmulSource<T>> sources;
};
template <typename T>
Lists<T>& lists() {
  thread_local Lists<T> lists;
  return lists;
}
template <typename T>
void reserve(size_t targets) {
  lists<T>().outputs.reserve(targets);
  lists<T>().sources.reserve(targets);
}
void prepare(const Graph& g, const Node& node, const RunSizes&) {
  const size_t targets = node.attr<LoraDownAttr>().targets.size();
  g.dtype() == DType::kF64 ? reserve<double>(targets) : reserve<float>(targets);
}

// inputs: x, offsets or none, then every A. output: h [rows, sum of widths].
template <typename T>
void run_down(const Run& run, const Node& node) {
  const LoraDownAttr& attr = node.attr<LoraDownAttr>();
  const auto x = run.view<const T>(node.inputs[0]);
  const auto h = run.view<T>(node.outputs[0]);
  const RowSlots slots(run, node.inputs[1], x.extent(0));
  if (node.inputs[1]) std::fill_n(h.data(), h.size(), T{0});  // rows and columns without an adapter
  std::vector<MatmulOutput<T>>& outputs = lists<T>().outputs;
  for (int64_t s = 0; s < slots.count(); ++s) {
    const auto [begin, end] = slots.range(s);
    if (begin == end) continue;
    outputs.clear();
    for (const auto& target : attr.targets) {
      const auto slot = static_cast<size_t>(s);
      if (slot >= target.a.size() || target.a[slot] < 0) continue;
      MatmulOutput<T> out;
      out.w.rows = run.view<const T>(node.inputs[static_cast<size_t>(target.a[slot])]);
      out.scale = static_cast<T>(target.scaling[slot]);
      out.y = View<T, 2>(h.row(begin) + target.column, {end - begin, out.w.rows.extent(0)}, {h.stride(0), 1});
      outputs.push_back(out);
    }
    matmul_nt<T>(run.context(), Compute::kF32, View<const T, 2>(x.row(begin), {end - begin, x.extent(1)}, x.strides()),
                 outputs);
  }
}

// inputs: x, offsets or none, every A; then dh (already times scaling), the gradient that reached x before or none, every dA or none.
// output: dx (if wanted) = before + sum over targets of dh A.
template <typename T>
void run_down_backward(const Run& run, const Node& node) {
  const LoraDownAttr& attr = node.attr<LoraDownAttr>();
  const auto x = run.view<const T>(node.inputs[0]);
  const size_t num_a = (node.inputs.size() - 4) / 2;
  const auto dh = run.view<const T>(node.inputs[2 + num_a]);
  const auto before = run.view<const T>(node.inputs[3 + num_a]);
  const bool wants_dx = !node.outputs.empty();
  const View<T, 2> dx = wants_dx ? run.view<T>(node.outputs[0]) : View<T, 2>();
  if (wants_dx && before.data() != nullptr && before.data() != dx.data())
    std::copy_n(before.data(), before.size(), dx.data());
  const bool starts_at_zero = before.data() == nullptr && node.inputs[1];  // rows without an adapter have no gradient
  if (wants_dx && starts_at_zero) std::fill_n(dx.data(), dx.size(), T{0});
  const RowSlots slots(run, node.inputs[1], x.extent(0));
  std::vector<MatmulSource<T>>& sources = lists<T>().sources;
  for (int64_t s = 0; s < slots.count(); ++s) {
    const auto [begin, end] = slots.range(s);
    if (begin == end) continue;
    const auto rows_of = [&, first = begin, last = end](View<const T, 2> v, int64_t column, int64_t columns) {
      return View<const T, 2>(v.row(first) + column, {last - first, columns}, {v.stride(0), 1});
    };
    sources.clear();
    for (const auto& target : attr.targets) {
      const auto slot = static_cast<size_t>(s);
      if (slot >= target.a.size() || target.a[slot] < 0) continue;
      const auto index = static_cast<size_t>(target.a[slot]);
      MatmulSource<T> source;
      source.w.rows = run.view<const T>(node.inputs[index]);
      source.dy = rows_of(dh, target.column, source.w.rows.extent(0));
      if (const Value da = node.inputs[index + num_a + 2]) {
        matmul_tn<T>(run.context(), source.dy, rows_of(x, 0, x.extent(1)), T{1}, true, run.view<T>(da));
      }
      sources.push_back(source);
    }
    if (wants_dx && !sources.empty()) {
      matmul_nn<T>(run.context(), Compute::kF32, sources, before.data() != nullptr || starts_at_zero,
                   View<T, 2>(dx.row(begin), {end - begin, dx.extent(1)}, dx.strides()));
    }
  }
}

ScratchNeed scratch(const Graph& g, const Node& node, const RunSizes& capacity, int threads) {
  const Shape& x = g.shape(node.inputs[0]);
  ScratchNeed need;
  for (size_t i = 2; i < node.inputs.size(); ++i) {
    if (!node.inputs[i] || g.info(node.inputs[i]).kind == ValueKind::kActivation) continue;
    const int64_t rank = g.shape(node.inputs[i]).fixed_rows;
    need.merge(matmul_scratch(threads, x.rows(capacity), x.columns, rank));
    need.merge(matmul_scratch(threads, x.rows(capacity), rank, x.columns));
    need.merge(matmul_scratch(threads, rank, x.rows(capacity), x.columns));  // dA = dh^T x sums over rows
  }
  return need;
}

double flops(const Graph& g, const Node& node, const RunSizes& sizes) {
  return 2.0 * static_cast<double>(g.shape(node.inputs[0]).elements(sizes)) *
         static_cast<double>(g.shape(node.outputs[0]).columns);
}

// Of dA = dh^T x and, where it is wanted, dx = dh A.
double backward_flops(const Graph& g, const Node& node, const RunSizes& sizes) {
  const size_t num_a = (node.inputs.size() - 4) / 2;
  const double one = 2.0 * static_cast<double>(g.shape(node.inputs[0]).elements(sizes)) *
                     static_cast<double>(g.shape(node.inputs[2 + num_a]).columns);
  return one * (node.outputs.empty() ? 1 : 2);
}

const Op kLoraDownBackward = {.name = "lora_down_backward",
                              .run = typed<run_down_backward<float>, run_down_backward<double>>,
                              .scratch = scratch,
                              .flops = backward_flops,
                              .prepare = prepare};

void gradient(GradientBuilder& b, const Node& node) {
  const Value dh = b.gradient(node.outputs[0]), x = node.inputs[0];
  if (!dh) return;
  const bool wants_dx = b.needs(x);
  std::vector<Value> inputs = node.inputs;
  inputs.push_back(dh);
  const Value before = wants_dx ? b.take(x) : Value{};
  inputs.push_back(before);
  for (size_t i = 2; i < node.inputs.size(); ++i) inputs.push_back(b.parameter_gradient(node.inputs[i]));
  const int before_index = static_cast<int>(node.inputs.size()) + 1;
  Node& backward = b.graph().add_node(kLoraDownBackward, std::move(inputs), node.attributes,
                                      wants_dx ? std::vector<Shape>{b.graph().shape(x)} : std::vector<Shape>{});
  if (before) backward.in_place = {{0, before_index}};
  if (wants_dx) b.add(x, backward.outputs[0]);
}

const Op kLoraDown = {.name = "lora_down",
                      .run = typed<run_down<float>, run_down<double>>,
                      .gradient = gradient,
                      .scratch = scratch,
                      .flops = flops,
                      .prepare = prepare};

}  // namespace

Value lora_down(Graph& g, Value x, const std::vector<std::vector<AdapterPair>>& adapters, Value adapter_offsets) {
  LoraDownAttr attr;
  if (adapter_offsets) g.set_rule(adapter_offsets, {.kind = IndexRule::Kind::kRanges, .rows = g.shape(x).kind});
  std::vector<Value> inputs = {x, adapter_offsets};
  int64_t columns = 0;
  for (const auto& slots : adapters) {
    GRAFT_CHECK(!adapter_offsets || static_cast<int64_t>(slots.size()) <= g.shape(adapter_offsets).fixed_rows - 1,
                "lora_down: {} slots, adapter_offsets is {}", slots.size(), to_string(g.shape(adapter_offsets)));
    GRAFT_CHECK(adapter_offsets || slots.size() <= 1, "lora_down: {} slots and no adapter_offsets", slots.size());
    LoraDownAttr::Target target;
    target.column = columns;
    for (const AdapterPair& adapter : slots) {
      target.scaling.push_back(adapter.scaling);
      if (!adapter.a) {
        target.a.push_back(-1);
        continue;
      }
      const Shape a = g.shape(adapter.a);
      GRAFT_CHECK(a.columns == g.shape(x).columns, "lora_down: A is {}, expected [rank, {}] for x {}", to_string(a),
                  g.shape(x).columns, to_string(g.shape(x)));
      target.a.push_back(static_cast<int>(inputs.size()));
      target.width = std::max(target.width, a.fixed_rows);
      inputs.push_back(adapter.a);
    }
    columns += target.width;
    attr.targets.push_back(std::move(target));
  }
  Shape out = g.shape(x);
  out.columns = columns;
  return g.add_node(kLoraDown, std::move(inputs), std::move(attr), {out}, "lora_A").outputs[0];
}

}  // namespace graft
