#include "graft/text/tokenizer.h"

#include <algorithm>
#include <deque>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/base/log.h"
#include "graft/text/added_tokens.h"
#include "graft/text/bpe.h"
#include "graft/text/normalizer.h"
#include "graft/text/post_processor.h"
#include "graft/text/pre_tokenizer.h"
#include "graft/text/token_decoder.h"
#include "graft/text/tokenizer_config.h"
#include "graft/text/unicode.h"

namespace graft {

struct Tokenizer::Impl {
  explicit Impl(const JsonField& root, const TokenizerConfig& config);

  void read_added_tokens(const JsonField& root, const TokenizerConfig& config);
  void add_token(AddedToken token, const std::string& where);
  std::optional<std::string_view> token(int32_t id) const;
  std::optional<int32_t> id_of(std::string_view token) const;
  PostProcessor::TokenOfId tokens() const {
    return [this](int32_t id) { return token(id); };
  }

  TextEncoding encode(std::string_view text, const EncodeOptions& options) const;
  void encode_section(std::string_view text, size_t begin, const EncodeOptions& options, TextEncoding& out) const;
  void encode_pieces(AlignedText& text, size_t begin, size_t end, bool skip_prefix, TextEncoding& out) const;
  void put(TextEncoding& out, int32_t id, Span span, std::string_view written) const {
    out.encoding.ids.push_back(id);
    out.encoding.byte_offsets.emplace_back(span.begin, span.end);
    if (trims_spaces) out.spaces.push_back(count_edge_spaces(written));
  }

  std::string file;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::optional<Bpe> model;
  PostProcessor post_processor;
  TokenDecoder decoder;
  AddedTokens added;
  int32_t max_id = -1;
  bool trims_spaces = false;
};

namespace {

Bpe read_model(const JsonField& model) {
  const auto type = model.find("type");
  // Files from before 0.8 have no type; merges tell BPE.
  const std::string name = type ? type->as_string() : model.find("merges") ? "BPE" : "";
  if (name.empty()) fail("{}: 'type' is missing", model.where());
  if (name != "BPE") {
    const bool known = name == "WordPiece" || name == "Unigram" || name == "WordLevel";
    fail_hint("graft reads byte-level BPE and SentencePiece-style BPE", "{}: model type '{}' is not supported{}",
              model.where(), printable(name), known ? " yet" : "");
  }
  return Bpe(model);
}

}  // namespace

Tokenizer::Impl::Impl(const JsonField& root, const TokenizerConfig& config)
    : file(root.file()),
      normalizer(root.find("normalizer")),
      pre_tokenizer(root.find("pre_tokenizer")),
      model(read_model(root.at("model"))),
      post_processor(root.find("post_processor")),
      decoder(root.find("decoder")) {
  max_id = static_cast<int32_t>(model->vocabulary().end_id()) - 1;
  read_added_tokens(root, config);
  added.build(normalizer, file);
  post_processor.check_ids(tokens(), file);
  trims_spaces = post_processor.trims_spaces();
}

void Tokenizer::Impl::read_added_tokens(const JsonField& root, const TokenizerConfig& config) {
  if (const auto list = root.find("added_tokens")) {
    for (size_t i = 0; i < list->array_size(); ++i) {
      const JsonField field = list->element(i);
      AddedToken token = AddedToken::from_json(field);
      if (token.id < 0) fail("{}: 'id' is missing", field.where());
      add_token(std::move(token), field.where());
    }
  }
  for (const AddedToken& token : config.added_tokens) {
    if (id_of(token.content)) continue;  // tokenizer.json says how that one is treated
    add_token(token, file + " with tokenizer_config.json: added_tokens_decoder." + std::to_string(token.id));
  }
}

void Tokenizer::Impl::add_token(AddedToken token, const std::string& where) {
  if (token.content.empty()) {
    log_warning("{}: the added token {} has no characters and is ignored", where, token.id);
    return;
  }
  const int32_t known = model->vocabulary().find(token.content);
  if (known >= 0 && known != token.id) {
    log_warning("{}: '{}' has the id {}, the vocabulary says {}, which is used", where, printable(token.content),
                token.id, known);
    token.id = known;
  }
  if (const AddedToken* same = added.by_content(token.content); same != nullptr && same->id != token.id) {
    fail("{}: '{}' occurs twice, with the ids {} and {}", where, printable(token.content), same->id, token.id);
  }
  if (const auto other = this->token(token.id); other && *other != token.content) {
    fail("{}: the tokens '{}' and '{}' both have the id {}", where, printable(*other), printable(token.content),
         token.id);
  }
  max_id = std::max(max_id, token.id);
  added.add(std::move(token));
}

std::optional<std::string_view> Tokenizer::Impl::token(int32_t id) const {
  if (const AddedToken* found = added.by_id(id)) return found->content;
  return model->vocabulary().token(id);
}

std::optional<int32_t> Tokenizer::Impl::id_of(std::string_view token) const {
  if (const AddedToken* found = added.by_content(token)) return found->id;
  const int32_t id = model->vocabulary().find(token);
  return id >= 0 ? std::optional<int32_t>(id) : std::nullopt;
}

namespace {

// Does [begin, end) share a byte with one of the ascending ranges?
bool touches(std::span<const std::pair<int64_t, int64_t>> ranges, size_t begin, size_t end) {
  const auto after = std::partition_point(ranges.begin(), ranges.end(),
                                          [&](const auto& r) { return r.second <= static_cast<int64_t>(begin); });
  return after != ranges.end() && after->first < static_cast<int64_t>(end);
}

}  // namespace

TextEncoding Tokenizer::Impl::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > INT32_MAX) {
    fail_hint("split it", "a text of {} bytes to tokenize, expected at most {}", text.size(), INT32_MAX);
  }
  if (const size_t bad = find_invalid_utf8(text); bad != std::string_view::npos) {
    fail_hint("convert it to UTF-8", "a text to tokenize is not UTF-8 at byte {} ('{}')", bad,
              printable(text.substr(bad, 8)));
  }
  TextEncoding out;
  out.text = text;
  out.encoding.ids.reserve(text.size() / 4 + 8);
  out.encoding.byte_offsets.reserve(text.size() / 4 + 8);
  std::vector<AddedTokens::Section> sections;
  AddedTokens::Refuse refuse;
  if (!options.user_text.empty()) {
    refuse = [&](size_t begin, size_t end) { return touches(options.user_text, begin, end); };
  }
  added.find(text, /*normalized=*/false, options.parse_special_tokens, sections, refuse);
  for (const auto& section : sections) {
    if (section.id >= 0) {
      put(out, section.id, {static_cast<uint32_t>(section.begin), static_cast<uint32_t>(section.end)},
          text.substr(section.begin, section.end - section.begin));
    } else {
      encode_section(text.substr(section.begin, section.end - section.begin), section.begin, options, out);
    }
  }
  out.encoding.special_mask.assign(out.encoding.ids.size(), 0);
  return out;
}

