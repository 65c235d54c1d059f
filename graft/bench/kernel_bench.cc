#include "graft/bench/kernel_bench.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstring>

#include "graft/base/error.h"
#include "graft/bench/kernel_check.h"
#include "graft/formats/safetensors.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;
constexpr double kMostBytes = 1 << 30;     // inputs and outputs of one call
constexpr double kScalarOperations = 2e9;  // more than that takes the scalar reference seconds
constexpr double kSampleSeconds = 30e-6;   // short calls are timed several at once
constexpr int kTurns = 5;                  // of a kernel and its roof

double tensor_bytes(const KernelCall& call) {
  double bytes = 0;
  for (const auto* tensors : {&call.inputs(), &call.outputs()}) {
    for (const auto& [name, tensor] : *tensors) bytes += static_cast<double>(tensor.bytes());
  }
  return bytes;
}

double output_bytes(const KernelCall& call) {
  double bytes = 0;
  for (const auto& [name, tensor] : call.outputs()) bytes += static_cast<double>(tensor.bytes());
  return bytes;
}

// Bytes of the outputs that are an input moved on: parameters, states, grids. Such kernels write where they read.
double shared_bytes(const KernelCall& call) {
  double bytes = 0;
  for (const auto& [name, tensor] : call.outputs()) {
    const auto input = call.inputs().find(name);
    if (input != call.inputs().end() && input->second.bytes() == tensor.bytes())
      bytes += static_cast<double>(tensor.bytes());
  }
  return bytes;
}

// Works in place, and a second run on its own result does less: the gradient is clipped already.
bool timed_afresh(const KernelInfo& kernel) { return kernel.name == "grad_clip_norm"; }
// Puts the inputs' values back where a run in place overwrote them.
void start_afresh(KernelCall& call) {
  for (const auto& [name, output] : call.outputs()) {
    const auto input = call.inputs().find(name);
    if (input != call.inputs().end() && input->second.bytes() == output.bytes())
      std::memcpy(output.data.data(), input->second.data.data(), output.bytes());
  }
}

// The example of about `elements`. Error where its tensors would take more than kMostBytes, which a small one foretells.
KernelCall example_of(const KernelInfo& kernel, int64_t elements, uint64_t seed) {
  constexpr int64_t kSmall = 65536;
  KernelCall call;
  if (elements > kSmall) {
    kernel.example(call, kSmall, seed);
    kernel.prepare(call);
    const double bytes = tensor_bytes(call) * (static_cast<double>(elements) / kSmall);
    GRAFT_CHECK_HINT(bytes <= kMostBytes, "give a smaller size", "{} of {} elements needs about {:.1f} GiB, at most 1",
                     kernel.name, elements, bytes / kMostBytes);
    call = {};
  }
  kernel.example(call, elements, seed);
  return call;
}

double value_at(const std::byte* data, DType dtype, size_t i) {
  if (dtype == DType::kF16) return static_cast<double>(to_float(reinterpret_cast<const f16*>(data)[i]));
  return static_cast<double>(reinterpret_cast<const float*>(data)[i]);
}

}  // namespace

BenchSize parse_bench_size(const std::string& text) {
  const auto refuse = [&] {
    fail_hint("K is 1,024, M a million, G a thousand millions; 4xLLC is a working set of four last-level caches",
              "size '{}', expected 1 to 1G elements, as 64K, 1M or 1000, or 1xLLC to 32xLLC", printable(text, 40));
  };
  BenchSize size;
  size.label = text;
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) refuse();
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  if (unit == "xLLC" || unit == "xllc") {
    if (!(number >= 1 && number <= 32)) refuse();
    size.caches = number;
    return size;
  }
  const double scale = unit == "K" || unit == "k" ? 1024 : unit == "M" ? 1e6 : unit == "G" ? 1e9 : unit.empty() ? 1 : 0;
  number *= scale;
  if (!(number >= 1 && number <= 1e9) || number != std::floor(number)) refuse();
  size.elements = static_cast<int64_t>(number);
  return size;
}

std::vector<const KernelInfo*> select_kernels(const std::vector<std::string>& words) {
  std::vector<const KernelInfo*> chosen;
  std::string unknown;
  for (const std::string& word : words) {
    const auto rows = kernel_registry();
    if (std::none_of(rows.begin(), rows.end(), [&](const KernelInfo& k) { return k.name == word || k.domain == word; }))
      unknown += fmt::format("{}'{}'", unknown.empty() ? "" : ", ", printable(word, 40));
  }
  GRAFT_CHECK_HINT(unknown.empty(), "graft kernel list shows what there is", "no kernel or domain is called {}",
                   unknown);
  for (const KernelInfo& k : kernel_registry()) {
    const bool named =
        std::any_of(words.begin(), words.end(), [&](const std::string& w) { return w == k.name || w == k.domain; });
    if (words.empty() || named) chosen.push_back(&k);
  }
  return chosen;
}

std::string inputs_text(const KernelCall& call) {
  std::string text;
  for (const auto& [name, tensor] : call.inputs())
    text += fmt::format("{}{}[{}]", text.empty() ? "" : ", ", name, fmt::join(tensor.shape, ", "));
  return text;
}

