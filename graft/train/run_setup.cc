#include "graft/train/run_setup.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <set>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/log.h"
#include "graft/base/process.h"
#include "graft/formats/adapter.h"
#include "graft/train/data_check.h"
#include "graft/train/encode.h"
#include "graft/train/metrics.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> split_list(const std::vector<std::string>& parts) {
  std::vector<std::string> out;
  for (const std::string& part : parts) {
    size_t begin = 0;
    while (begin <= part.size()) {
      const size_t comma = std::min(part.find(',', begin), part.size());
      if (comma > begin) out.push_back(part.substr(begin, comma - begin));
      begin = comma + 1;
    }
  }
  return out;
}

// "0-11" or "0,2,5" or both.
std::vector<int64_t> parse_layers(const std::string& text) {
  std::vector<int64_t> layers;
  for (const std::string& part : split_list({text})) {
    char* end = nullptr;
    const int64_t first = std::strtoll(part.c_str(), &end, 10);
    int64_t last = first;
    bool ok = end != part.c_str();
    if (ok && *end == '-') {
      const char* second = end + 1;
      last = std::strtoll(second, &end, 10);
      ok = end != second;
    }
    GRAFT_CHECK(ok && *end == '\0' && first >= 0 && last >= first && last < 100000,
                "layers is '{}', expected for example 0-11 or 0,2,5", printable(text));
    for (int64_t layer = first; layer <= last; ++layer) layers.push_back(layer);
  }
  return layers;
}

template <typename T, typename Parse>
void parse_pattern(const std::vector<std::string>& parts, const char* field,
                   std::vector<std::pair<std::string, T>>& out, Parse parse) {
  for (const std::string& part : parts) {
    const size_t equals = part.rfind('=');
    GRAFT_CHECK(equals != std::string::npos && equals > 0 && equals + 1 < part.size(),
                "{} is '{}', expected MODULE=NUMBER", field, printable(part));
    char* end = nullptr;
    const T value = parse(part.c_str() + equals + 1, &end);
    GRAFT_CHECK(*end == '\0', "{} is '{}', expected MODULE=NUMBER", field, printable(part));
    out.emplace_back(part.substr(0, equals), value);
  }
}

void copy_file(const std::string& from, const std::string& to) {
  const MappedFile file(from);
  AtomicFile out(to);
  out.write(file.bytes().data(), file.bytes().size());
  out.commit();
}

// All that says what a model computes, but its weights.
Json computation_of(const ModelConfig& c) {
  const MoeConfig moe = c.moe.value_or(MoeConfig{});
  return {{"model_type", c.model_type},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_attention_heads", c.num_attention_heads},
          {"num_key_value_heads", c.num_key_value_heads},
          {"head_dim", c.head_dim},
          {"tie_word_embeddings", c.tie_word_embeddings},
          {"rms_norm_eps", c.rms_norm_eps},
          {"rope_theta", c.rope_theta},
          {"rope_interleaved", c.rope_interleaved},
          {"the type of rope_scaling", c.rope_scaling.type},
          {"the factor of rope_scaling", c.rope_scaling.factor},
          {"the layers' windows", c.layer_windows},
          {"the number of experts", moe.num_experts},
          {"num_experts_per_tok", moe.num_experts_per_tok},
          {"the experts' intermediate size", moe.moe_intermediate_size},
          {"shared_expert_intermediate_size", moe.shared_expert_intermediate_size},
          {"the layers with experts", moe.sparse_layers},
          {"norm_topk_prob", moe.norm_topk_prob},
          {"capacity_factor", moe.capacity_factor}};
}

}  // namespace

LoraConfig lora_settings(const TrainConfig& config) {
  if (!config.adapter.empty()) {
    LoraConfig lora = read_adapter_header(config.adapter).config;
    lora.dropout = config.dropout;
    return lora;
  }
  LoraConfig lora;
  lora.rank = config.rank, lora.alpha = config.alpha, lora.dropout = config.dropout;
  lora.use_rslora = config.rslora, lora.use_dora = config.dora;
  lora.target_modules = parse_module_pattern(config.targets);
  if (!config.exclude.empty()) lora.exclude_modules = parse_module_pattern(config.exclude);
  lora.layers_to_transform = parse_layers(config.layers);
  parse_pattern(split_list(config.rank_pattern), "rank_pattern", lora.rank_pattern,
                [](const char* text, char** end) { return static_cast<int64_t>(std::strtoll(text, end, 10)); });
  parse_pattern(split_list(config.alpha_pattern), "alpha_pattern", lora.alpha_pattern,
                [](const char* text, char** end) { return std::strtod(text, end); });
  lora.modules_to_save = split_list(config.modules_to_save);
  lora.validate();
  return lora;
}

