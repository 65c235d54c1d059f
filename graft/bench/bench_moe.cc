#include "graft/bench/bench_moe.h"

#include <time.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <map>
#include <thread>
#include <utility>

#include "graft/base/allocations.h"
#include "graft/base/error.h"
#include "graft/base/process.h"
#include "graft/base/random.h"
#include "graft/kernels/gemm.h"
#include "graft/kernels/norm.h"
#include "graft/kernels/softmax.h"
#include "graft/models/model.h"
#include "graft/train/optimizer.h"
#include "graft/train/step.h"

namespace graft {
namespace {

using Work = MoeScenario::Work;
using Clock = std::chrono::steady_clock;

constexpr int64_t kVocab = 1000;
constexpr int64_t kSide = 64, kSoftmaxSize = 1000, kNormRows = 64, kNormWidth = 64;

const std::vector<MoeScenario>& all_scenarios() {
  static const std::vector<MoeScenario> scenarios = [] {
    std::vector<MoeScenario> list;
    const auto add = [&](std::string id, const char* axis, Work work, const char* model, int64_t batch, int64_t seq,
                         int workers = 1, int calls = 1) {
      list.push_back({std::move(id), axis, work, model, batch, seq, workers, calls});
    };
    add("mem_train_step", "memory", Work::kTrain, "tiny", 2, 8);
    for (const int64_t b : {1, 2, 4, 8})
      add(fmt::format("mem_scale_batch_{}", b), "memory", Work::kForward, "tiny", b, 32);
    for (const int64_t s : {8, 16, 32, 64})
      add(fmt::format("mem_scale_seq_{}", s), "memory", Work::kForward, "tiny", 2, s);
    add("kernel_matmul", "compiler", Work::kMatmul, "", 0, 0, 1, 16);
    add("kernel_softmax", "compiler", Work::kSoftmax, "", 0, 0, 1, 64);
    add("kernel_rmsnorm", "compiler", Work::kRmsNorm, "", 0, 0, 1, 64);
    add("dispatch_warm", "type system", Work::kForward, "tiny", 2, 32);
    add("dispatch_cold", "type system", Work::kCold, "tiny", 1, 8);
    for (const int w : {1, 2, 4}) add(fmt::format("parallel_T{}", w), "parallel", Work::kForward, "tiny", 2, 32, w);
    for (const int w : {1, 2, 4}) add(fmt::format("parallel_train_T{}", w), "parallel", Work::kTrain, "tiny", 2, 8, w);
    add("scale_forward_256", "scale", Work::kForward, "small", 2, 32);
    add("scale_train_256", "scale", Work::kTrain, "small", 2, 8);
    return list;
  }();
  return scenarios;
}

Batch moe_batch(int64_t batch, int64_t seq, int64_t vocab) {
  Batch b;
  b.sequence_offsets.push_back(0);
  for (int64_t i = 0; i < batch * seq; ++i) {
    b.ids.push_back(static_cast<int32_t>(i % vocab));
    b.positions.push_back(static_cast<int32_t>(i % seq));
    b.label_rows.push_back(static_cast<int32_t>(i));
    b.labels.push_back(static_cast<int32_t>((i + 1) % vocab));
    b.label_weights.push_back(1.0f);
    if ((i + 1) % seq == 0) b.sequence_offsets.push_back(static_cast<int32_t>(i + 1)), b.rows.push_back(i / seq);
  }
  b.weight = static_cast<double>(b.labels.size());
  return b;
}

// What one worker does in a run.
class Task {
 public:
  virtual ~Task() = default;
  virtual void run() = 0;
  virtual std::span<const float> output() const = 0;
  virtual double flops() const { return 0; }
  virtual int64_t timed_ns() const { return -1; }  // what counts of the last run; -1: all of it
};

BatchCapacity capacity(const MoeScenario& s) { return {s.batch * s.seq, s.batch * s.seq, s.batch, s.seq}; }

class Forward : public Task {
 public:
  Forward(Context& context, const ModelConfig& config, const MoeScenario& s, uint64_t seed)
      : context_(&context), model_(Model::random(context, config, seed)), batch_(moe_batch(s.batch, s.seq, kVocab)) {
    DecoderOptions options;
    options.output = DecoderOutput::kLogits;
    graph_ = model_.family().build(config, options);
    PlanOptions plan;
    plan.capacity.tokens = batch_.num_tokens(), plan.capacity.sequences = s.batch, plan.capacity.max_length = s.seq;
    plan.num_threads = context.num_threads();
    sizes_ = plan.capacity;
    plan_ = Plan::compile(graph_.graph, plan);
    plan_.prepare(context);
    model_.bind(plan_, graph_);
    plan_.bind(graph_.ids, batch_.ids.data());
    plan_.bind(graph_.positions, batch_.positions.data());
    plan_.bind(graph_.sequence_offsets, batch_.sequence_offsets.data());
    rope_ = model_.rope_table(s.seq);
  }
  void run() override {
    RunInputs inputs;
    inputs.sizes = sizes_, inputs.rope = &rope_;
    plan_.run(*context_, inputs);
  }
  std::span<const float> output() const override {
    const auto logits = plan_.read<float>(graph_.logits, sizes_);
    return {logits.data(), static_cast<size_t>(logits.size())};
  }
  double flops() const override { return plan_.flops(sizes_); }

