#include <algorithm>
#include <array>

#include "graft/base/error.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "graft/kernels/activation.h"
#include "graft/kernels/moe_gemm.h"

// The experts of a mixture in two ops. Sorted rows stand in [tokens, top_k * width] values, row a of assignments at
// element a * width; with a capacity the last ones are not used.

namespace graft {
namespace {

// One projection of every expert: input indices, -1 where there is none.
struct Family {
  std::vector<int> weight, a, b;
  std::vector<double> scaling;
  int64_t rank = 0;  // of the widest adapter; 0: none
};
struct Attr {
  Compute compute = Compute::kF32;
  int64_t top_k = 1;
  std::array<Family, 2> families;  // gate and up, or down
};

// Kept per thread and reserved by prepare, so that running allocates nothing.
template <typename T>
struct Lists {
  std::array<std::vector<Operand<T>>, 6> operands;
  std::array<std::vector<View<T, 2>>, 6> gradients;
  std::array<std::vector<T>, 2> scales;
};
template <typename T>
Lists<T>& lists() {
  thread_local Lists<T> lists;
  return lists;
}
template <typename T>
void reserve(size_t experts) {
  for (auto& list : lists<T>().operands) list.reserve(experts);
  for (auto& list : lists<T>().gradients) list.reserve(experts);
  for (auto& list : lists<T>().scales) list.reserve(experts);
}
void prepare(const Graph& g, const Node& node, const RunSizes&) {
  const size_t experts = node.attr<Attr>().families[0].weight.size();
  g.dtype() == DType::kF64 ? reserve<double>(experts) : reserve<float>(experts);
}

// Operands (and gradients) of one run; list 3 f + 0, 1, 2 are W, A, B of family f.
template <typename T>
class Bound {
 public:
  // offset: where the family's indices count from among the node's inputs; gradients: where those of gradients do, or 0.
  Bound(const Run& run, const Node& node, size_t offset, size_t gradients) {
    const Attr& attr = node.attr<Attr>();
    for (size_t f = 0; f < 2; ++f) {
      const Family& family = attr.families[f];
      const std::vector<int>* const indices[] = {&family.weight, &family.a, &family.b};
      for (size_t kind = 0; kind < 3; ++kind) {
        auto& operands = lists<T>().operands[3 * f + kind];
        auto& dw = lists<T>().gradients[3 * f + kind];
        operands.clear(), dw.clear();
        for (const int i : *indices[kind]) {
          operands.push_back(i < 0 ? Operand<T>{} : run.operand<T>(node.inputs[offset + static_cast<size_t>(i)]));
          if (gradients == 0) continue;
          dw.push_back(i < 0 ? View<T, 2>{} : run.view<T>(node.inputs[gradients + static_cast<size_t>(i)]));
        }
      }
      auto& scales = lists<T>().scales[f];
      scales.assign(family.scaling.begin(), family.scaling.end());
    }
  }
  std::span<const Operand<T>> w(size_t f) const { return lists<T>().operands[3 * f]; }
  std::span<const Operand<T>> a(size_t f) const { return lists<T>().operands[3 * f + 1]; }
  std::span<const Operand<T>> b(size_t f) const { return lists<T>().operands[3 * f + 2]; }
  std::span<const View<T, 2>> dw(size_t f) const { return lists<T>().gradients[3 * f]; }
  std::span<const View<T, 2>> da(size_t f) const { return lists<T>().gradients[3 * f + 1]; }
  std::span<const View<T, 2>> db(size_t f) const { return lists<T>().gradients[3 * f + 2]; }
  std::span<const T> scales(size_t f) const { return lists<T>().scales[f]; }
};

template <typename T>
bool any(std::span<const View<T, 2>> gradients) {
  return std::any_of(gradients.begin(), gradients.end(), [](const View<T, 2>& v) { return v.data() != nullptr; });
}

ExpertRows expert_rows(const Run& run, const Attr& attr, Value offsets, Value rows) {
  return {run.span<const int32_t>(offsets), run.span<const int32_t>(rows), attr.top_k, run.sizes().tokens};
}

// A value of sorted rows, as many as there are; those that no expert took are zeros.
template <typename T>
View<T, 2> sorted(const Run& run, Value value, const ExpertRows& rows) {
  if (!value) return {};
  const int64_t width = run.graph().shape(value).columns / rows.top_k;
  const std::span<T> all = run.span<T>(value);
  if constexpr (!std::is_const_v<T>) {
    const size_t used = static_cast<size_t>(rows.count() * width);
    if (used < all.size()) std::fill(all.begin() + static_cast<std::ptrdiff_t>(used), all.end(), T{0});
  }
  return View<T, 2>(all.data(), rows.count(), width);
}

// LoRA's rows; experts without an adapter leave theirs.
template <typename T>
View<T, 2> low_rows(const Run& run, Value value, const ExpertRows& rows, const Family& family) {
  const View<T, 2> h = sorted<T>(run, value, rows);
  if (std::count(family.a.begin(), family.a.end(), -1) > 0) std::fill_n(h.data(), h.size(), T{0});
  return h;
}

template <typename T>
void run_products(const Run& run, const ExpertRows& rows, std::span<const ExpertProduct<T>> products) {
  expert_products<T>(run.context(), rows, products);
}
template <typename T>
void run_product(const Run& run, const ExpertRows& rows, const ExpertProduct<T>& product) {
  expert_products<T>(run.context(), rows, std::span<const ExpertProduct<T>>(&product, 1));
}

// inputs: x, offsets, rows, then what Attr names. outputs: gate, up, then the LoRA rows of those that have some.
constexpr size_t kInPrefix = 3;
template <typename T>
void run_in(const Run& run, const Node& node) {
  const Attr& attr = node.attr<Attr>();
  const ExpertRows rows = expert_rows(run, attr, node.inputs[1], node.inputs[2]);
  const Bound<T> bound(run, node, kInPrefix, 0);
  const View<const T, 2> x = run.view<const T>(node.inputs[0]);
  std::array<ExpertProduct<T>, 2> low, products;
  std::array<ExpertSource<T>, 2> a;
  std::array<std::array<ExpertSource<T>, 2>, 2> sources;
  size_t num_low = 0;
  for (size_t f = 0; f < 2; ++f) {
    sources[f][0] = {x, true, bound.w(f), false, false, attr.compute};
    products[f].sources = std::span(sources[f]).first(1);
    products[f].y = sorted<T>(run, node.outputs[f], rows);
    if (attr.families[f].rank == 0) continue;
    const View<T, 2> h = low_rows<T>(run, node.outputs[2 + num_low], rows, attr.families[f]);
    a[num_low] = {x, true, bound.a(f), false, false, Compute::kF32};
    low[num_low].sources = std::span(a).subspan(num_low, 1);
    low[num_low].y = h, low[num_low].scales = bound.scales(f);
    sources[f][1] = {h, false, bound.b(f), false, true, Compute::kF32};
    products[f].sources = sources[f];
    ++num_low;
  }
  if (num_low > 0) run_products<T>(run, rows, std::span<const ExpertProduct<T>>(low).first(num_low));
  run_products<T>(run, rows, products);
}

// inputs: dgate, dup, LoRA rows of gate and up or none, x, offsets, rows, what reached x before or none, then what Attr names, then the gradients of that.
// outputs: dx where wanted, then, per LoRA, its rows' gradient.
constexpr size_t kInBackPrefix = 8;
template <typename T>
void run_in_backward(const Run& run, const Node& node) {
  const Attr& attr = node.attr<Attr>();
  const ExpertRows rows = expert_rows(run, attr, node.inputs[5], node.inputs[6]);
  const Bound<T> bound(run, node, kInBackPrefix, kInBackPrefix + (node.inputs.size() - kInBackPrefix) / 2);
  const View<const T, 2> x = run.view<const T>(node.inputs[4]);
  const size_t num_low =
      static_cast<size_t>(attr.families[0].rank > 0) + static_cast<size_t>(attr.families[1].rank > 0);
  const bool wants_dx = node.outputs.size() > num_low;
  std::array<ExpertGradient<T>, 6> gradients;
  std::array<ExpertSource<T>, 4> sources;
  size_t num_gradients = 0, num_sources = 0, low = wants_dx ? 1 : 0;
  for (size_t f = 0; f < 2; ++f) {
    const View<const T, 2> dy = sorted<const T>(run, node.inputs[f], rows);
    if (any(bound.dw(f))) gradients[num_gradients++] = {dy, x, false, true, bound.dw(f)};
    sources[num_sources++] = {dy, false, bound.w(f), true, false, attr.compute};
  }
  for (size_t f = 0; f < 2; ++f) {
    if (attr.families[f].rank == 0) continue;
    const View<const T, 2> dy = sorted<const T>(run, node.inputs[f], rows);
    const View<const T, 2> h = sorted<const T>(run, node.inputs[2 + f], rows);
    const View<T, 2> dh = low_rows<T>(run, node.outputs[low++], rows, attr.families[f]);
    const ExpertSource<T> source = {dy, false, bound.b(f), true, false, Compute::kF32};
    ExpertProduct<T> product;
    product.sources = std::span(&source, 1), product.y = dh, product.scales = bound.scales(f);
    run_product<T>(run, rows, product);
    if (any(bound.db(f))) gradients[num_gradients++] = {dy, h, false, false, bound.db(f)};
    if (any(bound.da(f))) gradients[num_gradients++] = {dh, x, false, true, bound.da(f)};
    sources[num_sources++] = {dh, false, bound.a(f), true, false, Compute::kF32};
  }
  if (num_gradients > 0) {
    expert_gradients<T>(run.context(), rows, std::span<const ExpertGradient<T>>(gradients).first(num_gradients));
  }
  if (!wants_dx) return;
  const View<T, 2> dx = run.view<T>(node.outputs[0]);
  const auto before = run.view<const T>(node.inputs[7]);
  if (before.data() == nullptr) {
    std::fill_n(dx.data(), dx.size(), T{0});
  } else if (before.data() != dx.data()) {
    std::copy_n(before.data(), before.size(), dx.data());
  }
  ExpertProduct<T> product;
  product.sources = std::span(sources).first(num_sources), product.y = dx, product.by_token = true;
  run_product<T>(run, rows, product);
}

// inputs: gate, up, weights, offsets, rows, residual or none, then what Attr names. outputs: y, h, its LoRA rows or nothing.
constexpr size_t kOutPrefix = 6;
template <typename T>
void run_out(const Run& run, const Node& node) {
  const Attr& attr = node.attr<Attr>();
  const ExpertRows rows = expert_rows(run, attr, node.inputs[3], node.inputs[4]);
  const Bound<T> bound(run, node, kOutPrefix, 0);
  const View<T, 2> y = run.view<T>(node.outputs[0]), h = sorted<T>(run, node.outputs[1], rows);
  const auto residual = run.view<const T>(node.inputs[5]);
  if (residual.data() == nullptr) {
    std::fill_n(y.data(), y.size(), T{0});
  } else if (residual.data() != y.data()) {
    std::copy_n(residual.data(), residual.size(), y.data());
  }
  swiglu<T>(run.context(), sorted<const T>(run, node.inputs[0], rows), sorted<const T>(run, node.inputs[1], rows), h);
  std::array<ExpertSource<T>, 2> sources;
  sources[0] = {h, false, bound.w(0), false, false, attr.compute};
  ExpertProduct<T> product;
  product.sources = std::span(sources).first(1);
  if (attr.families[0].rank > 0) {
    const View<T, 2> low = low_rows<T>(run, node.outputs[2], rows, attr.families[0]);
    const ExpertSource<T> source = {h, false, bound.a(0), false, false, Compute::kF32};
    ExpertProduct<T> down;
    down.sources = std::span(&source, 1), down.y = low, down.scales = bound.scales(0);
    run_product<T>(run, rows, down);
    sources[1] = {low, false, bound.b(0), false, true, Compute::kF32};
    product.sources = sources;
  }
  product.y = y, product.by_token = true, product.weights = run.span<const T>(node.inputs[2]);
  run_product<T>(run, rows, product);
}

// inputs: dy, gate, up, weights, offsets, rows, then what Attr names, then the gradients of that.
// outputs: dgate, dup, h (weighted, for its products only), dweights, then with LoRA its rows and their gradient.
constexpr size_t kOutBackPrefix = 6;
template <typename T>
void run_out_backward(const Run& run, const Node& node) {
  const Attr& attr = node.attr<Attr>();
  const ExpertRows rows = expert_rows(run, attr, node.inputs[4], node.inputs[5]);
  const Bound<T> bound(run, node, kOutBackPrefix, kOutBackPrefix + (node.inputs.size() - kOutBackPrefix) / 2);
  const auto dy = run.view<const T>(node.inputs[0]);
  const auto gate = sorted<const T>(run, node.inputs[1], rows), up = sorted<const T>(run, node.inputs[2], rows);
  const View<T, 2> h = sorted<T>(run, node.outputs[2], rows);
  const bool lora = attr.families[0].rank > 0;
  // u = dy Wd in dgate's place: the gradient of h before the weight.
  const View<T, 2> u = sorted<T>(run, node.outputs[0], rows);
  std::array<ExpertSource<T>, 2> sources;
  sources[0] = {dy, true, bound.w(0), true, false, attr.compute};
  ExpertProduct<T> product;
  product.sources = std::span(sources).first(1), product.y = u;
  View<T, 2> low, dlow;
  if (lora) {
    low = low_rows<T>(run, node.outputs[4], rows, attr.families[0]);
    dlow = low_rows<T>(run, node.outputs[5], rows, attr.families[0]);
    const ExpertSource<T> source = {dy, true, bound.b(0), true, false, Compute::kF32};
    ExpertProduct<T> down;
    down.sources = std::span(&source, 1), down.y = dlow, down.scales = bound.scales(0);
    run_product<T>(run, rows, down);
    sources[1] = {dlow, false, bound.a(0), true, true, Compute::kF32};
    product.sources = sources;
  }
  run_product<T>(run, rows, product);
  swiglu<T>(run.context(), gate, up, h);
  expert_weight_gradients<T>(run.context(), rows, run.span<const T>(node.inputs[3]), u, h,
                             run.span<T>(node.outputs[3]));
  std::array<ExpertGradient<T>, 3> gradients;
  size_t num_gradients = 0;
  if (any(bound.dw(0))) gradients[num_gradients++] = {dy, h, true, false, bound.dw(0)};
  if (lora) {
    const ExpertSource<T> source = {h, false, bound.a(0), false, false, Compute::kF32};
    ExpertProduct<T> down;
    down.sources = std::span(&source, 1), down.y = low, down.scales = bound.scales(0);
    run_product<T>(run, rows, down);
    if (any(bound.db(0))) gradients[num_gradients++] = {dy, low, true, false, bound.db(0)};
    if (any(bound.da(0))) gradients[num_gradients++] = {dlow, h, false, false, bound.da(0)};
  }
  if (num_gradients > 0) {
    expert_gradients<T>(run.context(), rows, std::span<const ExpertGradient<T>>(gradients).first(num_gradients));
  }
  swiglu_backward<T>(run.context(), u, gate, up, u, sorted<T>(run, node.outputs[1], rows));
}

// Weights and adapters a node holds, and the widths it works with: scratch and cost from shapes alone.
struct Extents {
  int64_t in = 0, out = 0, rank = 0, top_k = 1;
};
Extents extents(const Graph& g, const Node& node, size_t prefix) {
  const Attr& attr = node.attr<Attr>();
  const Shape& w = g.shape(node.inputs[prefix + static_cast<size_t>(attr.families[0].weight[0])]);
  return {w.columns, w.fixed_rows, attr.families[0].rank + attr.families[1].rank, attr.top_k};
}
template <size_t kPrefix>
ScratchNeed scratch(const Graph& g, const Node& node, const RunSizes& capacity, int threads) {
  const Extents e = extents(g, node, kPrefix);
  return expert_scratch(threads, capacity.tokens * e.top_k, 2 * std::max(e.in, e.out) + 2 * e.rank);
}
// The products with every W, A and B: forward, or (kBackward) of what reaches their inputs and of the gradients that are wanted.
template <size_t kPrefix, bool kBackward>
double flops(const Graph& g, const Node& node, const RunSizes& sizes) {
  const Attr& attr = node.attr<Attr>();
  const size_t parameters = (node.inputs.size() - kPrefix) / 2;  // backward: their gradients follow them
  size_t adapters = 0;
  for (const Family& family : attr.families) adapters += family.rank > 0 ? 1 : 0;
  double sum = 0;
  for (const Family& family : attr.families) {
    for (const auto* const indices : {&family.weight, &family.a, &family.b}) {
      const auto used = std::find_if(indices->begin(), indices->end(), [](int i) { return i >= 0; });
      if (used == indices->end()) continue;
      const size_t at = kPrefix + static_cast<size_t>(*used);
      const Shape& w = g.shape(node.inputs[at]);
      double products = 1;
      if constexpr (kBackward) {
        // The experts' input may need no gradient; then only B's products are made, for the adapters' rows.
        const bool no_dx = kPrefix == kInBackPrefix && node.outputs.size() == adapters && indices != &family.b;
        products = (no_dx ? 0 : 1) + (node.inputs[at + parameters] ? 1 : 0);
      }
      sum += products * static_cast<double>(w.fixed_rows * w.columns);
    }
  }
  return 2.0 * static_cast<double>(sizes.tokens * attr.top_k) * sum;
}

const Op kInBackward = {.name = "experts_in_backward",
                        .run = typed<run_in_backward<float>, run_in_backward<double>>,
                        .scratch = scratch<kInBackPrefix>,
                        .flops = flops<kInBackPrefix, true>,
                        .prepare = prepare};
const Op kOutBackward = {.name = "experts_out_backward",
                         .run = typed<run_out_backward<float>, run_out_backward<double>>,
                         .scratch = scratch<kOutBackPrefix>,
                         .flops = flops<kOutBackPrefix, true>,
                         .prepare = prepare};

std::vector<Value> after(const std::vector<Value>& inputs, size_t prefix) {
  return {inputs.begin() + static_cast<std::ptrdiff_t>(prefix), inputs.end()};
}
void append_with_gradients(const GradientBuilder& b, const std::vector<Value>& parameters, std::vector<Value>& inputs) {
  inputs.insert(inputs.end(), parameters.begin(), parameters.end());
  for (const Value p : parameters) inputs.push_back(b.parameter_gradient(p));
}

void in_gradient(GradientBuilder& b, const Node& node) {
  const Value dgate = b.gradient(node.outputs[0]), dup = b.gradient(node.outputs[1]);
  if (!dgate || !dup) return;
  Graph& g = b.graph();
  const Attr& attr = node.attr<Attr>();
  const Value x = node.inputs[0];
  const bool wants_dx = b.needs(x);
  std::vector<Value> inputs = {dgate, dup};
  size_t next = 2;
  std::vector<Shape> outputs;
  if (wants_dx) outputs.push_back(g.shape(x));
  for (const Family& family : attr.families) {
    inputs.push_back(family.rank > 0 ? node.outputs[next++] : Value{});
    if (family.rank > 0) outputs.push_back(g.shape(inputs.back()));
  }
  const Value before = wants_dx ? b.take(x) : Value{};
  inputs.insert(inputs.end(), {x, node.inputs[1], node.inputs[2], before});
  append_with_gradients(b, after(node.inputs, kInPrefix), inputs);
  Node& backward = g.add_node(kInBackward, std::move(inputs), node.attributes, std::move(outputs));
  if (before) backward.in_place = {{0, 7}};
  if (wants_dx) b.add(x, backward.outputs[0]);
}

void out_gradient(GradientBuilder& b, const Node& node) {
  const Value dy = b.gradient(node.outputs[0]);
  if (!dy) return;
  Graph& g = b.graph();
  std::vector<Value> inputs = {dy, node.inputs[0], node.inputs[1], node.inputs[2], node.inputs[3], node.inputs[4]};
  append_with_gradients(b, after(node.inputs, kOutPrefix), inputs);
  std::vector<Shape> outputs = {g.shape(node.inputs[0]), g.shape(node.inputs[1]), g.shape(node.inputs[0]),
                                g.shape(node.inputs[2])};
  if (node.outputs.size() > 2) outputs.insert(outputs.end(), 2, g.shape(node.outputs[2]));
  Node& backward = g.add_node(kOutBackward, std::move(inputs), node.attributes, std::move(outputs));
  backward.in_place = {{1, 2}};
  const std::vector<Value> grads = backward.outputs;
  if (b.needs(node.inputs[0])) b.add(node.inputs[0], grads[0]);
  if (b.needs(node.inputs[1])) b.add(node.inputs[1], grads[1]);
  if (b.needs(node.inputs[2])) b.add(node.inputs[2], grads[3]);
  // Last: the residual's gradient is dy itself, and whoever folds it in may overwrite it.
  if (b.needs(node.inputs[5])) b.add(node.inputs[5], dy);
}

const Op kIn = {.name = "experts_in",
                .run = typed<run_in<float>, run_in<double>>,
                .gradient = in_gradient,
                .scratch = scratch<kInPrefix>,
                .flops = flops<kInPrefix, false>,
                .prepare = prepare};
const Op kOut = {.name = "experts_out",
                 .run = typed<run_out<float>, run_out<double>>,
                 .gradient = out_gradient,
                 .scratch = scratch<kOutPrefix>,
                 .flops = flops<kOutPrefix, false>,
                 .prepare = prepare};

// Puts a projection of every expert behind the inputs; checks that all are alike and fit `in`.
Family add_family(const Graph& g, const char* role, int64_t in, const std::vector<ExpertProjection>& experts,
                  std::vector<Value>& inputs, size_t prefix) {
  Family family;
  const Shape first = g.shape(experts.at(0).weight);
  GRAFT_CHECK(first.columns == in, "experts: {} '{}' is {}, expected [out, {}]", role, g.info(experts[0].weight).name,
              to_string(first), in);
  const auto put = [&](Value value) {
    if (!value) return -1;
    inputs.push_back(value);
    return static_cast<int>(inputs.size() - 1 - prefix);
  };
  for (const ExpertProjection& p : experts) {
    const Shape& w = g.shape(p.weight);
    GRAFT_CHECK(w == first, "experts: {} '{}' is {}, '{}' is {}: experts are of one size", role, g.info(p.weight).name,
                to_string(w), g.info(experts[0].weight).name, to_string(first));
    family.weight.push_back(put(p.weight));
    family.scaling.push_back(p.adapter.scaling);
    if (!p.adapter.a) continue;
    const Shape &a = g.shape(p.adapter.a), &b = g.shape(p.adapter.b);
    GRAFT_CHECK(a.columns == w.columns && b.fixed_rows == w.fixed_rows && b.columns == a.fixed_rows,
                "experts: {} '{}' is {}, A is {}, B is {}", role, g.info(p.weight).name, to_string(w), to_string(a),
                to_string(b));
    family.rank = std::max(family.rank, a.fixed_rows);
  }
  if (family.rank == 0) return family;
  for (const ExpertProjection& p : experts) {
    family.a.push_back(put(p.adapter.a));
    family.b.push_back(put(p.adapter.b));
  }
  return family;
}

}  // namespace

Value experts(Graph& g, Compute compute, Value x, const Routing& routing, const std::vector<ExpertWeights>& weights,
              Value residual) {
  const Shape shape = g.shape(x);
  const int64_t top_k = g.shape(routing.weights).columns, count = static_cast<int64_t>(weights.size());
  GRAFT_CHECK(shape.kind == Rows::kTokens, "experts: x is {}, expected a row per token", to_string(shape));
  GRAFT_CHECK(count > 0 && g.shape(routing.offsets).fixed_rows == count + 1,
              "experts: {} experts have weights, the router knows {}", count, g.shape(routing.offsets).fixed_rows - 1);
  const auto projections_of = [&](ExpertProjection ExpertWeights::*member) {
    std::vector<ExpertProjection> out;
    for (const ExpertWeights& e : weights) out.push_back(e.*member);
    return out;
  };
  const auto wide = [&](int64_t columns) {
    Shape s = shape;
    s.columns = columns * top_k;
    return s;
  };
  Attr in, out;
  in.compute = out.compute = compute;
  in.top_k = out.top_k = top_k;
  std::vector<Value> inputs = {x, routing.offsets, routing.rows};
  in.families[0] = add_family(g, "gate", shape.columns, projections_of(&ExpertWeights::gate), inputs, kInPrefix);
  in.families[1] = add_family(g, "up", shape.columns, projections_of(&ExpertWeights::up), inputs, kInPrefix);
  const int64_t inner = g.shape(weights[0].gate.weight).fixed_rows;
  GRAFT_CHECK(g.shape(weights[0].up.weight).fixed_rows == inner, "experts: gate is {}, up is {}, expected equal shapes",
              to_string(g.shape(weights[0].gate.weight)), to_string(g.shape(weights[0].up.weight)));
  std::vector<Shape> outputs = {wide(inner), wide(inner)};
  for (const Family& family : in.families) {
    if (family.rank > 0) outputs.push_back(wide(family.rank));
  }
  const std::vector<Value> gate_up =
      g.add_node(kIn, std::move(inputs), std::move(in), std::move(outputs), "experts").outputs;

  inputs = {gate_up[0], gate_up[1], routing.weights, routing.offsets, routing.rows, residual};
  out.families[0] = add_family(g, "down", inner, projections_of(&ExpertWeights::down), inputs, kOutPrefix);
  Shape y = shape;
  y.columns = g.shape(weights[0].down.weight).fixed_rows;
  GRAFT_CHECK(!residual || g.shape(residual) == y, "experts: residual is {}, expected {}",
              residual ? to_string(g.shape(residual)) : "none", to_string(y));
  outputs = {y, wide(inner)};
  if (out.families[0].rank > 0) outputs.push_back(wide(out.families[0].rank));
  return g.add_node(kOut, std::move(inputs), std::move(out), std::move(outputs), "experts").outputs[0];
}

}  // namespace graft
