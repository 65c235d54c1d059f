#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "graft/base/json.h"
#include "graft/base/thread_pool.h"
#include "graft/train/encode.h"

namespace graft {

// A row as a person reads it: its text in pieces that are trained or not.
struct ShownRow {
  std::string where;
  int64_t num_tokens = 0, num_trained = 0;
  std::vector<std::pair<bool, std::string>> pieces;  // trained?, text
};
ShownRow show_row(const Dataset& data, int64_t i, const Tokenizer* tokenizer);  // null: ids instead of text
// "train.jsonl:1 (58 tokens, 12 trained)" and the text under it, the trained part between ⟦ and ⟧, in colour too if wanted.
std::string shown_row_text(const ShownRow& row, bool color);

// One data file, looked at.
struct FileCheck {
  std::string path, format;  // "prompt-completion", …; "pre-tokenised"
  int64_t num_rows = 0, num_tokens = 0, num_trained_tokens = 0;
  int64_t shortest = 0, median = 0, longest = 0;  // rows in tokens
  int64_t num_too_long = 0, num_untrained = 0, num_ending = 0, num_duplicates = 0;
  std::string first_duplicate;  // "train.jsonl:7 repeats train.jsonl:2"
};

// What `graft data check` tells.
struct DataCheck {
  std::vector<FileCheck> files;  // training data, then valid.jsonl of a folder
  DataFaults faults;             // fatal ones: training would fail
  std::vector<ShownRow> shown;
  std::string end_token;  // its text; empty if the model has none
  int64_t max_length = 0;
  bool chat = false;
  bool passes() const { return faults.num_fatal == 0; }
  // {"rows", "tokens", "trained_tokens", "longest", "faults": [{"where", "what", "hint"}], "duplicates", …} of the training data.
  Json to_json() const;
  std::string text(bool color) const;
};

// Reads and encodes all of DATA as `graft train` would. Rows beyond max_length: settings.too_long "error" makes them faults, "report"
// warnings, "truncate" and "drop" what train makes of them. Pre-tokenised data needs no tokenizer (rows are shown as ids then). What is
// wrong with the data becomes faults; Error only for what is wrong with the model folder or where no data can be found. Warnings go to
// the log too.
DataCheck check_data(const std::string& data, const std::string& model, const EncodeSettings& settings,
                     int64_t num_shown, ThreadPool& pool);

}  // namespace graft