int64_t site_parameters(const AdapterSites& sites, const ModelConfig& config) {
  int64_t n = 0;
  for (const LinearModule& m : family_of(config).modules(config)) {
    if (const AdapterSites::Module* site = sites.find(m.path)) {
      n += site->rank * (m.in_features + m.out_features) + (site->dora ? m.out_features : 0);
    }
    if (sites.saves(m.path)) n += m.in_features * m.out_features;
  }
  if (const AdapterSites::Module* site = sites.find("model.embed_tokens")) {
    n += site->rank * (config.vocab_size + config.hidden_size) + (site->dora ? config.hidden_size : 0);
  }
  for (const std::string& path : sites.saved_modules) {
    if (path == "model.embed_tokens") n += config.vocab_size * config.hidden_size;
    if (path.ends_with("norm")) {
      n += path.ends_with("q_norm") || path.ends_with("k_norm") ? config.head_dim : config.hidden_size;
    }
  }
  return n;
}

RouterLoss router_loss_settings(const ModelConfig& model, std::optional<double> aux_coef, std::optional<double> z_coef,
                                std::string_view aux_mode) {
  RouterLoss loss;
  if (!model.moe) {
    GRAFT_CHECK_HINT(aux_coef.value_or(0) == 0 && z_coef.value_or(0) == 0, "leave --aux-coef and --z-coef out",
                     "{}: has no experts, so there is no router to balance", model.where);
    return loss;
  }
  loss.aux_coef = aux_coef.value_or(model.moe->output_router_logits ? model.moe->router_aux_loss_coef : 0);
  loss.z_coef = z_coef.value_or(model.moe->router_z_loss_coef);
  loss.joint = aux_mode == "joint" || (aux_mode != "layers" && model.model_type != "graft_moe");
  return loss;
}

BatchOptions evaluation_batches(const TrainConfig& config) {
  BatchOptions options;
  options.batch_size = config.batch_size;
  options.batch_tokens = config.batch_tokens;
  options.epochs = 1;
  options.shuffle = false;
  return options;
}

MemoryChoice choose_memory(const ModelFolder& folder, const AdapterSites* sites, const StepOptions& given,
                           const BatchCapacity& capacity, int num_threads, const TrainConfig& config) {
  // Data and tokenizer are in memory by now. What a run still touches beside its plan (the program's own pages, stacks of the workers, buffers
  // of the writers) was 0.5 to 5.1 MB over LoRA and full runs of 1 to 7 threads on x86; the limit must hold, so some is added.
  constexpr int64_t kProcess = int64_t{8} << 20;
  const int64_t now = resident_bytes() + kProcess, before = peak_resident_bytes();
  std::vector<int> recompute = {0};
  const bool automatic = config.recompute == "auto" || config.recompute.empty();
  if (config.recompute.starts_with("every:")) {
    const int64_t every = std::strtoll(config.recompute.c_str() + 6, nullptr, 10);
    GRAFT_CHECK(every >= 1, "recompute is '{}', expected auto, none or every:N with N >= 1",
                printable(config.recompute));
    recompute = {static_cast<int>(every)};
  } else if (automatic) {
    recompute = {0, 1};
  }
  // The sums of a head's own gradient begin anew with each chunk. So that --memory-limit never changes a result, a head that is trained
  // has one size of chunk; where it is frozen, the size does not show.
  const bool head_trained = sites == nullptr || sites->find("lm_head") != nullptr || sites->saves("lm_head") ||
                            (folder.config.tie_word_embeddings && sites->saves("model.embed_tokens"));
  const int64_t most_rows = most_head_chunk_rows(folder.config.vocab_size), least_rows = head_trained ? most_rows : 8;
  MemoryChoice smallest;
  smallest.forecast_bytes = INT64_MAX;
  for (const int every : recompute) {
    for (int64_t chunk = most_rows; chunk >= least_rows; chunk /= 2) {
      StepOptions options = given;
      options.recompute_every = every;
      options.head_chunk_rows = chunk;
      const StepBytes bytes = step_bytes(folder, sites, options, capacity, num_threads);
      MemoryChoice choice{every, chunk, std::max(before, now + static_cast<int64_t>(bytes.total()))};
      if (config.memory_limit.bytes == 0 || choice.forecast_bytes <= config.memory_limit.bytes) return choice;
      if (choice.forecast_bytes < smallest.forecast_bytes) smallest = choice;
    }
  }
  // In the unit of the flag, rounded up; a second process may start a few pages larger than this one.
  constexpr int64_t kMega = int64_t{1} << 20;
  const int64_t needed = (smallest.forecast_bytes + kMega - 1) / kMega + 1;
  fail_hint(fmt::format("--memory-limit {}M is the smallest that works with this batch; a smaller --batch-size or "
                        "--max-length needs less",
                        needed),
            "the run needs {}M, --memory-limit is {}", needed, bytes_text(config.memory_limit.bytes));
}

