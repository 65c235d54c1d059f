#include "graft/train/train_data.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "graft/base/error.h"
#include "graft/base/log.h"
#include "graft/train/data_check.h"

namespace graft {
namespace {

class Loader {
 public:
  Loader(const TrainConfig& config, const ModelConfig& model, int64_t max_length, ThreadPool& pool)
      : config_(config), model_(model), max_length_(max_length), pool_(pool) {}

  // One file, rows or pre-tokenised.
  TrainData load(const DataPaths& paths) {
    const std::string& path = paths.train;
    TrainData out;
    if (paths.pretokenised) {
      out.train = read_pretokenised(path, model_.vocab_size, config_.ignore_index);
      GRAFT_CHECK(out.train.longest() <= max_length_, "{}: rows have {} tokens, expected at most {}", path,
                  out.train.longest(), max_length_);
      out.num_rows = out.train.size();
    } else {
      EncodedData rows = load_rows(path, encoder(), pool_);
      out.train = std::move(rows.data);
      out.chat = rows.chat;
      if (rows.chat && encoder().reads_clock() && std::getenv("SOURCE_DATE_EPOCH") == nullptr && !warned_of_clock_) {
        warned_of_clock_ = true;
        log_warning(
            "{}: the chat template names strftime_now: the date may stand in every row, and rows of another day would "
            "be other rows "
            "(--resume refuses them); set SOURCE_DATE_EPOCH to fix the date, or the template's own variable with "
            "--template-arg",
            config_.model);
      }
      out.num_rows = rows.num_rows;
    }
    GRAFT_CHECK_HINT(out.train.max_id() < model_.vocab_size, "the tokenizer does not belong to this model",
                     "{}: a token has id {}, but the model's vocab_size is {}", path, out.train.max_id(),
                     model_.vocab_size);
    return out;
  }

  const std::optional<RowEncoder>& made_encoder() const { return encoder_; }

 private:
  const RowEncoder& encoder() {
    if (!encoder_) {
      EncodeSettings settings;
      settings.loss_on = config_.loss_on;
      settings.too_long = config_.too_long;
      settings.max_length = max_length_;
      settings.template_args = config_.template_arg;
      encoder_.emplace(config_.model, settings);
      encoder_->tokenizer().check_embedding_rows(model_.vocab_size);
    }
    return *encoder_;
  }

  const TrainConfig& config_;
  const ModelConfig& model_;
  int64_t max_length_;
  ThreadPool& pool_;
  std::optional<RowEncoder> encoder_;
  bool warned_of_clock_ = false;
};

}  // namespace

TrainData load_train_data(const TrainConfig& config, const ModelConfig& model, ThreadPool& pool) {
  const int64_t limit = model.max_position_embeddings, max_length = config.max_length > 0 ? config.max_length : limit;
  GRAFT_CHECK(max_length <= limit, "max_length is {}, expected at most {}, the model's max_position_embeddings",
              max_length, limit);
  const DataPaths paths = find_data(config.data);
  const bool share = config.valid.ends_with('%');
  const std::string valid = share ? std::string() : config.valid.empty() ? paths.valid : config.valid;
  std::optional<DataPaths> valid_paths;
  if (!valid.empty()) valid_paths = find_data(valid);
  GRAFT_CHECK_HINT(config.early_stop == 0 || share || valid_paths, "give --valid FILE or --valid 5%",
                   "early_stop is {}, but there is no validation data", config.early_stop);

  Loader loader(config, model, max_length, pool);
  TrainData out;
  std::string faults, hint;
  const auto guarded = [&](auto load) {  // what is wrong with either file is told in one go
    try {
      load();
    } catch (const Error& error) {
      if (faults.find(error.what()) != std::string::npos) return;  // said of the model, not of the file
      faults += (faults.empty() ? "" : "\n") + std::string(error.what());
      if (hint.empty()) hint = error.hint();
    }
  };
  guarded([&] { out = loader.load(paths); });
  if (valid_paths) guarded([&] { out.valid = loader.load(*valid_paths).train; });
  if (!faults.empty()) throw Error(faults, hint);

  out.num_tokens = out.train.num_tokens();
  out.num_trained_tokens = out.train.num_trained_tokens();
  out.longest = out.train.longest();
  out.max_length = max_length;
  if (const auto& encoder = loader.made_encoder()) {
    for (int64_t i = 0; i < std::min<int64_t>(2, out.train.size()); ++i) {
      out.previews.push_back(shown_row_text(show_row(out.train, i, &encoder->tokenizer()), /*color=*/false));
    }
  }
  if (share) {
    double percent = 0;
    std::from_chars(config.valid.data(), config.valid.data() + config.valid.size() - 1, percent);
    auto [train, held_back] = split_dataset(out.train, percent / 100, static_cast<uint64_t>(config.seed));
    out.train = std::move(train);
    out.valid = std::move(held_back);
  }
  return out;
}

}  // namespace graft
