#include "graft/train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/log.h"
#include "graft/base/process.h"
#include "graft/formats/checkpoint.h"
#include "graft/formats/model_folder.h"
#include "graft/models/adapter.h"
#include "graft/models/model.h"
#include "graft/train/data_check.h"
#include "graft/train/encode.h"
#include "graft/train/optimizer.h"
#include "graft/train/report.h"
#include "graft/train/router_watch.h"
#include "graft/train/run_setup.h"
#include "graft/train/schedule.h"
#include "graft/train/state.h"

namespace graft {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

constexpr int64_t kBadStepsAllowed = 3;

// The routers' figures of an update: means over its micro-batches by their tokens.
class RouterUpdate {
 public:
  void clear() { cross_entropy_ = aux_ = z_ = 0, std::fill(shares_.begin(), shares_.end(), 0.0); }
  void add(double cross_entropy, const RouterFigures& f, double share) {
    experts_ = f.experts;
    shares_.resize(f.shares.size());
    cross_entropy_ += cross_entropy, aux_ += share * f.aux, z_ += share * f.z;
    for (size_t i = 0; i < shares_.size(); ++i) shares_[i] += share * f.shares[i];
  }
  std::span<const double> shares() const { return shares_; }
  std::optional<ExpertMetrics> metrics() const {
    if (shares_.empty()) return std::nullopt;
    ExpertMetrics m;
    m.cross_entropy = cross_entropy_, m.aux_loss = aux_, m.z_loss = z_;
    const auto layers = static_cast<double>(shares_.size()) / static_cast<double>(experts_);
    for (size_t i = 0; i < shares_.size(); ++i) {
      const bool first = i % static_cast<size_t>(experts_) == 0;
      if (first) m.share_max_of_layers.push_back(0);
      m.share_max_of_layers.back() = std::max(m.share_max_of_layers.back(), shares_[i]);
      m.expert_share_max = std::max(m.expert_share_max, shares_[i]);
      if (shares_[i] > 0) m.expert_entropy -= shares_[i] * std::log(shares_[i]) / layers;
      m.dead_experts += shares_[i] == 0 ? 1 : 0;
    }
    return m;
  }

 private:
  double cross_entropy_ = 0, aux_ = 0, z_ = 0;
  int64_t experts_ = 0;
  std::vector<double> shares_;
};

}  // namespace

struct Trainer::Impl {
  Context& context;
  TrainConfig config;
  ModelFolder folder;
  TrainData data;
  LoraConfig lora;
  AdapterSites sites;
  StepOptions options;
  BatchCapacity capacity;
  TrainPlan plan;
  std::optional<Checkpoint> resumed;
  std::unique_ptr<Batcher> batcher;

  std::unique_ptr<Model> model;
  std::optional<AdapterWeights> adapter;
  std::unique_ptr<TrainStep> step;
  Batch batch;
  RouterUpdate routers;  // of the last update

  Impl(Context& c, TrainConfig given) : context(c), config(std::move(given)) {}

  void open();
  void load();
  void prepare_out();
  double run_update(const Update& update, const TrainEvents& events, std::string& fault, bool& stopped);
  double evaluate();
  CheckpointSource source() const;
};

