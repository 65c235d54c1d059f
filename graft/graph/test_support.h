#pragma once

// Shared by the ops' tests: a graph with its buffers in either precision, gradients checked against central differences.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/random.h"
#include "graft/base/thread_pool.h"
#include "graft/graph/autodiff.h"
#include "graft/graph/ops.h"
#include "graft/graph/plan.h"
#include "tests/support/error_of.h"

namespace graft::test {

// Test ops. leaf: a bound parameter as an activation. weighted_sum: loss += sum(u * y), and its gradient as an activation, so that the
// backward pass may work in place on it.
template <typename T>
void run_leaf(const Run& run, const Node& node) {
  const auto in = run.span<const T>(node.inputs[0]);
  std::copy(in.begin(), in.end(), run.span<T>(node.outputs[0]).begin());
}
template <typename T>
void run_leaf_backward(const Run& run, const Node& node) {
  const auto dy = run.span<const T>(node.inputs[0]);
  const auto gradient = run.span<T>(node.inputs[1]);
  for (size_t i = 0; i < dy.size(); ++i) gradient[i] += dy[i];
}
inline const Op kLeafBackward = {.name = "leaf_backward",
                                 .run = typed<run_leaf_backward<float>, run_leaf_backward<double>>};
inline const Op kLeaf = {.name = "leaf",
                         .run = typed<run_leaf<float>, run_leaf<double>>,
                         .gradient = [](GradientBuilder& b, const Node& node) {
                           const Value dy = b.gradient(node.outputs[0]),
                                       gradient = b.parameter_gradient(node.inputs[0]);
                           if (dy && gradient) b.graph().add_node(kLeafBackward, {dy, gradient}, {}, {});
                         }};

template <typename T>
void run_weighted_sum(const Run& run, const Node& node) {
  const auto y = run.span<const T>(node.inputs[0]), u = run.span<const T>(node.inputs[1]);
  const auto loss = run.span<double>(node.inputs[2]);
  for (size_t i = 0; i < y.size(); ++i) loss[0] += static_cast<double>(y[i]) * static_cast<double>(u[i]);
  std::copy(u.begin(), u.end(), run.span<T>(node.outputs[0]).begin());
}
inline const Op kWeightedSum = {
    .name = "weighted_sum",
    .run = typed<run_weighted_sum<float>, run_weighted_sum<double>>,
    .gradient = [](GradientBuilder& b, const Node& node) { b.add(node.inputs[0], node.outputs[0]); }};

// A graph under test with everything it binds. Values are held in double, already rounded to float, so that both precisions start alike.
class Bench {
 public:
  explicit Bench(DType dtype, RunSizes sizes, int threads = 2)
      : g(dtype), sizes_(sizes), pool_(threads), context_(pool_) {
    loss_ = g.bound("loss", fixed_shape(1, 1), DType::kF64);
  }

  // An activation [rows of kind, columns] that comes from a trained parameter.
  Value leaf(Rows kind, int64_t columns, uint64_t seed) {
    const Value p = random({kind, 1, columns, 0}, seed, true);
    return g.add_node(kLeaf, {p}, {}, {g.shape(p)}).outputs[0];
  }
  Value parameter(int64_t rows, int64_t columns, uint64_t seed, bool trainable = true) {
    return random(fixed_shape(rows, columns), seed, trainable);
  }
  Value weight(int64_t rows, int64_t columns, uint64_t seed, bool trainable = false) {
    const Value v = g.weight("w" + std::to_string(seed), rows, columns);
    if (trainable) g.set_trainable(v);
    fill(v, seed);
    return v;
  }
  Value indices(Shape shape, std::vector<int32_t> ids) {
    const Value v = g.bound("indices", shape, DType::kI32);
    indices_[v.id] = std::move(ids);
    return v;
  }
  Value indices(Rows kind, std::vector<int32_t> ids) { return indices({kind, 1, 1, 0}, std::move(ids)); }
  // Any other bound buffer, kept by the caller.
  Value other(Value v, const void* data) {
    others_[v.id] = data;
    return v;
  }

