#include "graft/graph/plan.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <numeric>
#include <unordered_map>

#include "graft/base/error.h"
#include "graft/kernels/optimizer.h"
#include "graft/kernels/registry.h"

namespace graft {
namespace {

constexpr int64_t kAlignment = 64;

int64_t value_bytes(const ValueInfo& info, const RunSizes& capacity) {
  const int64_t bytes = info.shape.elements(capacity) * dtype_bits(info.dtype) / 8;
  return (std::max<int64_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
}

// The first index that is out of range; offsets and ranges may name the end of the rows.
int64_t index_end(const Run& run, const ValueInfo& info) {
  switch (info.rule.kind) {
    case IndexRule::Kind::kBelow: return info.rule.limit;
    case IndexRule::Kind::kRow: return run.sizes().of(info.rule.rows);
    case IndexRule::Kind::kPosition: return run.inputs().rope->length;
    case IndexRule::Kind::kOffsets:
    case IndexRule::Kind::kRanges: return run.sizes().of(info.rule.rows) + 1;
    case IndexRule::Kind::kAny: break;
  }
  return INT64_MAX;
}

void check_indices(const Run& run, Value value, const ValueInfo& info) {
  using Kind = IndexRule::Kind;
  GRAFT_CHECK(info.rule.kind != Kind::kPosition || run.inputs().rope != nullptr,
              "plan: '{}' needs a rotary table, the run has none", info.name);
  const auto indices = run.span<const int32_t>(value);
  const int64_t end = index_end(run, info), count = static_cast<int64_t>(indices.size());
  for (int64_t i = 0; i < count; ++i) {
    const int32_t x = indices[static_cast<size_t>(i)];
    GRAFT_CHECK(x >= 0 && x < end, "plan: '{}' holds {} at {}, expected 0 to {}", info.name, x, i, end - 1);
  }
  if (count == 0 || (info.rule.kind != Kind::kOffsets && info.rule.kind != Kind::kRanges)) return;
  const bool offsets = info.rule.kind == Kind::kOffsets;
  GRAFT_CHECK(!offsets || (indices[0] == 0 && indices.back() == end - 1),
              "plan: '{}' runs from {} to {}, expected from 0 to {}", info.name, indices[0], indices.back(), end - 1);
  for (size_t i = 1; i < indices.size(); ++i) {
    const int64_t step = int64_t{indices[i]} - indices[i - 1];
    GRAFT_CHECK(step >= 0 && (!offsets || step <= run.sizes().max_length),
                "plan: '{}' goes from {} to {} at {}, expected 0 to {} more", info.name, indices[i - 1], indices[i], i,
                offsets ? run.sizes().max_length : end - 1);
  }
}

}  // namespace

const Graph& Run::graph() const { return plan_->graph_; }
const RunSizes& Run::capacity() const { return plan_->options_.capacity; }
int64_t Run::rows(Value value) const { return graph().shape(value).rows(inputs_->sizes); }
void* Run::pointer(Value value) const { return plan_->pointers_[static_cast<size_t>(value.id)]; }

Plan Plan::compile(const Graph& graph, const PlanOptions& options) {
  Plan plan;
  plan.graph_ = graph;
  plan.options_ = options;
  if (options.recompute_every > 0) plan.apply_recompute();
  plan.plan_arena();
  for (const Node& node : plan.graph_.nodes()) {
    if (node.op->scratch != nullptr)
      plan.scratch_.merge(node.op->scratch(plan.graph_, node, options.capacity, options.num_threads));
  }
  plan.choose_routes();
  std::vector<char> used(plan.graph_.values().size());
  for (const Node& node : plan.graph_.nodes()) {
    for (const auto* values : {&node.inputs, &node.outputs}) {
      for (const Value value : *values) {
        if (value) used[static_cast<size_t>(value.id)] = 1;
      }
    }
  }
  for (size_t id = 0; id < used.size(); ++id) {
    const Value value{static_cast<int32_t>(id)};
    if (used[id] != 0 && plan.graph_.info(value).kind != ValueKind::kActivation) plan.bound_.push_back(value);
  }
  if (graph.dtype() == DType::kF64) plan.scratch_.shared *= 2, plan.scratch_.per_worker *= 2;
  const char* debug = std::getenv("GRAFT_DEBUG");
  plan.debug_ = debug != nullptr && std::strcmp(debug, "ops") == 0;
  return plan;
}

// A backward node that reads an inner activation of segment s reads a clone's output instead; the clones (the forward nodes of
// the segment that the wanted values depend on) stand before the first such backward node. Values that cross segments stay.
// The last segment is left alone: its backward follows at once.
void Plan::apply_recompute() {
  std::vector<Node> old = std::move(graph_.nodes());
  graph_.nodes().clear();
  const int every = options_.recompute_every;
  int last = -1;
  for (const Node& node : old) last = std::max(last, node.segment >= 0 ? node.segment / every : -1);
  const auto group_of = [&](const Node& node) { return node.segment < 0 ? -1 : node.segment / every; };

  std::vector<int> producer_group(graph_.values().size(), -1);
  std::vector<int> producer(graph_.values().size(), -1);
  std::vector<char> crosses(graph_.values().size(), 0);
  for (size_t i = 0; i < old.size(); ++i) {
    if (old[i].backward) continue;
    for (Value output : old[i].outputs) {
      producer[static_cast<size_t>(output.id)] = static_cast<int>(i);
      producer_group[static_cast<size_t>(output.id)] = group_of(old[i]);
    }
    for (Value input : old[i].inputs) {
      if (input && producer[static_cast<size_t>(input.id)] >= 0 &&
          producer_group[static_cast<size_t>(input.id)] != group_of(old[i])) {
        crosses[static_cast<size_t>(input.id)] = 1;
      }
    }
  }
  const auto recomputed = [&](Value value) {
    if (!value) return false;
    const auto id = static_cast<size_t>(value.id);
    return id < producer.size() && producer[id] >= 0 && producer_group[id] >= 0 && producer_group[id] < last &&
           crosses[id] == 0 && !graph_.info(value).keep;
  };

  std::map<int, std::unordered_map<int32_t, Value>> clones;  // group -> old value -> clone
  const auto clone_group = [&](int group) {
    std::vector<char> wanted(old.size(), 0);
    std::vector<int> stack;
    const auto want = [&](Value value) {
      if (!recomputed(value) || producer_group[static_cast<size_t>(value.id)] != group) return;
      const int node = producer[static_cast<size_t>(value.id)];
      if (wanted[static_cast<size_t>(node)] == 0) wanted[static_cast<size_t>(node)] = 1, stack.push_back(node);
    };
    for (const Node& node : old) {
      if (!node.backward) continue;
      for (Value input : node.inputs) want(input);
    }
    while (!stack.empty()) {
      const int node = stack.back();
      stack.pop_back();
      for (Value input : old[static_cast<size_t>(node)].inputs) want(input);
    }
    auto& map = clones[group];
    for (size_t i = 0; i < old.size(); ++i) {
      if (wanted[i] == 0) continue;
      Node copy = old[i];
      copy.backward = true;
      for (Value& input : copy.inputs) {
        if (const auto it = map.find(input.id); input && it != map.end()) input = it->second;
      }
      for (Value& output : copy.outputs) {
        const ValueInfo info = graph_.info(output);
        const Value fresh = graph_.activation(info.shape, info.dtype, info.name);
        map[output.id] = fresh;
        output = fresh;
      }
      graph_.nodes().push_back(std::move(copy));
    }
  };

  for (Node& node : old) {
    if (node.backward) {
      for (Value& input : node.inputs) {
        if (!recomputed(input)) continue;
        const int group = producer_group[static_cast<size_t>(input.id)];
        if (clones.find(group) == clones.end()) clone_group(group);
        input = clones[group].at(input.id);
      }
    }
    graph_.nodes().push_back(node);  // a copy: clones are made from the old nodes
  }
}

// Offsets by lifetime: values in descending size, each at the lowest offset free of every value alive at the same time.
void Plan::plan_arena() {
  const auto& nodes = graph_.nodes();
  const size_t num_values = graph_.values().size();
  std::vector<int> first(num_values, -1), last(num_values, -1);
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (Value input : nodes[i].inputs) {
      if (input) last[static_cast<size_t>(input.id)] = static_cast<int>(i);
    }
    for (Value output : nodes[i].outputs) {
      first[static_cast<size_t>(output.id)] = static_cast<int>(i);
      last[static_cast<size_t>(output.id)] = std::max(last[static_cast<size_t>(output.id)], static_cast<int>(i));
    }
  }
  // An output that works in place is one with its input: they share a representative, whose life covers both.
  std::vector<int32_t> root(num_values);
  std::iota(root.begin(), root.end(), 0);
  const auto find = [&](int32_t id) {
    while (root[static_cast<size_t>(id)] != id) id = root[static_cast<size_t>(id)];
    return id;
  };
  for (size_t i = 0; i < nodes.size(); ++i) {
    for (const auto& [output, input] : nodes[i].in_place) {
      const Value in = nodes[i].inputs[static_cast<size_t>(input)], out = nodes[i].outputs[static_cast<size_t>(output)];
      if (!in || graph_.info(in).kind != ValueKind::kActivation || graph_.info(in).keep ||
          last[static_cast<size_t>(in.id)] != static_cast<int>(i))
        continue;
      // An op that reads the value in two roles would overwrite the one with the other.
      if (std::count(nodes[i].inputs.begin(), nodes[i].inputs.end(), in) > 1) continue;
      root[static_cast<size_t>(out.id)] = find(in.id);
    }
  }
  struct Life {
    int32_t id;
    int64_t bytes;
    int begin, end;
  };
  std::vector<Life> lives(num_values, Life{-1, 0, 0, 0});
  for (size_t id = 0; id < num_values; ++id) {
    const ValueInfo& info = graph_.values()[id];
    if (info.kind != ValueKind::kActivation || first[id] < 0) continue;
    const int end = info.keep ? static_cast<int>(nodes.size()) : last[id];
    Life& life = lives[static_cast<size_t>(find(static_cast<int32_t>(id)))];
    if (life.id < 0) life = {find(static_cast<int32_t>(id)), 0, first[id], end};
    life.bytes = std::max(life.bytes, value_bytes(info, options_.capacity));
    life.begin = std::min(life.begin, first[id]);
    life.end = std::max(life.end, end);
  }
  std::erase_if(lives, [](const Life& life) { return life.id < 0; });
  std::stable_sort(lives.begin(), lives.end(), [](const Life& a, const Life& b) { return a.bytes > b.bytes; });

