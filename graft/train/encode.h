#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/thread_pool.h"
#include "graft/text/tokenizer.h"
#include "graft/train/dataset.h"
#include "graft/train/rows.h"

namespace graft {

// What decides how a row becomes tokens (fields of TrainConfig).
struct EncodeSettings {
  std::string loss_on = "auto";                 // auto | completion | assistant | last | all
  std::string too_long = "error";               // error | truncate | drop | split; "report": of data check
  int64_t max_length = 0;                       // 0: the model's maximum
  std::vector<std::string> template_args = {};  // K=V
};

// One row as tokens. label_weights[t] is the weight of learning token t from those before it; the first is 0.
struct EncodedRow {
  std::vector<int32_t> ids;
  std::vector<float> label_weights;
  bool cut = false;  // only the beginning was encoded: it alone is beyond max_length
};

// A model folder's tokenizer, end token and chat template, and what `graft train` makes of a row with them:
//   text               post-processor, then the end token unless it is there; all tokens are trained
//   prompt, completion prompt as `generate --raw` encodes it, completion as its continuation, end token; the completion
//   is
//                      trained, its end token included; no template
//   conversations      the chat template, which alone decides the end; what the assistant wrote is trained, each
//   message by
//                      its weight
// Text of rows never becomes a special token. Of a text or completion so long that its beginning alone is beyond max_length
// no more than that beginning is encoded, so that one monstrous line costs no memory. Safe to share between threads.
class RowEncoder {
 public:
  // `folder`: tokenizer.json, and what it has of tokenizer_config.json, generation_config.json, config.json,
  // chat_template.jinja.
  RowEncoder(const std::string& folder, const EncodeSettings& settings);
  ~RowEncoder();
  RowEncoder(RowEncoder&&) noexcept;
  RowEncoder& operator=(RowEncoder&&) noexcept;

  // Throws Error: no end token where one is needed, no chat template, the template refuses the conversation.
  void encode(const DataRow& row, EncodedRow* out) const;
  // A row that becomes several where it is beyond max_length: a text under too_long "split", and a .txt file, which has no rows that could be
  // too long, unless it is to be cut or left out. Each piece begins with the last token of the one before, so that every token is learned once.
  bool splits(const DataRow& row) const;
  // Why rows of a format cannot be encoded at all, whatever they say (no chat template, a loss_on that they cannot have).
  std::optional<Error> format_fault(RowFormat format) const;

  const Tokenizer& tokenizer() const;
  const EncodeSettings& settings() const;  // with max_length resolved; 0 if the model has no maximum
  // eos_token of tokenizer_config.json, else the first eos_token_id of generation_config.json, else of config.json.
  std::optional<int32_t> end_token() const;
  // The template shows the date, so that rows made on another day differ.
  bool reads_clock() const;
  bool ends(int32_t id) const;  // the end token, or another that stops generation

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// What became of all rows.
struct EncodedData {
  Dataset data;                                                  // rows with a trained token, as they will be trained
  DataFaults faults;                                             // what reading found, then what encoding found
  int64_t num_rows = 0;                                          // read; the pieces of a split text each count
  int64_t num_too_long = 0, num_truncated = 0, num_dropped = 0;  // beyond max_length; of these cut, or left out
  std::vector<std::pair<int64_t, std::string>> too_long_rows;    // the first of them and how long, under "report"
  int64_t num_untrained = 0;  // rows without a trained token: left out, with a warning
  int64_t num_ending = 0;     // rows whose end token is trained
  int64_t num_tokens = 0, num_trained_tokens = 0, longest = 0;  // over all rows, before any was cut or left out
  std::vector<int64_t> lengths;                                 // of each row, in tokens
  bool chat = false;  // the template made the rows: DIR records "chat", else "raw"
};

// Encodes rows on all threads of the pool; the result depends on nothing but rows and encoder.
EncodedData encode_rows(const DataRows& rows, const RowEncoder& encoder, ThreadPool& pool);

// Tells the warnings among the faults, and how many rows were cut or left out, to the log.
void log_data_warnings(const EncodedData& data, const std::string& path, const EncodeSettings& settings);

// The way of `train` and `eval`: reads a file and encodes it; throws one Error with all that is wrong.
EncodedData load_rows(const std::string& path, const RowEncoder& encoder, ThreadPool& pool);

}  // namespace graft
