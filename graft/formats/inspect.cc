#include "graft/formats/inspect.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/adapter.h"
#include "graft/formats/checkpoint.h"
#include "graft/formats/model_folder.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

void add_tensors(Json& out, const std::vector<TensorInfo>& tensors) {
  int64_t parameters = 0;
  uint64_t bytes = 0;
  Json list = Json::array();
  std::map<std::string, int64_t> dtypes;
  for (const TensorInfo& info : tensors) {
    list.push_back({{"name", info.name}, {"dtype", std::string(dtype_name(info.dtype))}, {"shape", info.shape}});
    parameters += info.num_elements();
    bytes += info.num_bytes();
    ++dtypes[std::string(dtype_name(info.dtype))];
  }
  out["parameters"] = parameters;
  out["tensors"] = std::move(list);
  out["bytes"] = bytes;
  out["dtypes"] = dtypes;
}

std::string one_line(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

// config.json without the checks of a decoder: what can be said of any family.
void odd_config(const std::string& folder, const Json& raw, const TensorFolder& tensors, Json& odd) {
  const auto number = [&](const char* key) {
    return raw.contains(key) && raw[key].is_number_integer() ? raw[key].get<int64_t>() : -1;
  };
  const bool tied = raw.contains("tie_word_embeddings") && raw["tie_word_embeddings"] == true;
  if (tied && tensors.find("lm_head.weight") != nullptr) {
    odd.push_back("the head is tied to the embedding, and lm_head.weight is stored as well");
  }
  const TensorInfo* embedding = tensors.find("model.embed_tokens.weight");
  if (embedding != nullptr && embedding->shape.size() == 2 && number("vocab_size") != embedding->shape[0]) {
    odd.push_back(
        fmt::format("vocab_size is {}, the embedding has {} rows", number("vocab_size"), embedding->shape[0]));
  }
  std::set<DType> dtypes;
  for (const TensorInfo& info : tensors.tensors()) dtypes.insert(info.dtype);
  if (dtypes.size() > 1) {
    std::vector<std::string_view> names;
    for (const DType dtype : dtypes) names.push_back(dtype_name(dtype));
    odd.push_back(fmt::format("tensors of {} types: {}", names.size(), fmt::join(names, ", ")));
  }
  if (!path_exists(folder + "/tokenizer.json")) odd.push_back("tokenizer.json is missing");
  if (!path_exists(folder + "/generation_config.json")) {
    odd.push_back("generation_config.json is missing: only config.json says what ends an answer");
  }
}

void odd_files(const std::string& folder, const TensorFolder& tensors, Json& odd) {
  std::set<std::string> used;
  for (const std::string& file : tensors.files()) used.insert(fs::path(file).filename().string());
  const bool indexed = tensors.where().ends_with(".index.json");
  std::vector<std::string> unused, pickles;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    if (extension == ".safetensors" && used.count(name) == 0) unused.push_back(name);
    if (extension == ".bin" || extension == ".pt" || extension == ".pth") pickles.push_back(name);
  }
  std::sort(unused.begin(), unused.end());
  std::sort(pickles.begin(), pickles.end());
  if (!unused.empty()) odd.push_back(printable(fmt::format("not read: {}", fmt::join(unused, ", ")), 300));
  if (!pickles.empty()) {
    odd.push_back(printable(fmt::format("pickles beside the weights, never read: {}", fmt::join(pickles, ", ")), 300));
  }
  if (!indexed) {
    if (path_exists(folder + "/model.safetensors.index.json")) {
      odd.push_back("model.safetensors.index.json is not read: model.safetensors is there");
    }
    return;
  }
  const Json index = read_json(tensors.where(), {}, size_t{256} << 20);
  const auto metadata = index.find("metadata");
  if (metadata != index.end() && metadata->is_object() && metadata->contains("total_size")) {
    const Json& size = (*metadata)["total_size"];
    if (size != tensors.num_bytes()) {
      odd.push_back(fmt::format("the index says total_size {}, the tensors have {} bytes", printable(size.dump()),
                                tensors.num_bytes()));
    }
  }
}

