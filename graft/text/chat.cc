#include "graft/text/chat.h"

#include <algorithm>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/log.h"
#include "graft/text/tokenizer_config.h"
#include "graft/text/unicode.h"

namespace graft {
namespace {

constexpr const char* kTemplateFile = "chat_template.jinja";

// Messages as templates of the Hugging Face world expect them.
Json normalized(const Json& messages, const std::string& where) {
  if (!messages.is_array()) fail("{}: messages is {}, expected an array", where, json_kind(messages));
  Json out = Json::array();
  for (size_t i = 0; i < messages.size(); ++i) {
    const Json& message = messages[i];
    if (!message.is_object()) fail("{}: messages[{}] is {}, expected an object", where, i, json_kind(message));
    Json kept = Json::object();
    for (const auto& [key, value] : message.items()) {
      if (!value.is_null()) kept[key] = value;
    }
    for (const char* alias : {"thinking", "reasoning"}) {
      if (!kept.contains("reasoning_content") && kept.contains(alias)) {
        Json copy = kept[alias];
        kept["reasoning_content"] = std::move(copy);
      }
    }
    if (!kept.contains("thinking") && kept.contains("reasoning_content")) {
      Json copy = kept["reasoning_content"];
      kept["thinking"] = std::move(copy);
    }
    out.push_back(std::move(kept));
  }
  return out;
}

bool starts_with(std::string_view text, std::string_view prefix) { return text.substr(0, prefix.size()) == prefix; }

std::vector<std::pair<int64_t, int64_t>> user_ranges(const std::vector<DataRange>& data) {
  std::vector<std::pair<int64_t, int64_t>> out;
  for (const DataRange& range : data) {
    if (!out.empty() && out.back().second == range.begin) {
      out.back().second = range.end;
    } else {
      out.emplace_back(range.begin, range.end);
    }
  }
  return out;
}

int64_t end_of_data(const Rendered& rendered, int32_t message) {
  int64_t end = -1;
  for (const DataRange& range : rendered.data) {
    if (range.message == message) end = range.end;
  }
  return end;
}

int64_t without_trailing_space(std::string_view text, int64_t begin, int64_t end) {
  while (end > begin) {
    const auto at = static_cast<int64_t>(previous_char(text, static_cast<size_t>(end)));
    if (!is_space_char(decode_utf8(text, static_cast<size_t>(at)).code)) break;
    end = at;
  }
  return end;
}

// The message that a {% generation %} block shows: the one most of its data comes from; for a block without data the
// first answer that is neither `previous` nor before the data in front of it. -1 if there is none.
int32_t message_of(const Rendered& rendered, std::pair<int64_t, int64_t> span, const Json& messages, int32_t previous) {
  std::map<int32_t, int64_t> bytes;
  int32_t before = -1;
  for (const DataRange& range : rendered.data) {
    const int64_t shared = std::min(range.end, span.second) - std::max(range.begin, span.first);
    if (shared > 0 && range.message >= 0) bytes[range.message] += shared;
    if (range.end <= span.first) before = std::max(before, range.message);
  }
  const auto most =
      std::max_element(bytes.begin(), bytes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  if (most != bytes.end()) return most->first;
  for (auto i = static_cast<size_t>(std::max({before, previous + 1, 0})); i < messages.size(); ++i) {
    if (messages[i].value("role", Json()) == "assistant") return static_cast<int32_t>(i);
  }
  return -1;
}

std::vector<AssistantSpan> marked_spans(const Rendered& rendered, const Json& messages) {
  std::vector<AssistantSpan> out;
  int32_t message = -1;
  for (const auto& span : rendered.spans) {
    message = message_of(rendered, span, messages, message);
    if (span.first < span.second) out.push_back({span.first, span.second, message});
  }
  return out;
}

ChatText as_chat_text(Rendered&& rendered) {
  ChatText out;
  out.user_text = user_ranges(rendered.data);
  out.text = std::move(rendered.text);
  return out;
}

Json parse_data_json(std::string_view text, std::string_view where) {
  JsonLimits limits;
  limits.keep_big_integers = true;
  return parse_json(text, where, limits);
}

struct NamedTemplate {
  std::string name, source, where;
};

// The templates of tokenizer_config.json.
std::vector<NamedTemplate> templates_of(const TokenizerConfig& config, const std::string& folder) {
  std::vector<NamedTemplate> out;
  if (!config.chat_template) return out;
  const std::string where = folder + "/tokenizer_config.json: chat_template";
  if (config.chat_template->is_string()) {
    out.push_back({"default", config.chat_template->get<std::string>(), where});
    return out;
  }
  for (const Json& entry : *config.chat_template) {
    const auto name = entry.at("name").get<std::string>();
    out.push_back({name, entry.at("template").get<std::string>(), fmt::format("{} '{}'", where, printable(name, 40))});
  }
  return out;
}

const NamedTemplate* named(const std::vector<NamedTemplate>& templates, std::string_view name) {
  const auto it = std::find_if(templates.begin(), templates.end(), [&](const auto& t) { return t.name == name; });
  return it == templates.end() ? nullptr : &*it;
}

}  // namespace

std::pair<std::string, Json> parse_template_arg(std::string_view text) {
  const size_t equals = text.find('=');
  const std::string name(text.substr(0, std::min(equals, text.size())));
  if (equals == std::string_view::npos || name.empty()) {
    fail("template argument '{}', expected NAME=VALUE", printable(text));
  }
  for (const char* reserved : {"messages", "tools", "add_generation_prompt", "continue_final_message"}) {
    if (name == reserved) fail("'{}' cannot be a template argument: it is set by the command and its data", name);
  }
  const std::string_view value = text.substr(equals + 1);
  try {
    return {name, parse_data_json(value, name)};
  } catch (const Error&) {
    return {name, Json(std::string(value))};
  }
}

ChatFormat::ChatFormat(ChatTemplate base, std::map<std::string, std::string> tokens)
    : default_(std::move(base)), tokens_(std::move(tokens)) {}

ChatFormat ChatFormat::from_template(std::string_view source, std::string_view where,
                                     const std::map<std::string, std::string>& tokens) {
  return ChatFormat(ChatTemplate::compile(source, where), tokens);
}

bool ChatFormat::exists(const std::string& folder) {
  return path_exists(folder + "/" + kTemplateFile) || load_tokenizer_config(folder).chat_template.has_value();
}

ChatFormat ChatFormat::load(const std::string& folder) {
  const TokenizerConfig config = load_tokenizer_config(folder);
  std::vector<NamedTemplate> templates = templates_of(config, folder);
  if (const std::string path = folder + "/" + kTemplateFile; path_exists(path)) {
    const std::string source = read_file(path, size_t{8} << 20);
    const NamedTemplate* other = named(templates, "default");
    if (other != nullptr && other->source != source) {
      log_warning("{}: {} and tokenizer_config.json hold different chat templates; {} is used", folder, kTemplateFile,
                  kTemplateFile);
    }
    templates = {{"default", source, path}};
    if (const std::string more = folder + "/additional_chat_templates/tool_use.jinja"; path_exists(more)) {
      templates.push_back({"tool_use", read_file(more, size_t{8} << 20), more});
    }
  }
  const NamedTemplate *base = named(templates, "default"), *tools = named(templates, "tool_use");
  if (base == nullptr && templates.size() == 1) base = &templates[0];
  if (base == nullptr) {
    const char* what = templates.empty() ? "no chat template" : "no chat template named 'default'";
    fail_hint("put a chat_template.jinja beside tokenizer.json, or work on plain text (--raw)",
              "{}: {} (looked for {} and `chat_template` in tokenizer_config.json)", folder, what, kTemplateFile);
  }
  ChatFormat format(ChatTemplate::compile(base->source, base->where), config.tokens);
  if (tools != nullptr && tools != base) format.tool_use_ = ChatTemplate::compile(tools->source, tools->where);
  return format;
}

void ChatFormat::set_template_args(const std::vector<std::string>& args) {
  std::string faults;
  Json set = Json::object();  // instead of those set before
  for (const std::string& text : args) {
    try {
      auto [name, value] = parse_template_arg(text);
      set[name] = std::move(value);
    } catch (const Error& e) {
      faults += (faults.empty() ? "" : "\n") + std::string(e.what());
    }
  }
  if (!faults.empty()) throw Error(faults);
  args_ = std::move(set);
}

bool ChatFormat::reads_clock() const { return default_.reads_clock() || (tool_use_ && tool_use_->reads_clock()); }

const ChatTemplate& ChatFormat::chosen(const Json& tools) const {
  return tool_use_ && !tools.is_null() ? *tool_use_ : default_;
}

// Also for an empty list of messages, which `render` refuses as transformers does.
Rendered ChatFormat::render_messages(const Json& messages, const ChatOptions& options, int32_t open_message) const {
  Json variables = Json::object();
  for (const auto& [name, token] : tokens_) variables[name] = token;
  variables["documents"] = nullptr;
  variables["tools"] = options.tools;
  variables["add_generation_prompt"] = options.add_generation_prompt;
  for (const Json* more : {&args_, &options.variables}) {
    if (more->is_null()) continue;
    if (!more->is_object()) fail("{}: the template variables are {}, expected an object", where(), json_kind(*more));
    for (const auto& [name, value] : more->items()) variables[name] = value;
  }
  variables["messages"] = messages;
  RenderOptions how;
  if (open_message >= 0) how.open_message = open_message;
  return chosen(variables["tools"]).render(variables, how);
}

Rendered ChatFormat::render(const Json& messages, const ChatOptions& options) const {
  Json list = normalized(messages, where());
  if (list.empty()) fail("{}: there are no messages to render", where());
  if (!options.continue_final_message) return render_messages(list, options, -1);
  if (options.add_generation_prompt) {
    fail("add_generation_prompt opens a new answer, continue_final_message goes on with the last one: choose one");
  }
  const auto last = static_cast<int32_t>(list.size() - 1);
  Rendered out = render_messages(list, options, last);
  int64_t end = -1;
  for (const DataRange& range : out.data) {
    if (range.open) end = range.end;
  }
  if (end < 0) {  // nothing of it is shown, perhaps because it is empty: see where a word would stand
    const std::string word = "answer";
    Json& message = list.back();
    Json* slot = &message["content"];
    if (slot->is_array()) {
      Json* text = nullptr;
      for (Json& part : *slot) {
        if (part.is_object() && part.contains("text")) text = &part["text"];
      }
      if (text != nullptr) slot = text;
    }
    if (slot->is_string()) {
      *slot = word;
      out = render_messages(list, options, last);
      for (const DataRange& range : out.data) {
        if (range.open && out.text.compare(static_cast<size_t>(range.begin), word.size(), word) == 0) end = range.begin;
      }
    }
  }
  if (end < 0) fail("{}: the template does not show the last message, so that it cannot be continued", where());
  out.text.resize(static_cast<size_t>(end));
  std::erase_if(out.data, [&](const DataRange& r) { return r.begin >= end; });
  for (DataRange& range : out.data) range.end = std::min(range.end, end);
  std::erase_if(out.spans, [&](const auto& s) { return s.first > end; });
  for (auto& span : out.spans) span.second = std::min(span.second, end);
  return out;
}

ChatText ChatFormat::prompt(const Json& messages, const ChatOptions& options) const {
  Rendered rendered = render(messages, options);
  std::vector<AssistantSpan> spans = marked_spans(rendered, messages);
  ChatText out = as_chat_text(std::move(rendered));
  out.spans = std::move(spans);
  return out;
}

AssistantSpan ChatFormat::answer(const Json& messages, size_t i, const ChatOptions& options, const Rendered& whole,
                                 const Tokenizer& tokenizer) const {
  const auto message = static_cast<int32_t>(i);
  const auto unsure = [&](const std::string& why) {
    fail_hint(
        "train the last answer only (--loss-on last), or give the model a chat template that marks answers with {% "
        "generation %}",
        "{}: it cannot be told for sure what the assistant wrote in messages[{}]: {}", where(), i, why);
  };
  const auto part = [&](size_t count, bool open) {
    Json first = Json::array();
    for (size_t k = 0; k < count; ++k) first.push_back(messages[k]);
    ChatOptions with = options;
    with.add_generation_prompt = open;
    with.continue_final_message = false;
    try {
      return render_messages(first, with, -1);
    } catch (const Error& e) {
      unsure(fmt::format("the template does not render the messages up to it ({})", e.what()));
      throw;
    }
  };
  const Rendered before = part(i, true);
  if (!starts_with(whole.text, before.text)) {
    unsure("the messages before it, followed by the opening of an answer, are not how the whole text begins");
  }
  const auto begin = static_cast<int64_t>(before.text.size());
  const bool ends_whole = i + 1 == messages.size() && !options.add_generation_prompt;
  const Rendered upto = ends_whole ? Rendered() : part(i + 1, false);
  const Rendered& ended = ends_whole ? whole : upto;
  if (!starts_with(ended.text, before.text)) {
    unsure("the messages up to it do not begin with the opening of an answer");
  }
  auto end = static_cast<int64_t>(ended.text.size());
  // Also in an answer without text there is a turn to end.
  const int64_t data_end = std::max(end_of_data(whole, message), begin);
  if (data_end > end) unsure("the template shows it again further down");
  if (!starts_with(whole.text, ended.text)) {
    const auto [x, y] = std::mismatch(whole.text.begin(), whole.text.end(), ended.text.begin(), ended.text.end());
    if (x - whole.text.begin() < data_end || end_of_data(ended, message) != end_of_data(whole, message)) {
      unsure("the template writes it differently when other messages follow");
    }
    // A conversation that ends here is closed in another way than one that goes on. What both share is the turn's own
    // end.
    const std::vector<std::pair<int64_t, int64_t>> data = user_ranges(whole.data), data_ended = user_ranges(ended.data);
    const Encoding a = tokenizer.encode(whole.text, {.add_special_tokens = false, .user_text = data});
    const Encoding b = tokenizer.encode(ended.text, {.add_special_tokens = false, .user_text = data_ended});
    size_t shared = 0;
    while (shared < a.ids.size() && shared < b.ids.size() && a.ids[shared] == b.ids[shared] &&
           a.byte_offsets[shared] == b.byte_offsets[shared]) {
      ++shared;
    }
    end = -1;
    for (size_t t = shared; t-- > 0;) {
      const auto& [from, to] = a.byte_offsets[t];
      if (tokenizer.is_special(a.ids[t])) {
        if (from >= data_end) end = to;
        break;
      }
      if (without_trailing_space(whole.text, from, to) > from) break;
    }
    if (end < 0) unsure("the template ends it differently when other messages follow");
  }
  if (end <= begin) unsure("the template writes nothing for it");
  // White space behind the mark that ends the turn is never generated; where it is all there is, it is that mark.
  const int64_t tight = without_trailing_space(whole.text, data_end, end);
  return {begin, tight > data_end ? tight : end, message};
}

ChatText ChatFormat::render_answers(const Json& messages, const ChatOptions& options, const Tokenizer& tokenizer,
                                    std::span<const uint8_t> wanted) const {
  const Json list = normalized(messages, where());
  const auto is_wanted = [&](int32_t i) {
    if (i < 0) return false;
    return wanted.empty() || (static_cast<size_t>(i) < wanted.size() && wanted[static_cast<size_t>(i)] != 0);
  };
  Rendered whole = render(messages, options);
  std::vector<AssistantSpan> spans;
  if (whole.marks_generation) {
    spans = marked_spans(whole, list);
    std::erase_if(spans, [&](const AssistantSpan& span) { return !is_wanted(span.message); });
  } else {
    for (size_t i = 0; i < list.size(); ++i) {
      const bool assistant = list[i].contains("role") && list[i]["role"] == "assistant";
      if (assistant && is_wanted(static_cast<int32_t>(i))) spans.push_back(answer(list, i, options, whole, tokenizer));
    }
  }
  ChatText out = as_chat_text(std::move(whole));
  out.spans = std::move(spans);
  return out;
}

ChatTokens ChatFormat::encode(const Tokenizer& tokenizer, const ChatText& chat) {
  Encoding encoding = tokenizer.encode(chat.text, {.add_special_tokens = false, .user_text = chat.user_text});
  ChatTokens out;
  out.message.assign(encoding.ids.size(), -1);
  out.assistant_mask.assign(encoding.ids.size(), 0);
  for (const AssistantSpan& span : chat.spans) {
    for (size_t t = 0; t < encoding.ids.size(); ++t) {
      const auto& [begin, end] = encoding.byte_offsets[t];
      if (begin >= span.end || end <= span.begin) continue;
      out.assistant_mask[t] = 1;
      out.message[t] = span.message;
    }
  }
  out.ids = std::move(encoding.ids);
  return out;
}

}  // namespace graft
