#include "graft/formats/model_folder.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "graft/base/error.h"
#include "graft/base/log.h"
#include "graft/formats/json_fields.h"

namespace graft {
namespace {

constexpr char kSingle[] = "model.safetensors", kIndex[] = "model.safetensors.index.json";

std::string base_name(const std::string& path) { return std::filesystem::path(path).filename().string(); }

// What the folder holds instead of safetensors, as an Error.
[[noreturn]] void fail_without_weights(const std::string& folder) {
  std::vector<std::string> pickles, others;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    const std::string name = entry.path().filename().string();
    if (extension == ".bin" || extension == ".pt" || extension == ".pth" || extension == ".ckpt") {
      pickles.push_back(name);
    }
    if (extension == ".safetensors" || extension == ".gguf") others.push_back(name);
  }
  std::sort(pickles.begin(), pickles.end());
  std::sort(others.begin(), others.end());
  if (!pickles.empty()) {
    fail_hint(
        "a pickle can run any code, so graft never reads one: convert it to model.safetensors (transformers: "
        "model.save_pretrained(folder, safe_serialization=True)), or download the safetensors version",
        "{}: the weights are there only as a pickle ({}), expected {}", folder,
        printable(fmt::format("{}", fmt::join(pickles, ", "))), kSingle);
  }
  if (!others.empty()) {
    fail_hint(fmt::format("download {} too, or rename a single file to {}", kIndex, kSingle),
              "{}: has neither {} nor {}, but {}", folder, kSingle, kIndex,
              printable(fmt::format("{}", fmt::join(others, ", "))));
  }
  fail_hint("download the weights into the folder", "{}: has no weights: neither {} nor {}", folder, kSingle, kIndex);
}

}  // namespace

std::map<std::string, std::string> parse_weight_index(const Json& json, std::string_view where) {
  GRAFT_CHECK(json.is_object(), "{}: is {}, expected an object", where, json_kind(json));
  const auto found = json.find("weight_map");
  GRAFT_CHECK(found != json.end(), "{}: weight_map is missing", where);
  GRAFT_CHECK(found->is_object(), "{}: weight_map is {}, expected an object from tensor to file name", where,
              json_kind(*found));
  Faults faults;
  std::map<std::string, std::string> map;
  for (const auto& [tensor, file] : found->items()) {
    const std::string name = file.is_string() ? file.get<std::string>() : "";
    const bool plain =
        !name.empty() && name.find_first_of(std::string_view("/\\:\0", 4)) == std::string::npos && name.front() != '.';
    if (!plain) {
      faults.add("tensor '{}' lies in {}, expected the name of a file in the same folder", printable(tensor, 200),
                 file.is_string() ? fmt::format("'{}'", printable(name)) : json_kind(file));
    }
    map[tensor] = name;
  }
  faults.throw_if_any(where, "download the model again, from a source you trust");
  return map;
}

TensorFolder::TensorFolder(const std::string& folder) : mappings_(std::make_unique<Mappings>()) {
  GRAFT_CHECK(is_directory(folder), "{}: is not a folder", folder);
  std::map<std::string, std::string> index;
  if (path_exists(folder + "/" + kSingle)) {
    where_ = folder + "/" + kSingle;
    files_ = {where_};
  } else if (path_exists(folder + "/" + kIndex)) {
    where_ = folder + "/" + kIndex;
    index = parse_weight_index(read_json(where_, {}, size_t{256} << 20), where_);
    std::set<std::string> names;
    for (const auto& [tensor, file] : index) names.insert(file);
    Faults missing;
    for (const std::string& name : names) {
      if (!path_exists(folder + "/" + name)) missing.add("{} is missing", printable(name));
      files_.push_back(folder + "/" + name);
    }
    missing.throw_if_any(where_, "download the missing files");
  } else {
    fail_without_weights(folder);
  }

  struct Found {
    TensorInfo info;
    uint32_t shard;
  };
  std::vector<Found> all;
  for (uint32_t shard = 0; shard < files_.size(); ++shard) {
    SafetensorsHeader header = read_safetensors_header(files_[shard]);
    file_sizes_.push_back(header.file_size);
    for (TensorInfo& info : header.tensors) all.push_back({std::move(info), shard});
  }
  std::stable_sort(all.begin(), all.end(), [](const Found& a, const Found& b) { return a.info.name < b.info.name; });

  Faults faults;
  for (size_t begin = 0; begin < all.size();) {
    size_t end = begin + 1;
    while (end < all.size() && all[end].info.name == all[begin].info.name) ++end;
    const auto listed = index.find(all[begin].info.name);
    size_t chosen = begin;
    if (listed != index.end()) {
      while (chosen < end && base_name(files_[all[chosen].shard]) != listed->second) ++chosen;
      if (chosen == end) {
        faults.add("tensor '{}' is said to be in {}, but lies in {}", printable(listed->first, 200),
                   printable(listed->second), base_name(files_[all[begin].shard]));
        chosen = begin;
      }
      index.erase(listed);
    } else if (end - begin > 1) {
      faults.add("tensor '{}' lies in {} and {}, and no line says which counts", printable(all[begin].info.name, 200),
                 base_name(files_[all[begin].shard]), base_name(files_[all[begin + 1].shard]));
    } else if (files_.size() > 1) {
      log_info("{}: tensor '{}' has no line; taken from {}", where_, printable(all[begin].info.name, 200),
               base_name(files_[all[begin].shard]));
    }
    tensors_.push_back(std::move(all[chosen].info));
    shard_.push_back(all[chosen].shard);
    begin = end;
  }
  for (const auto& [tensor, file] : index) {
    faults.add("tensor '{}' is said to be in {}, and is not there", printable(tensor, 200), printable(file));
  }
  faults.throw_if_any(where_, "the files do not belong together: download all of them again");
  mappings_->files.resize(files_.size());
}

