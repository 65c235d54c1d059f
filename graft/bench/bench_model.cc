#include "graft/bench/bench_model.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <numeric>
#include <string_view>
#include <vector>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/base/process.h"
#include "graft/base/random.h"
#include "graft/infer/generate.h"
#include "graft/train/config.h"
#include "graft/train/optimizer.h"
#include "graft/train/step.h"

namespace graft {
namespace {

constexpr double kRoofSeconds = 0.1;  // of a measurement of the machine between two steps or rounds
constexpr int64_t kRoundTokens = 16;  // decoded between two measurements

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<int32_t> random_ids(int64_t n, int64_t vocab, uint64_t seed) {
  const RandomStream stream(seed, stream_hash("bench ids"));
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i)
    ids.push_back(static_cast<int32_t>(stream.uniform53(static_cast<uint64_t>(i)) * static_cast<double>(vocab)));
  return ids;
}

Batch random_batch(const ModelBenchOptions& o, int64_t vocab) {
  Batch batch;
  batch.ids = random_ids(o.batch_size * o.max_length, vocab, o.seed);
  batch.sequence_offsets.push_back(0);
  const RandomStream stream(o.seed, stream_hash("bench labels"));
  for (int64_t s = 0; s < o.batch_size; ++s) {
    for (int64_t t = 0; t < o.max_length; ++t) {
      const int64_t i = s * o.max_length + t;
      batch.positions.push_back(static_cast<int32_t>(t));
      if (t + 1 == o.max_length || stream.uniform(static_cast<uint64_t>(i)) >= o.trained) continue;
      batch.label_rows.push_back(static_cast<int32_t>(i));
      batch.labels.push_back(batch.ids[static_cast<size_t>(i + 1)]);
      batch.label_weights.push_back(1.0f);
    }
    batch.sequence_offsets.push_back(static_cast<int32_t>((s + 1) * o.max_length));
    batch.rows.push_back(s);
  }
  batch.weight = static_cast<double>(batch.labels.size());
  return batch;
}

bool is_product(const Node& node) {
  return node.op->flops != nullptr && !std::string_view(node.op->name).starts_with("attention");
}

// Where the time of the steps went, op by op: seconds[step][node].
std::vector<OpBench> op_times(const Plan& plan, const RunSizes& sizes, const std::vector<std::vector<double>>& seconds,
                              double peak) {
  std::map<std::string, std::pair<OpBench, std::vector<double>>> ops;
  std::map<std::string, double> flops;
  for (size_t i = 0; i < plan.graph().nodes().size(); ++i) {
    const Node& node = plan.graph().nodes()[i];
    auto& [op, times] = ops[node.op->name];
    times.resize(seconds.size());
    op.op = node.op->name;
    ++op.nodes;
    op.product = is_product(node);
    if (node.op->flops != nullptr) flops[op.op] += node.op->flops(plan.graph(), node, sizes);
    for (size_t s = 0; s < seconds.size(); ++s) times[s] += seconds[s][i];
  }
  std::vector<OpBench> list;
  for (auto& [name, entry] : ops) {
    OpBench& op = entry.first;
    op.seconds = Spread::of(entry.second).median;
    op.gflops = flops[name] / op.seconds * 1e-9;
    op.share_of_peak = peak > 0 ? op.gflops / peak : 0;
    list.push_back(op);
  }
  std::sort(list.begin(), list.end(), [](const OpBench& a, const OpBench& b) { return a.seconds > b.seconds; });
  return list;
}

}  // namespace