 private:
  Context* context_;
  Model model_;
  Batch batch_;
  DecoderGraph graph_;
  Plan plan_;
  RunSizes sizes_;
  RopeTable rope_;
};

class Train : public Task {
 public:
  Train(Context& context, const ModelConfig& config, const MoeScenario& s, uint64_t seed)
      : context_(&context),
        model_(Model::random(context, config, seed, {.rows = true})),
        batch_(moe_batch(s.batch, s.seq, kVocab)),
        step_(context, model_, nullptr, step_options(), capacity(s)) {
    config_.lr = 1e-3, config_.beta1 = 0.9, config_.beta2 = 0.95, config_.weight_decay = 0.1, config_.clip = 1.0;
  }
  void run() override {
    step_.clear_gradients();
    step_.micro_batch(batch_, batch_.weight, static_cast<uint64_t>(updates_));
    const double norm = gradient_norm(*context_, step_.tensors());
    GRAFT_CHECK(std::isfinite(norm), "training step {}: the gradient's norm is {}", updates_, norm);
    apply_update(*context_, config_, config_.lr, norm, ++updates_, step_.tensors());
  }
  std::span<const float> output() const override { return step_.last_nll(); }
  double flops() const override { return step_.flops(batch_); }

 private:
  static StepOptions step_options() {
    StepOptions o;
    o.full = true, o.evaluate = false, o.aux_coef = 0.01;
    return o;
  }

  Context* context_;
  Model model_;
  Batch batch_;
  TrainStep step_;
  TrainConfig config_;
  int64_t updates_ = 0;
};

// A model is made, run once and given back. Its logits are those of the run before.
class Cold : public Task {
 public:
  Cold(Context& context, const ModelConfig& config, const MoeScenario& s, uint64_t seed)
      : context_(&context), config_(config), scenario_(s), seed_(seed) {}
  void run() override {
    Forward forward(*context_, config_, scenario_, seed_);
    forward.run();
    const auto logits = forward.output();
    logits_.assign(logits.begin(), logits.end());
    flops_ = forward.flops();
  }
  std::span<const float> output() const override { return logits_; }
  double flops() const override { return flops_; }

 private:
  Context* context_;
  const ModelConfig& config_;
  const MoeScenario& scenario_;
  uint64_t seed_;
  std::vector<float> logits_;
  double flops_ = 0;
};

// The nodes of the one layer's feed-forward part, forward and backward.
class Layer : public Task {
 public:
  Layer(Context& context, const ModelConfig& config, const MoeScenario& s, uint64_t seed)
      : model_(Model::random(context, config, seed, {.rows = true})),
        batch_(moe_batch(s.batch, s.seq, config.vocab_size)),
        step_(context, model_, nullptr, step_options(), capacity(s)),
        seconds_(step_.plan().graph().nodes().size()) {
    step_.time_nodes(seconds_);
  }
  void run() override { step_.micro_batch(batch_, batch_.weight, 0); }
  int64_t timed_ns() const override {
    double sum = 0;
    for_nodes([&](size_t i, const Node&) { sum += seconds_[i]; });
    return static_cast<int64_t>(1e9 * sum);
  }
  std::span<const float> output() const override { return step_.last_nll(); }
  double flops() const override {
    double sum = 0;
    const RunSizes sizes = step_.sizes(batch_);
    for_nodes([&](size_t, const Node& node) {
      if (node.op->flops != nullptr) sum += node.op->flops(step_.plan().graph(), node, sizes);
    });
    return sum;
  }