void check_same_model(const ModelConfig& checkpoint, const ModelConfig& model) {
  std::string faults;
  const Json got = computation_of(checkpoint), want = computation_of(model);
  for (const auto& [key, value] : want.items()) {
    if (got[key] != value)
      faults += fmt::format("{}{} is {}, expected {}", faults.empty() ? "" : "; ", key, got[key].dump(), value.dump());
  }
  GRAFT_CHECK_HINT(faults.empty(), "give back the model that the run was started with, or start anew",
                   "{}: a checkpoint of another model than {}: {}", checkpoint.where, model.where, faults);
}

void check_output_folder(const std::string& folder, bool overwrite, bool resume) {
  if (!path_exists(folder)) return;
  GRAFT_CHECK_HINT(is_directory(folder), "choose another --out", "{}: is a file, expected a folder", folder);
  std::error_code error;
  const bool empty = fs::is_empty(folder, error);
  GRAFT_CHECK_HINT(!error, "check the permissions of the folder", "{}: cannot be read: {}", folder, error.message());
  GRAFT_CHECK_HINT(empty || resume || overwrite, "use --resume to go on, --overwrite to start anew, or another --out",
                   "{}: is not empty", folder);
}

void prepare_output_folder(const std::string& folder, bool overwrite, bool resume) {
  check_output_folder(folder, overwrite, resume);
  if (!overwrite || resume || !path_exists(folder)) return;
  std::set<std::string> ours = {
      "adapter_config.json", "adapter_model.safetensors",   "metrics.jsonl", "report.html", "config.toml", "graft.json",
      "model.safetensors",   "model.safetensors.index.json"};
  const std::vector<Checkpoint> checkpoints = list_checkpoints(folder);
  std::error_code error;
  // A model's configuration and tokenizer files stand in its checkpoints too.
  for (const Checkpoint& checkpoint : checkpoints) {
    if (!path_exists(checkpoint.path + "/graft_state.json")) continue;
    for (fs::directory_iterator it(checkpoint.path, error), end; !error && it != end; it.increment(error)) {
      ours.insert(it->path().filename().string());
    }
  }
  const auto gone = [](const std::string& path, const std::error_code& failed) {
    GRAFT_CHECK_HINT(!failed, "check the permissions of the folder", "{}: cannot be removed: {}", path,
                     failed.message());
  };
  std::vector<fs::path> entries;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    entries.push_back(it->path());
  }
  gone(folder, error);
  for (const fs::path& path : entries) {
    const std::string name = path.filename().string();
    const bool shard = name.starts_with("model-") && name.ends_with(".safetensors");
    if ((shard || ours.count(name) > 0) && !is_directory(path.string())) fs::remove(path, error);
    gone(path.string(), error);
  }
  for (const Checkpoint& checkpoint : checkpoints) {
    fs::remove_all(checkpoint.path, error);
    gone(checkpoint.path, error);
  }
}

void create_folders(const std::string& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  GRAFT_CHECK_HINT(!error, "check the path and the permissions of the folder above", "{}: cannot be created: {}",
                   folder, error.message());
}

void remove_temporaries(const std::string& folder) {
  std::error_code error, ignored;
  std::vector<fs::path> left;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    // AtomicFile's NAME.tmp-PID and AtomicFolder's .NAME.tmp-PID
    const std::string name = it->path().filename().string();
    const size_t at = name.rfind(".tmp-");
    if (at == std::string::npos) continue;
    const std::string pid = name.substr(at + 5);
    if (!pid.empty() && (pid == "gone" || pid.find_first_not_of("0123456789") == std::string::npos)) {
      left.push_back(it->path());
    }
  }
  for (const fs::path& path : left) fs::remove_all(path, ignored);
}