TrainBench bench_train(Context& context, const ModelBenchOptions& o, MachineReport& machine) {
  TrainBench result;
  const double begin = seconds_now();
  const ModelFolder folder = ModelFolder::open(o.model, supported_model_types());
  Model model = Model::load(context, folder);
  LoraConfig lora;
  lora.rank = o.rank;
  lora.target_modules = parse_module_pattern(o.targets);
  AdapterWeights adapter = AdapterWeights::create(context, model, lora, "kaiming", o.seed);
  const Batch batch = random_batch(o, folder.config.vocab_size);
  BatchCapacity capacity;
  capacity.tokens = batch.num_tokens(), capacity.labels = static_cast<int64_t>(batch.labels.size());
  capacity.sequences = o.batch_size, capacity.longest = o.max_length;
  StepOptions options;
  options.compute = o.compute;
  options.evaluate = false;
  options.head_chunk_rows = most_head_chunk_rows(folder.config.vocab_size);
  TrainStep step(context, model, &adapter, options, capacity);
  result.load_seconds = seconds_now() - begin;
  const TrainConfig config;
  std::vector<double> node_seconds(step.plan().graph().nodes().size());
  const auto run = [&](int64_t i) {
    const double start = seconds_now();
    step.clear_gradients();
    result.loss = step.micro_batch(batch, batch.weight, static_cast<uint64_t>(i));
    const double norm = gradient_norm(context, step.tensors());
    apply_update(context, config, 1e-4, norm, i + 1, step.tensors());
    return seconds_now() - start;
  };
  run(0);  // touches memory for the first time
  result.peak_memory_bytes = peak_resident_bytes();

  const bool dot = o.compute == Compute::kBF16 && cpu_has_bf16_dot();
  Roof roof(context.pool(), dot ? Roof::Kind::kBf16Dot : Roof::Kind::kFma, kRoofSeconds);
  step.time_nodes(node_seconds);
  result.flops_per_step = step.flops(batch);
  const RunSizes sizes = step.sizes(batch);
  double product_flops = 0;
  for (const Node& node : step.plan().graph().nodes()) {
    if (is_product(node)) product_flops += node.op->flops(step.plan().graph(), node, sizes);
  }
  std::vector<double> times, peaks = {roof.measure()}, shares, in_products;
  std::vector<std::vector<double>> seconds;
  for (int64_t i = 1; i <= o.steps; ++i) {
    times.push_back(run(i));
    seconds.push_back(node_seconds);
    peaks.push_back(roof.measure());
    const double peak = (peaks[peaks.size() - 2] + peaks.back()) / 2;
    double inside = 0;
    for (size_t n = 0; n < node_seconds.size(); ++n)
      inside += is_product(step.plan().graph().nodes()[n]) ? node_seconds[n] : 0;
    shares.push_back(result.flops_per_step / times.back() * 1e-9 / peak);
    in_products.push_back(product_flops / inside * 1e-9 / peak);
  }
  result.peak_gflops = Spread::of(peaks);
  result.share_of_peak = Spread::of(shares);
  result.share_in_products = Spread::of(in_products);
  result.ops = op_times(step.plan(), sizes, seconds, result.peak_gflops.median);
  std::sort(times.begin(), times.end());
  result.steps = o.steps;
  result.tokens_per_step = batch.num_tokens();
  result.median_step_seconds = times[times.size() / 2];
  result.q1 = times[times.size() / 4], result.q3 = times[times.size() * 3 / 4];
  result.tokens_per_second = static_cast<double>(batch.num_tokens()) / result.median_step_seconds;
  result.steps_per_second = 1.0 / result.median_step_seconds;
  result.gflops = result.flops_per_step / result.median_step_seconds * 1e-9;
  machine = measure_machine(context.pool());
  return result;
}

GenerateBench bench_generate(Context& context, const ModelBenchOptions& o, MachineReport& machine) {
  GenerateBench result;
  const double begin = seconds_now();
  const ModelFolder folder = ModelFolder::open(o.model, supported_model_types());
  const Model model = Model::load(context, folder);
  const int64_t most = o.max_length + (o.steps + 1) * kRoundTokens + 1;  // a warm-up comes first
  GRAFT_CHECK(most <= folder.config.max_position_embeddings,
              "{} tokens and {} rounds of {} make {}, the model's max_position_embeddings is {}", o.max_length,
              o.steps + 1, kRoundTokens, most, folder.config.max_position_embeddings);
  EngineOptions engine_options;
  engine_options.compute = o.compute;
  engine_options.max_length = most;
  Engine engine(context, model, nullptr, engine_options);
  KvCache cache(folder.config, most);
  std::vector<int32_t> tokens = random_ids(o.max_length, folder.config.vocab_size, o.seed);
  GenerateOptions options;
  options.ignore_eos = true;
  options.max_tokens = kRoundTokens + 1;  // the first comes from the prompt's pass
  result.load_seconds = seconds_now() - begin;
  // A token reads every matrix once (an untied embedding only one row), and the keys and values before it.
  double weight_bytes = 0;
  for (const auto& [name, p] : model.parameters()) {
    if (name != "model.embed_tokens.weight" || folder.config.tie_word_embeddings)
      weight_bytes += static_cast<double>(p.weight.bytes());
  }
  std::vector<double> rates, gbps, bytes;
  const auto run = [&] {
    Generated g = generate(engine, nullptr, tokens, options, 0, {}, &cache);
    // All but the last token are fed again in the next round's pass over the prompt.
    const double length = static_cast<double>(tokens.size()) + kRoundTokens / 2.0;
    bytes.push_back(weight_bytes + length * static_cast<double>(KvCache::bytes_per_token(folder.config)));
    rates.push_back(kRoundTokens / g.decode_seconds);
    gbps.push_back(bytes.back() * rates.back() * 1e-9);
    tokens.insert(tokens.end(), g.ids.begin(), g.ids.end() - 1);
    return g;
  };
  const Generated first = run();
  result.prefill_tokens_per_second = static_cast<double>(first.prompt_tokens) / first.prefill_seconds;
  result.prompt_tokens = first.prompt_tokens;
  result.peak_memory_bytes = peak_resident_bytes();
  rates.clear(), gbps.clear(), bytes.clear();

  Roof roof(context.pool(), Roof::Kind::kRead, kRoofSeconds);
  std::vector<double> reads = {roof.measure()}, shares;
  for (int64_t i = 0; i < o.steps; ++i) {
    run();
    reads.push_back(roof.measure());
    shares.push_back(gbps.back() / ((reads[reads.size() - 2] + reads.back()) / 2));
  }
  result.rounds = o.steps;
  result.new_tokens = o.steps * kRoundTokens;
  result.bytes_per_token = std::accumulate(bytes.begin(), bytes.end(), 0.0) / static_cast<double>(bytes.size());
  result.decode_tokens_per_second = Spread::of(rates);
  result.gbps = Spread::of(gbps);
  result.read_gbps = Spread::of(reads);
  result.share_of_read = Spread::of(shares);
  machine = measure_machine(context.pool());
  return result;
}

}  // namespace graft