 private:
  template <typename F>
  void for_nodes(F&& f) const {
    const auto& nodes = step_.plan().graph().nodes();
    for (size_t i = 0; i < nodes.size(); ++i) {
      if (nodes[i].name.find(".mlp") != std::string::npos) f(i, nodes[i]);
    }
  }
  static StepOptions step_options() {
    StepOptions o;
    o.full = true, o.evaluate = false, o.moments = false, o.aux_coef = 0.01;
    return o;
  }

  Model model_;
  Batch batch_;
  TrainStep step_;
  std::vector<double> seconds_;
};

class Kernel : public Task {
 public:
  Kernel(Context& context, const MoeScenario& s, uint64_t seed) : context_(&context), scenario_(s) {
    const auto fill = [&](std::vector<float>& values, int64_t size, const char* name) {
      const RandomStream stream(seed, stream_hash(name));
      values.resize(static_cast<size_t>(size));
      for (size_t i = 0; i < values.size(); ++i) values[i] = 2 * stream.uniform(i) - 1;
    };
    fill(a_, std::max({kSide * kSide, kSoftmaxSize, kNormRows * kNormWidth}), "bench moe a");
    fill(b_, kSide * kSide, "bench moe b");
    y_.resize(a_.size());
    if (s.work == Work::kMatmul) context.reserve(matmul_scratch(context.num_threads(), kSide, kSide, kSide));
  }
  void run() override {
    for (int i = 0; i < scenario_.calls; ++i) once();
  }
  std::span<const float> output() const override { return std::span(y_).first(static_cast<size_t>(size())); }
  double flops() const override {
    const double one = scenario_.work == Work::kMatmul    ? 2.0 * kSide * kSide * kSide
                       : scenario_.work == Work::kSoftmax ? 4.0 * kSoftmaxSize
                                                          : 3.0 * kNormRows * kNormWidth;
    return one;
  }

