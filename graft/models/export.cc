#include "graft/models/export.h"

#include <algorithm>
#include <vector>

#include "graft/formats/model_folder.h"

namespace graft {

DType saved_dtype(std::string_view save_dtype, DType stored) {
  if (save_dtype == "f32") return DType::kF32;
  if (save_dtype == "bf16") return DType::kBF16;
  if (save_dtype == "f16") return DType::kF16;
  return stored;
}

void save_model_weights(Context& context, const Model& model, const std::string& folder, std::string_view save_dtype,
                        uint64_t shard_bytes) {
  std::vector<TensorToWrite> tensors;
  for (const auto& [name, p] : model.parameters()) {
    tensors.push_back({name, saved_dtype(save_dtype, p.stored), p.shape, {}});
  }
  ModelWriter writer(folder, tensors, shard_bytes);
  std::vector<float> rows;
  std::vector<std::byte> bytes;
  for (const TensorInfo& info : writer.tensors()) {
    const Parameter& p = model.parameters().at(info.name);
    // Blocks of rows, so that an embedding of a gigabyte needs no copy of its size.
    const int64_t columns = p.is_matrix() ? p.shape[1] : 1, total = p.shape[0];
    const int64_t block =
        p.is_matrix() ? std::max<int64_t>(64, (int64_t{4} << 20) / std::max<int64_t>(1, columns) / 64 * 64) : total;
    for (int64_t first = 0; first < total; first += block) {
      const int64_t count = std::min(block, total - first);
      rows.resize(static_cast<size_t>(count * columns));
      p.copy(context, first, count, rows.data());
      bytes.resize(rows.size() * static_cast<size_t>(dtype_bits(info.dtype)) / 8);
      write_from_f32(rows.data(), static_cast<int64_t>(rows.size()), info.dtype, bytes.data());
      writer.write(info.name, bytes);
    }
  }
  writer.commit();
}

}  // namespace graft
