#include "graft/train/step.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "graft/base/error.h"

namespace graft {
namespace {

RunSizes plan_sizes(const BatchCapacity& capacity) {
  RunSizes sizes;
  sizes.tokens = capacity.tokens, sizes.labels = capacity.labels, sizes.sequences = capacity.sequences,
  sizes.max_length = capacity.longest;
  return sizes;
}

DecoderOptions decoder_options(const StepOptions& options, const AdapterSites* sites, bool rows, bool train) {
  DecoderOptions d;
  d.base_rows = rows;
  d.compute = options.compute;
  d.output = train ? DecoderOutput::kTrain : DecoderOutput::kLoss;
  d.train_base = train && options.full;
  d.train_adapter = train && !options.full;
  if (sites != nullptr) d.adapters = {*sites};
  d.dropout = train ? options.dropout : 0;
  d.dropout_at_rank = options.dropout_at_rank;
  d.seed = options.seed;
  d.label_smoothing = train ? options.label_smoothing : 0;
  d.head_chunk_rows = options.head_chunk_rows;
  d.aux_coef = options.aux_coef, d.z_coef = options.z_coef, d.aux_joint = options.aux_joint;
  return d;
}

PlanOptions plan_options(const StepOptions& options, const BatchCapacity& capacity, int num_threads, bool train) {
  PlanOptions p;
  p.capacity = plan_sizes(capacity);
  p.recompute_every = train ? options.recompute_every : 0;
  p.num_threads = num_threads;
  return p;
}

// "model.layers.0.self_attn.q_proj.lora_A" -> PEFT's name in the file.
std::string peft_name(const std::string& name) {
  if (name.ends_with("embed_tokens.lora_A") || name.ends_with("embed_tokens.lora_B")) {
    return "base_model.model." + name.substr(0, name.size() - 6) + "lora_embedding_" + name.back();
  }
  const bool magnitude = name.size() > 22 && name.ends_with(".lora_magnitude_vector");
  const bool lora = name.ends_with(".lora_A") || name.ends_with(".lora_B");
  return "base_model.model." + name + (lora && !magnitude ? ".weight" : "");
}

// The lists of a batch fit each other and the capacity; what their numbers may be is the plan's to check.
void check_batch(const Batch& b, const RunSizes& capacity) {
  GRAFT_CHECK(!b.ids.empty() && b.sequence_offsets.size() >= 2, "the batch is empty: {} tokens, {} sequence offsets",
              b.ids.size(), b.sequence_offsets.size());
  GRAFT_CHECK(b.positions.size() == b.ids.size(), "the batch has {} tokens and {} positions", b.ids.size(),
              b.positions.size());
  GRAFT_CHECK(b.label_rows.size() == b.labels.size() && b.label_weights.size() == b.labels.size(),
              "the batch has {} labels, {} label rows and {} label weights", b.labels.size(), b.label_rows.size(),
              b.label_weights.size());
  const auto tokens = static_cast<int64_t>(b.ids.size()), labels = static_cast<int64_t>(b.labels.size());
  GRAFT_CHECK(tokens <= capacity.tokens && labels <= capacity.labels,
              "the batch has {} tokens and {} labels, the step is made for {} and {}", tokens, labels, capacity.tokens,
              capacity.labels);
  for (size_t s = 0; s + 1 < b.sequence_offsets.size(); ++s) {
    GRAFT_CHECK(b.sequence_offsets[s] < b.sequence_offsets[s + 1], "sequence {} of the batch is empty: tokens {} to {}",
                s, b.sequence_offsets[s], b.sequence_offsets[s + 1]);
  }
  for (size_t i = 1; i < b.label_rows.size(); ++i) {
    GRAFT_CHECK(b.label_rows[i - 1] < b.label_rows[i], "label rows {} and {} of the batch do not ascend: {}, {}", i - 1,
                i, b.label_rows[i - 1], b.label_rows[i]);
  }
}

bool is_norm_or_bias(const std::string& name) {
  return name.ends_with(".bias") || name.ends_with("norm.weight") || name.find("layernorm.") != std::string::npos ||
         name.find("_norm.") != std::string::npos;
}

}  // namespace

int64_t most_head_chunk_rows(int64_t vocab_size) {
  int64_t rows = 256;
  while (rows > 64 && rows * vocab_size * static_cast<int64_t>(sizeof(float)) > int64_t{80} << 20) rows /= 2;
  return rows;
}

TrainStep::TrainStep(Context& context, Model& model, AdapterWeights* adapter, const StepOptions& options,
                     const BatchCapacity& capacity)
    : context_(&context),
      model_(&model),
      adapter_(adapter),
      aux_coef_(options.aux_coef),
      z_coef_(options.z_coef),
      num_experts_(model.config().moe ? model.config().moe->num_experts : 0) {
  const AdapterSites* sites = adapter != nullptr ? &adapter->sites : nullptr;
  rope_ = model.rope_table(std::max<int64_t>(1, capacity.longest));
  if (options.evaluate) {
    eval_graph_ = model.family().build(model.config(), decoder_options(options, sites, model.in_rows(), false));
    eval_ = Plan::compile(eval_graph_.graph, plan_options(options, capacity, context.num_threads(), false));
  }
  if (options.train) {
    train_graph_ = model.family().build(model.config(), decoder_options(options, sites, model.in_rows(), true));
    train_ = Plan::compile(train_graph_.graph, plan_options(options, capacity, context.num_threads(), true));
  }
  arena_ = Buffer(std::max(train_.arena_bytes(), eval_.arena_bytes()));  // one of the two runs at a time
  if (options.train) make_training(options);
  if (options.evaluate) {
    eval_.prepare(context, arena_.data());
    bind(eval_, eval_graph_);
  }
  weights_.resize(static_cast<size_t>(capacity.labels));
  row_keys_.resize(static_cast<size_t>(capacity.tokens));
}

void TrainStep::bind(Plan& plan, const DecoderGraph& graph) {
  model_->bind(plan, graph);
  if (adapter_ != nullptr) adapter_->bind(plan, graph);
  plan.bind(graph.loss, &loss_);
  if (!graph.router_values) return;
  router_values_.resize(static_cast<size_t>(graph.graph.shape(graph.router_values).fixed_rows));
  plan.bind(graph.router_values, router_values_.data());
  plan.bind(graph.router_scale, &router_share_);
}

void TrainStep::make_training(const StepOptions& options) {
  train_.prepare(*context_, arena_.data());

  const auto add_tensor = [&](std::string name, Value value, std::vector<int64_t> shape) -> TrainedTensor& {
    TrainedTensor t;
    t.name = std::move(name);
    t.shape = std::move(shape);
    t.decay = !is_norm_or_bias(t.name);
    size_t bytes = sizeof(float);
    for (int64_t d : t.shape) bytes *= static_cast<size_t>(d);
    t.grad = Buffer(bytes);
    if (options.moments) t.m = Buffer(bytes), t.v = Buffer(bytes);
    train_.bind(train_graph_.graph.info(value).gradient, t.grad.data());
    tensors_.push_back(std::move(t));
    return tensors_.back();
  };
  if (options.full) {
    GRAFT_CHECK(model_->in_rows(), "full fine-tuning needs a model loaded in rows");
    for (const auto& [name, value] : train_graph_.parameters) {
      Parameter& p = model_->parameters().at(name);
      add_tensor(name, value, p.shape).value = p.is_matrix() ? p.rows.as<float>() : p.vector.as<float>();
    }
  } else if (adapter_ != nullptr) {
    for (const auto& [name, value] : train_graph_.adapter_parameters[0]) {
      AdapterMatrix& matrix = adapter_->tensors.at(name);
      add_tensor(
          peft_name(name), value,
          matrix.is_vector ? std::vector<int64_t>{matrix.rows} : std::vector<int64_t>{matrix.rows, matrix.columns})
          .value = matrix.values();
    }
  }
  std::sort(tensors_.begin(), tensors_.end(),
            [](const TrainedTensor& a, const TrainedTensor& b) { return a.name < b.name; });

  bind(train_, train_graph_);
}

double TrainStep::run(Plan& plan, const DecoderGraph& graph, const Batch& batch, double total_weight, uint64_t update) {
  check_batch(batch, plan.capacity());
  plan.bind(graph.ids, batch.ids.data());
  plan.bind(graph.positions, batch.positions.data());
  plan.bind(graph.sequence_offsets, batch.sequence_offsets.data());
  plan.bind(graph.label_rows, batch.label_rows.data());
  plan.bind(graph.labels, batch.labels.data());
  for (size_t i = 0; i < batch.labels.size(); ++i)
    weights_[i] = static_cast<double>(batch.label_weights[i]) / total_weight;
  plan.bind(graph.label_weights, weights_.data());
  if (graph.row_keys) {
    GRAFT_CHECK(batch.rows.size() + 1 == batch.sequence_offsets.size() && batch.sequence_offsets.front() >= 0 &&
                    batch.sequence_offsets.back() <= static_cast<int32_t>(batch.ids.size()),
                "the batch has {} rows and {} sequence offsets from {} to {}, for {} tokens", batch.rows.size(),
                batch.sequence_offsets.size(), batch.sequence_offsets.front(), batch.sequence_offsets.back(),
                batch.ids.size());
    for (size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
      for (int32_t t = batch.sequence_offsets[s]; t < batch.sequence_offsets[s + 1]; ++t) {
        row_keys_[static_cast<size_t>(t)] =
            static_cast<uint64_t>(batch.rows[s]) << 24 | static_cast<uint32_t>(batch.positions[static_cast<size_t>(t)]);
      }
    }
    plan.bind(graph.row_keys, row_keys_.data());
  }
  RunInputs inputs;
  inputs.sizes = sizes(batch);
  inputs.update = update;
  inputs.rope = &rope_;
  if (&plan == &train_) inputs.node_seconds = node_seconds_;
  plan.run(*context_, inputs);
  last_plan_ = &plan;
  last_nll_ = graph.nll;
  last_sizes_ = inputs.sizes;
  return loss_;
}

double TrainStep::micro_batch(const Batch& batch, double total_weight, uint64_t update, double router_share) {
  router_share_ = router_share;
  for (TrainedTensor& t : tensors_) t.cleared = false;
  const double loss = run(train_, train_graph_, batch, total_weight, update);
  const RouterFigures routers = last_routers();
  // What has no part in the loss may overflow: 0 times infinity would be NaN.
  const auto part = [](double coef, double value) { return coef == 0 ? 0 : coef * value; };
  return loss + router_share * (part(aux_coef_, routers.aux) + part(z_coef_, routers.z));
}

RouterFigures TrainStep::last_routers() const {
  if (router_values_.empty()) return {};
  using Attr = RouterLossAttr;
  return {router_values_[Attr::kAux], router_values_[Attr::kZ], router_values_[Attr::kDropped], num_experts_,
          std::span(router_values_).subspan(Attr::kShares)};
}

double TrainStep::evaluate(const Batch& batch, double total_weight) {
  return run(eval_, eval_graph_, batch, total_weight, 0);
}

void TrainStep::clear_gradients() {
  for (TrainedTensor& t : tensors_) {
    if (!std::exchange(t.cleared, true)) std::memset(t.grad.data(), 0, t.grad.bytes());
  }
}

std::span<const float> TrainStep::last_nll() const {
  const auto nll = last_plan_->read<float>(last_nll_, last_sizes_);
  return {nll.data(), static_cast<size_t>(nll.extent(0))};
}

RunSizes TrainStep::sizes(const Batch& batch) const {
  RunSizes sizes;
  sizes.tokens = batch.num_tokens();
  sizes.labels = static_cast<int64_t>(batch.labels.size());
  sizes.sequences = static_cast<int64_t>(batch.sequence_offsets.size()) - 1;
  for (size_t s = 0; s + 1 < batch.sequence_offsets.size(); ++s) {
    sizes.max_length = std::max<int64_t>(sizes.max_length, batch.sequence_offsets[s + 1] - batch.sequence_offsets[s]);
  }
  return sizes;
}

StepBytes step_bytes(const ModelFolder& folder, const AdapterSites* sites, const StepOptions& options,
                     const BatchCapacity& capacity, int num_threads) {
  StepBytes bytes;
  ModelLoadOptions load;
  load.rows = options.full;
  bytes.weights = model_bytes(folder, load);
  const Family& family = family_of(folder.config);
  ScratchNeed scratch;
  for (const bool train : {true, false}) {
    if (!train && !options.evaluate) continue;
    const DecoderGraph graph = family.build(folder.config, decoder_options(options, sites, options.full, train));
    const Plan plan = Plan::compile(graph.graph, plan_options(options, capacity, num_threads, train));
    scratch.merge(plan.scratch());
    bytes.arena = std::max(bytes.arena, plan.arena_bytes());
    if (!train) continue;
    const auto count = [&](Value value) {
      const Shape& shape = graph.graph.shape(value);
      const auto size = static_cast<size_t>(shape.fixed_rows * shape.columns) * sizeof(float);
      bytes.trained += size * (options.full ? 3 : 4);  // gradient, two moments, and an adapter's value
    };
    if (options.full) {
      for (const auto& [name, value] : graph.parameters) count(value);
    } else if (sites != nullptr) {
      for (const auto& [name, value] : graph.adapter_parameters[0]) count(value);
    }
  }
  bytes.scratch = scratch.shared + scratch.per_worker * static_cast<size_t>(num_threads);
  return bytes;
}

}  // namespace graft