 private:
  int64_t size() const { return scenario_.work == Work::kSoftmax ? kSoftmaxSize : kSide * kSide; }
  void once() {
    switch (scenario_.work) {
      case Work::kMatmul: {
        MatmulSource<float> source;
        source.dy = View<const float, 2>(a_.data(), kSide, kSide);
        source.w.rows = View<const float, 2>(b_.data(), kSide, kSide);
        matmul_nn<float>(*context_, Compute::kF32, std::span<const MatmulSource<float>>(&source, 1), false,
                         View<float, 2>(y_.data(), kSide, kSide));
        return;
      }
      case Work::kSoftmax:
        return softmax_stable(*context_, View<const float, 2>(a_.data(), 1, kSoftmaxSize),
                              View<float, 2>(y_.data(), 1, kSoftmaxSize));
      default:
        return rms_norm<float>(*context_, View<const float, 2>(a_.data(), kNormRows, kNormWidth),
                               std::span<const float>(b_).first(kNormWidth), 1e-6,
                               View<float, 2>(y_.data(), kNormRows, kNormWidth), std::span<float>());
    }
  }
  Context* context_;
  const MoeScenario& scenario_;
  std::vector<float> a_, b_, y_;
};

int64_t clock_ns(clockid_t id) {
  timespec t{};
  ::clock_gettime(id, &t);
  return int64_t{1000000000} * t.tv_sec + t.tv_nsec;
}

// Interpolated at (n - 1) p, as spec/moe.md says.
double quantile(std::vector<double> values, double p) {
  std::sort(values.begin(), values.end());
  const double at = p * static_cast<double>(values.size() - 1);
  const auto below = static_cast<size_t>(at);
  const size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (at - static_cast<double>(below)) * (values[above] - values[below]);
}

// The largest resident size counts from here on, where the system lets a process say so.
void reset_peak_resident_bytes() {
  if (std::FILE* file = std::fopen("/proc/self/clear_refs", "w")) {
    std::fputs("5", file);
    std::fclose(file);
  }
}

Json scenario_params(const MoeScenario& s, int threads) {
  Json p = {{"threads", threads}, {"workers", s.workers}, {"calls", s.calls}};
  if (s.work == Work::kMatmul) p["m"] = kSide, p["n"] = kSide, p["k"] = kSide;
  if (s.work == Work::kSoftmax) p["n"] = kSoftmaxSize;
  if (s.work == Work::kRmsNorm) p["shape"] = {2, 32, kNormWidth};
  if (s.model.empty()) return p;
  p["model"] = s.model, p["batch"] = s.batch, p["seq"] = s.seq;
  const Json config = moe_config(s.model);
  for (const char* key : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
                          "num_key_value_heads", "head_dim", "num_local_experts", "num_experts_per_tok"}) {
    p[key] = config.at(key);
  }
  return p;
}

Json numerical(const std::vector<std::span<const float>>& outputs) {
  int64_t nan = 0, inf = 0;
  double most = 0;
  for (const auto& output : outputs) {
    for (const float x : output) {
      nan += std::isnan(x) ? 1 : 0, inf += std::isinf(x) ? 1 : 0;
      if (std::isfinite(x)) most = std::max(most, std::fabs(static_cast<double>(x)));
    }
  }
  return {{"nan_count", nan}, {"inf_count", inf}, {"max_abs", most}};
}

}  // namespace

Json moe_config(const std::string& name) {
  struct Sizes {
    const char* name;
    int64_t vocab, hidden, width, layers, heads, head_dim, experts, top_k, positions;
  };
  static constexpr Sizes kSizes[] = {{"tiny", kVocab, 64, 256, 2, 4, 16, 4, 2, 512},
                                     {"small", kVocab, 256, 1024, 2, 4, 64, 4, 2, 512},
                                     {"full", 32000, 768, 6144, 30, 12, 64, 16, 4, 32768},
                                     {"layer_experts", 64, 1024, 2048, 1, 4, 64, 8, 2, 512},
                                     {"layer_dense", 64, 1024, 4096, 1, 4, 64, 8, 2, 512}};
  const auto* const s =
      std::find_if(std::begin(kSizes), std::end(kSizes), [&](const Sizes& x) { return x.name == name; });
  GRAFT_CHECK(s != std::end(kSizes), "model '{}' is unknown, known are tiny, small, full", name);
  Json config = {
      {"model_type", "graft_moe"},       {"vocab_size", s->vocab},         {"hidden_size", s->hidden},
      {"intermediate_size", s->width},   {"num_hidden_layers", s->layers}, {"num_attention_heads", s->heads},
      {"num_key_value_heads", 1},        {"head_dim", s->head_dim},        {"num_local_experts", s->experts},
      {"num_experts_per_tok", s->top_k}, {"rope_interleaved", true},       {"max_position_embeddings", s->positions},
      {"rope_theta", 10000.0},           {"rms_norm_eps", 1e-6},           {"router_aux_loss_coef", 0.01}};
  if (name == "full") config["rope_scaling"] = {{"rope_type", "ntk"}, {"factor", 8}};
  if (name == "layer_dense") config["mlp_only_layers"] = {0};
  return config;
}

std::span<const MoeScenario> moe_scenarios() { return all_scenarios(); }

const MoeScenario* find_moe_scenario(std::string_view id) {
  static const MoeScenario kLayers[] = {{"layer_experts", "layer", Work::kLayer, "layer_experts", 1, 512},
                                        {"layer_dense", "layer", Work::kLayer, "layer_dense", 1, 512}};
  for (const MoeScenario& s : all_scenarios()) {
    if (s.id == id) return &s;
  }
  for (const MoeScenario& s : kLayers) {
    if (s.id == id) return &s;
  }
  return nullptr;
}