Json inspect_model(const std::string& folder) {
  const std::string config_path = folder + "/config.json";
  const Json raw = read_json(config_path, {}, size_t{16} << 20);
  GRAFT_CHECK(raw.is_object(), "{}: is {}, expected an object", config_path, printable(json_kind(raw)));
  const TensorFolder tensors(folder);
  const std::string family =
      raw.contains("model_type") && raw["model_type"].is_string() ? raw["model_type"].get<std::string>() : "";
  Json out = {{"kind", "model"}, {"family", family}};
  add_tensors(out, tensors.tensors());
  Json odd = Json::array();
  const auto types = known_model_types();
  if (std::count(types.begin(), types.end(), family) > 0) {
    try {
      const ModelConfig c = parse_model_config(raw, config_path);
      Json config = {{"vocab_size", c.vocab_size},
                     {"hidden_size", c.hidden_size},
                     {"intermediate_size", c.intermediate_size},
                     {"num_hidden_layers", c.num_hidden_layers},
                     {"num_attention_heads", c.num_attention_heads},
                     {"num_key_value_heads", c.num_key_value_heads},
                     {"head_dim", c.head_dim},
                     {"max_position_embeddings", c.max_position_embeddings},
                     {"rope_theta", c.rope_theta},
                     {"rope_type", c.rope_scaling.type},
                     {"tie_word_embeddings", c.tie_word_embeddings}};
      if (c.moe) config["num_experts"] = c.moe->num_experts, config["num_experts_per_tok"] = c.moe->num_experts_per_tok;
      const bool rope = raw.contains("rope_theta") || raw.contains("rope_parameters");
      if (!rope) {
        odd.push_back(fmt::format("rope_theta is missing, {} is taken, the default of {}", c.rope_theta, family));
      }
      if (std::any_of(c.layer_windows.begin(), c.layer_windows.end(), [](int64_t w) { return w > 0; })) {
        config["sliding_window"] = *std::max_element(c.layer_windows.begin(), c.layer_windows.end());
      }
      out["config"] = config;
      const GenerationConfig generation = load_generation_config(folder);
      const std::vector<int64_t> stop = stop_token_ids(c, generation);
      if (stop.empty()) odd.push_back("no eos_token_id: nothing ends an answer but its length");
      if (c.torch_dtype && std::none_of(tensors.tensors().begin(), tensors.tensors().end(),
                                        [&](const TensorInfo& t) { return t.dtype == *c.torch_dtype; })) {
        odd.push_back(fmt::format("config.json says the weights are {}, none is", dtype_name(*c.torch_dtype)));
      }
    } catch (const Error& e) {
      odd.push_back(one_line(e.what()));
    }
  } else {
    odd.push_back(fmt::format("'{}' is not a decoder family that graft knows", printable(family)));
  }
  odd_config(folder, raw, tensors, odd);
  odd_files(folder, tensors, odd);
  Json files = Json::array();
  for (const std::string& file : tensors.files()) files.push_back(fs::path(file).filename().string());
  out["files"] = files;
  out["odd"] = odd;
  return out;
}