void restore_history(const Checkpoint& from, int64_t best_step, const std::string& folder) {
  create_folders(folder);
  const auto updates = [](const auto& lines) {
    return std::count_if(lines.begin(), lines.end(), [](const Json& line) { return line.contains("loss"); });
  };
  const std::string path = folder + "/metrics.jsonl";
  std::vector<Json> there = read_metrics(path);
  std::erase_if(there, [&](const Json& line) { return line["step"].get<int64_t>() > from.step; });
  const Json trainer = read_trainer_state(from.path);
  if (trainer.contains("log_history") && trainer["log_history"].is_array() &&
      updates(trainer["log_history"]) > updates(there)) {
    std::string text;
    for (const Json& line : trainer["log_history"]) text += line.dump() + "\n";
    write_file(path, text);
  }
  const std::string best = fmt::format("checkpoint-{}", best_step), source = fs::path(from.path).parent_path().string();
  const std::string beside = (source.empty() ? "." : source) + "/" + best, here = folder + "/" + best;
  if (best_step <= 0 || path_exists(here) || !is_directory(beside)) return;
  AtomicFolder copy(here);
  for (const auto& entry : fs::directory_iterator(beside)) {
    copy_file(entry.path().string(), copy.path() + "/" + entry.path().filename().string());
  }
  copy.commit();
}

void copy_checkpoint_weights(const std::string& checkpoint, const std::string& folder) {
  for (const auto& entry : fs::directory_iterator(checkpoint)) {
    const std::string name = entry.path().filename().string();
    if (!entry.is_regular_file() || name == "optimizer.safetensors" || name == "graft_state.json" ||
        name == "trainer_state.json") {
      continue;
    }
    copy_file(entry.path().string(), folder + "/" + name);
  }
}

std::string describe_bad_loss(const Dataset& data, std::span<const int64_t> examples, const Batch& batch,
                              std::span<const float> nll) {
  for (size_t i = 0; i < nll.size(); ++i) {
    if (std::isfinite(nll[i])) continue;
    const auto after =
        std::upper_bound(batch.sequence_offsets.begin(), batch.sequence_offsets.end(), batch.label_rows[i]);
    const auto sequence = static_cast<size_t>(after - batch.sequence_offsets.begin() - 1);
    std::string where = fmt::format("row {}", batch.rows[sequence]);
    for (const int64_t example : examples) {
      if (data.example(example).row == batch.rows[sequence]) where = data.where(example);
    }
    return fmt::format("the loss is {} at {}, token {}", std::isnan(nll[i]) ? "nan" : "infinite", where,
                       batch.positions[static_cast<size_t>(batch.label_rows[i])] + 1);
  }
  return "the sum of the losses is not finite";
}

std::string describe_bad_weights(Context& context, const Model& model, std::span<const TrainedTensor> trained) {
  const auto bad = [](std::span<const float> values) {
    return std::any_of(values.begin(), values.end(), [](float x) { return !std::isfinite(x); });
  };
  const TrainedTensor* largest = nullptr;
  float size = 0;
  for (const TrainedTensor& t : trained) {
    if (bad(t.value)) return fmt::format("the trained tensor '{}' holds nan or infinity", t.name);
    for (const float x : t.value) {
      if (std::abs(x) > size) size = std::abs(x), largest = &t;
    }
  }
  std::vector<float> row;
  for (const auto& [name, p] : model.parameters()) {
    bool found = false;
    if (p.is_matrix()) {
      row.resize(static_cast<size_t>(p.shape[1]));
      for (int64_t i = 0; i < p.shape[0] && !found; ++i) {
        p.copy(context, i, 1, row.data());
        found = bad(row);
      }
    } else {
      found = bad(p.vector.as<float>());
    }
    if (found) return fmt::format("the model's tensor '{}' holds nan or infinity", name);
  }
  return largest == nullptr
             ? "all weights are finite"
             : fmt::format("all weights are finite, the largest trained one is {:.3g} in '{}'", size, largest->name);
}

std::string describe_rows(const Dataset& data, const Update& update) {
  std::string text;
  int64_t count = 0;
  for (const auto& examples : update.micro_batches) {
    for (const int64_t example : examples) {
      if (count++ < 4) text += (text.empty() ? "" : ", ") + data.where(example);
    }
  }
  return count > 4 ? fmt::format("{} and {} more", text, count - 4) : text;
}

}  // namespace graft
