#include "graft/train/data_check.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>
#include <unordered_map>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/log.h"
#include "graft/formats/model_config.h"
#include "graft/train/metrics.h"

namespace graft {
namespace {

constexpr size_t kMaxShownTokens = 2000;

// Content as 128 bits: two hashes of the same text with different starts.
struct ContentKey {
  uint64_t a, b;
  bool operator==(const ContentKey&) const = default;
};
struct KeyHash {
  size_t operator()(const ContentKey& key) const { return static_cast<size_t>(key.a ^ (key.b << 1)); }
};

// Takes parts one after the other, each with its length, so that "a" + "bc" is not "ab" + "c".
struct ContentHash {
  ContentKey key{0xCBF29CE484222325u, 0x9E3779B97F4A7C15u};
  void add(std::string_view text) {
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      key.a = (key.a ^ byte) * 0x100000001B3u;
      key.b = (key.b ^ byte) * 0xD6E8FEB86659FD93u;
      key.b ^= key.b >> 29;
    }
    const uint64_t size = text.size() + 0x100;
    key.a = (key.a ^ size) * 0x100000001B3u;
    key.b = (key.b ^ size) * 0xD6E8FEB86659FD93u;
  }
};

ContentKey content_key(const DataRow& row) {
  ContentHash hash;
  hash.add(row_format_name(row.format));
  hash.add(row.prompt);
  hash.add(row.text);
  if (row.chat) {
    hash.add(row.chat->messages.dump());
    hash.add(row.chat->tools.dump());
    hash.add(row.chat->template_args.dump());
    hash.add(fmt::format("{}|{}", row.chat->num_prompt_messages, fmt::join(row.chat->weights, ",")));
  }
  return hash.key;
}

void count_duplicates(const DataRows& rows, FileCheck* file) {
  std::unordered_map<ContentKey, size_t, KeyHash> seen;
  seen.reserve(rows.rows.size());
  for (size_t i = 0; i < rows.rows.size(); ++i) {
    const auto [at, is_new] = seen.emplace(content_key(rows.rows[i]), i);
    if (is_new) continue;
    if (file->num_duplicates++ == 0) {
      file->first_duplicate = fmt::format("{} repeats {}", rows.where(rows.rows[i]), rows.where(rows.rows[at->second]));
    }
  }
}

void append(DataFaults* to, DataFaults&& from) {
  to->num_fatal += from.num_fatal;
  to->num_warnings += from.num_warnings;
  for (DataFault& fault : from.kept) {
    if (to->kept.size() < DataFaults::kMaxKept) to->kept.push_back(std::move(fault));
  }
}

void set_lengths(std::vector<int64_t> lengths, FileCheck* file) {
  if (lengths.empty()) return;
  std::sort(lengths.begin(), lengths.end());
  file->shortest = lengths.front();
  file->median = lengths[lengths.size() / 2];
  file->longest = lengths.back();
}

void check_rows(const std::string& path, const RowEncoder& encoder, bool too_long_fails, int64_t num_shown,
                ThreadPool& pool, DataCheck* check) {
  FileCheck& file = check->files.emplace_back();
  file.path = path;
  DataRows rows;
  try {
    rows = read_data_rows(path);
  } catch (const Error& error) {
    check->faults.add({path, error.what(), error.hint()});
    return;
  }
  if (!rows.rows.empty()) file.format = row_format_name(rows.files[0].format);
  count_duplicates(rows, &file);
  EncodedData encoded = encode_rows(rows, encoder, pool);
  file.num_rows = encoded.num_rows;
  file.num_tokens = encoded.num_tokens;
  file.num_trained_tokens = encoded.num_trained_tokens;
  file.num_too_long = encoded.num_too_long;
  file.num_untrained = encoded.num_untrained;
  file.num_ending = encoded.num_ending;
  set_lengths(encoded.lengths, &file);
  // Whether such a row stops a run is up to --too-long: a fault where it is said to be an error, else a warning. Where not a single row fits, the
  // limit is at fault and not the rows: that is said once.
  const bool all = encoded.num_too_long == encoded.num_rows && encoded.num_rows > 1;
  const char* const hint = "train with a larger --max-length, or --too-long truncate or drop";
  if (!all) {
    for (auto& [i, what] : encoded.too_long_rows) {
      encoded.faults.add({rows.where(rows.rows[static_cast<size_t>(i)]), std::move(what), hint, too_long_fails});
    }
  } else if (too_long_fails) {
    encoded.faults.add(
        {path,
         fmt::format("all {} are longer than {} tokens", rows_text(encoded.num_rows), encoder.settings().max_length),
         hint});
  }
  log_data_warnings(encoded, path, encoder.settings());
  if (check->files.size() == 1) {
    check->chat = encoded.chat;
    for (int64_t i = 0; i < std::min(num_shown, encoded.data.size()); ++i) {
      check->shown.push_back(show_row(encoded.data, i, &encoder.tokenizer()));
    }
  }
  append(&check->faults, std::move(encoded.faults));
}

// Needs no tokenizer; with one, rows are shown as text.
void check_pretokenised(const std::string& path, const std::string& model, const EncodeSettings& settings,
                        int64_t num_shown, DataCheck* check) {
  FileCheck& file = check->files.emplace_back();
  file.path = path;
  file.format = "pre-tokenised";
  std::optional<Tokenizer> tokenizer;
  if (path_exists(model + "/tokenizer.json")) tokenizer = Tokenizer::load(model);
  GRAFT_CHECK_HINT(tokenizer || path_exists(model + "/config.json"), "give a Hugging Face model folder",
                   "{}: there is neither config.json nor tokenizer.json", model);
  int64_t vocab_size = tokenizer ? tokenizer->vocab_size() : 0;
  check->max_length = settings.max_length;
  if (path_exists(model + "/config.json")) {
    const ModelConfig config = load_model_config(model);
    vocab_size = config.vocab_size;
    if (check->max_length == 0) check->max_length = config.max_position_embeddings;
  }
  try {
    const Dataset data = read_pretokenised(path, vocab_size, -100);
    file.num_rows = data.size();
    file.num_tokens = data.num_tokens();
    file.num_trained_tokens = data.num_trained_tokens();
    std::vector<int64_t> lengths;
    for (int64_t i = 0; i < data.size(); ++i) lengths.push_back(data.length(i));
    if (check->max_length > 0 && data.longest() > check->max_length) {
      file.num_too_long =
          std::count_if(lengths.begin(), lengths.end(), [&](int64_t n) { return n > check->max_length; });
      check->faults.add({path, fmt::format("{} longer than {} tokens", rows_text(file.num_too_long), check->max_length),
                         "cut them where they are made, or train with a larger --max-length"});
    }
    set_lengths(lengths, &file);
    for (int64_t i = 0; i < std::min(num_shown, data.size()); ++i) {
      check->shown.push_back(show_row(data, i, tokenizer ? &*tokenizer : nullptr));
    }
  } catch (const Error& error) {
    check->faults.add({path, error.what(), error.hint()});
  }
}

std::string share(int64_t part, int64_t whole) {
  return whole > 0 ? fmt::format("{:.0f} %", 100.0 * static_cast<double>(part) / static_cast<double>(whole)) : "–";
}

}  // namespace