// Everything that can be wrong is found here: settings, model, targets, data, memory.
void Trainer::Impl::open() {
  if (config.resume) {
    resumed = config.resume->empty() ? newest_checkpoint(config.out)
                                     : std::optional<Checkpoint>(find_checkpoint(*config.resume));
    if (resumed) {
      config = resume_train_config(checkpoint_config(resumed->path), config);
      // The folder may have been moved since.
      if (!config.is_given("out")) config.out = std::filesystem::weakly_canonical(resumed->path).parent_path().string();
    } else {
      GRAFT_CHECK_HINT(!config.model.empty() && !config.data.empty(),
                       "give the flags of the first start, or the --out of a run that has checkpoints",
                       "{}: holds no checkpoint to resume from, and --model or --data is missing", config.out);
    }
  }
  config.validate();
  const std::vector<std::string_view> supported = supported_model_types();
  folder = ModelFolder::open(config.model, supported);
  folder.tensors.check(family_of(folder.config).tensors(folder.config));
  const bool full = config.method == "full";
  if (full && resumed) {
    const ModelFolder saved = ModelFolder::open(resumed->path, supported);
    check_same_model(saved.config, folder.config);
    saved.tensors.check(family_of(folder.config).tensors(folder.config));
  }
  if (!full) {
    lora = lora_settings(config);
    sites = adapter_sites(lora, folder.config, "LoRA config", config.adapter.empty());
  }
  data = load_train_data(config, folder.config, context.pool());
  config.max_length = data.max_length;
  batcher = std::make_unique<Batcher>(data.train, batch_options(config));
  capacity = batcher->capacity();
  if (!data.valid.empty()) {
    const Batcher valid(data.valid, evaluation_batches(config));
    capacity.tokens = std::max(capacity.tokens, valid.capacity().tokens);
    capacity.labels = std::max(capacity.labels, valid.capacity().labels);
    capacity.sequences = std::max(capacity.sequences, valid.capacity().sequences);
    capacity.longest = std::max(capacity.longest, valid.capacity().longest);
  }
  if (config.dtype == "auto") config.dtype = cpu_has_bf16_dot() ? "bf16" : "f32";
  options.compute = config.dtype == "bf16" ? Compute::kBF16 : Compute::kF32;
  options.full = full;
  options.dropout = full ? 0 : config.dropout;
  options.dropout_at_rank = config.dropout_at == "rank";
  options.label_smoothing = config.label_smoothing;
  options.seed = static_cast<uint64_t>(config.seed);
  options.evaluate = !data.valid.empty();
  const RouterLoss balance = router_loss_settings(folder.config, config.aux_coef, config.z_coef, config.aux_mode);
  options.aux_coef = balance.aux_coef, options.z_coef = balance.z_coef, options.aux_joint = balance.joint;
  if (folder.config.moe) {  // what was resolved is what is recorded
    config.aux_coef = balance.aux_coef, config.z_coef = balance.z_coef;
    config.aux_mode = balance.joint ? "joint" : "layers";
  }
  Schedule(config, batcher->num_steps());  // its faults before the start

  const MemoryChoice memory =
      choose_memory(folder, full ? nullptr : &sites, options, capacity, context.num_threads(), config);
  options.recompute_every = memory.recompute_every;
  options.head_chunk_rows = memory.head_chunk_rows;
  plan.rows = data.num_rows, plan.tokens = data.num_tokens, plan.trained_tokens = data.num_trained_tokens,
  plan.longest = data.longest;
  plan.valid_rows = data.valid.size();
  plan.steps = batcher->num_steps();
  plan.forecast_memory_bytes = memory.forecast_bytes;
  plan.dtype = config.dtype;
  plan.recompute_every = options.recompute_every;
  plan.head_chunk_rows = options.head_chunk_rows;
  plan.model_parameters = folder.tensors.num_parameters();
  plan.trainable_parameters = full ? plan.model_parameters : site_parameters(sites, folder.config);
  plan.previews = data.previews;
}

void Trainer::Impl::load() {
  ModelLoadOptions load_options;
  load_options.rows = options.full;
  if (resumed && options.full) folder = ModelFolder::open(resumed->path, supported_model_types());
  model = std::make_unique<Model>(Model::load(context, folder, load_options));
  if (!options.full) {
    if (resumed) {
      adapter = AdapterWeights::load(context, *model, resumed->path);
    } else if (!config.adapter.empty()) {
      adapter = AdapterWeights::load(context, *model, config.adapter, config.partial);
    } else {
      adapter = AdapterWeights::create(context, *model, lora, config.init, static_cast<uint64_t>(config.seed));
    }
    adapter->config.dropout = config.dropout;
    adapter->config.base_model_name_or_path = config.model;
  }
  step = std::make_unique<TrainStep>(context, *model, adapter ? &*adapter : nullptr, options, capacity);
  if (resumed) load_optimizer(resumed->path, step->tensors());
  drop_startup_pages();
}

