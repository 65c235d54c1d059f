#include "graft/train/state.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/checkpoint.h"
#include "graft/formats/model_folder.h"
#include "graft/formats/safetensors.h"
#include "graft/models/adapter_record.h"
#include "graft/models/export.h"

namespace graft {
namespace {

Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }

// Seconds since 1970; SOURCE_DATE_EPOCH fixes it.
int64_t unix_time() {
  const char* fixed = std::getenv("SOURCE_DATE_EPOCH");
  return fixed != nullptr ? std::strtoll(fixed, nullptr, 10) : static_cast<int64_t>(std::time(nullptr));
}

void write_optimizer(const CheckpointSource& source, const std::string& path) {
  std::vector<TensorToWrite> tensors;
  const bool master = source.adapter == nullptr;
  for (const TrainedTensor& t : source.step->tensors()) {
    tensors.push_back({"m." + t.name, DType::kF32, t.shape, std::as_bytes(std::span<const float>(t.m.as<float>()))});
    tensors.push_back({"v." + t.name, DType::kF32, t.shape, std::as_bytes(std::span<const float>(t.v.as<float>()))});
    // A model may be saved in 16 bits; the run goes on from the exact values.
    if (master) {
      tensors.push_back({"master." + t.name, DType::kF32, t.shape, std::as_bytes(std::span<const float>(t.value))});
    }
  }
  write_safetensors(path, tensors);
}

template <typename T>
T state_field(const Json& state, const char* name, const std::string& where) {
  GRAFT_CHECK(state.contains(name) && state[name].is_number(), "{}/graft_state.json: '{}' is missing or no number",
              where, name);
  return state[name].get<T>();
}

}  // namespace

void save_weights(const CheckpointSource& source, const RunState& state, double learning_rate,
                  const std::string& folder) {
  if (source.adapter != nullptr) {
    source.adapter->save(folder, {{"step", std::to_string(state.step)},
                                  {"loss", fmt::format("{}", state.loss)},
                                  {"learning_rate", fmt::format("{}", learning_rate)}});
  } else {
    if (folder != source.config->out) copy_side_files(source.config->out, folder);
    if (source.config->save_dtype != "keep") {
      const Json config =
          config_with_dtype(source.model->config().raw, saved_dtype(source.config->save_dtype, DType::kF32));
      write_file(folder + "/config.json", config.dump(2) + "\n");
    }
    save_model_weights(*source.context, *source.model, folder, source.config->save_dtype);
  }
  write_adapter_record(folder, {source.chat, source.config->template_arg});
}

void save_checkpoint(const CheckpointSource& source, const RunState& state, double learning_rate,
                     const Json& log_history) {
  Json graft_state = {{"applied", state.applied},
                      {"bad_in_a_row", state.bad_in_a_row},
                      {"num_tokens", state.num_tokens},
                      {"loss", number_or_null(state.loss)},
                      {"best_loss", state.best_loss ? number_or_null(*state.best_loss) : Json()},
                      {"best_step", state.best_step},
                      {"evaluations_without_gain", state.evaluations_without_gain},
                      {"seed", source.config->seed},
                      {"data", source.data_fingerprint},
                      {"dtype", source.dtype},
                      {"config", write_train_toml(*source.config)}};
  const Json trainer_state = {{"global_step", state.step},
                              {"best_global_step", state.best_step},
                              {"best_metric", state.best_loss ? number_or_null(*state.best_loss) : Json()},
                              {"log_history", log_history},
                              {"written_at", unix_time()}};
  write_checkpoint(
      source.config->out, state.step,
      [&](const std::string& folder) {
        save_weights(source, state, learning_rate, folder);
        write_optimizer(source, folder + "/optimizer.safetensors");
      },
      std::move(graft_state), trainer_state);
}

RunState load_run_state(const std::string& checkpoint, const std::string& data_fingerprint) {
  const Json json = read_graft_state(checkpoint);
  GRAFT_CHECK_HINT(!json.contains("data") || json["data"] == data_fingerprint,
                   "resume with the data the run was started with, or start a new run in another --out",
                   "{}: the checkpoint was made with other data", checkpoint);
  RunState state;
  state.step = state_field<int64_t>(json, "step", checkpoint);
  state.applied = state_field<int64_t>(json, "applied", checkpoint);
  state.bad_in_a_row = state_field<int64_t>(json, "bad_in_a_row", checkpoint);
  state.num_tokens = state_field<int64_t>(json, "num_tokens", checkpoint);
  state.best_step = state_field<int64_t>(json, "best_step", checkpoint);
  state.evaluations_without_gain = state_field<int64_t>(json, "evaluations_without_gain", checkpoint);
  if (json.contains("loss") && json["loss"].is_number()) state.loss = json["loss"].get<double>();
  if (json.contains("best_loss") && json["best_loss"].is_number()) state.best_loss = json["best_loss"].get<double>();
  return state;
}

void load_optimizer(const std::string& checkpoint, std::vector<TrainedTensor>& tensors) {
  const SafetensorsFile file(checkpoint + "/optimizer.safetensors");
  const auto read = [&](const std::string& name, const TrainedTensor& t, std::span<float> to) {
    const TensorInfo& info = file.at(name);
    GRAFT_CHECK(info.dtype == DType::kF32 && info.shape == t.shape, "{}: '{}' is {} {}, expected F32 {}", file.path(),
                name, dtype_name(info.dtype), shape_text(info.shape), shape_text(t.shape));
    std::memcpy(to.data(), file.bytes(info).data(), to.size_bytes());
  };
  for (TrainedTensor& t : tensors) {
    read("m." + t.name, t, t.m.as<float>());
    read("v." + t.name, t, t.v.as<float>());
    if (file.find("master." + t.name) != nullptr) read("master." + t.name, t, t.value);
  }
}

TrainConfig checkpoint_config(const std::string& checkpoint) {
  const Json json = read_graft_state(checkpoint);
  GRAFT_CHECK(json.contains("config") && json["config"].is_string(), "{}/graft_state.json: 'config' is missing",
              checkpoint);
  TrainConfig config;
  parse_train_toml(config, json["config"].get<std::string>(), checkpoint + "/graft_state.json");
  return config;
}

}  // namespace graft