// Text between tokens of the first pass: normalize, cut out the tokens of the second pass.
void Tokenizer::Impl::encode_section(std::string_view original, size_t begin, const EncodeOptions& options,
                                     TextEncoding& out) const {
  const bool continues = options.continuation && begin == 0;
  AlignedText text(original, static_cast<uint32_t>(begin));
  normalizer.normalize(text, continues);
  if (text.text().size() > INT32_MAX) fail("{}: the normalizer makes more than 2 GB of a text", file);
  std::vector<AddedTokens::Section> sections;
  AddedTokens::Refuse refuse;
  if (!options.user_text.empty()) {
    refuse = [&](size_t from, size_t to) {
      const Span span = text.span(from, to);
      return touches(options.user_text, span.begin, span.end);
    };
  }
  added.find(text.text(), /*normalized=*/true, options.parse_special_tokens, sections, refuse);
  for (const auto& section : sections) {
    if (section.id >= 0) {
      put(out, section.id, text.span(section.begin, section.end),
          text.text().substr(section.begin, section.end - section.begin));
    } else {
      encode_pieces(text, section.begin, section.end, continues && section.begin == 0, out);
    }
  }
}

void Tokenizer::Impl::encode_pieces(AlignedText& text, size_t begin, size_t end, bool skip_prefix,
                                    TextEncoding& out) const {
  const bool bytes = model->takes_bytes() && pre_tokenizer.ends_in_byte_level();
  const Piece all{&text, 0, static_cast<uint32_t>(text.text().size()), text.shift()};
  std::vector<Piece> pieces{all.slice(begin, end)};
  std::deque<AlignedText> arena;
  pre_tokenizer.split(pieces, arena, skip_prefix, bytes);
  std::vector<Symbol> symbols;
  for (const Piece& piece : pieces) {
    symbols.clear();
    model->encode(piece.text(), bytes, symbols);
    size_t at = 0;
    const size_t size = piece.end - piece.begin;
    for (const Symbol& symbol : symbols) {
      const size_t to = std::min<size_t>(at + symbol.length, size);
      Span span = piece.span(std::min(at, size - 1), to);
      if (at == size) span.begin = span.end;  // the byte tokens of a prefix or suffix stand for nothing
      put(out, symbol.id, span, trims_spaces ? *model->vocabulary().token(symbol.id) : "");
      at = to;
    }
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Tokenizer Tokenizer::from_json(std::string_view tokenizer_json, std::string_view where) {
  const Json json = parse_json(tokenizer_json, where);
  return Tokenizer(std::make_unique<Impl>(JsonField(&json, std::string(where)), TokenizerConfig()));
}

Tokenizer Tokenizer::load(const std::string& folder) {
  const std::string path = folder + "/tokenizer.json";
  if (!path_exists(path)) {
    std::string hint = "give a Hugging Face folder that has one";
    for (const char* other : {"tokenizer.model", "spiece.model", "vocab.json", "vocab.txt"}) {
      if (path_exists(folder + "/" + other)) {
        hint = fmt::format(
            "there is a {}, which graft does not read; AutoTokenizer.from_pretrained(folder).save_pretrained(folder) "
            "in Python writes tokenizer.json from it",
            other);
      }
    }
    fail_hint(hint, "{}: there is no tokenizer.json", folder);
  }
  const TokenizerConfig config = load_tokenizer_config(folder);
  Tokenizer out = [&] {
    const Json json = read_json(path);
    return Tokenizer(std::make_unique<Impl>(JsonField(&json, path), config));
  }();
  for (const auto& [key, token] : config.tokens) {
    if (out.token_to_id(token)) continue;
    if (key == "eos_token") {
      fail_hint(
          "training and generation would never end; correct tokenizer_config.json or add the token to tokenizer.json",
          "{}/tokenizer_config.json: eos_token '{}' is not in the vocabulary", folder, printable(token));
    }
    log_warning("{}/tokenizer_config.json: {} '{}' is not in the vocabulary", folder, key, printable(token));
  }
  return out;
}

Encoding Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  std::vector<TextEncoding> texts;
  texts.push_back(impl_->encode(text, options));
  return impl_->post_processor.run(std::move(texts), options.add_special_tokens);
}

Encoding Tokenizer::encode_pair(std::string_view a, std::string_view b, const EncodeOptions& options) const {
  std::vector<TextEncoding> texts;
  texts.push_back(impl_->encode(a, options));
  texts.push_back(impl_->encode(b, options));
  return impl_->post_processor.run(std::move(texts), options.add_special_tokens);
}

std::vector<int32_t> Tokenizer::encode_ids(std::string_view text, const EncodeOptions& options) const {
  return encode(text, options).ids;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special_tokens) const {
  std::vector<std::string> tokens;
  tokens.reserve(ids.size());
  for (const int32_t id : ids) {
    if (const AddedToken* added = impl_->added.by_id(id)) {
      if (!skip_special_tokens || !added->special) tokens.push_back(added->shown);
    } else if (const auto token = impl_->model->vocabulary().token(id)) {
      if (!skip_special_tokens || !impl_->added.is_special_content(*token)) tokens.emplace_back(*token);
    }
  }
  return impl_->decoder.decode(std::move(tokens));
}

int64_t Tokenizer::vocab_size() const { return int64_t{impl_->max_id} + 1; }

std::optional<int32_t> Tokenizer::token_to_id(std::string_view token) const { return impl_->id_of(token); }

std::optional<std::string> Tokenizer::id_to_token(int32_t id) const {
  const auto token = impl_->token(id);
  return token ? std::optional<std::string>(*token) : std::nullopt;
}

bool Tokenizer::is_special(int32_t id) const {
  const AddedToken* token = impl_->added.by_id(id);
  return token != nullptr && token->special;
}

void Tokenizer::check_embedding_rows(int64_t rows) const {
  if (vocab_size() <= rows) return;
  // The first one beyond, in the order of ids.
  for (int64_t id = std::max<int64_t>(rows, 0); id < vocab_size(); ++id) {
    if (const auto token = id_to_token(static_cast<int32_t>(id))) {
      fail_hint("tokenizer and weights are of different models, or the embedding was not resized",
                "{}: the token '{}' has the id {}, the embedding has {} rows", impl_->file, printable(*token), id,
                rows);
    }
  }
}

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special_tokens)
    : tokenizer_(&tokenizer), skip_special_tokens_(skip_special_tokens) {}