// One worker runs on the caller's thread. More run on threads of their own, where their models are made too: what ops keep on the host is
// kept by thread.
struct MoeCase::Impl {
  struct Worker {
    std::unique_ptr<ThreadPool> pool;
    std::unique_ptr<Context> context;
    std::unique_ptr<Task> task;
    int64_t begin_ns = 0, end_ns = 0, cpu_ns = 0;
    std::thread thread;
  };
  const MoeScenario& scenario;
  int threads;
  uint64_t seed;
  ModelConfig config;
  std::vector<Worker> workers;
  std::atomic<uint32_t> generation{0}, finished{0};
  std::atomic<int> ready{0};
  std::atomic<bool> stop{false};

  Impl(const MoeScenario& s, int thread_count, uint64_t the_seed)
      : scenario(s), threads(thread_count), seed(the_seed), workers(static_cast<size_t>(s.workers)) {
    if (!s.model.empty()) {
      const std::vector<std::string_view> types = supported_model_types();
      config = parse_model_config(moe_config(s.model), s.model, types);
    }
    if (workers.size() == 1) {
      make(workers[0]);
      return;
    }
    for (Worker& worker : workers) worker.thread = std::thread([this, w = &worker] { loop(*w); });
    wait_for_all(0);
  }
  ~Impl() {
    if (workers.size() == 1) return;
    stop = true;
    generation.fetch_add(1);
    generation.notify_all();
    for (Worker& worker : workers) worker.thread.join();
  }

  void make(Worker& worker) {
    worker.pool = std::make_unique<ThreadPool>(threads);
    worker.context = std::make_unique<Context>(*worker.pool);
    switch (scenario.work) {
      case Work::kForward: worker.task = std::make_unique<Forward>(*worker.context, config, scenario, seed); break;
      case Work::kTrain: worker.task = std::make_unique<Train>(*worker.context, config, scenario, seed); break;
      case Work::kLayer: worker.task = std::make_unique<Layer>(*worker.context, config, scenario, seed); break;
      case Work::kCold: worker.task = std::make_unique<Cold>(*worker.context, config, scenario, seed); break;
      default: worker.task = std::make_unique<Kernel>(*worker.context, scenario, seed);
    }
  }

  void loop(Worker& worker) {
    make(worker);
    const int count = static_cast<int>(workers.size());
    for (uint32_t seen = 0;; ++seen) {
      finished.fetch_add(1);
      finished.notify_all();
      generation.wait(seen);
      if (stop) return;
      ready.fetch_add(1);
      while (ready.load() < count) std::this_thread::yield();  // all are awake: now
      const int64_t cpu = clock_ns(CLOCK_THREAD_CPUTIME_ID);
      worker.begin_ns = clock_ns(CLOCK_MONOTONIC);
      worker.task->run();
      worker.end_ns = clock_ns(CLOCK_MONOTONIC);
      worker.cpu_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - cpu;
    }
  }
  void wait_for_all(uint32_t runs) {
    const auto wanted = static_cast<uint32_t>(workers.size()) * (runs + 1);
    for (uint32_t now = finished; now != wanted; now = finished) finished.wait(now);
  }
};

MoeCase::MoeCase(const MoeScenario& scenario, int threads, uint64_t seed)
    : impl_(std::make_unique<Impl>(scenario, threads, seed)) {}
MoeCase::~MoeCase() = default;

MoeTrial MoeCase::run() {
  Impl& m = *impl_;
  MoeTrial trial;
  const int64_t calls = allocation_count.calls, bytes = allocation_count.bytes;
  if (m.workers.size() == 1) {
    const int64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID), begin = clock_ns(CLOCK_MONOTONIC);
    m.workers[0].task->run();
    trial.wall_ns = clock_ns(CLOCK_MONOTONIC) - begin;
    trial.cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    if (const int64_t timed = m.workers[0].task->timed_ns(); timed >= 0) trial.wall_ns = timed;
  } else {
    m.ready = 0;
    const uint32_t run = m.generation.fetch_add(1) + 1;
    m.generation.notify_all();
    m.wait_for_all(run);
    int64_t begin = INT64_MAX, end = 0;
    for (const Impl::Worker& w : m.workers) {
      begin = std::min(begin, w.begin_ns), end = std::max(end, w.end_ns);
      trial.cpu_ns += w.cpu_ns;
    }
    trial.wall_ns = end - begin;
  }
  trial.allocations = allocation_count.calls - calls, trial.allocated_bytes = allocation_count.bytes - bytes;
  trial.wall_ns /= m.scenario.calls, trial.cpu_ns /= m.scenario.calls;
  return trial;
}

