#include "graft/train/train_data.h"

#include <fmt/format.h>

#include <charconv>

#include "graft/base/error.h"
#include "graft/base/log.h"

namespace graft {
namespace {

void check_ids(const Dataset& data, int64_t vocab_size, const std::string& path) {
  GRAFT_CHECK_HINT(data.max_id() < vocab_size, "the tokenizer does not belong to this model",
                   "{}: a token has id {}, but the model's vocab_size is {}", path, data.max_id(), vocab_size);
}

// Reads one file, rows or pre-tokenised, as training data.
TrainData load_file(const std::string& path, bool pretokenised, const RowEncoder& encoder, int64_t vocab_size,
                    int64_t ignore_index, ThreadPool& pool) {
  TrainData out;
  out.pretokenised = pretokenised;
  if (pretokenised) {
    out.train = read_pretokenised(path, vocab_size, ignore_index);
    const int64_t max_length = encoder.settings().max_length;
    GRAFT_CHECK(max_length == 0 || out.train.longest() <= max_length, "{}: rows have {} tokens, max_length is {}", path,
                out.train.longest(), max_length);
    out.num_rows = out.train.size();
    out.num_tokens = out.train.num_tokens();
    out.num_trained_tokens = out.train.num_trained_tokens();
    out.longest = out.train.longest();
    return out;
  }
  EncodedData rows = load_rows(path, encoder, pool);
  check_ids(rows.data, vocab_size, path);
  out.train = std::move(rows.data);
  out.chat = rows.chat;
  out.num_rows = rows.num_rows;
  out.num_tokens = rows.num_tokens;
  out.num_trained_tokens = rows.num_trained_tokens;
  out.longest = rows.longest;
  return out;
}

}  // namespace

EncodeSettings encode_settings(const TrainConfig& c) { return {c.loss_on, c.too_long, c.max_length, c.template_arg}; }

TrainData load_train_data(const TrainConfig& config, const RowEncoder& encoder, int64_t vocab_size, ThreadPool& pool) {
  const DataPaths paths = find_data(config.data);
  const bool share = config.valid.ends_with('%');
  std::string valid = share ? std::string() : config.valid;
  if (config.valid.empty()) valid = paths.valid;
  bool valid_pretokenised = false;
  if (!valid.empty()) {
    const DataPaths valid_paths = find_data(valid);
    valid_pretokenised = valid_paths.pretokenised;
    valid = valid_paths.train;
  }
  GRAFT_CHECK_HINT(config.early_stop == 0 || share || !valid.empty(), "give --valid FILE or --valid 5%",
                   "early_stop is {}, but there is no validation data", config.early_stop);

  TrainData out;
  std::string faults, hint;
  const auto guarded = [&](auto load) {  // what is wrong with either file is told in one go
    try {
      load();
    } catch (const Error& error) {
      faults += (faults.empty() ? "" : "\n") + std::string(error.what());
      if (hint.empty()) hint = error.hint();
    }
  };
  guarded([&] { out = load_file(paths.train, paths.pretokenised, encoder, vocab_size, config.ignore_index, pool); });
  if (!valid.empty()) {
    guarded([&] {
      out.valid = load_file(valid, valid_pretokenised, encoder, vocab_size, config.ignore_index, pool).train;
    });
  }
  if (!faults.empty()) throw Error(faults, hint);
  if (share) {
    double percent = 0;
    std::from_chars(config.valid.data(), config.valid.data() + config.valid.size() - 1, percent);
    auto [train, held_back] = split_dataset(out.train, percent / 100, static_cast<uint64_t>(config.seed));
    out.train = std::move(train);
    out.valid = std::move(held_back);
  }
  return out;
}

TrainData load_eval_data(const std::string& data, const RowEncoder& encoder, int64_t vocab_size, int64_t ignore_index,
                         ThreadPool& pool) {
  const DataPaths paths = find_data(data);
  return load_file(paths.train, paths.pretokenised, encoder, vocab_size, ignore_index, pool);
}

}  // namespace graft