const TensorInfo* TensorFolder::find(std::string_view name) const {
  const auto found = std::lower_bound(tensors_.begin(), tensors_.end(), name,
                                      [](const TensorInfo& info, std::string_view key) { return info.name < key; });
  return found != tensors_.end() && found->name == name ? &*found : nullptr;
}

const TensorInfo& TensorFolder::at(std::string_view name) const {
  const TensorInfo* info = find(name);
  GRAFT_CHECK(info != nullptr, "{}: tensor '{}' is missing", where_, printable(name, 200));
  return *info;
}

const MappedFile& TensorFolder::mapped(size_t shard) const {
  const std::lock_guard<std::mutex> lock(mappings_->mutex);
  std::unique_ptr<MappedFile>& file = mappings_->files[shard];
  if (file == nullptr) {
    auto opened = std::make_unique<MappedFile>(files_[shard]);
    GRAFT_CHECK(opened->bytes().size() == file_sizes_[shard], "{}: has {} bytes now, {} when its header was read",
                files_[shard], opened->bytes().size(), file_sizes_[shard]);
    file = std::move(opened);
  }
  return *file;
}

std::span<const std::byte> TensorFolder::bytes(const TensorInfo& info) const {
  return mapped(shard_[index_of(info)]).bytes().subspan(info.begin, info.num_bytes());
}

void TensorFolder::drop(const TensorInfo& info) const {
  mapped(shard_[index_of(info)]).drop(info.begin, info.num_bytes());
}

std::vector<float> TensorFolder::read_f32(std::string_view name) const {
  const TensorInfo& info = at(name);
  std::vector<float> values(static_cast<size_t>(info.num_elements()));
  read_as_f32(bytes(info), info.dtype, values.data(), fmt::format("{}: tensor '{}'", file_of(info), name));
  return values;
}

int64_t TensorFolder::num_parameters() const {
  int64_t n = 0;
  for (const TensorInfo& info : tensors_) n += info.num_elements();
  return n;
}

uint64_t TensorFolder::num_bytes() const {
  uint64_t n = 0;
  for (const TensorInfo& info : tensors_) n += info.num_bytes();
  return n;
}