std::vector<std::span<const float>> MoeCase::outputs() const {
  std::vector<std::span<const float>> list;
  for (const Impl::Worker& w : impl_->workers) list.push_back(w.task->output());
  return list;
}

double MoeCase::flops() const {
  double sum = 0;
  for (const Impl::Worker& w : impl_->workers) sum += w.task->flops();
  return sum;
}

void bench_moe(const MoeBenchOptions& options, const std::function<void()>& first,
               const std::function<void(const Json&)>& done) {
  std::map<std::string, double> medians;
  bool is_first = true;
  for (const MoeScenario* s : options.scenarios) {
    reset_peak_resident_bytes();
    MoeCase bench(*s, options.threads, options.seed);
    drop_startup_pages();
    std::vector<double> wall, cpu, warmup;
    int64_t allocations = 0, bytes = 0;
    for (int i = 0; i < options.warmup; ++i) {
      warmup.push_back(static_cast<double>(bench.run().wall_ns));
      if (std::exchange(is_first, false) && first) first();
    }
    for (int i = 0; i < options.trials; ++i) {
      const MoeTrial trial = bench.run();
      wall.push_back(static_cast<double>(trial.wall_ns)), cpu.push_back(static_cast<double>(trial.cpu_ns));
      allocations += trial.allocations, bytes += trial.allocated_bytes;
      if (std::exchange(is_first, false) && first) first();
    }
    const double median = quantile(wall, 0.5), total = [&] {
      double sum = 0;
      for (const double w : wall) sum += w;
      return sum;
    }();
    medians[s->id] = median;
    const auto tokens = static_cast<double>(s->batch * s->seq * s->workers);
    const auto trials = static_cast<double>(options.trials);
    Json derived = {{"gflops", bench.flops() / median},
                    {"gc_throughput", 1.0},
                    {"alloc_bytes_per_second", 1e9 * static_cast<double>(bytes) / (total * s->calls)},
                    {"allocations_per_run", static_cast<double>(allocations) / trials}};
    if (s->axis == "parallel") {
      const std::string one = s->id.substr(0, s->id.find_last_of('T')) + "T1";
      if (const auto it = medians.find(one); it != medians.end())
        derived["speed_up"] = s->workers * it->second / median;
    }
    if (s->work == Work::kCold && medians.contains("dispatch_warm")) {
      derived["cold_over_warm"] = median / medians["dispatch_warm"];
    }
    done({{"id", s->id},
          {"axis", s->axis},
          {"params", scenario_params(*s, options.threads)},
          {"warmup_runs", options.warmup},
          {"trial_runs", options.trials},
          {"timings_ns", wall},
          {"cpu_times_ns", cpu},
          {"warmup_timings_ns", warmup},
          {"median_ns", median},
          {"p95_ns", quantile(wall, 0.95)},
          {"min_ns", quantile(wall, 0)},
          {"max_ns", quantile(wall, 1)},
          {"iqr_ns", quantile(wall, 0.75) - quantile(wall, 0.25)},
          {"cpu_median_ns", quantile(cpu, 0.5)},
          {"memory", {{"peak_rss_bytes", peak_resident_bytes()}, {"alloc_bytes", static_cast<double>(bytes) / trials}}},
          {"gc", {{"time_ns", 0}, {"pauses", 0}}},
          {"numerical", numerical(bench.outputs())},
          {"throughput_tokens_per_sec", 1e9 * tokens / median},
          {"derived", std::move(derived)}});
  }
}

}  // namespace graft
