#include "graft/text/post_processor.h"

#include <algorithm>

#include "graft/text/unicode.h"

namespace graft {
namespace {

// Takes the spaces of tokens out of their offsets, character by character. `add_prefix_space`: a single space before
// the first token was put there by the pre-tokenizer.
void trim_offsets(TextEncoding& encoded, bool add_prefix_space) {
  const std::string_view text = encoded.text;
  for (size_t i = 0; i < encoded.spaces.size(); ++i) {
    auto [leading, trailing] = encoded.spaces[i];
    auto& [begin, end] = encoded.encoding.byte_offsets[i];
    if (leading == 1 && add_prefix_space && (i == 0 || begin == 0)) leading = 0;
    for (; leading > 0 && begin < end; --leading) begin += decode_utf8(text, static_cast<size_t>(begin)).length;
    if (trailing == 0) continue;
    auto cut = static_cast<size_t>(end);
    for (; trailing > 0 && cut > 0; --trailing) cut = previous_char(text, cut);
    if (trailing == 0) end = std::max(static_cast<int64_t>(cut), begin);
  }
}

void append(Encoding& to, const Encoding& from) {
  to.ids.insert(to.ids.end(), from.ids.begin(), from.ids.end());
  to.byte_offsets.insert(to.byte_offsets.end(), from.byte_offsets.begin(), from.byte_offsets.end());
  to.special_mask.insert(to.special_mask.end(), from.special_mask.begin(), from.special_mask.end());
  to.type_ids.insert(to.type_ids.end(), from.type_ids.begin(), from.type_ids.end());
}

// A place in a template: text 0 or 1, or special tokens.
struct Part {
  int text = -1;
  std::vector<int32_t> ids;
  int32_t type_id = 0;
};

// "A", "$A:0", {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<s>", "type_id": 0}}
std::vector<Part> read_template(const JsonField& field, const std::optional<JsonField>& special) {
  std::vector<Part> out;
  for (size_t i = 0; i < field.array_size(); ++i) {
    const JsonField element = field.element(i);
    Part part;
    if (const auto sequence = element.find("Sequence")) {
      const std::string& id = sequence->at("id").as_string();
      if (id != "A" && id != "B") fail("{}.id is '{}', expected A or B", sequence->where(), printable(id));
      part.text = id == "A" ? 0 : 1;
      if (const auto type = sequence->find("type_id")) {
        part.type_id = static_cast<int32_t>(type->as_integer(0, 1 << 20));
      }
    } else if (const auto token = element.find("SpecialToken")) {
      const std::string& name = token->at("id").as_string();
      if (const auto type = token->find("type_id")) part.type_id = static_cast<int32_t>(type->as_integer(0, 1 << 20));
      const auto entry = special ? special->find(name) : std::nullopt;
      if (!entry) fail("{}: special_tokens has no '{}'", token->where(), printable(name));
      const JsonField ids = entry->at("ids");
      for (size_t k = 0; k < ids.array_size(); ++k) {
        part.ids.push_back(static_cast<int32_t>(ids.element(k).as_integer(0, INT32_MAX - 1)));
      }
    } else {
      fail("{} has neither 'Sequence' nor 'SpecialToken'", element.where());
    }
    out.push_back(std::move(part));
  }
  return out;
}

}  // namespace

EdgeSpaces count_edge_spaces(std::string_view token) {
  constexpr std::string_view kSpace = "\u0120";  // the byte-level character of a space
  const auto is_space = [&](size_t at) {
    return token.substr(at, kSpace.size()) == kSpace || is_space_char(decode_utf8(token, at).code);
  };
  EdgeSpaces out;
  for (size_t at = 0; at < token.size() && is_space(at); ++out.leading) at += decode_utf8(token, at).length;
  for (size_t at = token.size(); at > 0; ++out.trailing) {
    at = previous_char(token, at);
    if (!is_space(at)) break;
  }
  return out;
}

struct PostProcessor::Step {
  bool trims = false, add_prefix_space = false;  // ByteLevel, Roberta
  bool is_template = false;
  std::vector<Part> single, pair;
};

PostProcessor::PostProcessor() = default;
PostProcessor::PostProcessor(PostProcessor&&) noexcept = default;
PostProcessor& PostProcessor::operator=(PostProcessor&&) noexcept = default;
PostProcessor::~PostProcessor() = default;

PostProcessor::PostProcessor(const std::optional<JsonField>& field) {
  if (!field) return;
  add(*field);
  if (std::count_if(steps_.begin(), steps_.end(), [](const auto& step) { return step->is_template; }) > 1) {
    fail("{}: two of its processors add special tokens, expected one", field->where());
  }
}

void PostProcessor::add(const JsonField& field) {
  const std::string type = field.type();
  Step step;
  if (type == "Sequence") {
    const JsonField list = field.at("processors");
    for (size_t i = 0; i < list.array_size(); ++i) add(list.element(i));
    return;
  }
  if (type == "ByteLevel") {
    step.trims = field.bool_or("trim_offsets", true);
    step.add_prefix_space = field.bool_or("add_prefix_space", true);
  } else if (type == "TemplateProcessing") {
    const auto special = field.find("special_tokens");
    step.is_template = true;
    step.single = read_template(field.at("single"), special);
    step.pair = read_template(field.at("pair"), special);
    const auto uses = [](const std::vector<Part>& parts, int text) {
      return std::any_of(parts.begin(), parts.end(), [text](const Part& part) { return part.text == text; });
    };
    if (!uses(step.single, 0) || uses(step.single, 1)) fail("{}.single: expected sequence A, and not B", field.where());
    if (!uses(step.pair, 0) || !uses(step.pair, 1)) fail("{}.pair: expected the sequences A and B", field.where());
  } else if (type == "BertProcessing" || type == "RobertaProcessing") {
    const bool roberta = type == "RobertaProcessing";
    const auto token = [&](std::string_view key, int32_t type_id) {
      const JsonField pair = field.at(key);
      if (pair.array_size() != 2) fail("{}: expected [token, id]", pair.where());
      return Part{-1, {static_cast<int32_t>(pair.element(1).as_integer(0, INT32_MAX - 1))}, type_id};
    };
    const int32_t second = roberta ? 0 : 1;
    step.is_template = true;
    step.single = {token("cls", 0), Part{0, {}, 0}, token("sep", 0)};
    step.pair = {token("cls", 0), Part{0, {}, 0}, token("sep", 0)};
    if (roberta) step.pair.push_back(token("sep", 0));
    step.pair.push_back(Part{1, {}, second});
    step.pair.push_back(token("sep", second));
    if (roberta) {
      step.trims = field.bool_or("trim_offsets", true);
      step.add_prefix_space = field.bool_or("add_prefix_space", true);
    }
  } else {
    fail_hint("graft reads TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel and Sequence",
              "{}: post-processor type '{}' is not supported", field.where(), printable(type));
  }
  steps_.push_back(std::make_unique<Step>(std::move(step)));
}

void PostProcessor::check_ids(const TokenOfId& token_of_id, std::string_view where) const {
  for (const auto& step : steps_) {
    for (const auto* parts : {&step->single, &step->pair}) {
      for (const Part& part : *parts) {
        for (const int32_t id : part.ids) {
          if (!token_of_id(id)) {
            fail("{}: post_processor adds the token id {}, which is not in the vocabulary", where, id);
          }
        }
      }
    }
  }
}

bool PostProcessor::trims_spaces() const {
  return std::any_of(steps_.begin(), steps_.end(), [](const auto& step) { return step->trims; });
}

Encoding PostProcessor::run(std::vector<TextEncoding> texts, bool add_special_tokens) const {
  for (size_t i = 0; i < texts.size(); ++i) {
    texts[i].encoding.type_ids.assign(texts[i].encoding.ids.size(), static_cast<int32_t>(i));
  }
  for (const auto& step : steps_) {
    if (step->trims) {
      for (TextEncoding& text : texts) trim_offsets(text, step->add_prefix_space);
    }
    if (!step->is_template) continue;
    std::vector<TextEncoding> out;
    for (const Part& part : texts.size() == 2 ? step->pair : step->single) {
      if (part.text >= 0) {
        out.push_back(texts[static_cast<size_t>(part.text)]);
        out.back().encoding.type_ids.assign(out.back().encoding.ids.size(), part.type_id);
      } else if (add_special_tokens) {
        const size_t count = part.ids.size();
        out.push_back({.encoding = {part.ids, std::vector<std::pair<int64_t, int64_t>>(count),
                                    std::vector<uint8_t>(count, 1), std::vector<int32_t>(count, part.type_id)},
                       .text = {},
                       .spaces = {}});
      }
    }
    texts = std::move(out);
  }
  if (texts.size() == 1) return std::move(texts[0].encoding);
  Encoding joined;
  for (const TextEncoding& text : texts) append(joined, text.encoding);
  return joined;
}

}  // namespace graft