void TensorFolder::split_experts(const ModelConfig& config) {
  if (!config.moe) return;
  const ExpertNames names = expert_names(config);
  const int64_t experts = config.moe->num_experts, width = config.moe->moe_intermediate_size,
                hidden = config.hidden_size;
  std::vector<std::pair<TensorInfo, uint32_t>> all;
  bool changed = false;
  Faults faults;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    const TensorInfo& info = tensors_[i];
    std::string_view name = info.name;
    if (name.ends_with(".weight")) name.remove_suffix(7);
    const bool up = name.ends_with(".experts.gate_up_proj"), down = name.ends_with(".experts.down_proj");
    const std::string layer(name.substr(0, name.rfind(".mlp.")));
    // In memory transformers 5 has one name for all families' blocks.
    if (names.block != "mlp" && info.name.ends_with(".mlp.gate.weight")) {
      TensorInfo router = info;
      router.name = info.name.substr(0, info.name.rfind(".mlp.")) + "." + names.block + ".gate.weight";
      all.emplace_back(std::move(router), shard_[i]);
      changed = true;
      continue;
    }
    if ((!up && !down) || name.find(".mlp.") == std::string_view::npos) {
      all.emplace_back(info, shard_[i]);
      continue;
    }
    changed = true;
    const std::vector<int64_t> shape =
        up ? std::vector<int64_t>{experts, 2 * width, hidden} : std::vector<int64_t>{experts, hidden, width};
    if (info.shape != shape) {
      faults.add("tensor '{}' has shape {}, config.json implies {}", printable(info.name, 200),
                 printable(shape_text(info.shape)), shape_text(shape));
      continue;
    }
    const uint64_t part = info.num_bytes() / static_cast<uint64_t>(experts) / (up ? 2 : 1);
    uint64_t begin = info.begin;
    for (int64_t e = 0; e < experts; ++e) {
      for (const std::string& role : up ? std::vector<std::string>{names.gate, names.up} : std::vector{names.down}) {
        all.emplace_back(TensorInfo{fmt::format("{}.{}.experts.{}.{}.weight", layer, names.block, e, role), info.dtype,
                                    up ? std::vector<int64_t>{width, hidden} : std::vector<int64_t>{hidden, width},
                                    begin, begin + part},
                         shard_[i]);
        begin += part;
      }
    }
  }
  faults.throw_if_any(where_, "config.json and weights are not of the same model: download both again");
  if (!changed) return;
  std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.first.name < b.first.name; });
  tensors_.clear(), shard_.clear();
  for (auto& [info, shard] : all) {
    GRAFT_CHECK(tensors_.empty() || tensors_.back().name != info.name,
                "{}: tensor '{}' is there by itself and among stacked experts, and no line says which counts", where_,
                printable(info.name, 200));
    tensors_.push_back(std::move(info));
    shard_.push_back(shard);
  }
}

void TensorFolder::check(std::span<const ExpectedTensor> expected) const {
  Faults faults;
  for (const ExpectedTensor& want : expected) {
    const TensorInfo* info = find(want.name);
    if (info == nullptr) {
      if (!want.optional) {
        faults.add("tensor '{}' {} is missing, and config.json implies it", want.name, shape_text(want.shape));
      }
      continue;
    }
    const std::string in_file = files_.size() > 1 ? " in " + base_name(file_of(*info)) : "";
    if (!dtype_is_float(info->dtype)) {
      faults.add("tensor '{}'{} is {}, expected floating point", want.name, in_file, dtype_name(info->dtype));
    } else if (info->shape != want.shape) {
      faults.add("tensor '{}'{} has shape {}, config.json implies {}{}", want.name, in_file,
                 printable(shape_text(info->shape)), shape_text(want.shape),
                 want.dims.empty() ? "" : fmt::format(" = [{}]", want.dims));
    }
  }
  faults.throw_if_any(where_, "config.json and weights are not of the same model: download both again");
  const std::vector<std::string> extra = unexpected(expected);
  if (!extra.empty()) {
    log_info("{}: {} tensors are not used: {}", where_, extra.size(),
             printable(fmt::format("{}", fmt::join(extra, ", ")), 300));
  }
}

std::vector<std::string> TensorFolder::unexpected(std::span<const ExpectedTensor> expected) const {
  std::set<std::string_view> wanted;
  for (const ExpectedTensor& want : expected) wanted.insert(want.name);
  std::vector<std::string> extra;
  for (const TensorInfo& info : tensors_) {
    if (wanted.count(info.name) == 0) extra.push_back(info.name);
  }
  return extra;
}

ModelFolder ModelFolder::open(const std::string& folder, std::span<const std::string_view> supported) {
  ModelFolder model;
  model.path = folder;
  model.config = load_model_config(folder, supported);
  model.generation = load_generation_config(folder);
  model.tensors = TensorFolder(folder);
  model.tensors.split_experts(model.config);
  return model;
}