void Trainer::Impl::prepare_out() {
  if (!resumed) prepare_output_folder(config.out, config.overwrite, config.resume.has_value());
  create_folders(config.out);
  remove_temporaries(config.out);
  if (!resumed || !path_exists(config.out + "/config.toml")) {
    write_file(config.out + "/config.toml", write_train_toml(config));
  }
  // Checkpoints copy the model's other files from here: the model folder may go away meanwhile.
  if (config.method == "full" && !path_exists(config.out + "/config.json")) {
    copy_side_files(resumed ? resumed->path : config.model, config.out);
  }
}

CheckpointSource Trainer::Impl::source() const {
  CheckpointSource s;
  s.context = &context;
  s.config = &config;
  s.model = model.get();
  s.adapter = adapter ? &*adapter : nullptr;
  s.step = step.get();
  s.data_fingerprint = data.train.fingerprint();
  s.dtype = config.dtype;
  s.chat = data.chat;
  return s;
}

// Forward and backward of all micro-batches of an update; the loss, and in `fault` what is not finite.
double Trainer::Impl::run_update(const Update& update, const TrainEvents& events, std::string& fault, bool& stopped) {
  step->clear_gradients();
  routers.clear();
  double loss = 0;
  for (const auto& examples : update.micro_batches) {
    if (events.stop && events.stop()) {
      stopped = true;
      return loss;
    }
    batcher->fill(examples, &batch);
    const double share = static_cast<double>(batch.num_tokens()) / static_cast<double>(update.num_tokens);
    loss += step->micro_batch(batch, update.weight, static_cast<uint64_t>(update.step), share);
    routers.add(step->last_cross_entropy(), step->last_routers(), share);
    if (!std::isfinite(loss)) {
      fault = describe_bad_loss(data.train, examples, batch, step->last_nll()) + "; " +
              describe_bad_weights(context, *model, step->tensors());
      return loss;
    }
  }
  return loss;
}

double Trainer::Impl::evaluate() {
  Batcher batches(data.valid, evaluation_batches(config));
  double weight = 0;
  for (int64_t i = 0; i < batches.num_steps(); ++i) weight += batches.update(i).weight;
  double loss = 0;
  Batch valid;
  for (int64_t i = 0; i < batches.num_steps(); ++i) {
    for (const auto& examples : batches.update(i).micro_batches) {
      batches.fill(examples, &valid);
      loss += step->evaluate(valid, weight);
    }
  }
  return loss;
}

Trainer::Trainer(Context& context, TrainConfig config) : impl_(std::make_unique<Impl>(context, std::move(config))) {
  impl_->open();
}
Trainer::~Trainer() = default;
const TrainPlan& Trainer::plan() const { return impl_->plan; }
const TrainConfig& Trainer::config() const { return impl_->config; }

double Trainer::estimate_seconds() {
  Impl& t = *impl_;
  if (!t.step) t.load();
  std::string fault;
  bool stopped = false;
  const Update& update = t.batcher->update(0);
  t.run_update(update, {}, fault, stopped);  // first touch
  const double begin = seconds_now();
  t.run_update(update, {}, fault, stopped);
  const double one = seconds_now() - begin;
  const double tokens = static_cast<double>(std::max<int64_t>(1, update.num_tokens));
  const double mean_tokens = static_cast<double>(t.data.train.num_tokens()) /
                             static_cast<double>(std::max<int64_t>(1, t.data.train.size())) *
                             static_cast<double>(t.config.batch_size * t.config.accumulate);
  t.plan.seconds = one * std::min(1.0, mean_tokens / tokens) * static_cast<double>(t.plan.steps);
  return t.plan.seconds;
}