  // sum of random weights times every y; gradients; a plan of `capacity` (default: the sizes).
  void finish(const std::vector<Value>& ys, const RunSizes* capacity = nullptr, int recompute_every = 0) {
    uint64_t seed = 1000;
    for (Value y : ys) {
      const Value u = random(g.shape(y), seed++, false);
      g.keep(y);
      g.add_node(kWeightedSum, {y, u, loss_}, {}, {g.shape(y)});
    }
    ys_ = ys;
    num_forward_ = g.nodes().size();
    build_gradients(g);
    PlanOptions options;
    options.capacity = capacity != nullptr ? *capacity : sizes_;
    options.num_threads = pool_.num_threads();
    options.recompute_every = recompute_every;
    plan = Plan::compile(g, options);
    arena_.assign(plan.arena_bytes() / 8 + 16,
                  std::numeric_limits<double>::quiet_NaN());  // what is read before it is written shows
    auto* arena = reinterpret_cast<std::byte*>(arena_.data());
    plan.prepare(context_, arena + (64 - reinterpret_cast<uintptr_t>(arena) % 64) % 64);
    for (const auto& [id, v] : indices_) plan.bind({id}, v.data());
    for (const auto& [id, data] : others_) plan.bind({id}, data);
    plan.bind(loss_, &loss_value_);
  }

  // Clears the gradients and runs.
  double loss() {
    loss_value_ = 0;
    for (auto& [id, values] : values_) bind(Value{id}, values);
    for (auto& [id, values] : values_) {
      if (const Value gradient = g.info(Value{id}).gradient) {
        auto& memory = memory_[gradient.id];
        memory.assign(values.size() * 8, std::byte{0});
        plan.bind(gradient, memory.data());
      }
    }
    inputs.sizes = sizes_;
    plan.run(context_, inputs);
    return loss_value_;
  }

  std::vector<double>& values(Value v) { return values_.at(v.id); }
  std::vector<double> gradient(Value v) { return read(memory_.at(g.info(v).gradient.id), values_.at(v.id).size()); }
  std::vector<double> output(size_t i) const {
    std::vector<double> out;
    const Shape& shape = g.shape(ys_[i]);
    const int64_t n = shape.elements(sizes_);
    for (int64_t k = 0; k < n; ++k) {
      out.push_back(f64() ? plan.read<double>(ys_[i], sizes_).data()[k]
                          : static_cast<double>(plan.read<float>(ys_[i], sizes_).data()[k]));
    }
    return out;
  }
  size_t num_outputs() const { return ys_.size(); }
  size_t num_backward() const { return g.nodes().size() - num_forward_; }
  std::vector<Value> trained() const {
    std::vector<Value> out;
    for (const auto& [id, values] : values_) {
      if (g.info(Value{id}).trainable) out.push_back(Value{id});
    }
    return out;
  }
  bool f64() const { return g.dtype() == DType::kF64; }
  const RunSizes& sizes() const { return sizes_; }
  Context& context() { return context_; }

  Graph g;
  Plan plan;
  RunInputs inputs;

 private:
  Value random(Shape shape, uint64_t seed, bool trainable) {
    const Value v = g.bound("p" + std::to_string(seed), shape);
    if (trainable) g.set_trainable(v);
    fill(v, seed);
    return v;
  }
  void fill(Value v, uint64_t seed) {
    const RandomStream stream(seed, 5);
    std::vector<double> values(static_cast<size_t>(g.shape(v).elements(sizes_)));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(stream.uniform(i) * 2 - 1);
    values_[v.id] = std::move(values);
  }
  void bind(Value v, const std::vector<double>& values) {
    auto& memory = memory_[v.id];
    memory.resize(values.size() * 8);
    if (f64()) {
      std::copy(values.begin(), values.end(), reinterpret_cast<double*>(memory.data()));
    } else {
      std::transform(values.begin(), values.end(), reinterpret_cast<float*>(memory.data()),
                     [](double x) { return static_cast<float>(x); });
    }
    if (g.info(v).kind != ValueKind::kWeight) return plan.bind(v, static_cast<void*>(memory.data()));
    auto& weight = weights_[v.id];
    if (!weight) weight = std::make_unique<Weight>(g.dtype(), g.shape(v).fixed_rows, g.shape(v).columns);
    weight->pack_rows(context_, 0, g.shape(v).fixed_rows, g.dtype(), memory.data());
    plan.bind(v, static_cast<const void*>(weight.get()));
  }
  std::vector<double> read(const std::vector<std::byte>& memory, size_t n) const {
    std::vector<double> out(n);
    for (size_t i = 0; i < n; ++i) {
      out[i] = f64() ? reinterpret_cast<const double*>(memory.data())[i]
                     : static_cast<double>(reinterpret_cast<const float*>(memory.data())[i]);
    }
    return out;
  }