ShownRow show_row(const Dataset& data, int64_t i, const Tokenizer* tokenizer) {
  ShownRow row;
  row.where = data.where(i);
  const Example e = data.example(i);
  row.num_tokens = static_cast<int64_t>(e.ids.size());
  row.num_trained = std::count_if(e.target_weights.begin(), e.target_weights.end(), [](float w) { return w > 0; });
  const size_t size = std::min(e.ids.size(), kMaxShownTokens);
  for (size_t begin = 0; begin < size;) {
    size_t end = begin + 1;
    while (end < size && e.trains(end) == e.trains(begin)) ++end;
    const std::vector<int32_t> ids(e.ids.begin() + static_cast<int64_t>(begin),
                                   e.ids.begin() + static_cast<int64_t>(end));
    row.pieces.emplace_back(e.trains(begin),
                            tokenizer != nullptr ? tokenizer->decode(ids) : fmt::format(" {} ", fmt::join(ids, " ")));
    begin = end;
  }
  if (size < e.ids.size()) {
    row.pieces.emplace_back(false,
                            fmt::format(" … {} more tokens", count_text(row.num_tokens - static_cast<int64_t>(size))));
  }
  return row;
}

std::string shown_row_text(const ShownRow& row, bool color) {
  std::string text =
      fmt::format("{} ({} tokens, {} trained)\n", row.where, count_text(row.num_tokens), count_text(row.num_trained));
  std::string body;
  for (const auto& [trained, piece] : row.pieces) {
    if (trained) body += color ? "\x1b[32m⟦" : "⟦";
    for (const char c : piece) {
      const auto u = static_cast<unsigned char>(c);
      // a row must not drive the terminal
      if (u < 0x20 && c != '\n' && c != '\t') {
        body += fmt::format("\\x{:02x}", u);
      } else {
        body += c;
      }
    }
    if (trained) body += color ? "⟧\x1b[0m" : "⟧";
  }
  text += "  ";
  for (const char c : body) {
    text += c;
    if (c == '\n') text += "  ";
  }
  return text + "\n";
}

