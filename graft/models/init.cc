#include "graft/models/init.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/formats/checkpoint.h"
#include "graft/formats/model_folder.h"
#include "graft/kernels/random_fill.h"
#include "graft/models/decoder.h"
#include "graft/models/model.h"

namespace graft {
namespace {

int64_t num_values(const ExpectedTensor& tensor) {
  int64_t n = 1;
  for (int64_t d : tensor.shape) n *= d;
  return n;
}

// `init`: InitConfig's.
void draw(Context& context, const ExpectedTensor& tensor, const ModelConfig& config, const std::string& init,
          uint64_t seed, std::span<float> values) {
  if (tensor.shape.size() == 1) {
    std::fill(values.begin(), values.end(), tensor.name.ends_with(".bias") ? 0.0f : 1.0f);
    return;
  }
  const bool fan_in = init == "fan_in" || (init.empty() && config.model_type == "graft_moe");
  const double std = fan_in ? std::sqrt(2.0 / static_cast<double>(tensor.shape[1])) : config.initializer_range;
  fill_normal<float>(context, RandomStream(seed, stream_hash(tensor.name)), std, values);
}

}  // namespace

int64_t init_model(Context& context, const InitConfig& options) {
  const std::string path = is_directory(options.config) ? options.config + "/config.json" : options.config;
  const ModelConfig config = parse_model_config(read_json(path, {}, size_t{16} << 20), path, supported_model_types());
  const bool there = path_exists(options.out);
  GRAFT_CHECK_HINT(!there || is_directory(options.out), "choose another --out", "{}: is a file, expected a folder",
                   options.out);
  std::error_code error;
  const bool empty = there && std::filesystem::is_empty(options.out, error);
  GRAFT_CHECK_HINT(!error, "check the permissions of the folder", "{}: cannot be read: {}", options.out,
                   error.message());
  GRAFT_CHECK_HINT(!there || empty || options.overwrite, "use --overwrite, or another --out", "{}: is not empty",
                   options.out);
  std::optional<AtomicFolder> made;  // a new folder appears whole
  if (!there) made.emplace(options.out);
  const std::string out = made ? made->path() : options.out;
  const DType dtype = config.torch_dtype.value_or(DType::kF32);
  const std::vector<ExpectedTensor> expected = family_of(config).tensors(config);
  std::vector<TensorToWrite> tensors;
  for (const ExpectedTensor& t : expected) tensors.push_back({t.name, dtype, t.shape, {}});
  ModelWriter writer(out, tensors);
  int64_t parameters = 0;
  std::vector<std::byte> bytes;
  for (const TensorInfo& info : writer.tensors()) {
    if (options.progress) options.progress();
    const auto it =
        std::find_if(expected.begin(), expected.end(), [&](const ExpectedTensor& t) { return t.name == info.name; });
    std::vector<float> values(static_cast<size_t>(num_values(*it)));
    draw(context, *it, config, options.init, options.seed, values);
    bytes.resize(values.size() * static_cast<size_t>(dtype_bits(dtype)) / 8);
    write_from_f32(values.data(), static_cast<int64_t>(values.size()), dtype, bytes.data());
    writer.write(info.name, bytes);
    parameters += static_cast<int64_t>(values.size());
  }
  writer.commit();
  if (!options.tokenizer.empty()) copy_side_files(options.tokenizer, out);
  Json raw = config.raw;
  if (!raw.contains("torch_dtype") && !raw.contains("dtype")) raw = config_with_dtype(raw, dtype);
  write_file(out + "/config.json", raw.dump(2) + "\n");
  if (made) made->commit();
  return parameters;
}

Model Model::random(Context& context, const ModelConfig& config, uint64_t seed, const ModelLoadOptions& options) {
  Model model;
  model.config_ = config;
  model.family_ = &family_of(config);
  model.in_rows_ = options.rows;
  for (const ExpectedTensor& tensor : model.family_->tensors(config)) {
    Parameter& p = model.parameters_[tensor.name];
    p.shape = tensor.shape;
    Buffer values(static_cast<size_t>(num_values(tensor)) * sizeof(float));
    draw(context, tensor, config, {}, seed, values.as<float>());
    if (!p.is_matrix()) {
      p.vector = std::move(values);
    } else if (options.rows) {
      p.rows = std::move(values);
    } else {
      p.weight = Weight(DType::kF32, tensor.shape[0], tensor.shape[1]);
      p.weight.pack_rows(context, 0, tensor.shape[0], DType::kF32, values.data());
    }
  }
  return model;
}

}  // namespace graft
