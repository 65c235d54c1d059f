#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/formats/model_config.h"
#include "graft/formats/safetensors.h"

namespace graft {

// A tensor that a model needs: its name in the file, the shape that the config implies, and the config's words for it
// ("vocab_size, hidden_size"), shown when the file says otherwise.
struct ExpectedTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::string dims;
  bool optional = false;  // may be absent, but not of another shape
};

// The tensors of model.safetensors, or of the shards that model.safetensors.index.json names. Opening reads headers
// only; a shard is mapped when the first of its tensors is asked for. Reading from many threads is safe.
class TensorFolder {
 public:
  TensorFolder() = default;
  // Refuses: no safetensors (pickles are named with the cure), shard paths that leave the folder, missing shards,
  // tensors that are not in the shard the index names. A tensor that only a shard knows is used; where several hold it,
  // the index decides.
  explicit TensorFolder(const std::string& folder);

  const std::string& where() const { return where_; }                  // model.safetensors or the index, for messages
  const std::vector<std::string>& files() const { return files_; }     // paths of the shards
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // by name
  const TensorInfo* find(std::string_view name) const;                 // null if there is none
  const TensorInfo& at(std::string_view name) const;                   // Error if there is none
  const std::string& file_of(const TensorInfo& info) const { return files_[shard_[index_of(info)]]; }
  // The bytes in the mapping: unaligned, valid while this lives.
  std::span<const std::byte> bytes(const TensorInfo& info) const;
  void drop(const TensorInfo& info) const;  // its pages leave the resident set
  std::vector<float> read_f32(std::string_view name) const;
  int64_t num_parameters() const;  // elements of all tensors
  uint64_t num_bytes() const;

  // Experts that are stored together (transformers 5: LAYER.mlp.experts.gate_up_proj [experts, 2 width, hidden] and down_proj
  // [experts, hidden, width]) become tensors of their own under the family's names: each is a range of the same bytes. An
  // Error where their shape is not what the config implies.
  void split_experts(const ModelConfig& config);

  // One Error for all that is missing, of another shape or not floating point. Tensors that nobody expects are logged.
  void check(std::span<const ExpectedTensor> expected) const;
  // Names in the folder that `expected` does not hold.
  std::vector<std::string> unexpected(std::span<const ExpectedTensor> expected) const;

 private:
  size_t index_of(const TensorInfo& info) const { return static_cast<size_t>(&info - tensors_.data()); }
  const MappedFile& mapped(size_t shard) const;

  std::string where_;
  std::vector<std::string> files_;
  std::vector<uint64_t> file_sizes_;
  std::vector<TensorInfo> tensors_;
  std::vector<uint32_t> shard_;  // of each tensor
  struct Mappings {
    std::mutex mutex;
    std::vector<std::unique_ptr<MappedFile>> files;
  };
  std::unique_ptr<Mappings> mappings_;
};

// A Hugging Face model folder: config.json, generation_config.json, weights. (Tokenizer and template are read by text.)
struct ModelFolder {
  std::string path;
  ModelConfig config;
  GenerationConfig generation;
  TensorFolder tensors;

  static ModelFolder open(const std::string& folder, std::span<const std::string_view> supported = {});
};

// The weight_map of model.safetensors.index.json: tensor name -> file name, checked to name files of the same folder.
std::map<std::string, std::string> parse_weight_index(const Json& json, std::string_view where);

// Copies what makes a model folder complete besides weights: config, generation config, tokenizer, templates, vocabularies,
// licence. Not: weights of any kind, adapters, states of training. `to` is created. Returns the names, sorted.
std::vector<std::string> copy_side_files(const std::string& from, const std::string& to);

// config.json as it was read, saying that the weights are stored as `dtype` (under the key it had, else torch_dtype).
Json config_with_dtype(const Json& raw, DType dtype);

// Writes model.safetensors, or shards of at most `shard_bytes` (0: one file; a larger tensor has a shard of its own)
// with their index, one tensor at a time. tensors() is the order to write them in. Shards fill in the order given.
class ModelWriter {
 public:
  ModelWriter(const std::string& folder, const std::vector<TensorToWrite>& tensors, uint64_t shard_bytes = 0,
              Metadata metadata = {});
  const std::vector<TensorInfo>& tensors() const { return tensors_; }
  void write(std::string_view name, std::span<const std::byte> bytes);
  void commit();  // after the last tensor: ends the last shard, writes the index

 private:
  void finish_shard();

  std::string folder_;
  Metadata metadata_;
  std::vector<std::vector<TensorToWrite>> shards_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> shard_of_;
  size_t shard_ = 0;
  std::unique_ptr<SafetensorsWriter> writer_;
};

}  // namespace graft
