#pragma once

#include <any>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "graft/base/dtype.h"
#include "graft/kernels/context.h"

namespace graft {

class Run;
class GradientBuilder;

// The sizes that change from run to run. A plan is made for a capacity of each and run with what is there.
enum class Rows : uint8_t { kFixed, kTokens, kLabels, kSequences };
struct RunSizes {
  int64_t tokens = 0, labels = 0, sequences = 0;
  int64_t max_length = 0;  // longest sequence of the run: attention's scratch depends on it
  int64_t of(Rows rows) const {
    return rows == Rows::kTokens ? tokens : rows == Rows::kLabels ? labels : rows == Rows::kSequences ? sequences : 1;
  }
};

// [rows, columns]: `rows` counts what the kind says (plus `extra`, for offsets), or is the fixed number; vectors have columns == 1.
struct Shape {
  Rows kind = Rows::kFixed;
  int64_t fixed_rows = 1;  // kFixed: the number of rows
  int64_t columns = 1;
  int64_t extra = 0;
  int64_t rows(const RunSizes& sizes) const { return (kind == Rows::kFixed ? fixed_rows : sizes.of(kind)) + extra; }
  int64_t elements(const RunSizes& sizes) const { return rows(sizes) * columns; }
  bool operator==(const Shape&) const = default;
};
Shape fixed_shape(int64_t rows, int64_t columns);
std::string to_string(const Shape& shape);

// A name for one tensor of the graph; -1 is "none", where an input is optional.
struct Value {
  int32_t id = -1;
  explicit operator bool() const { return id >= 0; }
  bool operator==(const Value&) const = default;
};

struct Node;

// One op: everything the graph knows of it. Kernels do the arithmetic.
struct Op {
  const char* name;
  // Runs the node on the bound and planned buffers.
  void (*run)(const Run&, const Node&);
  // Adds the gradient nodes; null: building a gradient through the op throws its name.
  void (*gradient)(GradientBuilder&, const Node&) = nullptr;
  // Of an f32 graph; an f64 graph gets twice as much.
  ScratchNeed (*scratch)(const class Graph&, const Node&, const RunSizes& capacity, int num_threads) = nullptr;
  double (*flops)(const class Graph&, const Node&, const RunSizes& sizes) = nullptr;  // 0 where it does not matter
  // Reserves, on the thread that will run the plan, what `run` keeps on the host beside scratch.
  void (*prepare)(const class Graph&, const Node&, const RunSizes& capacity) = nullptr;
  // The kernel of the suite that an f32 node runs, by whose table the router chooses its variant and threads; null: the widest, and all.
  const char* kernel = nullptr;
};

enum class ValueKind : uint8_t {
  kActivation,  // planned into the arena
  kBound,       // a buffer the caller binds: inputs, parameters, gradients, caches
  kWeight,      // a base weight the caller binds: const Weight*
};

// What the elements of a bound i32 value have to be. Every run checks it before an op reads them: they come from callers.
struct IndexRule {
  enum class Kind : uint8_t {
    kAny,
    kBelow,     // 0 … limit - 1
    kRow,       // a row of a value with `rows`
    kPosition,  // a row of the run's rotary table
    kOffsets,   // ascending from 0 to `rows`, no step longer than the run's max_length
    kRanges,    // ascending, from 0 on and up to `rows`
  };
  Kind kind = Kind::kAny;
  int64_t limit = 0;
  Rows rows = Rows::kFixed;
};

struct ValueInfo {
  std::string name;
  ValueKind kind = ValueKind::kActivation;
  DType dtype = DType::kF32;
  Shape shape;
  bool trainable = false;
  Value gradient;     // of a trainable parameter: the bound buffer its gradient is added to
  bool keep = false;  // an output: lives to the end of the run
  IndexRule rule = {};
};

struct Node {
  const Op* op = nullptr;
  std::string name;           // scope and role: "layers.3.self_attn.q_proj"
  std::vector<Value> inputs;  // a "none" Value where an optional input is absent
  std::vector<Value> outputs;
  // (output, input): the output takes the input's memory where this is the input's last and only use. Ops handle both cases.
  std::vector<std::pair<int, int>> in_place;
  std::any attributes;
  int32_t segment = -1;  // layer, for recompute; -1: never recomputed
  bool backward = false;
  template <typename T>
  const T& attr() const {
    return *std::any_cast<T>(&attributes);
  }
};

// A model or a step as ops in the order they run. Built once; `compile` makes a Plan.
class Graph {
 public:
  // kF32, or kF64 for tests: then every op runs its scalar reference in double.
  explicit Graph(DType dtype = DType::kF32) : dtype_(dtype) {}

  Value bound(std::string name, Shape shape, DType dtype);
  Value bound(std::string name, Shape shape) { return bound(std::move(name), shape, dtype_); }
  Value weight(std::string name, int64_t out_features, int64_t in_features);
  // Marks a parameter as trained: a gradient buffer "grad NAME" of its shape (row-major f32 or f64) appears.
  void set_trainable(Value parameter);
  void keep(Value value) { values_[static_cast<size_t>(value.id)].keep = true; }
  void set_rule(Value indices, IndexRule rule) { info(indices).rule = rule; }

  Node& add_node(const Op& op, std::vector<Value> inputs, std::any attributes, std::vector<Shape> outputs,
                 std::string role = {});
  Value activation(Shape shape, DType dtype, std::string name);

  // Names what is added from here on: "layers.0", and its number for recompute.
  void set_scope(std::string scope, int segment = -1) { scope_ = std::move(scope), segment_ = segment; }
  const std::string& scope() const { return scope_; }
  void set_backward(bool backward) { backward_ = backward; }

  DType dtype() const { return dtype_; }
  const ValueInfo& info(Value value) const { return values_[static_cast<size_t>(value.id)]; }
  ValueInfo& info(Value value) { return values_[static_cast<size_t>(value.id)]; }
  const Shape& shape(Value value) const { return info(value).shape; }
  const std::vector<Node>& nodes() const { return nodes_; }
  std::vector<Node>& nodes() { return nodes_; }
  const std::vector<ValueInfo>& values() const { return values_; }

 private:
  DType dtype_;
  std::vector<ValueInfo> values_;
  std::vector<Node> nodes_;
  std::string scope_;
  int segment_ = -1;
  bool backward_ = false;
};

}  // namespace graft