std::vector<std::string> copy_side_files(const std::string& from, const std::string& to) {
  static constexpr std::string_view kKinds[] = {".json", ".jinja", ".txt", ".model", ".md"};
  std::error_code error;
  std::filesystem::create_directories(to, error);
  GRAFT_CHECK(!error, "{}: cannot create the folder: {}", to, error.message());
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(from)) {
    const std::string name = entry.path().filename().string(), extension = entry.path().extension().string();
    const bool licence = name == "LICENSE" || name == "NOTICE" || name == "USE_POLICY";
    const bool kind = std::count(std::begin(kKinds), std::end(kKinds), extension) > 0;
    const bool other = name.front() == '.' || name.find(".index.json") != std::string::npos ||
                       name.starts_with("adapter_config") || name.ends_with("_state.json") || name == "README.md" ||
                       name == "all_results.json";
    if (entry.is_regular_file() && (licence || kind) && !other) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) write_file(to + "/" + name, read_file(from + "/" + name));
  return names;
}

Json config_with_dtype(const Json& raw, DType dtype) {
  const char* name = dtype == DType::kBF16  ? "bfloat16"
                     : dtype == DType::kF16 ? "float16"
                     : dtype == DType::kF64 ? "float64"
                                            : "float32";
  Json json = raw;
  json[raw.contains("dtype") ? "dtype" : "torch_dtype"] = name;
  if (raw.contains("dtype") && raw.contains("torch_dtype")) json["torch_dtype"] = name;
  return json;
}

ModelWriter::ModelWriter(const std::string& folder, const std::vector<TensorToWrite>& tensors, uint64_t shard_bytes,
                         Metadata metadata)
    : folder_(folder), metadata_(std::move(metadata)) {
  uint64_t filled = 0;
  for (const TensorToWrite& tensor : tensors) {
    const uint64_t bytes =
        static_cast<uint64_t>(num_elements(tensor.shape)) * static_cast<uint64_t>(dtype_bits(tensor.dtype)) / 8;
    if (shards_.empty() || (shard_bytes > 0 && filled > 0 && bytes > shard_bytes - std::min(filled, shard_bytes))) {
      shards_.emplace_back();
      filled = 0;
    }
    shards_.back().push_back(tensor);
    filled += bytes;
    const bool first = shard_of_.emplace(tensor.name, shards_.size() - 1).second;
    GRAFT_CHECK(first, "{}: tensor '{}' would be written twice", folder, printable(tensor.name, 200));
  }
  if (shards_.empty()) shards_.emplace_back();
  for (std::vector<TensorToWrite>& shard : shards_) {
    std::sort(shard.begin(), shard.end(), [](const TensorToWrite& a, const TensorToWrite& b) {
      return a.dtype != b.dtype ? a.dtype > b.dtype : a.name < b.name;
    });
    for (const TensorToWrite& tensor : shard) tensors_.push_back({tensor.name, tensor.dtype, tensor.shape, 0, 0});
  }
}

namespace {

std::string shard_name(size_t shard, size_t count) {
  return count == 1 ? std::string(kSingle) : fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, count);
}

}  // namespace

void ModelWriter::finish_shard() {
  if (writer_ == nullptr) {
    writer_ = std::make_unique<SafetensorsWriter>(folder_ + "/" + shard_name(shard_, shards_.size()), shards_[shard_],
                                                  metadata_);
  }
  writer_->commit();
  writer_.reset();
  ++shard_;
}

void ModelWriter::write(std::string_view name, std::span<const std::byte> bytes) {
  const auto found = shard_of_.find(name);
  GRAFT_CHECK(found != shard_of_.end(), "{}: tensor '{}' was not announced", folder_, printable(name, 200));
  while (shard_ < found->second) finish_shard();
  GRAFT_CHECK(shard_ == found->second, "{}: tensor '{}' is written out of turn", folder_, printable(name, 200));
  if (writer_ == nullptr) {
    writer_ = std::make_unique<SafetensorsWriter>(folder_ + "/" + shard_name(shard_, shards_.size()), shards_[shard_],
                                                  metadata_);
  }
  writer_->write(name, bytes);
}

void ModelWriter::commit() {
  while (shard_ < shards_.size()) finish_shard();
  if (shards_.size() == 1) return;
  uint64_t total = 0;
  Json map = Json::object();
  for (const auto& [name, shard] : shard_of_) map[name] = shard_name(shard, shards_.size());
  for (const TensorInfo& info : tensors_) {
    total += static_cast<uint64_t>(info.num_elements()) * static_cast<uint64_t>(dtype_bits(info.dtype)) / 8;
  }
  write_file(folder_ + "/" + kIndex, Json{{"metadata", {{"total_size", total}}}, {"weight_map", map}}.dump(2) + "\n");
}

}  // namespace graft
