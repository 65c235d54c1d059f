#include "graft/train/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/base/log.h"
#include "graft/text/chat.h"
#include "graft/text/tokenizer_config.h"
#include "graft/train/metrics.h"

namespace graft {
namespace {

Json optional_json(const std::string& path) { return path_exists(path) ? read_json(path) : Json(); }

// One id, or a list of them.
std::vector<int64_t> token_ids(const Json& config, const char* key) {
  std::vector<int64_t> ids;
  if (!config.is_object() || !config.contains(key)) return ids;
  const Json& value = config[key];
  for (const Json& id : value.is_array() ? value : Json::array({value})) {
    if (id.is_number_integer()) ids.push_back(id.get<int64_t>());
  }
  return ids;
}

// Shorter rows are always encoded whole.
constexpr size_t kLongRowBytes = size_t{1} << 18;

// The first `bytes` of a text, less where that would split a character.
std::string_view beginning(std::string_view text, size_t bytes) {
  if (bytes >= text.size()) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0) == 0x80) --bytes;
  return text.substr(0, bytes);
}

// A text in parts is cut before the space between two ASCII letters, where no pre-tokenizer in use joins what stands on its sides.
constexpr size_t kPartBytes = size_t{1} << 20;

size_t part_end(std::string_view text, size_t begin) {
  const auto letter = [&](size_t i) {
    return (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z');
  };
  for (size_t i = begin + kPartBytes; i + 1 < text.size(); ++i) {
    if (text[i] == ' ' && letter(i - 1) && letter(i + 1)) return i;
  }
  return text.size();
}

// Does a template print what a developer message says? Those made before the role drop it or refuse it.
bool shows_developer(const ChatFormat& chat) {
  const Json messages = {{{"role", "developer"}, {"content", "probe"}}, {{"role", "user"}, {"content", "a"}}};
  try {
    return chat.render(messages).text.find("probe") != std::string::npos;
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

struct RowEncoder::Impl {
  Impl(EncodeSettings given, Tokenizer loaded) : settings(std::move(given)), tokenizer(std::move(loaded)) {}

  EncodeSettings settings;
  Tokenizer tokenizer;
  std::optional<int32_t> end;
  std::optional<ChatFormat> chat;
  Error chat_error{"the model has no chat template"};  // why there is no `chat`
  bool knows_developer = false;
  std::unique_ptr<std::once_flag> once = std::make_unique<std::once_flag>();
  mutable size_t long_row_bytes = 0;
  std::vector<int64_t> stops;

  // A text that becomes several rows may be long: it is encoded in parts, so that memory stays small.
  void encode_parts(std::string_view text, EncodedRow* out) const {
    out->ids.clear();
    for (size_t begin = 0, next = 0; begin < text.size(); begin = next) {
      next = part_end(text, begin);
      const Encoding part = tokenizer.encode(text.substr(begin, next - begin),
                                             {.parse_special_tokens = false, .continuation = begin > 0});
      size_t from = 0, to = part.ids.size();  // what the post-processor adds stands at the ends of the whole
      while (begin > 0 && from < to && part.special_mask[from] != 0) ++from;
      while (next < text.size() && from < to && part.special_mask[to - 1] != 0) --to;
      out->ids.insert(out->ids.end(), part.ids.begin() + static_cast<std::ptrdiff_t>(from),
                      part.ids.begin() + static_cast<std::ptrdiff_t>(to));
    }
  }

  void encode_text(std::string_view text, bool in_parts, EncodedRow* out) const {
    if (in_parts) {
      encode_parts(text, out);
    } else {
      out->ids = tokenizer.encode_ids(text, {.add_special_tokens = true, .parse_special_tokens = false});
    }
    if (out->ids.empty() || out->ids.back() != need_end()) out->ids.push_back(need_end());
    out->label_weights.assign(out->ids.size(), 1.0f);
  }

  void encode_completion(std::string_view before, std::string_view after, EncodedRow* out) const {
    out->ids = tokenizer.encode_ids(before, {.add_special_tokens = true, .parse_special_tokens = false});
    const size_t prompt = out->ids.size();
    const std::vector<int32_t> completion = tokenizer.encode_ids(
        after, {.add_special_tokens = false, .parse_special_tokens = false, .continuation = prompt > 0});
    out->ids.insert(out->ids.end(), completion.begin(), completion.end());
    out->ids.push_back(need_end());
    out->label_weights.assign(out->ids.size(), 1.0f);
    if (settings.loss_on != "all") std::fill_n(out->label_weights.begin(), prompt, 0.0f);
  }

  bool splits(const DataRow& row) const {
    const bool whole_file = row.line == 0 && (settings.too_long == "error" || settings.too_long == "report");
    return row.format == RowFormat::kText && settings.max_length > 1 && (settings.too_long == "split" || whole_file);
  }

  void encode_plain(const DataRow& row, EncodedRow* out) const {
    const auto encode_first = [&](size_t bytes) {
      const std::string_view prompt = beginning(row.prompt, bytes), text = beginning(row.text, bytes - prompt.size());
      if (row.format == RowFormat::kText) {
        encode_text(text, splits(row) && text.size() > kPartBytes, out);
      } else {
        encode_completion(prompt, text, out);
      }
    };
    const size_t bytes = row.prompt.size() + row.text.size();
    out->cut = false;
    if (settings.max_length > 0 && bytes > kLongRowBytes && !splits(row) && bytes > long_row()) {
      encode_first(long_row());
      out->cut = static_cast<int64_t>(out->ids.size()) > settings.max_length;
      if (out->cut) return;
    }
    encode_first(bytes);
  }

  // So many bytes hold more than max_length tokens, unless the tokenizer drops text: twice the room that max_length of the
  // longest tokens take.
  size_t long_row() const {
    std::call_once(*once, [&] {
      size_t longest = 1;
      for (int64_t id = 0; id < tokenizer.vocab_size(); ++id) {
        if (const auto token = tokenizer.id_to_token(static_cast<int32_t>(id))) {
          longest = std::max(longest, token->size());
        }
      }
      long_row_bytes = std::max(
          kLongRowBytes, 2 * longest * static_cast<size_t>(std::min<int64_t>(settings.max_length, int64_t{1} << 32)));
    });
    return long_row_bytes;
  }

  // Which messages are trained, by loss_on; weights are looked at later.
  bool learns(const DataRow& row, size_t i) const {
    const ChatRow& c = *row.chat;
    if (c.messages[i]["role"] != "assistant") return false;
    const std::string& on = settings.loss_on;
    if (on == "assistant" || on == "all") return true;
    const bool pairs = row.format == RowFormat::kCompletionMessages;
    if (pairs && on != "last") return static_cast<int64_t>(i) >= c.num_prompt_messages;
    if (on == "auto") return true;
    for (size_t k = i + 1; k < c.messages.size(); ++k) {
      if (c.messages[k]["role"] == "assistant") return false;
    }
    return true;
  }

  void encode_chat(const DataRow& row, EncodedRow* out) const {
    GRAFT_CHECK(chat, "{}", chat_error.what());
    const ChatRow& c = *row.chat;
    // OpenAI's newer name for the system role, under templates made before it.
    Json renamed;
    for (size_t i = 0; i < c.messages.size() && !knows_developer; ++i) {
      if (c.messages[i]["role"] != "developer") continue;
      if (renamed.is_null()) renamed = c.messages;
      renamed[i]["role"] = "system";
    }
    const Json& messages = renamed.is_null() ? c.messages : renamed;
    const bool all = settings.loss_on == "all";
    std::vector<uint8_t> wanted(messages.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      // Under "all" only messages of another weight than the rest need their place.
      wanted[i] = learns(row, i) && (all ? c.weights[i] != 1.0f : c.weights[i] > 0);
    }
    ChatOptions options;
    options.tools = c.tools;
    options.variables = c.template_args;
    const ChatTokens tokens = ChatFormat::encode(tokenizer, chat->render_answers(messages, options, tokenizer, wanted));
    out->ids = tokens.ids;
    out->label_weights.assign(tokens.ids.size(), all ? 1.0f : 0.0f);
    for (size_t t = 0; t < tokens.ids.size(); ++t) {
      if (tokens.message[t] >= 0) out->label_weights[t] = c.weights[static_cast<size_t>(tokens.message[t])];
    }
  }

  int32_t need_end() const {
    GRAFT_CHECK_HINT(end, "add eos_token to tokenizer_config.json",
                     "the model has no end token: neither eos_token nor eos_token_id is set");
    return *end;
  }
};

RowEncoder::RowEncoder(const std::string& folder, const EncodeSettings& settings) {
  const TokenizerConfig config = load_tokenizer_config(folder);
  impl_ = std::make_unique<Impl>(settings, Tokenizer::load(folder));
  Impl& m = *impl_;
  const Json generation = optional_json(folder + "/generation_config.json"),
             model = optional_json(folder + "/config.json");
  m.stops = token_ids(generation, "eos_token_id");
  if (m.stops.empty()) m.stops = token_ids(model, "eos_token_id");
  if (config.eos_token) {
    m.end = m.tokenizer.token_to_id(*config.eos_token);
    GRAFT_CHECK(m.end, "{}/tokenizer_config.json: eos_token '{}' is not a token of tokenizer.json", folder,
                printable(*config.eos_token));
  } else if (!m.stops.empty()) {
    GRAFT_CHECK(m.stops[0] >= 0 && m.stops[0] < int64_t{1} << 31, "{}: eos_token_id is {}, expected a token id", folder,
                m.stops[0]);
    m.end = static_cast<int32_t>(m.stops[0]);
  }
  try {
    // A template that does not load is no fault of data that need none.
    m.chat = ChatFormat::load(folder);
    m.knows_developer = shows_developer(*m.chat);
  } catch (const Error& error) {
    m.chat_error = error;
  }
  if (m.chat) m.chat->set_template_args(settings.template_args);
  if (m.settings.max_length == 0) {
    if (model.is_object() && model.contains("max_position_embeddings") &&
        model["max_position_embeddings"].is_number_integer()) {
      m.settings.max_length = std::max<int64_t>(model["max_position_embeddings"].get<int64_t>(), 0);
    } else {
      m.settings.max_length = config.model_max_length.value_or(0);
    }
  }
}

RowEncoder::~RowEncoder() = default;
RowEncoder::RowEncoder(RowEncoder&&) noexcept = default;
RowEncoder& RowEncoder::operator=(RowEncoder&&) noexcept = default;

const Tokenizer& RowEncoder::tokenizer() const { return impl_->tokenizer; }
const EncodeSettings& RowEncoder::settings() const { return impl_->settings; }
std::optional<int32_t> RowEncoder::end_token() const { return impl_->end; }
bool RowEncoder::reads_clock() const { return impl_->chat && impl_->chat->reads_clock(); }

bool RowEncoder::splits(const DataRow& row) const { return impl_->splits(row); }

bool RowEncoder::ends(int32_t id) const {
  return impl_->end == id || std::find(impl_->stops.begin(), impl_->stops.end(), id) != impl_->stops.end();
}

std::optional<Error> RowEncoder::format_fault(RowFormat format) const {
  const std::string& loss_on = impl_->settings.loss_on;
  if (format == RowFormat::kText && loss_on != "auto" && loss_on != "all") {
    return Error(fmt::format("loss_on is {}, but text rows have no {}; expected auto or all", loss_on,
                             loss_on == "completion" ? "completion" : "assistant"),
                 "give another --loss-on");
  }
  if (is_chat(format) && !impl_->chat) return impl_->chat_error;
  return {};
}

void RowEncoder::encode(const DataRow& row, EncodedRow* out) const {
  if (is_chat(row.format)) {
    impl_->encode_chat(row, out);
  } else {
    impl_->encode_plain(row, out);
  }
  if (!out->label_weights.empty()) out->label_weights[0] = 0;  // nothing comes before it
}

namespace {

// Why nothing of a row is trained, in the row's own words; empty where that is what the row says (an empty text).
std::string untrained_reason(const DataRow& row, const EncodedRow& encoded, int64_t kept) {
  if (kept < static_cast<int64_t>(encoded.ids.size())) {
    return fmt::format("no token to train on is left after the first {}: the prompt alone fills them", kept);
  }
  if (row.chat) {
    bool assistant = false, weighted = false;
    for (size_t i = 0; i < row.chat->messages.size(); ++i) {
      if (row.chat->messages[i]["role"] != "assistant") continue;
      assistant = true;
      weighted |= row.chat->weights[i] > 0;
    }
    if (!assistant) return "no token to train on: the row has no assistant message";
    if (!weighted) return "no token to train on: every assistant message has weight 0";
    return "no token to train on: the template shows nothing of what the assistant wrote";
  }
  return row.text.empty() && row.prompt.empty() ? std::string() : "no token to train on";
}

std::string too_long_text(int64_t length, bool cut, int64_t max_length) {
  return fmt::format("the row has {}{} tokens, max_length is {}", cut ? "more than " : "", length, max_length);
}

struct Outcome {
  EncodedRow row;
  std::string error, hint;
};

}  // namespace

EncodedData encode_rows(const DataRows& rows, const RowEncoder& encoder, ThreadPool& pool) {
  constexpr int64_t kBlock = 512;  // rows in flight: bounds memory, long enough for all threads
  const EncodeSettings& settings = encoder.settings();
  EncodedData out;
  out.faults = rows.faults;
  out.num_rows = static_cast<int64_t>(rows.rows.size());
  for (const DataFile& file : rows.files) {
    out.data.add_file(file.path);
    out.chat |= file.num_rows > 0 && is_chat(file.format);
    if (const auto fault = encoder.format_fault(file.format); file.num_rows > 0 && fault) {
      out.faults.add({file.path, fault->what(), fault->hint()});
      return out;
    }
  }
  const auto num_rows = static_cast<int64_t>(rows.rows.size());
  out.lengths.reserve(rows.rows.size());
  std::vector<Outcome> block(static_cast<size_t>(std::min(kBlock, num_rows)));
  for (int64_t begin = 0; begin < num_rows; begin += kBlock) {
    const int64_t n = std::min(kBlock, num_rows - begin);
    pool.parallel(n, [&](int64_t i, int) {
      Outcome& o = block[static_cast<size_t>(i)];
      o.error.clear();
      o.hint.clear();
      o.row.ids.clear();
      o.row.label_weights.clear();
      try {
        encoder.encode(rows.rows[static_cast<size_t>(begin + i)], &o.row);
      } catch (const Error& error) {
        o.error = error.what();
        o.hint = error.hint();
      } catch (const std::exception& error) {
        o.error = error.what();
      }
    });
    for (int64_t i = 0; i < n; ++i) {
      Outcome& o = block[static_cast<size_t>(i)];
      const DataRow& row = rows.rows[static_cast<size_t>(begin + i)];
      const auto length = static_cast<int64_t>(o.row.ids.size());
      const auto fault = [&](std::string what, std::string hint, bool fatal) {
        out.faults.add({rows.where(row), std::move(what), std::move(hint), fatal});
      };
      if (!o.error.empty()) {
        fault(o.error, o.hint, true);
        continue;
      }
      auto& weights = o.row.label_weights;
      out.num_tokens += length;
      out.num_trained_tokens += std::count_if(weights.begin(), weights.end(), [](float w) { return w > 0; });
      const bool split = encoder.splits(row) && length > settings.max_length;
      out.longest = std::max(out.longest, split ? settings.max_length : length);
      int64_t kept = length;
      if (settings.max_length > 0 && length > settings.max_length && !split) {
        ++out.num_too_long;
        const std::string what = too_long_text(length, o.row.cut, settings.max_length);
        if (settings.too_long == "error" || settings.too_long == "split") {  // only texts can be split
          fault(what, "give a larger --max-length, or --too-long truncate or drop", true);
          continue;
        }
        if (settings.too_long == "drop") {
          ++out.num_dropped;
          continue;
        }
        if (settings.too_long == "report") {
          if (out.too_long_rows.size() < DataFaults::kMaxKept) out.too_long_rows.emplace_back(begin + i, what);
          if (o.row.cut) continue;
        } else {
          ++out.num_truncated;
          kept = settings.max_length;
        }
      }
      // From "the weight of learning token t" to "the weight of what position t predicts".
      std::rotate(weights.begin(), weights.begin() + (weights.empty() ? 0 : 1), weights.end());
      // Tokens [from, to) as an example of its own; false if none of them is trained.
      const auto add = [&](int64_t from, int64_t to, int64_t number) {
        if (from == to) return false;
        bool trains = false, ends = false;
        for (int64_t t = from; t + 1 < to; ++t) {
          const bool trained = weights[static_cast<size_t>(t)] > 0;
          trains |= trained;
          ends |= trained && encoder.ends(o.row.ids[static_cast<size_t>(t + 1)]);
        }
        if (!trains) return false;
        const float last = std::exchange(weights[static_cast<size_t>(to - 1)], 0.0f);
        const auto at = static_cast<size_t>(from), size = static_cast<size_t>(to - from);
        out.data.add(std::span(o.row.ids).subspan(at, size), std::span(weights).subspan(at, size), number, row.file,
                     row.line);
        weights[static_cast<size_t>(to - 1)] = last;
        out.num_ending += ends;
        return true;
      };
      if (split) {
        // The last token of a piece is the first of the next, so that every token of the text is learned once.
        for (int64_t from = 0; from + 1 < length; from += settings.max_length - 1) {
          const int64_t to = std::min(length, from + settings.max_length);
          if (from > 0) ++out.num_rows;
          add(from, to, begin + i + out.num_rows - num_rows);
          out.lengths.push_back(to - from);
        }
        continue;
      }
      out.lengths.push_back(length);
      if (!add(0, kept, begin + i + out.num_rows - num_rows)) {
        ++out.num_untrained;
        if (std::string why = untrained_reason(row, o.row, kept); !why.empty()) fault(std::move(why), {}, false);
      }
    }
  }
  if (out.faults.num_fatal == 0 && out.data.empty()) {
    out.faults.add(
        {rows.files.empty() ? std::string() : rows.files[0].path,
         num_rows == 0 ? "no rows" : fmt::format("nothing to train on: no token of its {} rows is trained", num_rows),
         {}});
  }
  return out;
}

void log_data_warnings(const EncodedData& out, const std::string& path, const EncodeSettings& settings) {
  constexpr int kMaxShown = 10;
  int shown = 0;
  for (const DataFault& fault : out.faults.kept) {
    if (fault.fatal) continue;
    if (++shown > kMaxShown) break;
    log_warning("{}: {}", fault.where, fault.what);
  }
  if (out.faults.num_warnings > kMaxShown) {
    log_warning("{}: {} more warnings", path, out.faults.num_warnings - kMaxShown);
  }
  if (out.num_truncated > 0) {
    log_warning("{}: {} longer than {} tokens cut off there", path, rows_text(out.num_truncated), settings.max_length);
  }
  if (out.num_dropped > 0) {
    log_warning("{}: {} longer than {} tokens dropped", path, rows_text(out.num_dropped), settings.max_length);
  }
}

EncodedData load_rows(const std::string& path, const RowEncoder& encoder, ThreadPool& pool) {
  EncodedData out = encode_rows(read_data_rows(path), encoder, pool);
  out.faults.throw_if_fatal(path);
  log_data_warnings(out, path, encoder.settings());
  return out;
}

}  // namespace graft
