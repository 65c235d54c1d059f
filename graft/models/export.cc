#include "graft/models/export.h"

#include <algorithm>
#include <filesystem>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/model_folder.h"

namespace graft {
namespace {

namespace fs = std::filesystem;

bool is_weight_file(const std::string& name) {
  return name.ends_with(".safetensors") || name.ends_with(".safetensors.index.json") || name.ends_with(".bin") || name.ends_with(".pt") ||
         name.ends_with(".pth") || name.ends_with(".gguf") || name.ends_with(".bin.index.json");
}

bool is_model_file(const std::string& name) {
  return name.ends_with(".json") || name.ends_with(".jinja") || name.ends_with(".txt") || name.ends_with(".model") || name == "LICENSE";
}

std::string dtype_word(DType dtype) { return dtype == DType::kBF16 ? "bfloat16" : dtype == DType::kF16 ? "float16" : "float32"; }

}  // namespace

void copy_model_files(const std::string& from, const std::string& to, DType dtype) {
  fs::create_directories(to);
  for (const auto& entry : fs::recursive_directory_iterator(from)) {
    const fs::path relative = fs::relative(entry.path(), from);
    const std::string name = relative.filename().string();
    const std::string parent = relative.parent_path().string();
    if (!entry.is_regular_file() || is_weight_file(name) || !is_model_file(name)) continue;
    if (!parent.empty() && parent != "additional_chat_templates") continue;
    if (name == "adapter_config.json" || name == "graft_state.json" || name == "trainer_state.json") continue;
    std::string content = read_file(entry.path().string());
    if (name == "config.json" && dtype != DType::kBool) {
      Json config = parse_json(content, entry.path().string());
      config[config.contains("dtype") ? "dtype" : "torch_dtype"] = dtype_word(dtype);
      content = config.dump(2) + "\n";
    }
    const fs::path target = fs::path(to) / relative;
    fs::create_directories(target.parent_path());
    write_file(target.string(), content);
  }
}

DType saved_dtype(std::string_view save_dtype, DType stored) {
  if (save_dtype == "f32") return DType::kF32;
  if (save_dtype == "bf16") return DType::kBF16;
  if (save_dtype == "f16") return DType::kF16;
  return stored;
}

void save_model_weights(Context& context, const Model& model, const std::string& folder, std::string_view save_dtype, uint64_t shard_bytes) {
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, p] : model.parameters()) tensors.push_back({name, saved_dtype(save_dtype, p.stored), p.shape, {}});
  ModelWriter writer(folder, tensors, shard_bytes);
  std::vector<float> rows;
  std::vector<std::byte> bytes;
  for (const TensorInfo& info : writer.tensors()) {
    const Parameter& p = model.parameters().at(info.name);
    // Blocks of rows, so that an embedding of a gigabyte needs no copy of its size.
    const int64_t columns = p.is_matrix() ? p.shape[1] : 1, total = p.shape[0];
    const int64_t block = p.is_matrix() ? std::max<int64_t>(64, (int64_t{4} << 20) / std::max<int64_t>(1, columns) / 64 * 64) : total;
    for (int64_t first = 0; first < total; first += block) {
      const int64_t count = std::min(block, total - first);
      rows.resize(static_cast<size_t>(count * columns));
      if (p.is_matrix()) {
        p.weight.unpack_rows(context, first, count, rows.data());
      } else {
        std::copy_n(p.vector.as<float>().data(), count, rows.data());
      }
      bytes.resize(rows.size() * static_cast<size_t>(dtype_bits(info.dtype)) / 8);
      write_from_f32(rows.data(), static_cast<int64_t>(rows.size()), info.dtype, bytes.data());
      writer.write(info.name, bytes);
    }
  }
  writer.commit();
}

}  // namespace graft