TrainResult Trainer::run(const TrainEvents& events) {
  Impl& t = *impl_;
  const double started = seconds_now();
  TrainResult result;
  result.forecast_memory_bytes = t.plan.forecast_memory_bytes;
  result.adapter = t.config.out;
  const auto note = [&](const std::string& text) {
    if (events.note) events.note(text);
  };
  if (!t.resumed) check_output_folder(t.config.out, t.config.overwrite, t.config.resume.has_value());
  if (events.planned) events.planned(t.plan);
  RunState state;
  if (t.resumed) state = load_run_state(t.resumed->path, t.data.train.fingerprint());
  create_folders(t.config.out);
  const FolderLock lock(t.config.out);
  if (t.resumed) {
    restore_history(*t.resumed, state.best_step, t.config.out);
    note(fmt::format("resuming after update {} from {}", state.step, t.resumed->path));
  } else if (t.config.resume) {
    note(fmt::format("{} holds no checkpoint: starting at update 0", t.config.out));
  }
  t.prepare_out();
  t.load();
  const Schedule schedule(t.config, t.plan.steps);
  MetricsLog log(t.config.out + "/metrics.jsonl", state.step);
  TimeLeft time_left;
  RouterWatch watch(t.folder.config);
  const CheckpointSource source = t.source();
  const int64_t eval_every = t.config.eval_every;
  double last_rate = state.step > 0 ? schedule.learning_rate(state.step - 1) : 0;
  int64_t saved_at = t.resumed ? state.step : -1, run_tokens = 0;
  double run_seconds = 0;
  // A run that early stopping ended is finished too.
  const auto enough = [&] { return t.config.early_stop > 0 && state.evaluations_without_gain >= t.config.early_stop; };
  bool early = enough();

  const auto checkpoint = [&] {
    if (saved_at == state.step) return;
    log.sync();
    save_checkpoint(source, state, last_rate, Json(read_metrics(t.config.out + "/metrics.jsonl")));
    // Resumed from an older checkpoint, later ones may lie beside: they must not push out the one just written.
    std::vector<int64_t> protect;
    if (state.best_step > 0) protect.push_back(state.best_step);
    if (!list_checkpoints(t.config.out).empty() && list_checkpoints(t.config.out).back().step > state.step) {
      protect.push_back(state.step);
    }
    prune_checkpoints(t.config.out, t.config.keep, protect);
    saved_at = state.step;
  };
  // True when early stopping says that it is enough.
  const auto evaluate = [&](double epoch) {
    const double begin = seconds_now();
    EvalMetrics m;
    m.step = state.step, m.epoch = epoch;
    m.eval_loss = t.evaluate();
    m.eval_tokens = t.data.valid.num_trained_tokens();
    m.eval_runtime = seconds_now() - begin;
    log.write(m);
    if (events.evaluated) events.evaluated(m);
    result.eval_loss = m.eval_loss;
    if (!state.best_loss || m.eval_loss < *state.best_loss) {
      state.best_loss = m.eval_loss;
      state.best_step = state.step;
      state.evaluations_without_gain = 0;
      checkpoint();
    } else {
      ++state.evaluations_without_gain;
    }
    return enough();
  };

  while (state.step < t.plan.steps && !early) {
    const Update update = t.batcher->update(state.step);
    const double begin = seconds_now();
    std::string fault;
    const double loss = t.run_update(update, events, fault, result.interrupted);
    if (result.interrupted) break;
    const double norm = fault.empty() ? gradient_norm(t.context, t.step->tensors()) : NAN;
    if (fault.empty() && !std::isfinite(norm)) {
      const TrainedTensor* bad = non_finite_gradient(t.step->tensors());
      fault = fmt::format("the gradient of {} is not finite; rows {}; {}",
                          bad != nullptr ? "'" + bad->name + "'" : "all tensors together",
                          describe_rows(t.data.train, update),
                          describe_bad_weights(t.context, *t.model, t.step->tensors()));
    }
    last_rate = schedule.learning_rate(state.step);
    if (fault.empty()) {
      ++state.applied;
      state.bad_in_a_row = 0;
      apply_update(t.context, t.config, last_rate, norm, state.applied, t.step->tensors());
    } else {
      ++state.bad_in_a_row;
      log_warning("update {} is not applied: {}", state.step + 1, fault);
    }
    ++state.step;
    if (const auto collapsed = watch.add(t.routers.shares())) log_warning("update {}: {}", state.step, *collapsed);
    state.loss = loss;
    state.num_tokens += update.num_tokens;
    const double took = seconds_now() - begin;
    run_tokens += update.num_tokens;
    run_seconds += took;
    time_left.add(took);
    Progress progress;
    progress.metrics.step = state.step;
    progress.metrics.epoch = update.epoch_after;
    progress.metrics.loss = loss;
    progress.metrics.learning_rate = last_rate;
    progress.metrics.grad_norm = norm;
    progress.metrics.num_tokens = state.num_tokens;
    progress.metrics.step_time = took;
    progress.metrics.tokens_per_second = static_cast<double>(update.num_tokens) / std::max(took, 1e-9);
    progress.metrics.experts = t.routers.metrics();
    progress.num_steps = t.plan.steps;
    progress.memory_bytes = resident_bytes();
    progress.seconds_left = time_left.seconds(t.plan.steps - state.step);
    log.write(progress.metrics);
    if (events.step) events.step(progress);
    if (state.bad_in_a_row >= kBadStepsAllowed) {
      log.sync();
      write_report(t.config.out, t.config);
      const std::vector<Checkpoint> kept = list_checkpoints(t.config.out);
      fail_hint(fmt::format("lower --lr, look at the rows and tensors named, or run with GRAFT_DEBUG=ops to find the "
                            "first bad op; {}",
                            kept.empty() ? "no checkpoint was written yet"
                                         : "the last checkpoint, " + kept.back().path + ", is whole"),
                "{} updates in a row were not finite, the last: {}", kBadStepsAllowed, fault);
    }
    const bool epoch_ends = update.epoch_after == std::floor(update.epoch_after), last = state.step == t.plan.steps;
    if (!t.data.valid.empty() && (last || (eval_every > 0 ? state.step % eval_every == 0 : epoch_ends))) {
      early = evaluate(update.epoch_after);
    }
    if (t.config.save_every > 0 && state.step % t.config.save_every == 0) checkpoint();
  }

  checkpoint();
  result.steps = state.step;
  result.loss = state.loss;
  result.tokens = state.num_tokens;
  result.tokens_per_second = run_seconds > 0 ? static_cast<double>(run_tokens) / run_seconds : 0;
  if (result.interrupted) {
    result.message =
        fmt::format("stopped after update {} of {}; checkpoint saved. Go on with: graft train --resume --out {}",
                    state.step, t.plan.steps, t.config.out);
  } else {
    if (t.config.early_stop > 0 && state.best_step > 0 && state.best_step != state.step) {
      copy_checkpoint_weights(fmt::format("{}/checkpoint-{}", t.config.out, state.best_step), t.config.out);
      result.eval_loss = state.best_loss;
      result.message = fmt::format("the best weights, of update {}, are in {}", state.best_step, t.config.out);
    } else {
      save_weights(source, state, last_rate, t.config.out);
    }
  }
  result.seconds = seconds_now() - started;
  result.peak_memory_bytes = peak_resident_bytes();
  write_report(t.config.out, t.config, {{"Peak memory", memory_text(result.peak_memory_bytes)}});
  return result;
}

}  // namespace graft
