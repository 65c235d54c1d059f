#pragma once

// Shared by the tests of models and of what runs them: tiny random models as folders, and a decoder's graph with its buffers.

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "graft/base/file.h"
#include "graft/base/random.h"
#include "graft/base/thread_pool.h"
#include "graft/formats/model_folder.h"
#include "graft/graph/plan.h"
#include "graft/models/adapter.h"
#include "graft/models/model.h"
#include "tests/support/bad_case.h"

namespace graft::test {

// config.json of a model of two layers, 4 heads on 2 key/value heads of 8.
inline Json tiny_config(const std::string& model_type, bool tied = true) {
  Json c = {{"architectures", {"Tiny"}}, {"model_type", model_type}, {"vocab_size", 40},
            {"hidden_size", 24},         {"intermediate_size", 36},  {"num_hidden_layers", 2},
            {"num_attention_heads", 4},  {"num_key_value_heads", 2}, {"head_dim", 8},
            {"rms_norm_eps", 1e-6},      {"rope_theta", 10000.0},    {"max_position_embeddings", 64},
            {"hidden_act", "silu"},      {"torch_dtype", "float32"}, {"tie_word_embeddings", tied},
            {"eos_token_id", 39}};
  if (model_type == "mistral") c["sliding_window"] = 3;
  if (model_type == "mixtral" || model_type == "graft_moe") c["num_local_experts"] = 4, c["num_experts_per_tok"] = 2;
  if (model_type == "graft_moe") c["shared_expert_intermediate_size"] = 20, c["rope_interleaved"] = true;
  if (model_type == "qwen2_moe" || model_type == "qwen3_moe") {
    c["num_experts"] = 5, c["num_experts_per_tok"] = 3, c["moe_intermediate_size"] = 20, c["norm_topk_prob"] = true;
  }
  if (model_type == "qwen2_moe") c["shared_expert_intermediate_size"] = 28, c["norm_topk_prob"] = false;
  if (model_type == "qwen3_moe") c["num_hidden_layers"] = 3, c["mlp_only_layers"] = {1};
  return c;
}

inline Model load_model(Context& context, const std::string& folder) {
  return Model::load(context, ModelFolder::open(folder, supported_model_types()));
}

// A folder with random weights of the size that keeps activations near one; biases and norms random too, so that none is neutral.
inline void write_tiny_model(const std::string& folder, const Json& config, DType dtype = DType::kF32,
                             uint64_t seed = 1) {
  std::filesystem::create_directories(folder);
  write_file(folder + "/config.json", config.dump(2));
  const ModelConfig parsed = load_model_config(folder);
  std::vector<TensorToWrite> tensors;
  for (const ExpectedTensor& t : family_of(parsed).tensors(parsed)) tensors.push_back({t.name, dtype, t.shape, {}});
  ModelWriter writer(folder, tensors);
  for (const TensorInfo& info : writer.tensors()) {
    const RandomStream stream(seed, stream_hash(info.name));
    std::vector<float> values(static_cast<size_t>(info.num_elements()));
    const bool norm = info.name.find("norm") != std::string::npos;
    const double scale = info.shape.size() == 2 ? 1.7 / std::sqrt(static_cast<double>(info.shape[1])) : 0.3;
    for (size_t i = 0; i < values.size(); ++i) {
      values[i] = static_cast<float>((norm ? 1 : 0) + scale * (stream.uniform53(i) * 2 - 1));
    }
    std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_bits(dtype)) / 8);
    write_from_f32(values.data(), static_cast<int64_t>(values.size()), dtype, bytes.data());
    writer.write(info.name, bytes);
  }
  writer.commit();
}

struct Workers {
  explicit Workers(int threads = 2) : pool(threads), context(pool) {}
  ThreadPool pool;
  Context context;
};

inline LoraConfig lora_config(int64_t rank, const std::string& targets, double alpha = 16) {
  LoraConfig config;
  config.rank = rank, config.alpha = alpha;
  config.target_modules = parse_module_pattern(targets);
  return config;
}

// An adapter whose B is random too.
inline AdapterWeights random_adapter(Context& context, const Model& model, const LoraConfig& config, uint64_t seed) {
  AdapterWeights w = AdapterWeights::create(context, model, config, "kaiming", seed);
  for (auto& [name, m] : w.tensors) {
    if (!name.ends_with(".lora_B")) continue;
    const RandomStream stream(seed, stream_hash(name));
    for (size_t i = 0; i < m.values().size(); ++i) m.values()[i] = 0.2f * (stream.uniform(i) * 2 - 1);
  }
  return w;
}

// Three sequences of 5, 1 and 4 tokens; every token but each sequence's last predicts the next.
struct TinyBatch {
  std::vector<int32_t> ids, positions, offsets = {0, 5, 6, 10}, label_rows = {0, 1, 2, 3, 6, 7, 8}, labels;
  std::vector<double> weights;
  explicit TinyBatch(int64_t vocab = 40, uint64_t seed = 3) {
    const RandomStream stream(seed, 1);
    for (size_t i = 0; i < 10; ++i) ids.push_back(static_cast<int32_t>(stream.word(i) % static_cast<uint64_t>(vocab)));
    positions = {0, 1, 2, 3, 4, 0, 0, 1, 2, 3};
    for (const int32_t row : label_rows) labels.push_back(ids[static_cast<size_t>(row) + 1]);
    weights.assign(labels.size(), 1.0 / static_cast<double>(labels.size()));
  }
  RunSizes sizes() const { return {.tokens = 10, .labels = 7, .sequences = 3, .max_length = 5}; }
};

