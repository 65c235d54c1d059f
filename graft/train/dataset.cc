#include "graft/train/dataset.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "graft/base/error.h"
#include "graft/base/random.h"
#include "graft/formats/safetensors.h"

namespace graft {

Example Dataset::example(int64_t i) const {
  const auto begin = static_cast<size_t>(offsets_[static_cast<size_t>(i)]), n = static_cast<size_t>(length(i));
  return {std::span(ids_).subspan(begin, n), std::span(weights_).subspan(begin, n), rows_[static_cast<size_t>(i)]};
}

int32_t Dataset::target(int64_t i, int64_t t) const {
  const auto at = static_cast<size_t>(offsets_[static_cast<size_t>(i)] + t);
  return targets_.empty() ? ids_[at + 1] : targets_[at];
}

std::string Dataset::where(int64_t i) const {
  const auto at = static_cast<size_t>(i);
  const std::string& path = files_[static_cast<size_t>(file_of_[at])];
  return lines_[at] > 0 ? fmt::format("{}:{}", path, lines_[at]) : path;
}

uint64_t Dataset::num_bytes() const {
  const auto bytes = [](const auto& v) { return v.capacity() * sizeof(v[0]); };
  return bytes(ids_) + bytes(targets_) + bytes(weights_) + bytes(offsets_) + bytes(rows_) + bytes(lines_) +
         bytes(file_of_);
}

int32_t Dataset::add_file(std::string path) {
  files_.push_back(std::move(path));
  return static_cast<int32_t>(files_.size() - 1);
}

void Dataset::add(std::span<const int32_t> ids, std::span<const float> weights, int64_t row, int32_t file, int64_t line,
                  std::span<const int32_t> targets) {
  ids_.insert(ids_.end(), ids.begin(), ids.end());
  weights_.insert(weights_.end(), weights.begin(), weights.end());
  targets_.insert(targets_.end(), targets.begin(), targets.end());
  offsets_.push_back(static_cast<int64_t>(ids_.size()));
  rows_.push_back(row);
  lines_.push_back(line);
  file_of_.push_back(file);
  longest_ = std::max(longest_, static_cast<int64_t>(ids.size()));
  for (const int32_t id : ids) max_id_ = std::max(max_id_, id);
  for (size_t t = 0; t < weights.size(); ++t) {
    if (!(weights[t] > 0)) continue;
    ++num_trained_;
    if (!targets.empty()) max_id_ = std::max(max_id_, targets[t]);
  }
}

std::string Dataset::fingerprint() const {
  // Two FNV-1a streams with different starts, over 32-bit words: fast, and far from any chance collision.
  uint64_t a = 0xCBF29CE484222325u, b = 0x9E3779B97F4A7C15u;
  const auto word = [&](uint32_t w) {
    a = (a ^ w) * 0x100000001B3u;
    b = (b ^ (w + 0x85EBCA6Bu)) * 0xD6E8FEB86659FD93u;
    b ^= b >> 32;
  };
  for (const int64_t offset : offsets_) word(static_cast<uint32_t>(offset)), word(static_cast<uint32_t>(offset >> 32));
  for (const int32_t id : ids_) word(static_cast<uint32_t>(id));
  for (size_t t = 0; t < targets_.size(); ++t) word(weights_[t] > 0 ? static_cast<uint32_t>(targets_[t]) : 0u);
  for (const float weight : weights_) word(std::bit_cast<uint32_t>(weight));
  word(static_cast<uint32_t>(fixed_batch_));
  return fmt::format("{:016x}{:016x}", a, b);
}

std::pair<Dataset, Dataset> split_dataset(const Dataset& data, double share, uint64_t seed) {
  const int64_t n = data.size();
  const auto num_valid = std::max<int64_t>(1, static_cast<int64_t>(share * static_cast<double>(n) + 0.5));
  GRAFT_CHECK(data.fixed_batch() == 0, "a share for validation cannot be cut from pre-tokenised batches; give a file");
  GRAFT_CHECK(num_valid < n, "{} of {} rows are kept for validation, so none is left to train", num_valid, n);
  const RandomStream stream(seed, stream_hash("valid"));
  std::vector<std::pair<uint64_t, int64_t>> draws(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    const auto block = stream.block(static_cast<uint64_t>(data.example(i).row));
    draws[static_cast<size_t>(i)] = {(uint64_t{block[0]} << 32) | block[1], i};
  }
  std::nth_element(draws.begin(), draws.begin() + num_valid, draws.end());
  std::vector<bool> is_valid(static_cast<size_t>(n));
  for (int64_t i = 0; i < num_valid; ++i) is_valid[static_cast<size_t>(draws[static_cast<size_t>(i)].second)] = true;
  std::pair<Dataset, Dataset> parts;
  std::string last;
  std::pair<int32_t, int32_t> file;
  for (int64_t i = 0; i < n; ++i) {
    std::string path = data.where(i);
    const size_t colon = path.rfind(':');
    const int64_t line = colon == std::string::npos ? 0 : std::atoll(path.c_str() + colon + 1);
    path.resize(std::min(path.size(), colon));
    if (i == 0 || path != last) file = {parts.first.add_file(path), parts.second.add_file(path)};
    last = path;
    const Example e = data.example(i);
    const bool valid = is_valid[static_cast<size_t>(i)];
    (valid ? parts.second : parts.first).add(e.ids, e.target_weights, e.row, valid ? file.second : file.first, line);
  }
  return parts;
}

Dataset read_pretokenised(const std::string& path, int64_t vocab_size, int64_t ignore_index) {
  const SafetensorsFile file(path);
  const bool has_targets = file.find("targets") != nullptr, has_labels = file.find("labels") != nullptr;
  GRAFT_CHECK_HINT(file.find("input_ids") != nullptr && !(has_targets && has_labels),
                   "pre-tokenised data holds input_ids and labels (or targets), I64 [batches, batch, seq]",
                   "{}: expected the tensors input_ids and one of labels and targets", path);
  const std::string label_name = has_targets ? "targets" : has_labels ? "labels" : "input_ids";
  const TensorInfo &info = file.at("input_ids"), &label_info = file.at(label_name);
  std::string faults;
  if (info.shape.size() != 3) {
    faults += fmt::format("\n  input_ids has shape {}, expected [batches, batch, seq]", shape_text(info.shape));
  }
  if (label_info.shape != info.shape) {
    faults += fmt::format("\n  {} has shape {}, expected {} as input_ids", label_name, shape_text(label_info.shape),
                          shape_text(info.shape));
  }
  for (const TensorInfo* t : {&info, &label_info}) {
    if (t->dtype != DType::kI64 && t->dtype != DType::kI32) {
      faults += fmt::format("\n  {} is {}, expected I64", t->name, dtype_name(t->dtype));
    }
  }
  const TensorInfo* mask_info = file.find("attention_mask");
  if (mask_info != nullptr && mask_info->shape != info.shape) {
    faults += fmt::format("\n  attention_mask has shape {}, expected {} as input_ids", shape_text(mask_info->shape),
                          shape_text(info.shape));
  }
  GRAFT_CHECK(faults.empty(), "{}:{}", path, faults);
  const int64_t batches = info.shape[0], batch = info.shape[1], seq = info.shape[2];
  GRAFT_CHECK(batches > 0 && batch > 0 && seq > 0, "{}: no rows: input_ids has shape {}", path, shape_text(info.shape));
  const std::vector<int64_t> ids = file.read_i64("input_ids"), labels = file.read_i64(label_name);
  const std::vector<int64_t> mask = mask_info != nullptr ? file.read_i64("attention_mask") : std::vector<int64_t>();

  Dataset data;
  data.set_fixed_batch(batch);
  const int32_t file_index = data.add_file(path);
  std::vector<int32_t> row_ids, row_targets;
  std::vector<float> row_weights;
  for (int64_t b = 0; b < batches; ++b) {
    const int64_t before = data.num_trained_tokens();
    for (int64_t r = 0; r < batch; ++r) {
      const int64_t row = b * batch + r;
      const auto base = static_cast<size_t>(row * seq);
      auto length = static_cast<size_t>(seq);
      if (!mask.empty()) {
        length = 0;
        while (length < static_cast<size_t>(seq) && mask[base + length] != 0) ++length;
        for (size_t t = length; t < static_cast<size_t>(seq); ++t) {
          GRAFT_CHECK(mask[base + t] == 0,
                      "{}: attention_mask of row {} of batch {} has a 1 after a 0, expected padding on the right", path,
                      r, b);
        }
        GRAFT_CHECK(length > 0, "{}: attention_mask of row {} of batch {} has no 1", path, r, b);
      }
      row_ids.assign(length, 0);
      row_targets.assign(length, 0);
      row_weights.assign(length, 0.0f);
      for (size_t t = 0; t < length; ++t) {
        const int64_t id = ids[base + t];
        GRAFT_CHECK(id >= 0 && id < vocab_size, "{}: input_ids[{}, {}, {}] is {}, expected 0 to {}", path, b, r, t, id,
                    vocab_size - 1);
        row_ids[t] = static_cast<int32_t>(id);
        const size_t at = t + (has_targets ? 0 : 1);
        if (at >= length || labels[base + at] == ignore_index) continue;
        const int64_t label = labels[base + at];
        GRAFT_CHECK(label >= 0 && label < vocab_size, "{}: {}[{}, {}, {}] is {}, expected 0 to {} or {}", path,
                    label_name, b, r, at, label, vocab_size - 1, ignore_index);
        row_targets[t] = static_cast<int32_t>(label);
        row_weights[t] = 1;
      }
      data.add(row_ids, row_weights, row, file_index, 0, row_targets);
    }
    GRAFT_CHECK(data.num_trained_tokens() > before, "{}: all tokens of batch {} are ignored: nothing to train on", path,
                b);
  }
  return data;
}

}  // namespace graft