void dump_call(const KernelCall& call, const std::string& path) {
  std::vector<TensorToWrite> tensors;
  Metadata metadata;
  for (const auto& [name, text] : call.parameters()) metadata["param." + name] = text;
  for (const auto& [name, t] : call.inputs())
    tensors.push_back({"in." + name, t.dtype, t.shape, {t.data.data(), t.bytes()}});
  for (const auto& [name, t] : call.outputs())
    tensors.push_back({"out." + name, t.dtype, t.shape, {t.data.data(), t.bytes()}});
  write_safetensors(path, tensors, metadata);
}

// The threads, scratch and roofs of one number of threads.
struct KernelBench::Team {
  explicit Team(int threads) : pool(threads), context(pool), roofs(pool), fma(pool, Roof::Kind::kFma, 0.0004) {}
  ThreadPool pool;
  Context context;
  BandwidthRoofs roofs;
  Roof fma;
};

KernelBench::KernelBench() = default;
KernelBench::~KernelBench() = default;

KernelBench::Team& KernelBench::team(int threads) {
  auto& team = teams_[threads];
  if (team == nullptr) {
    const LevelGuard guard;
    set_cpu_level(cpu_level_detected());  // the peak is the machine's, whatever is timed
    team = std::make_unique<Team>(threads);
  }
  return *team;
}
ThreadPool& KernelBench::pool(int threads) { return team(threads).pool; }
BandwidthRoofs& KernelBench::roofs(int threads) { return team(threads).roofs; }
double KernelBench::peak(int threads) {
  std::vector<double> tries(50);
  for (double& each : tries) each = team(threads).fma.measure();
  std::sort(tries.begin(), tries.end());
  return tries[tries.size() - 2];
}

void KernelBench::prepare(const KernelInfo& kernel, const BenchSize& size, uint64_t seed, bool with_reference) {
  kernel_ = &kernel;
  size_ = size;
  elements_ = size.elements;
  if (size.caches > 0) {
    const double set = size.caches * static_cast<double>(cache_sizes().last);
    KernelCall small;
    kernel.example(small, 65536, seed);
    kernel.prepare(small);
    GRAFT_CHECK(set <= kMostBytes, "{} last-level caches are {:.1f} GiB, at most 1", size.label, set / kMostBytes);
    elements_ = static_cast<int64_t>(std::ceil(set / (tensor_bytes(small) / 65536)));
    call_ = {};
    kernel.example(call_, elements_, seed);
  } else {
    call_ = {};
    call_ = example_of(kernel, elements_, seed);
  }
  Context& context = team(usable_cores()).context;
  context.reserve(kernel.prepare(call_));
  wanted_.clear();
  if (!with_reference) return;
  const LevelGuard guard;
  const std::vector<CpuLevel> levels = cpu_levels_available();
  const bool long_scalar = kernel.flops(call_) > kScalarOperations && levels.size() > 1;
  set_cpu_level(levels[long_scalar ? 1 : 0]);
  kernel.run(context, call_);
  for (const auto& [name, tensor] : call_.outputs())
    wanted_[name].assign(tensor.data.data(), tensor.data.data() + tensor.bytes());
}

void KernelBench::compare(const TimingOptions& options) const {
  for (const auto& [name, tensor] : call_.outputs()) {
    const auto reference = wanted_.find(name);
    if (reference == wanted_.end()) continue;
    const std::vector<std::byte>& want = reference->second;
    const auto differs = [&, output = std::string_view(name)](const std::string& how) {
      fail("{} {} under {} with {} threads: output {} {}; please report this", kernel_->name, size_.label,
           options.variant, options.threads, output, how);
    };
    if (want.size() != tensor.bytes()) differs(fmt::format("has {} bytes, expected {}", tensor.bytes(), want.size()));
    if (std::memcmp(want.data(), tensor.data.data(), want.size()) == 0) continue;
    const bool real = tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16;
    if (kernel_->outside_contract.empty() || !real) differs("has other bits than the reference");
    const auto n = static_cast<size_t>(tensor.size());
    double largest = 0;
    for (size_t i = 0; i < n; ++i) {
      const double w = std::fabs(value_at(want.data(), tensor.dtype, i));
      if (std::isfinite(w)) largest = std::max(largest, w);
    }
    for (size_t i = 0; i < n; ++i) {
      const double w = value_at(want.data(), tensor.dtype, i), g = value_at(tensor.data.data(), tensor.dtype, i);
      if (w == g || (w != w && g != g) || std::fabs(w - g) <= 1e-4 * std::fabs(w) + 1e-5 * largest) continue;
      differs(fmt::format("element {} is {:.9g}, the reference's {:.9g}", i, g, w));
    }
  }
}