  offsets_.assign(num_values, -1);
  struct Placed {
    int64_t begin, end;
    int from, to;
  };
  std::vector<Placed> placed;  // sorted by begin
  int64_t total = 0;
  for (const Life& life : lives) {
    int64_t offset = 0;
    for (const Placed& p : placed) {
      if (p.to < life.begin || p.from > life.end) continue;
      if (p.begin - offset >= life.bytes) break;
      offset = std::max(offset, p.end);
    }
    const Placed mine{offset, offset + life.bytes, life.begin, life.end};
    placed.insert(std::lower_bound(placed.begin(), placed.end(), mine,
                                   [](const Placed& a, const Placed& b) { return a.begin < b.begin; }),
                  mine);
    offsets_[static_cast<size_t>(life.id)] = offset;
    total = std::max(total, offset + life.bytes);
  }
  for (size_t id = 0; id < num_values; ++id) {
    if (graph_.values()[id].kind == ValueKind::kActivation && first[id] >= 0) {
      offsets_[id] = offsets_[static_cast<size_t>(find(static_cast<int32_t>(id)))];
    }
  }
  arena_bytes_ = static_cast<size_t>(total);
  pointers_.assign(num_values, nullptr);
}

void Plan::prepare(Context& context, std::byte* arena) {
  if (arena == nullptr) {
    if (arena_.bytes() < arena_bytes_) arena_ = Buffer(arena_bytes_);
    arena = arena_.data();
  }
  for (size_t id = 0; id < offsets_.size(); ++id) {
    if (offsets_[id] >= 0) pointers_[id] = arena + offsets_[id];
  }
  prepared_ = true;
  context.reserve(scratch_);
  for (const Node& node : graph_.nodes()) {
    if (node.op->prepare != nullptr) node.op->prepare(graph_, node, options_.capacity);
  }
}

void Plan::run(Context& context, const RunInputs& inputs) const {
  const RunSizes& capacity = options_.capacity;
  const RunSizes& sizes = inputs.sizes;
  GRAFT_CHECK(sizes.tokens <= capacity.tokens && sizes.labels <= capacity.labels &&
                  sizes.sequences <= capacity.sequences && sizes.max_length <= capacity.max_length,
              "plan made for {} tokens, {} labels, {} sequences of up to {}; asked to run {}, {}, {} of up to {}",
              capacity.tokens, capacity.labels, capacity.sequences, capacity.max_length, sizes.tokens, sizes.labels,
              sizes.sequences, sizes.max_length);
  const Run run(*this, context, inputs);
  check_inputs(run);
  const KeepSubnormals keep;
  if (!inputs.node_seconds.empty()) return run_timed(run, inputs.node_seconds);
  for (size_t i = 0; i < graph_.nodes().size(); ++i) {
    run_node(run, i);
    if (debug_) check_finite(run, graph_.nodes()[i]);
  }
}

void Plan::check_inputs(const Run& run) const {
  GRAFT_CHECK(prepared_, "plan: run before it was prepared");
  for (const Value value : bound_) {
    const ValueInfo& info = graph_.info(value);
    if (info.shape.elements(run.sizes()) == 0) continue;
    GRAFT_CHECK(run.pointer(value) != nullptr, "plan: '{}' {} is not bound", info.name, to_string(info.shape));
    if (info.rule.kind != IndexRule::Kind::kAny) check_indices(run, value, info);
  }
}

void Plan::choose_routes() {
  routes_.resize(graph_.nodes().size());
  if (graph_.dtype() == DType::kF64) return;
  std::map<const KernelInfo*, std::pair<double, double>> costs;  // bytes and operations of an element
  for (size_t i = 0; i < routes_.size(); ++i) {
    const Node& node = graph_.nodes()[i];
    const KernelInfo* kernel = node.op->kernel != nullptr ? find_kernel(node.op->kernel) : nullptr;
    if (kernel == nullptr) continue;
    const auto [cost, is_new] = costs.try_emplace(kernel);
    if (is_new) {
      constexpr int64_t kSmall = 4096;
      KernelCall call;
      kernel->example(call, kSmall, 0);
      cost->second = {kernel->bytes(call) / kSmall, kernel->flops(call) / kSmall};
    }
    const auto [bytes, flops] = cost->second;
    const Shape& shape = graph_.shape(node.outputs[0]);
    const auto most = static_cast<uint64_t>(shape.rows(options_.capacity) * shape.columns);
    for (int width = 0; width <= static_cast<int>(std::bit_width(most)); ++width) {
      const double size = std::max(1.0, 0.75 * std::ldexp(1.0, width));  // the middle of the bucket
      routes_[i].push_back(
          Router::of_this_machine()
              .route(kernel->name, static_cast<int64_t>(size), bytes * size, flops * size, options_.num_threads)
              .best);
    }
  }
}

void Plan::run_node(const Run& run, size_t index) const {
  const Node& node = graph_.nodes()[index];
  const std::vector<RouteChoice>& routes = routes_[index];
  if (routes.empty()) return node.op->run(run, node);
  const auto size = static_cast<uint64_t>(run.rows(node.outputs[0]) * graph_.shape(node.outputs[0]).columns);
  const RouteScope scope(routes[static_cast<size_t>(std::bit_width(size))], run.context().pool());
  node.op->run(run, node);
}

void Plan::run_timed(const Run& run, std::span<double> seconds) const {
  using Clock = std::chrono::steady_clock;
  GRAFT_CHECK(seconds.size() == graph_.nodes().size(), "plan of {} nodes, {} times are asked for",
              graph_.nodes().size(), seconds.size());
  for (size_t i = 0; i < seconds.size(); ++i) {
    const auto start = Clock::now();
    run_node(run, i);
    seconds[i] = std::chrono::duration<double>(Clock::now() - start).count();
  }
}

void Plan::check_finite(const Run& run, const Node& node) const {
  for (Value output : node.outputs) {
    if (graph_.info(output).dtype != DType::kF32) continue;
    const auto values = run.span<const float>(output);
    const int64_t bad = first_non_finite<float>(values);
    GRAFT_CHECK(bad < 0, "op '{}' of {}: output {} holds {} at row {}, column {}", node.op->name, node.name,
                to_string(graph_.shape(output)), values[static_cast<size_t>(bad)], bad / graph_.shape(output).columns,
                bad % graph_.shape(output).columns);
  }
}

double Plan::flops(const RunSizes& sizes) const {
  double sum = 0;
  for (const Node& node : graph_.nodes()) {
    if (node.op->flops != nullptr) sum += node.op->flops(graph_, node, sizes);
  }
  return sum;
}

}  // namespace graft
