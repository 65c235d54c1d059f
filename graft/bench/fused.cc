#include "graft/bench/fused.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <limits>

#include "graft/bench/machine.h"

namespace graft {
namespace {

// Appends steps. A step's inputs are borrowed from the fused call, from a step before or from a constant.
class Builder {
 public:
  Builder(Unfused& to, const KernelCall& fused, Context& context) : to_(to), fused_(fused), context_(context) {}

  const KernelTensor& in(std::string_view name) const { return fused_.inputs().find(name)->second; }
  const KernelCall& fused() const { return fused_; }

  Builder& step(std::string_view kernel) {
    to_.steps.push_back({find_kernel(kernel), std::make_unique<KernelCall>()});
    return *this;
  }
  Builder& with(std::string_view name, const KernelTensor& t) { return with(name, t, t.shape); }
  // Another shape of the same memory, from element `first` on.
  Builder& with(std::string_view name, const KernelTensor& t, std::vector<int64_t> shape, int64_t first = 0) {
    call().borrow_input(name, t.dtype, std::move(shape), t.data.data() + first * (dtype_bits(t.dtype) / 8));
    return *this;
  }
  Builder& set(std::string_view name, std::string_view text) {
    call().set_parameter(name, text);
    return *this;
  }
  Builder& copy_parameters() {
    for (const auto& [name, text] : fused_.parameters()) call().set_parameter(name, text);
    return *this;
  }
  // Where the step writes an output.
  Builder& into(std::string_view name, const KernelTensor& t, std::vector<int64_t> shape, int64_t first) {
    call().borrow_output(name, t.dtype, std::move(shape), t.data.data() + first * (dtype_bits(t.dtype) / 8));
    return *this;
  }
  // Prepares the step; its output.
  const KernelTensor& out(std::string_view name) {
    context_.reserve(to_.steps.back().kernel->prepare(call()));
    return call().outputs().find(name)->second;
  }
  const KernelTensor& output(std::string_view name) { return call().outputs().find(name)->second; }
  void result(std::string_view output, const KernelTensor& tensor) {
    to_.results.push_back({std::string(output), &tensor});
  }
  // An f32 operand, value(i) at element i.
  template <typename F>
  const KernelTensor& constant(std::vector<int64_t> shape, F&& value) {
    const KernelTensor& t = memory(std::move(shape));
    const std::span<float> x = t.data.as<float>();
    for (int64_t i = 0; i < t.size(); ++i) x[static_cast<size_t>(i)] = static_cast<float>(value(i));
    return t;
  }
  const KernelTensor& memory(std::vector<int64_t> shape) {
    return *to_.constants.emplace_back(std::make_unique<KernelTensor>(DType::kF32, std::move(shape)));
  }