KernelTiming KernelBench::time(const TimingOptions& options) {
  Team& t = team(options.threads);
  const LevelGuard guard;
  set_cpu_level(kernel_levels(options.variant).front());
  t.context.reserve(kernel_->prepare(call_));
  const auto seconds_of = [&](int64_t calls) {
    if (timed_afresh(*kernel_)) start_afresh(call_);
    const auto start = Clock::now();
    for (int64_t i = 0; i < calls; ++i) kernel_->run(t.context, call_);
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  double first = seconds_of(1);
  compare(options);

  KernelTiming r;
  r.kernel = kernel_->name, r.domain = kernel_->domain, r.variant = options.variant, r.size = size_.label;
  r.elements = elements_, r.shape = inputs_text(call_), r.threads = options.threads;
  r.bytes = kernel_->bytes(call_), r.flops = kernel_->flops(call_);
  const double written = std::min(output_bytes(call_), r.bytes), shared = shared_bytes(call_);
  const bool in_place = 2 * shared > written;
  const Mix mix = mix_of(r.bytes - written, written, in_place);
  const double working_set = std::min(tensor_bytes(call_), r.bytes) - (in_place ? shared : 0);
  first = std::min(first, seconds_of(1));
  const int64_t calls =
      timed_afresh(*kernel_) ? 1 : std::max<int64_t>(1, std::llround(kSampleSeconds / std::max(first, 1e-9)));

  std::vector<double> samples, bandwidth, peak;
  for (int turn = 0; turn < kTurns; ++turn) {
    if (options.with_limit) {
      bandwidth.push_back(t.roofs.measure(mix, working_set));
      peak.push_back(std::max({t.fma.measure(), t.fma.measure(), t.fma.measure()}));
    }
    double spent = 0;
    size_t taken = 0;
    const size_t least = static_cast<size_t>((options.least_samples + kTurns - 1) / kTurns);
    while (taken < least || (spent < options.seconds / kTurns && taken < 2000)) {
      const double s = seconds_of(calls);
      samples.push_back(s / static_cast<double>(calls));
      spent += s, ++taken;
    }
    if (!options.with_limit && static_cast<int>(samples.size()) >= options.least_samples && spent > options.seconds)
      break;  // a long call
  }
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) {
    return 1e9 * samples[static_cast<size_t>(share * static_cast<double>(samples.size() - 1) + 0.5)];
  };
  r.samples = static_cast<int>(samples.size());
  r.least_ns = at(0), r.q1_ns = at(0.25), r.median_ns = at(0.5), r.q3_ns = at(0.75);
  if (options.with_limit) {
    // The second best turn: neither other work nor a jump of the clock moves the roof.
    std::sort(bandwidth.begin(), bandwidth.end());
    std::sort(peak.begin(), peak.end());
    const double gbps = bandwidth[kTurns - 2], gflops = peak[kTurns - 2];
    const double memory_ns = r.bytes / gbps, work_ns = r.flops / gflops;
    r.bound_ns = std::max(memory_ns, work_ns);
    r.roof = memory_ns >= work_ns ? gbps : gflops;
    r.limit =
        memory_ns >= work_ns ? fmt::format("{} {}", mix_name(mix), memory_level(working_set, options.threads)) : "FMA";
    r.limit_share = r.bound_ns / r.median_ns;
  }
  return r;
}

std::vector<double> KernelBench::compete(const std::vector<RouteChoice>& choices, double seconds, double drop) {
  int most = 1;
  for (const RouteChoice& c : choices) most = std::max(most, c.threads);
  Team& t = team(most);  // one pool for all, as where a router is in force
  t.context.reserve(kernel_->prepare(call_));
  const auto seconds_of = [&](const RouteChoice& choice, int64_t calls) {
    const RouteScope scope(choice, t.pool);
    if (timed_afresh(*kernel_)) start_afresh(call_);
    const auto start = Clock::now();
    for (int64_t i = 0; i < calls; ++i) kernel_->run(t.context, call_);
    return std::chrono::duration<double>(Clock::now() - start).count();
  };
  const auto begin = Clock::now();
  const auto spent = [&] { return std::chrono::duration<double>(Clock::now() - begin).count(); };
  kernel_->run(t.context, call_);  // touches the outputs
  std::vector<double> first(choices.size());
  for (size_t i = 0; i < choices.size(); ++i) {
    first[i] = seconds_of(choices[i], 1);
    if (first[i] < 1e-3) first[i] = std::min(first[i], seconds_of(choices[i], 1));
  }
  const double quickest = *std::min_element(first.begin(), first.end());
  std::vector<std::vector<double>> samples(choices.size());
  for (int round = 0; round < 3 || (spent() < seconds && round < 200); ++round) {
    if (round > 0 && spent() > 3 * seconds) break;  // long calls
    for (size_t i = 0; i < choices.size(); ++i) {
      if (first[i] > drop * quickest) continue;
      const int64_t calls =
          timed_afresh(*kernel_) ? 1 : std::max<int64_t>(1, std::llround(kSampleSeconds / std::max(first[i], 1e-9)));
      samples[i].push_back(seconds_of(choices[i], calls) / static_cast<double>(calls));
    }
  }
  std::vector<double> ns(choices.size());
  for (size_t i = 0; i < choices.size(); ++i)
    ns[i] = 1e9 * (samples[i].empty() ? first[i] : Spread::of(samples[i]).median);
  return ns;
}

}  // namespace graft
