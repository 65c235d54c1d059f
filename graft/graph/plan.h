#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "graft/base/view.h"
#include "graft/graph/graph.h"
#include "graft/graph/router.h"
#include "graft/kernels/attention.h"
#include "graft/kernels/context.h"
#include "graft/kernels/gemm.h"
#include "graft/kernels/rope.h"

namespace graft {

// The sequences of one run, for attention: rows of each, and, when decoding, where its cache lies.
struct CachedSequence {
  int64_t row_begin = 0, num_rows = 0, position_begin = 0;
  // Per layer: keys in blocks [.][kv_heads][D][64] and values in rows [.][kv_heads][D], from position 0 on.
  std::span<float*const> key_blocks, value_rows;
};

// What one run needs beside bound buffers.
struct RunInputs {
  RunSizes sizes;
  uint64_t update = 0;                    // names the random draws of dropout
  std::span<const CachedSequence> cache;  // attention reads and appends to these instead of its own rows
  const RopeTable* rope = nullptr;        // at least as long as the largest position + 1
  std::span<double> node_seconds;         // where not empty: what each node of Plan::graph() took
};

class Plan;

// What an op's run function sees.
class Run {
 public:
  Run(const Plan& plan, Context& context, const RunInputs& inputs)
      : plan_(&plan), context_(&context), inputs_(&inputs) {}
  Context& context() const { return *context_; }
  const RunSizes& sizes() const { return inputs_->sizes; }
  const RunInputs& inputs() const { return *inputs_; }
  const Graph& graph() const;
  const RunSizes& capacity() const;
  bool is_f64() const { return graph().dtype() == DType::kF64; }
  int64_t rows(Value value) const;

  // [rows now, columns]; a null view for a "none" value.
  template <typename T>
  View<T, 2> view(Value value) const {
    if (!value) return {};
    return View<T, 2>(static_cast<T*>(pointer(value)), rows(value), graph().shape(value).columns);
  }
  template <typename T>
  std::span<T> span(Value value) const {
    if (!value) return {};
    return {static_cast<T*>(pointer(value)), static_cast<size_t>(rows(value) * graph().shape(value).columns)};
  }
  template <typename T>
  Operand<T> operand(Value value) const {
    Operand<T> operand;
    if (graph().info(value).kind == ValueKind::kWeight) {
      operand.weight = static_cast<const Weight*>(pointer(value));
    } else {
      operand.rows = view<const T>(value);
    }
    return operand;
  }
  void* pointer(Value value) const;

 private:
  const Plan* plan_;
  Context* context_;
  const RunInputs* inputs_;
};

// An op's run function from its two instances: f32, and the f64 of test graphs.
template <void (*F32)(const Run&, const Node&), void (*F64)(const Run&, const Node&)>
void typed(const Run& run, const Node& node) {
  run.is_f64() ? F64(run, node) : F32(run, node);
}

struct PlanOptions {
  RunSizes capacity;
  // Layers whose activations are computed again in the backward pass: 0 none, n: only every n-th layer's input is kept.
  int recompute_every = 0;
  int num_threads = 1;
};

// A graph compiled for a capacity: nodes in order, every activation at an offset of one arena by its lifetime. Running
// allocates nothing.
class Plan {
 public:
  Plan() = default;
  // Copies the graph; recompute adds clones of forward nodes to the copy.
  static Plan compile(const Graph& graph, const PlanOptions& options);

  const Graph& graph() const { return graph_; }
  size_t arena_bytes() const { return arena_bytes_; }
  const ScratchNeed& scratch() const { return scratch_; }
  const RunSizes& capacity() const { return options_.capacity; }

  // Allocates the arena (untouched pages) and grows the context's scratch. Once before the first run. Plans that never run at the same
  // time may share an arena of the larger size: pass its memory.
  void prepare(Context& context, std::byte* arena = nullptr);
  void bind(Value value, void* data) { pointers_[static_cast<size_t>(value.id)] = data; }
  void bind(Value value, const void* data) { bind(value, const_cast<void*>(data)); }
  void* bound(Value value) const { return pointers_[static_cast<size_t>(value.id)]; }

  // Runs every node. Error, before anything runs, where the sizes are beyond the capacity, the plan was not prepared, an input is not bound or
  // an index is out of its range (IndexRule). With GRAFT_DEBUG=ops each output is checked and the first non-finite one throws Error, naming op
  // and tensor.
  void run(Context& context, const RunInputs& inputs) const;

  template <typename T>
  View<const T, 2> read(Value value, const RunSizes& sizes) const {
    const Shape& shape = graph_.shape(value);
    return View<const T, 2>(static_cast<const T*>(pointers_[static_cast<size_t>(value.id)]), shape.rows(sizes),
                            shape.columns);
  }
  double flops(const RunSizes& sizes) const;

 private:
  friend class Run;
  void apply_recompute();
  void plan_arena();
  void choose_routes();
  void run_node(const Run& run, size_t index) const;
  void run_timed(const Run& run, std::span<double> seconds) const;
  void check_inputs(const Run& run) const;
  void check_finite(const Run& run, const Node& node) const;

  Graph graph_;
  PlanOptions options_;
  std::vector<void*> pointers_;  // per value
  std::vector<std::vector<RouteChoice>>
      routes_;  // per node with a kernel of the suite: by the bit width of its first output's elements
  std::vector<int64_t> offsets_;  // per value: in the arena, or -1
  std::vector<Value> bound_;      // what nodes read or write of the caller's
  size_t arena_bytes_ = 0;
  ScratchNeed scratch_;
  Buffer arena_;
  bool prepared_ = false;
  bool debug_ = false;
};

}  // namespace graft