 private:
  KernelCall& call() { return *to_.steps.back().call; }
  Unfused& to_;
  const KernelCall& fused_;
  Context& context_;
};

void square_sum(Builder& b) {
  const KernelTensor& x = b.in("x");
  const KernelTensor& square = b.step("map_mul").with("a", x).with("b", x).out("y");
  b.result("y", b.step("reduce_sum").with("x", square).out("y"));
}
void abs_sum(Builder& b) {
  const KernelTensor& size = b.step("map_abs").with("x", b.in("x")).out("y");
  b.result("y", b.step("reduce_sum").with("x", size).out("y"));
}

// The mask as factors of 0 and 1.
void masked_sum(Builder& b) {
  const KernelTensor& x = b.in("x");
  const std::span<const uint8_t> mask = b.fused().in<uint8_t>("mask");
  const KernelTensor& factor =
      b.constant(x.shape, [&](int64_t i) { return mask[static_cast<size_t>(i)] != 0 ? 1 : 0; });
  const KernelTensor& kept = b.step("map_mul").with("a", x).with("b", factor).out("y");
  b.result("y", b.step("reduce_sum").with("x", kept).out("y"));
}
// The mask, and what it keeps, counted.
void threshold_count(Builder& b) {
  const KernelTensor& x = b.in("x");
  const double threshold = b.fused().real("threshold", 0);
  const KernelTensor& bound = b.constant(x.shape, [&](int64_t) { return threshold; });
  const KernelTensor& mask = b.step("map_compare").with("a", x).with("b", bound).set("op", "gt").out("mask");
  b.step("compact_mask").with("x", x).with("mask", mask).out("y");
  b.result("count", b.output("count"));
}

// loss, softmax, and the gradient p scale - onehot scale.
void cross_entropy(Builder& b) {
  const KernelTensor& logits = b.in("logits");
  const int64_t columns = logits.shape[1], ignore = b.fused().integer("ignore_index", -100);
  const double scale = b.fused().real("grad_scale", 1);
  const std::span<const int32_t> targets = b.fused().in<int32_t>("targets");
  const auto target = [&](int64_t i) { return targets[static_cast<size_t>(i / columns)]; };
  const KernelTensor& factor = b.constant(logits.shape, [&](int64_t i) { return target(i) == ignore ? 0 : scale; });
  const KernelTensor& onehot =
      b.constant(logits.shape, [&](int64_t i) { return target(i) == i % columns ? -scale : 0; });
  b.result("loss", b.step("loss_cross_entropy").with("logits", logits).with("targets", b.in("targets")).out("per_row"));
  const KernelTensor& p = b.step("softmax_stable").with("x", logits).out("y");
  b.result("grad", b.step("map_fma").with("a", p).with("b", factor).with("c", onehot).out("y"));
}

void scan_compact(Builder& b) {
  const KernelTensor& x = b.in("x");
  const double threshold = b.fused().real("threshold", 0);
  const KernelTensor& bound = b.constant(x.shape, [&](int64_t) { return threshold; });
  const KernelTensor& mask = b.step("map_compare").with("a", x).with("b", bound).set("op", "gt").out("mask");
  const KernelTensor& y = b.step("compact_mask").with("x", x).with("mask", mask).out("y");
  b.result("y", y);
}

// Dropout and residual are one map: LN(x) (mask / keep) + residual.
void layernorm_dropout(Builder& b) {
  const KernelTensor& x = b.in("x");
  const std::span<const uint8_t> mask = b.fused().in<uint8_t>("mask");
  const double keep = b.fused().real("keep_prob", 0.9);
  const KernelTensor& factor =
      b.constant(x.shape, [&](int64_t i) { return mask[static_cast<size_t>(i)] != 0 ? 1 / keep : 0; });
  const KernelTensor& norm = b.step("layer_norm")
                                 .with("x", x)
                                 .with("gamma", b.in("gamma"))
                                 .with("beta", b.in("beta"))
                                 .copy_parameters()
                                 .out("y");
  b.result("y", b.step("map_fma").with("a", norm).with("b", factor).with("c", b.in("residual")).out("y"));
}

void adam_clip(Builder& b) {
  const bool by_norm = b.fused().word("clip_mode", "value") == "norm";
  b.step(by_norm ? "grad_clip_norm" : "grad_clip_value").with("grad", b.in("grad"));
  b.set(by_norm ? "max_norm" : "max_value", fmt::format("{}", b.fused().real("clip", 1)));
  const KernelTensor& grad = b.out("grad");
  if (by_norm) b.result("norm", b.output("norm"));
  b.step("opt_adamw").copy_parameters().with("grad", grad);
  for (const char* name : {"param", "m", "v"}) b.with(name, b.in(name));
  b.out("param");
  for (const char* name : {"param", "m", "v"}) b.result(name, b.output(name));
}

double scale_of(const KernelCall& call) {
  return call.real("scale", 1 / std::sqrt(static_cast<double>(call.in_shape("q").back())));
}

// q s, k turned, scores, softmax, times v: of one head.
void attention(Builder& b) {
  const KernelTensor &q = b.in("q"), &k = b.in("k"), &v = b.in("v");
  const int64_t queries = q.shape[2], keys = k.shape[2], features = q.shape[3];
  const KernelTensor& scale = b.constant(q.shape, [&](int64_t) { return scale_of(b.fused()); });
  const KernelTensor& scaled = b.step("map_mul").with("a", q).with("b", scale).out("y");
  const KernelTensor& turned = b.step("transpose_2d").with("x", k, {keys, features}).out("y");
  const KernelTensor& scores = b.step("matmul_batched")
                                   .with("a", scaled, {1, queries, features})
                                   .with("b", turned, {1, features, keys})
                                   .out("c");
  const KernelTensor& p = b.step("softmax_stable").with("x", scores, {queries, keys}).out("y");
  b.result("o", b.step("matmul_batched").with("a", p, {1, queries, keys}).with("b", v, {1, keys, features}).out("c"));
}

// Both turned, keys transposed by head, the product, and s scores + (0 or -inf).
void rope_scores(Builder& b) {
  const KernelTensor& q = b.in("q");
  const int64_t heads = q.shape[0], length = q.shape[1], features = q.shape[2];
  const double scale = scale_of(b.fused());
  const std::vector<int64_t> shape = {heads, length, length};
  const KernelTensor& factor = b.constant(shape, [&](int64_t) { return scale; });
  const KernelTensor& mask = b.constant(shape, [&](int64_t i) {
    return i % length > i / length % length ? -std::numeric_limits<double>::infinity() : 0;
  });
  std::array<const KernelTensor*, 2> turned{};
  for (size_t i = 0; i < 2; ++i) {
    turned[i] = &b.step("rope_apply")
                     .with("x", b.in(i == 0 ? "q" : "k"), {heads, length, 1, features})
                     .with("cos", b.in("cos"))
                     .with("sin", b.in("sin"))
                     .out("y");
  }
  const KernelTensor& keys = b.memory({heads, features, length});
  for (int64_t h = 0; h < heads; ++h) {
    b.step("transpose_2d").with("x", *turned[1], {length, features}, h * length * features);
    b.into("y", keys, {features, length}, h * length * features).out("y");
  }
  const KernelTensor& scores =
      b.step("matmul_batched").with("a", *turned[0], {heads, length, features}).with("b", keys).out("c");
  b.result("scores", b.step("map_fma").with("a", scores).with("b", factor).with("c", mask).out("y"));
}

struct Sequence {
  std::string_view kernel;
  void (*build)(Builder& b);
};
constexpr Sequence kSequences[] = {
    {"map_reduce_square_sum", square_sum},
    {"map_reduce_abs_sum", abs_sum},
    {"map_reduce_masked_sum", masked_sum},
    {"map_reduce_threshold_count", threshold_count},
    {"fused_softmax_cross_entropy", cross_entropy},
    {"fused_scan_compact", scan_compact},
    {"fused_layernorm_dropout_residual", layernorm_dropout},
    {"fused_attention_softmax_v", attention},
    {"fused_rope_attention_mask", rope_scores},
    {"fused_adam_clip_update", adam_clip},
};

}  // namespace

bool Unfused::knows(const KernelInfo& kernel) {
  return std::ranges::any_of(kSequences, [&](const Sequence& s) { return s.kernel == kernel.name; });
}

Unfused::Unfused(const KernelInfo& kernel, const KernelCall& call, Context& context) {
  const auto* at = std::ranges::find(kSequences, kernel.name, &Sequence::kernel);
  GRAFT_CHECK(at != std::end(kSequences), "{} is not known as single kernels", kernel.name);
  Builder builder(*this, call, context);
  at->build(builder);
}

void Unfused::run(Context& context) const {
  for (const Step& step : steps) step.kernel->run(context, *step.call);
}

double Unfused::bytes() const {
  double sum = 0;
  for (const Step& step : steps) sum += step.kernel->bytes(*step.call);
  return sum;
}

std::string Unfused::text() const {
  std::string names;
  for (size_t i = 0; i < steps.size(); ++i) {
    if (i > 0 && steps[i].kernel == steps[i - 1].kernel) continue;
    names += fmt::format("{}{}", names.empty() ? "" : ", ", steps[i].kernel->name);
  }
  return names;
}

FusedTiming time_fused(ThreadPool& pool, const KernelInfo& kernel, const KernelCall& inputs, double seconds) {
  Context context(pool);
  KernelCall call;
  for (const auto& [name, text] : inputs.parameters()) call.set_parameter(name, text);
  for (const auto& [name, t] : inputs.inputs()) call.borrow_input(name, t.dtype, t.shape, t.data.data());
  context.reserve(kernel.prepare(call));
  const Unfused unfused(kernel, call, context);
  FusedTiming t;
  t.kernel = kernel.name, t.steps = unfused.text(), t.threads = pool.num_threads();
  t.bytes = kernel.bytes(call), t.unfused_bytes = unfused.bytes();
  using Clock = std::chrono::steady_clock;
  const auto time = [&](int64_t calls, bool fused) {
    const auto start = Clock::now();
    for (int64_t i = 0; i < calls; ++i) fused ? kernel.run(context, call) : unfused.run(context);
    return std::chrono::duration<double, std::nano>(Clock::now() - start).count() / static_cast<double>(calls);
  };
  time(1, true), time(1, false);  // touch all memory
  constexpr double kSampleNs = 1e5;
  const auto calls = std::max<int64_t>(1, static_cast<int64_t>(kSampleNs / std::max(time(1, true), 1.0)));
  std::vector<double> fused, apart;
  const auto start = Clock::now();
  while (fused.size() < 5 || std::chrono::duration<double>(Clock::now() - start).count() < seconds) {
    fused.push_back(time(calls, true));
    apart.push_back(time(calls, false));
  }
  t.ns = Spread::of(fused).median, t.unfused_ns = Spread::of(apart).median;
  return t;
}

}  // namespace graft