Json inspect_adapter(const std::string& path) {
  const AdapterHeader header = read_adapter_header(path);
  const LoraConfig& config = header.config;
  Json out = {{"kind", "adapter"}, {"family", config.use_dora ? "dora" : "lora"}};
  add_tensors(out, header.file.tensors);
  Json odd = Json::array(), modules = Json::array();
  std::map<double, int64_t> scales;
  std::set<std::string> targets;
  try {
    for (const LoraTarget& target : adapter_targets(header)) {
      modules.push_back({{"module", target.module.path},
                         {"rank", target.rank},
                         {"alpha", target.alpha},
                         {"scale", target.scaling},
                         {"in", target.module.in},
                         {"out", target.module.out}});
      ++scales[target.scaling];
      targets.insert(target.module.path.substr(target.module.path.rfind('.') + 1));
      if (target.rank > std::min(target.module.in, target.module.out)) {
        odd.push_back(fmt::format("rank {} of {} is more than its sizes {} and {}", target.rank, target.module.path,
                                  target.module.in, target.module.out));
      }
    }
    for (std::string& fault : adapter_faults(header)) odd.push_back(std::move(fault));
  } catch (const Error& e) {
    odd.push_back(one_line(e.what()));
  }
  const auto commonest =
      std::max_element(scales.begin(), scales.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  out["layout"] = header.layout == AdapterLayout::kPeft  ? "peft"
                  : header.layout == AdapterLayout::kMlx ? "mlx"
                                                         : "layers";
  out["rank"] = config.rank;
  out["alpha"] = config.alpha;
  out["scale"] = commonest == scales.end() ? config.scaling() : commonest->first;
  out["targets"] = targets;
  out["modules"] = modules;
  out["base_model"] = config.base_model_name_or_path;
  out["use_dora"] = config.use_dora;
  out["use_rslora"] = config.use_rslora;
  Json saved = Json::array();
  for (const AdapterHeader::Saved& s : header.saved) saved.push_back(s.name);
  out["saved"] = saved;
  out["metadata"] = header.file.metadata;
  out["files"] = Json::array({fs::path(header.path).filename().string()});
  if (!header.has_config) odd.push_back("no adapter_config.json: its scale is a guess");
  if (scales.size() > 1) odd.push_back(fmt::format("{} different scales", scales.size()));
  if (commonest != scales.end() && commonest->first > 16) {
    odd.push_back(
        fmt::format("scale {} is high: is alpha a scale of mlx-lm, which multiplies directly?", commonest->first));
  }
  out["odd"] = odd;
  return out;
}

Json inspect_safetensors(const std::string& path) {
  const SafetensorsHeader header = read_safetensors_header(path);
  Json out = {{"kind", "safetensors"}, {"family", nullptr}};
  std::vector<TensorInfo> tensors = header.tensors;
  std::sort(tensors.begin(), tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) { return natural_less(a.name, b.name); });
  add_tensors(out, tensors);
  out["metadata"] = header.metadata;
  out["files"] = Json::array({fs::path(path).filename().string()});
  Json odd = Json::array();
  if (header.metadata.count("format") == 0) odd.push_back("no metadata format = pt: some readers refuse the file");
  if (header.data_begin % 8 != 0) {
    odd.push_back(fmt::format("the data begin at byte {}, not at a multiple of 8", header.data_begin));
  }
  out["odd"] = odd;
  return out;
}

bool is_lora_file(const std::string& path) {
  const SafetensorsHeader header = read_safetensors_header(path);
  return std::any_of(header.tensors.begin(), header.tensors.end(),
                     [](const TensorInfo& t) { return t.name.find(".lora_") != std::string::npos; });
}

}  // namespace

Json inspect_path(const std::string& path) {
  GRAFT_CHECK_HINT(path_exists(path), "check the path", "{}: does not exist", path);
  if (!is_directory(path)) {
    GRAFT_CHECK_HINT(!path.ends_with(".gguf"), "give a Hugging Face folder", "{}: GGUF files are not read yet", path);
    return is_lora_file(path) ? inspect_adapter(path) : inspect_safetensors(path);
  }
  const auto holds = [&](const char* name) { return path_exists(path + "/" + name); };
  const bool adapter =
      holds("adapter_config.json") || holds("adapter_model.safetensors") || holds("adapters.safetensors");
  const std::string name = fs::weakly_canonical(path).filename().string();
  if (holds("graft_state.json") || (holds("trainer_state.json") && name.starts_with("checkpoint-"))) {
    Json out = adapter ? inspect_adapter(path) : inspect_model(path);
    out["holds"] = out["kind"];
    out["kind"] = "checkpoint";
    const std::string fault = checkpoint_fault(path);
    out["whole"] = fault.empty();
    if (!fault.empty()) out["odd"].push_back(one_line("not whole: " + fault));
    out["step"] = fault.empty() ? read_graft_state(path)["step"] : Json();
    return out;
  }
  if (!adapter && !holds("config.json")) {
    fail_hint("give a model folder, an adapter folder, a checkpoint or a .safetensors",
              "{}: holds neither config.json nor adapter_config.json", path);
  }
  Json out = adapter ? inspect_adapter(path) : inspect_model(path);
  Json steps = Json::array();
  for (const Checkpoint& checkpoint : list_checkpoints(path)) steps.push_back(checkpoint.step);
  if (!steps.empty()) out["checkpoints"] = steps;
  return out;
}

}  // namespace graft
