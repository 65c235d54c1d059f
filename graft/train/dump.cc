#include "graft/train/dump.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <span>

#include "graft/base/error.h"
#include "graft/base/log.h"
#include "graft/formats/safetensors.h"
#include "graft/train/run_setup.h"
#include "graft/train/step.h"

namespace graft {
namespace {

struct Inputs {
  int64_t batch = 0, seq = 0, vocab = 0;
  std::vector<int64_t> ids, mask, labels;  // mask and labels may be empty
  Batch ragged;
  std::vector<int64_t> place;  // [tokens]: index in [batch * seq]
};

std::vector<int64_t> read_like_ids(const SafetensorsFile& file, const std::string& name, const TensorInfo& ids) {
  const TensorInfo* info = file.find(name);
  if (info == nullptr) return {};
  GRAFT_CHECK(info->shape == ids.shape, "{}: '{}' is {}, expected {} as input_ids", file.path(), name,
              shape_text(info->shape), shape_text(ids.shape));
  return file.read_i64(name);
}

Inputs read_inputs(const std::string& path, const ModelConfig& config) {
  const SafetensorsFile file(path);
  const TensorInfo& info = file.at("input_ids");
  GRAFT_CHECK(info.shape.size() == 2, "{}: 'input_ids' is {}, expected [batch, seq]", path, shape_text(info.shape));
  Inputs in;
  in.batch = info.shape[0], in.seq = info.shape[1], in.vocab = config.vocab_size;
  in.ids = file.read_i64("input_ids");
  in.mask = read_like_ids(file, "attention_mask", info);
  in.labels = read_like_ids(file, "labels", info);
  GRAFT_CHECK_HINT(file.find("position_ids") == nullptr,
                   "leave it out; rows that start with padding count from their first token",
                   "{}: 'position_ids' is not supported", path);
  Batch& r = in.ragged;
  r.sequence_offsets.push_back(0);
  for (int64_t b = 0; b < in.batch; ++b) {
    int64_t first = -1, before = -1;  // the row's first token, and the one before t
    bool gap = false;
    for (int64_t t = 0; t < in.seq; ++t) {
      const auto i = static_cast<size_t>(b * in.seq + t);
      if (!in.mask.empty() && in.mask[i] == 0) continue;
      GRAFT_CHECK(in.ids[i] >= 0 && in.ids[i] < config.vocab_size, "{}: input_ids[{}, {}] is {}, expected 0 to {}",
                  path, b, t, in.ids[i], config.vocab_size - 1);
      if (first < 0) first = t;
      if (!in.labels.empty() && t > 0 && before == t - 1 && in.labels[i] != -100) {
        GRAFT_CHECK(in.labels[i] >= 0 && in.labels[i] < config.vocab_size,
                    "{}: labels[{}, {}] is {}, expected -100 or 0 to {}", path, b, t, in.labels[i],
                    config.vocab_size - 1);
        r.label_rows.push_back(static_cast<int32_t>(r.ids.size()) - 1);
        r.labels.push_back(static_cast<int32_t>(in.labels[i]));
        r.label_weights.push_back(1.0f);
      }
      gap = gap || (before >= 0 && before != t - 1);
      for (const int64_t window : config.layer_windows) {  // the kernels' windows count tokens, not places
        GRAFT_CHECK(!gap || window == 0 || t - first < window,
                    "{}: attention_mask of row {} has a 0 between ones, which a sliding window of {} does not take",
                    path, b, window);
      }
      r.ids.push_back(static_cast<int32_t>(in.ids[i]));
      r.positions.push_back(static_cast<int32_t>(t - first));
      in.place.push_back(static_cast<int64_t>(i));
      before = t;
    }
    if (first < 0) continue;
    r.sequence_offsets.push_back(static_cast<int32_t>(r.ids.size()));
    r.rows.push_back(b);
  }
  r.weight = static_cast<double>(r.labels.size());
  GRAFT_CHECK(!r.ids.empty(), "{}: no token is left: input_ids is {}{}", path, shape_text(info.shape),
              in.mask.empty() ? "" : " and attention_mask all 0");
  return in;
}

BatchCapacity capacity_of(const Inputs& in) {
  const Batch& batch = in.ragged;
  BatchCapacity c;
  c.tokens = batch.num_tokens();
  c.labels = static_cast<int64_t>(batch.labels.size());
  c.sequences = static_cast<int64_t>(batch.rows.size());
  c.longest = in.seq;  // padding too: it is the length that a dynamic rope of transformers stretches to
  return c;
}

class Output {
 public:
  void add(const std::string& name, std::vector<int64_t> shape, std::vector<float> values) {
    tensors_.push_back({name, DType::kF32, std::move(shape), {}});
    values_.push_back(std::move(values));
  }
  // Rows of tokens put to their places in [batch, seq, columns], 0 elsewhere.
  void add_tokens(const std::string& name, const Inputs& in, View<const float, 2> x) {
    const int64_t columns = x.extent(1);
    std::vector<float> out(static_cast<size_t>(in.batch * in.seq * columns));
    for (size_t t = 0; t < in.place.size(); ++t) {
      std::copy_n(x.row(static_cast<int64_t>(t)), columns, out.data() + in.place[t] * columns);
    }
    add(name, {in.batch, in.seq, columns}, std::move(out));
  }
  // The same as [batch * seq, columns].
  void add_flat(const std::string& name, const Inputs& in, View<const float, 2> x) {
    add_tokens(name, in, x);
    tensors_.back().shape = {in.batch * in.seq, x.extent(1)};
  }
  void add_flat(const std::string& name, const Inputs& in, View<const int32_t, 2> x) {
    std::vector<int64_t> out(static_cast<size_t>(in.batch * in.seq * x.extent(1)));
    for (size_t t = 0; t < in.place.size(); ++t) {
      std::copy_n(x.row(static_cast<int64_t>(t)), x.extent(1), out.data() + in.place[t] * x.extent(1));
    }
    tensors_.push_back({name, DType::kI64, {in.batch * in.seq, x.extent(1)}, {}});
    values_.emplace_back();
    whole_[name] = std::move(out);
  }
  void write(const std::string& path) {
    SafetensorsWriter writer(path, tensors_);
    for (const TensorInfo& info : writer.tensors()) {
      const auto it =
          std::find_if(tensors_.begin(), tensors_.end(), [&](const TensorToWrite& t) { return t.name == info.name; });
      if (const auto whole = whole_.find(info.name); whole != whole_.end()) {
        writer.write(info.name, std::as_bytes(std::span<const int64_t>(whole->second)));
        continue;
      }
      writer.write(info.name,
                   std::as_bytes(std::span<const float>(values_[static_cast<size_t>(it - tensors_.begin())])));
    }
    writer.commit();
  }