  RunSizes sizes_;
  ThreadPool pool_;
  Context context_;
  Value loss_;
  double loss_value_ = 0;
  std::vector<Value> ys_;
  size_t num_forward_ = 0;
  std::map<int32_t, std::vector<double>> values_;
  std::map<int32_t, std::vector<int32_t>> indices_;
  std::map<int32_t, const void*> others_;
  std::map<int32_t, std::vector<std::byte>> memory_;
  std::map<int32_t, std::unique_ptr<Weight>> weights_;
  std::vector<double> arena_;
};

// What a case builds: the outputs to be checked.
using Build = std::function<std::vector<Value>(Bench&)>;

// Every gradient against central differences along random directions in f64; f32 against f64; the same bits from a plan of twice the capacity.
inline void check_op(const std::string& what, const RunSizes& sizes, const Build& build) {
  SCOPED_TRACE(what);
  Bench exact(DType::kF64, sizes), single(DType::kF32, sizes), roomy(DType::kF32, sizes);
  exact.finish(build(exact));
  single.finish(build(single));
  RunSizes twice = {sizes.tokens * 2, sizes.labels * 2, sizes.sequences * 2, sizes.max_length * 2};
  const std::vector<Value> ys = build(roomy);
  roomy.finish(ys, &twice);

  ASSERT_TRUE(std::isfinite(exact.loss()));
  single.loss(), roomy.loss();
  std::map<int32_t, std::vector<double>> gradients;
  for (Value p : exact.trained()) gradients[p.id] = exact.gradient(p);
  ASSERT_FALSE(gradients.empty());

  const auto agree = [](const std::vector<double>& got, const std::vector<double>& want, const std::string& name) {
    double largest = 0;
    for (double x : want) largest = std::max(largest, std::fabs(x));
    // f32 sums of some hundred terms of order one: 2^-24 each, 1e-6 after them; 2e-5 leaves room for exp in attention and loss.
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_NEAR(got[i], want[i], 2e-5 * largest + 1e-7) << name << " element " << i;
    }
  };
  for (size_t i = 0; i < exact.num_outputs(); ++i) {
    agree(single.output(i), exact.output(i), "output " + std::to_string(i));
    EXPECT_EQ(single.output(i), roomy.output(i)) << "output " << i << " depends on the capacity";
  }
  for (Value p : exact.trained()) {
    agree(single.gradient(p), gradients.at(p.id), "gradient of " + exact.g.info(p).name);
    EXPECT_EQ(single.gradient(p), roomy.gradient(p))
        << "gradient of " << exact.g.info(p).name << " depends on the capacity";
  }

  for (Value p : exact.trained()) {
    const std::vector<double>& gradient = gradients.at(p.id);
    const std::vector<double> kept = exact.values(p);
    const RandomStream stream(77, static_cast<uint64_t>(p.id));
    double want = 0, squares = 0;
    std::vector<double> direction(kept.size());
    for (size_t i = 0; i < kept.size(); ++i) {
      direction[i] = static_cast<double>(stream.uniform(i) * 2 - 1);
      want += gradient[i] * direction[i];
      squares += gradient[i] * gradient[i];
    }
    const double h = 1e-5;
    const auto at = [&](double step) {
      for (size_t i = 0; i < kept.size(); ++i) exact.values(p)[i] = kept[i] + step * direction[i];
      return exact.loss();
    };
    const double difference = (at(h) - at(-h)) / (2 * h);
    exact.values(p) = kept;
    // Relative to what a random direction is expected to give, so that an accidental near-orthogonal one does not fail.
    const double scale = std::max(std::fabs(want), std::sqrt(squares / 3));
    EXPECT_GT(scale, 0) << exact.g.info(p).name << " has no gradient";
    EXPECT_NEAR(difference, want, 1e-6 * scale) << exact.g.info(p).name;
  }
}

// An Error whose message holds all of `words`: a shape error names both shapes.
template <typename F>
void expect_error(F&& f, const std::vector<std::string>& words) {
  const std::string message = error_of(f);
  EXPECT_FALSE(message.empty()) << "no error";
  for (const std::string& word : words) {
    EXPECT_NE(message.find(word), std::string::npos) << word << " is not in: " << message;
  }
}

}  // namespace graft::test
