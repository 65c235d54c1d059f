#include "graft/text/token_decoder.h"

#include <functional>

#include "graft/text/normalizer.h"
#include "graft/text/pattern.h"
#include "graft/text/pre_tokenizer.h"
#include "graft/text/unicode.h"

namespace graft {
namespace {

using Tokens = std::vector<std::string>;

constexpr std::string_view kReplacement = "\uFFFD";

// A token of visible byte characters is those bytes; one with any other character (an added token) is its own text.
void decode_byte_level(Tokens& tokens) {
  std::string bytes;
  for (const std::string& token : tokens) {
    const size_t before = bytes.size();
    for (size_t i = 0; i < token.size();) {
      const DecodedChar c = decode_utf8(token, i);
      const int byte = byte_level_byte(c.code);
      if (byte < 0) {
        bytes.resize(before);
        bytes += token;
        break;
      }
      bytes += static_cast<char>(byte);
      i += c.length;
    }
  }
  tokens.assign(1, utf8_lossy(bytes));
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// <0xNN>, or -1.
int fallback_byte(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const int high = hex_digit(token[3]), low = hex_digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

// Runs of <0xNN> become text, or one U+FFFD per byte if they are not UTF-8.
void decode_byte_fallback(Tokens& tokens) {
  Tokens out;
  std::string bytes;
  const auto flush = [&] {
    if (bytes.empty()) return;
    if (find_invalid_utf8(bytes) == std::string_view::npos) {
      out.push_back(bytes);
    } else {
      for (size_t i = 0; i < bytes.size(); ++i) out.emplace_back(kReplacement);
    }
    bytes.clear();
  };
  for (std::string& token : tokens) {
    if (const int byte = fallback_byte(token); byte >= 0) {
      bytes += static_cast<char>(byte);
    } else {
      flush();
      out.push_back(std::move(token));
    }
  }
  flush();
  tokens = std::move(out);
}

void fuse(Tokens& tokens) {
  std::string joined;
  for (const std::string& token : tokens) joined += token;
  tokens.assign(1, std::move(joined));
}

void replace(Tokens& tokens, const Pattern& pattern, std::string_view content, size_t max_bytes) {
  std::vector<Match> matches;
  size_t total = 0;
  for (std::string& token : tokens) {
    matches.clear();
    pattern.find(token, matches);
    if (matches.empty() || (matches.size() == 1 && !matches[0].matched)) continue;
    std::string out;
    for (const Match& m : matches) {
      out += m.matched ? content : std::string_view(token).substr(m.begin, m.end - m.begin);
      if (total + out.size() > max_bytes) {
        fail("a decoder of tokenizer.json makes more than {} bytes of a text; no published tokenizer does that",
             max_bytes);
      }
    }
    total += out.size();
    token = std::move(out);
  }
}

// Up to `start` times `content` from the front of each token, up to `stop` from its end.
void strip(Tokens& tokens, std::string_view content, int64_t start, int64_t stop) {
  for (std::string& token : tokens) {
    std::string_view rest = token;
    for (int64_t i = 0; i < start && rest.starts_with(content); ++i) rest.remove_prefix(content.size());
    for (int64_t i = 0; i < stop && rest.ends_with(content); ++i) rest.remove_suffix(content.size());
    if (rest.size() < token.size()) token = std::string(rest);
  }
}

// ▁ is a space, and nothing at the start of the first token.
void decode_metaspace(Tokens& tokens, std::string_view mark, bool drops_first) {
  for (size_t i = 0; i < tokens.size(); ++i) {
    std::string out;
    for (size_t at = 0; at < tokens[i].size();) {
      if (std::string_view(tokens[i]).substr(at, mark.size()) == mark) {
        if (i > 0 || !drops_first) out += ' ';
        at += mark.size();
      } else {
        out += tokens[i][at++];
      }
    }
    tokens[i] = std::move(out);
  }
}

}  // namespace

struct TokenDecoder::Step {
  std::function<void(Tokens&, size_t max_bytes)> run;
};

TokenDecoder::TokenDecoder() = default;
TokenDecoder::TokenDecoder(TokenDecoder&&) noexcept = default;
TokenDecoder& TokenDecoder::operator=(TokenDecoder&&) noexcept = default;
TokenDecoder::~TokenDecoder() = default;

TokenDecoder::TokenDecoder(const std::optional<JsonField>& field) {
  if (!field) return;
  given_ = true;
  add(*field);
}

void TokenDecoder::add(const JsonField& field) {
  const std::string type = field.type();
  const auto step = [&](auto run) { steps_.push_back(std::make_unique<Step>(Step{std::move(run)})); };
  if (type == "Sequence") {
    const JsonField list = field.at("decoders");
    for (size_t i = 0; i < list.array_size(); ++i) add(list.element(i));
  } else if (type == "ByteLevel") {
    step([](Tokens& tokens, size_t) { decode_byte_level(tokens); });
  } else if (type == "ByteFallback") {
    step([](Tokens& tokens, size_t) { decode_byte_fallback(tokens); });
  } else if (type == "Fuse") {
    step([](Tokens& tokens, size_t) { fuse(tokens); });
  } else if (type == "Replace") {
    auto pattern = std::make_shared<Pattern>(Pattern::from_json(field.at("pattern")));
    step([pattern, content = field.at("content").as_string()](Tokens& tokens, size_t max_bytes) {
      replace(tokens, *pattern, content, max_bytes);
    });
  } else if (type == "Strip") {
    const std::string content = field.at("content").as_string();
    if (content.empty() || decode_utf8(content, 0).length != content.size()) {
      fail("{}: content is '{}', expected one character", field.where(), printable(content));
    }
    const int64_t start = field.at("start").as_integer(0, INT32_MAX), stop = field.at("stop").as_integer(0, INT32_MAX);
    step([=](Tokens& tokens, size_t) { strip(tokens, content, start, stop); });
  } else if (type == "Metaspace") {
    step([mark = read_replacement(field), drops = read_prepend_scheme(field) != PrependScheme::kNever](
             Tokens& tokens, size_t) { decode_metaspace(tokens, mark, drops); });
  } else if (type == "BPEDecoder") {
    const std::string suffix = field.string_or("suffix", "</w>");
    if (suffix.empty()) fail("{}: suffix is empty, expected at least one character", field.where());
    auto pattern = std::make_shared<Pattern>(Pattern::string(suffix));
    step([pattern](Tokens& tokens, size_t max_bytes) {
      Tokens last;
      if (tokens.empty()) return;
      last.push_back(std::move(tokens.back()));
      tokens.pop_back();
      replace(tokens, *pattern, " ", max_bytes);
      replace(last, *pattern, "", max_bytes);
      tokens.push_back(std::move(last[0]));
    });
  } else {
    fail_hint("graft reads ByteLevel, ByteFallback, Fuse, Replace, Strip, Metaspace, BPEDecoder and Sequence",
              "{}: decoder type '{}' is not supported", field.where(), printable(type));
  }
}

std::string TokenDecoder::decode(std::vector<std::string> tokens) const {
  if (!given_) {
    std::string out;
    for (size_t i = 0; i < tokens.size(); ++i) {
      if (i > 0) out += ' ';
      out += tokens[i];
    }
    return out;
  }
  size_t max_bytes = 4096;
  for (const std::string& token : tokens) max_bytes += 32 * token.size();
  for (const auto& step : steps_) step->run(tokens, max_bytes);
  fuse(tokens);
  return std::move(tokens[0]);
}

}  // namespace graft