Json DataCheck::to_json() const {
  const FileCheck none;
  const FileCheck& f = files.empty() ? none : files[0];
  const auto list = [&](bool fatal) {
    Json out = Json::array();
    for (const DataFault& fault : faults.kept) {
      if (fault.fatal == fatal) out.push_back({{"where", fault.where}, {"what", fault.what}, {"hint", fault.hint}});
    }
    return out;
  };
  Json json = {{"rows", f.num_rows},
               {"tokens", f.num_tokens},
               {"trained_tokens", f.num_trained_tokens},
               {"longest", f.longest},
               {"faults", list(true)},
               {"duplicates", f.num_duplicates},
               {"num_faults", faults.num_fatal},
               {"warnings", list(false)},
               {"format", f.format},
               {"median", f.median},
               {"max_length", max_length},
               {"too_long", f.num_too_long},
               {"untrained_rows", f.num_untrained},
               {"end_token", end_token},
               {"end_token_trained", f.num_ending}};
  if (files.size() > 1) {
    json["valid"] = {{"rows", files[1].num_rows},
                     {"tokens", files[1].num_tokens},
                     {"trained_tokens", files[1].num_trained_tokens},
                     {"longest", files[1].longest}};
  }
  return json;
}

std::string DataCheck::text(bool color) const {
  std::string out;
  for (const FileCheck& f : files) {
    out += fmt::format("{}: {}{}\n", f.path, rows_text(f.num_rows), f.format.empty() ? "" : ", " + f.format);
    if (f.num_rows == 0) continue;
    out += fmt::format("  tokens      {}, {} trained ({})\n", count_text(f.num_tokens),
                       count_text(f.num_trained_tokens), share(f.num_trained_tokens, f.num_tokens));
    out += fmt::format("  length      shortest {}, median {}, longest {}{}\n", count_text(f.shortest),
                       count_text(f.median), count_text(f.longest),
                       max_length > 0 ? fmt::format("; the limit is {}", count_text(max_length)) : "");
    if (f.num_too_long > 0) {
      out += fmt::format("  too long    {}: train with a larger --max-length, or --too-long truncate or drop\n",
                         f.num_too_long == f.num_rows ? "all rows" : rows_text(f.num_too_long));
    }
    if (f.num_untrained > 0) {
      out += fmt::format("  untrained   {} without a token to train on\n", rows_text(f.num_untrained));
    }
    if (f.format != "pre-tokenised") {
      out += fmt::format("  end token   {}\n", end_token.empty() ? std::string("the model has none")
                                               : f.num_ending == f.num_rows
                                                   ? fmt::format("{} is trained in every row", end_token)
                                                   : fmt::format("{} is trained in {} of {} rows", end_token,
                                                                 count_text(f.num_ending), count_text(f.num_rows)));
      out += fmt::format("  duplicates  {}\n",
                         f.num_duplicates == 0 ? std::string("none")
                                               : fmt::format("{}; {}", rows_text(f.num_duplicates), f.first_duplicate));
    }
  }
  for (const ShownRow& row : shown) out += "\n" + shown_row_text(row, color);
  if (faults.num_fatal > 0) {
    out += fmt::format("\n{} {}:\n", count_text(faults.num_fatal), faults.num_fatal == 1 ? "fault" : "faults");
    std::string hint;  // stands once, below the faults that share it
    for (const DataFault& fault : faults.kept) {
      if (!fault.fatal) continue;
      if (fault.hint != hint && !hint.empty()) out += fmt::format("    hint: {}\n", hint);
      hint = fault.hint;
      out += fmt::format("  {}: {}\n", fault.where, fault.what);
    }
    if (!hint.empty()) out += fmt::format("    hint: {}\n", hint);
  }
  return out;
}

DataCheck check_data(const std::string& data, const std::string& model, const EncodeSettings& settings,
                     int64_t num_shown, ThreadPool& pool) {
  const DataPaths paths = find_data(data);
  DataCheck check;
  std::optional<RowEncoder> encoder;  // made where rows ask for it
  const auto rows = [&](const std::string& path, int64_t shown) {
    if (!encoder) {
      EncodeSettings as_told = settings;
      if (as_told.too_long == "error") as_told.too_long = "report";
      encoder.emplace(model, as_told);
      check.max_length = encoder->settings().max_length;
      if (encoder->end_token()) check.end_token = encoder->tokenizer().id_to_token(*encoder->end_token()).value_or("");
    }
    check_rows(path, *encoder, settings.too_long == "error", shown, pool, &check);
  };
  if (paths.pretokenised) {
    check_pretokenised(paths.train, model, settings, num_shown, &check);
  } else {
    rows(paths.train, num_shown);
  }
  if (!paths.valid.empty()) rows(paths.valid, 0);
  return check;
}

}  // namespace graft