 private:
  std::vector<TensorToWrite> tensors_;
  std::vector<std::vector<float>> values_;
  std::map<std::string, std::vector<int64_t>> whole_;
};

void dump_forward(Context& context, const Model& model, const AdapterWeights* adapter, const DumpConfig& config,
                  const Inputs& in, Output& out) {
  DecoderOptions options;
  options.compute = config.compute;
  options.output = DecoderOutput::kLogits;
  options.base_rows = model.in_rows();
  options.keep_hidden = config.want.count("hidden") > 0;
  options.keep_routers = config.want.count("router") > 0;
  if (adapter != nullptr) options.adapters = {adapter->sites};
  const DecoderGraph graph = model.family().build(model.config(), options);
  const BatchCapacity capacity = capacity_of(in);
  PlanOptions plan_options;
  plan_options.capacity.tokens = capacity.tokens, plan_options.capacity.sequences = capacity.sequences,
  plan_options.capacity.max_length = capacity.longest;
  plan_options.num_threads = context.num_threads();
  Plan plan = Plan::compile(graph.graph, plan_options);
  plan.prepare(context);
  model.bind(plan, graph);
  if (adapter != nullptr) adapter->bind(plan, graph);
  plan.bind(graph.ids, in.ragged.ids.data());
  plan.bind(graph.positions, in.ragged.positions.data());
  plan.bind(graph.sequence_offsets, in.ragged.sequence_offsets.data());
  const RopeTable rope = model.rope_table(capacity.longest);
  RunInputs inputs;
  inputs.sizes = plan_options.capacity;
  inputs.rope = &rope;
  plan.run(context, inputs);
  if (config.want.count("logits") > 0) out.add_tokens("logits", in, plan.read<float>(graph.logits, inputs.sizes));
  for (size_t i = 0; options.keep_hidden && i < graph.hidden.size(); ++i) {
    out.add_tokens(fmt::format("hidden.{}", i), in, plan.read<float>(graph.hidden[i], inputs.sizes));
  }
  for (size_t i = 0; options.keep_routers && i < graph.routers.size(); ++i) {
    const auto& [layer, routing] = graph.routers[i];
    out.add_flat(fmt::format("router_logits.{}", layer), in, plan.read<float>(routing.logits, inputs.sizes));
    out.add_flat(fmt::format("router_topk.{}", layer), in, plan.read<int32_t>(routing.experts, inputs.sizes));
    out.add_flat(fmt::format("router_weights.{}", layer), in, plan.read<float>(routing.weights, inputs.sizes));
  }
}

void dump_loss(Context& context, Model& model, AdapterWeights* adapter, const DumpConfig& config, bool full,
               const Inputs& in, Output& out) {
  GRAFT_CHECK(!in.ragged.labels.empty(), "{}: nll, loss and grads need labels; {}", config.input,
              in.labels.empty() ? "'labels' is missing" : "all tokens are ignored");
  StepOptions options;
  options.compute = config.compute;
  options.full = full;
  options.evaluate = false;
  options.moments = false;
  const RouterLoss routers = router_loss_settings(model.config(), config.aux_coef, std::nullopt, config.aux_mode);
  options.aux_coef = routers.aux_coef, options.z_coef = routers.z_coef, options.aux_joint = routers.joint;
  TrainStep step(context, model, adapter, options, capacity_of(in));
  const double loss = step.micro_batch(in.ragged, in.ragged.weight, 0);
  if (config.want.count("loss") > 0) out.add("loss", {1}, {static_cast<float>(loss)});
  if (config.want.count("nll") > 0) {
    std::vector<float> nll(static_cast<size_t>(in.batch * std::max<int64_t>(0, in.seq - 1)));
    const auto values = step.last_nll();
    for (size_t i = 0; i < values.size(); ++i) {
      const int64_t place = in.place[static_cast<size_t>(in.ragged.label_rows[i] + 1)];  // of the label
      nll[static_cast<size_t>(place / in.seq * (in.seq - 1) + place % in.seq - 1)] = values[i];
    }
    out.add("token_nll", {in.batch, in.seq - 1}, std::move(nll));
  }
  if (config.want.count("grads") > 0) {
    for (const TrainedTensor& t : step.tensors()) {
      std::vector<float> gradient(t.gradient().begin(), t.gradient().end());
      // An embedding's A is held by token and named as in PEFT, where it is [rank, vocab].
      const bool by_token = t.name.ends_with(".lora_embedding_A");
      if (by_token) gradient = transposed(gradient, t.shape[0], t.shape[1]);
      out.add(t.name, by_token ? std::vector<int64_t>{t.shape[1], t.shape[0]} : t.shape, std::move(gradient));
    }
  }
}

void dump_sampling(const DumpConfig& config) {
  config.sampling.validate();
  const SafetensorsFile file(config.input);
  const TensorInfo& info = file.at("logits");
  GRAFT_CHECK(info.shape.size() == 1 && info.shape[0] > 0, "{}: 'logits' is {}, expected [vocab]", config.input,
              shape_text(info.shape));
  const std::vector<float> logits = file.read_f32("logits");
  std::vector<int32_t> history;
  if (const TensorInfo* h = file.find("history")) {
    GRAFT_CHECK(h->shape.size() == 1, "{}: 'history' is {}, expected [tokens]", config.input, shape_text(h->shape));
    for (const int64_t id : file.read_i64("history")) {
      GRAFT_CHECK(id >= 0 && id < info.shape[0], "{}: 'history' holds {}, expected 0 to {}", config.input, id,
                  info.shape[0] - 1);
      history.push_back(static_cast<int32_t>(id));
    }
  }
  std::vector<float> logprobs(logits.size(), -std::numeric_limits<float>::infinity());
  for (const auto& [id, logprob] : process_logits(logits, history, config.sampling).candidates) {
    logprobs[static_cast<size_t>(id)] = static_cast<float>(logprob);
  }
  Output out;
  out.add("logprobs", info.shape, std::move(logprobs));
  if (config.before_write) config.before_write();
  out.write(config.output);
}

}  // namespace

std::span<const std::string_view> dump_wants() {
  static constexpr std::string_view kWants[] = {"logits", "hidden", "nll",        "loss",
                                                "grads",  "router", "embeddings", "sampling"};
  return kWants;
}

void dump(Context& context, const DumpConfig& config) {
  for (const std::string& word : config.want) {
    const auto known = dump_wants();
    GRAFT_CHECK(std::find(known.begin(), known.end(), word) != known.end(), "--want holds '{}', expected {}",
                printable(word), fmt::join(known, ", "));
    GRAFT_CHECK_HINT(word != "embeddings", "take hidden",
                     "--want embeddings: '{}' is a language model, not an embedder", config.model);
  }
  if (config.want.count("sampling") > 0) {
    GRAFT_CHECK(config.want.size() == 1,
                "--want sampling stands alone: its input holds logits and history, the others need input_ids");
    dump_sampling(config);
    return;
  }
  const bool full = config.method.empty() ? config.adapter.empty() : config.method == "full";
  GRAFT_CHECK(full || !config.adapter.empty(), "--method lora needs an adapter (--adapter)");
  const std::vector<std::string_view> supported = supported_model_types();
  const ModelFolder folder = ModelFolder::open(config.model, supported);
  const bool backward = config.want.count("nll") + config.want.count("loss") + config.want.count("grads") > 0;
  const Inputs in = read_inputs(config.input, folder.config);
  ModelLoadOptions load;
  load.rows = full && backward;
  Model model = Model::load(context, folder, load);
  std::optional<AdapterWeights> adapter;
  if (!config.adapter.empty()) adapter = AdapterWeights::load(context, model, config.adapter);
  AdapterWeights* a = adapter ? &*adapter : nullptr;
  Output out;
  if (config.want.count("logits") + config.want.count("hidden") + config.want.count("router") > 0)
    dump_forward(context, model, a, config, in, out);
  if (backward) dump_loss(context, model, a, config, full, in, out);
  if (config.before_write) config.before_write();
  out.write(config.output);
}

}  // namespace graft
