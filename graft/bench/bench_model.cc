#include "graft/bench/bench_model.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "graft/base/process.h"
#include "graft/base/random.h"
#include "graft/infer/generate.h"
#include "graft/train/config.h"
#include "graft/train/optimizer.h"
#include "graft/train/step.h"

namespace graft {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<int32_t> random_ids(int64_t n, int64_t vocab, uint64_t seed) {
  const RandomStream stream(seed, stream_hash("bench ids"));
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i) {
    ids.push_back(static_cast<int32_t>(stream.uniform53(static_cast<uint64_t>(i)) * static_cast<double>(vocab)));
  }
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
  TrainStep step(context, model, &adapter, options, capacity);
  result.load_seconds = seconds_now() - begin;
  TrainConfig config;
  std::vector<double> times;
  for (int64_t i = 0; i <= o.steps; ++i) {
    const double start = seconds_now();
    step.clear_gradients();
    result.loss = step.micro_batch(batch, batch.weight, static_cast<uint64_t>(i));
    const double norm = gradient_norm(context, step.tensors());
    apply_update(context, config, 1e-4, norm, i + 1, step.tensors());
    if (i > 0) times.push_back(seconds_now() - start);  // the first touches memory for the first time
  }
  std::sort(times.begin(), times.end());
  result.steps = o.steps;
  result.tokens_per_step = batch.num_tokens();
  result.median_step_seconds = times[times.size() / 2];
  result.q1 = times[times.size() / 4], result.q3 = times[times.size() * 3 / 4];
  result.tokens_per_second = static_cast<double>(batch.num_tokens()) / result.median_step_seconds;
  result.steps_per_second = 1.0 / result.median_step_seconds;
  result.flops_per_step = step.flops(batch);
  result.gflops = result.flops_per_step / result.median_step_seconds * 1e-9;
  result.peak_memory_bytes = peak_resident_bytes();
  machine = measure_machine(context.pool());
  const double peak =
      o.compute == Compute::kBF16 && machine.bf16_dot_gflops > 0 ? machine.bf16_dot_gflops : machine.fma_gflops;
  result.share_of_peak = peak > 0 ? result.gflops / peak : 0;
  return result;
}

GenerateBench bench_generate(Context& context, const ModelBenchOptions& o, MachineReport& machine) {
  GenerateBench result;
  const double begin = seconds_now();
  const ModelFolder folder = ModelFolder::open(o.model, supported_model_types());
  const Model model = Model::load(context, folder);
  EngineOptions engine_options;
  engine_options.compute = o.compute;
  engine_options.max_length = std::min(folder.config.max_position_embeddings, o.max_length + o.steps * 16 + 1);
  Engine engine(context, model, nullptr, engine_options);
  const std::vector<int32_t> prompt = random_ids(o.max_length, folder.config.vocab_size, o.seed);
  GenerateOptions options;
  options.ignore_eos = true;
  options.max_tokens = std::max<int64_t>(2, engine_options.max_length - o.max_length - 1);
  result.load_seconds = seconds_now() - begin;
  const Generated g = generate(engine, nullptr, prompt, options);
  result.prompt_tokens = g.prompt_tokens;
  result.new_tokens = static_cast<int64_t>(g.ids.size());
  result.prefill_tokens_per_second = static_cast<double>(g.prompt_tokens) / g.prefill_seconds;
  result.decode_tokens_per_second = static_cast<double>(g.ids.size() - 1) / g.decode_seconds;
  // A token reads every matrix once (an untied embedding only one row), and the keys and values before it.
  for (const auto& [name, p] : model.parameters()) {
    if (name != "model.embed_tokens.weight" || folder.config.tie_word_embeddings) {
      result.bytes_per_token += static_cast<double>(p.weight.bytes());
    }
  }
  const double mean_length = static_cast<double>(o.max_length) + static_cast<double>(result.new_tokens) / 2;
  result.bytes_per_token += mean_length * static_cast<double>(KvCache::bytes_per_token(folder.config));
  result.gbps = result.bytes_per_token * result.decode_tokens_per_second * 1e-9;
  result.peak_memory_bytes = peak_resident_bytes();
  machine = measure_machine(context.pool());
  result.share_of_read = machine.read_gbps > 0 ? result.gbps / machine.read_gbps : 0;
  return result;
}

}  // namespace graft