// Decoders look at neighbours (a space is dropped at the start, bytes join to characters), so the ids released last
// stay as context: new text is what decoding adds behind theirs.
std::optional<std::string> StreamDecoder::step(int32_t id) {
  constexpr std::string_view kReplacement = "\uFFFD";
  ids_.push_back(id);
  std::string text = tokenizer_->decode(ids_, skip_special_tokens_);
  if (text.size() <= printed_.size() || text.ends_with(kReplacement)) return std::nullopt;
  return release(std::move(text));
}

std::string StreamDecoder::flush() {
  std::string text = tokenizer_->decode(ids_, skip_special_tokens_);
  std::string rest = text.size() > printed_.size() ? release(std::move(text)) : std::string();
  ids_.clear();
  printed_.clear();
  printed_ids_ = 0;
  return rest;
}

std::string StreamDecoder::release(std::string text) {
  const std::vector<int32_t> fresh(ids_.begin() + static_cast<std::ptrdiff_t>(printed_ids_), ids_.end());
  std::string out;
  if (text.starts_with(printed_)) {
    out = text.substr(printed_.size());
  } else {
    // Bytes that came later made what was printed ill-formed in hindsight (é, then a lone byte); it stays printed.
    out = tokenizer_->decode(fresh, skip_special_tokens_);
  }
  ids_ = fresh;
  printed_ids_ = ids_.size();
  printed_ = tokenizer_->decode(ids_, skip_special_tokens_);
  return out;
}

}  // namespace graft