// A decoder's graph with buffers of its precision. Trained values are held in double, by name.
class DecoderBench {
 public:
  DecoderBench(Context& context, const Model& model, DecoderOptions options,
               std::vector<const AdapterWeights*> adapters = {}, int recompute_every = 0)
      : context_(&context), rope_(model.rope_table(8)) {
    for (const AdapterWeights* adapter : adapters) options.adapters.push_back(adapter->sites);
    graph = model.family().build(model.config(), options);
    PlanOptions p;
    p.capacity = batch.sizes(), p.num_threads = context.num_threads(), p.recompute_every = recompute_every;
    plan = Plan::compile(graph.graph, p);
    plan.prepare(context);
    model.bind(plan, graph);
    for (size_t slot = 0; slot < adapters.size(); ++slot) {
      for (const auto& [name, value] : graph.adapter_parameters[slot]) {
        const auto values = adapters[slot]->tensors.at(name).values();
        if (slot == 0) trained[name] = {values.begin(), values.end()}, handles_[name] = value;
        auto& memory = memory_[value.id];
        memory.resize(values.size() * 8);
        store({values.begin(), values.end()}, memory);
        plan.bind(value, static_cast<void*>(memory.data()));
      }
    }
    for (size_t id = 0; id < graph.graph.values().size(); ++id) {
      const ValueInfo& info = graph.graph.values()[id];
      if (!info.trainable) continue;
      auto& memory = gradient_memory_[info.name];
      memory.resize(static_cast<size_t>(info.shape.elements(batch.sizes())) * 8);
      plan.bind(info.gradient, static_cast<void*>(memory.data()));
    }
    plan.bind(graph.ids, batch.ids.data());
    plan.bind(graph.positions, batch.positions.data());
    plan.bind(graph.sequence_offsets, batch.offsets.data());
    for (size_t i = 0; i < batch.ids.size(); ++i) row_keys_.push_back(i);
    if (graph.row_keys) plan.bind(graph.row_keys, row_keys_.data());
    if (graph.label_rows) plan.bind(graph.label_rows, batch.label_rows.data());
    if (graph.labels) plan.bind(graph.labels, batch.labels.data());
    if (graph.label_weights) plan.bind(graph.label_weights, batch.weights.data());
    if (graph.loss) plan.bind(graph.loss, &loss_);
    if (graph.router_values) {
      aux_coef_ = options.aux_coef, z_coef_ = options.z_coef;
      routers_.resize(static_cast<size_t>(graph.graph.shape(graph.router_values).fixed_rows));
      plan.bind(graph.router_values, routers_.data());
      plan.bind(graph.router_scale, &router_scale_);
    }
    inputs.rope = &rope_;
    inputs.sizes = batch.sizes();
    if (!graph.label_rows) inputs.sizes.labels = 0;
  }
  DecoderBench(const DecoderBench&) = delete;
  DecoderBench& operator=(const DecoderBench&) = delete;

  double run() {
    for (auto& [name, values] : trained) store(values, memory_.at(handles_.at(name).id));
    for (auto& [name, memory] : gradient_memory_) std::fill(memory.begin(), memory.end(), std::byte{0});
    plan.run(*context_, inputs);
    if (routers_.empty()) return loss_;
    return loss_ + (aux_coef_ == 0 ? 0 : aux_coef_ * routers_[0]) + (z_coef_ == 0 ? 0 : z_coef_ * routers_[1]);
  }
  std::map<std::string, std::vector<double>> gradients() const {
    std::map<std::string, std::vector<double>> out;
    for (const auto& [name, memory] : gradient_memory_) {
      std::vector<double> values(memory.size() / 8);
      for (size_t i = 0; i < values.size(); ++i) {
        values[i] = f64() ? reinterpret_cast<const double*>(memory.data())[i]
                          : static_cast<double>(reinterpret_cast<const float*>(memory.data())[i]);
      }
      out[name] = std::move(values);
    }
    return out;
  }
  std::vector<float> logits() const {
    const auto z = plan.read<float>(graph.logits, inputs.sizes);
    return {z.data(), z.data() + z.size()};
  }
  bool f64() const { return graph.graph.dtype() == DType::kF64; }

  TinyBatch batch;
  DecoderGraph graph;
  Plan plan;
  RunInputs inputs;
  std::map<std::string, std::vector<double>> trained;  // slot 0's adapter

 private:
  void store(const std::vector<double>& values, std::vector<std::byte>& memory) const {
    if (f64()) {
      std::copy(values.begin(), values.end(), reinterpret_cast<double*>(memory.data()));
    } else {
      std::transform(values.begin(), values.end(), reinterpret_cast<float*>(memory.data()),
                     [](double x) { return static_cast<float>(x); });
    }
  }
  Context* context_;
  RopeTable rope_;
  std::vector<uint64_t> row_keys_;  // of dropout: a key per token
  double loss_ = 0, aux_coef_ = 0, z_coef_ = 0;
  const double router_scale_ = 1;
  std::vector<double> routers_;
  std::map<std::string, Value> handles_;
  std::map<int32_t, std::vector<std::byte>> memory_;
  std::map<std::string, std::vector<std::byte>> gradient_memory_;
};

// Of a TinyBatch.
inline std::vector<float> logits_of(Context& context, const Model& model, const AdapterWeights* adapter = nullptr) {
  DecoderOptions options;
  options.output = DecoderOutput::kLogits;
  std::vector<const AdapterWeights*> adapters;
  if (adapter != nullptr) adapters.push_back(adapter);
  DecoderBench b(context, model, options, std::move(adapters));
  b.run();
  return b.logits();
}

}  // namespace graft::test
