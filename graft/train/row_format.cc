// One parsed line to one row: which format it is, and the conversation as templates want it.

#include <fmt/format.h>

#include <cmath>

#include "graft/base/error.h"
#include "graft/base/strings.h"
#include "graft/train/rows.h"

namespace graft {
namespace {

constexpr JsonLimits kExact = {.keep_big_integers =
                                   true};  // numbers of calls and tools reach the template digit by digit

constexpr std::string_view kKnownKeys =
    "known rows: {\"messages\"}, {\"prompt\", \"completion\"}, {\"text\"}, {\"instruction\", \"output\"}, "
    "{\"conversations\"}";

bool has(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && !it->is_null();
}

// Collects what is wrong with one row, each fault with the path to it ("messages[2].role").
class MessageReader {
 public:
  explicit MessageReader(const OnRowFault& fault) : fault_(fault) {}
  bool good() const { return good_; }

  void wrong(std::string what, std::string hint = {}) {
    good_ = false;
    fault_(std::move(what), std::move(hint));
  }

  // The string under a key; a fault if it is missing, null or something else.
  std::string text(const Json& object, const char* key, std::string_view path = {}) {
    const std::string name = path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
    const auto it = object.find(key);
    if (it == object.end()) {
      wrong(fmt::format("'{}' is missing, expected a string", name));
    } else if (!it->is_string()) {
      wrong(fmt::format("'{}' is {}, expected a string", name, json_kind(*it)));
    } else {
      return it->get<std::string>();
    }
    return {};
  }

  // A list of messages under a key, appended to the row.
  void messages(const Json& object, const char* key, ChatRow& row) {
    const auto it = object.find(key);
    if (it == object.end()) return wrong(fmt::format("'{}' is missing, expected a list of messages", key));
    if (!it->is_array()) return wrong(fmt::format("'{}' is {}, expected a list of messages", key, json_kind(*it)));
    if (it->empty()) return wrong(fmt::format("'{}' is an empty list, expected messages", key));
    for (size_t i = 0; i < it->size(); ++i) message((*it)[i], fmt::format("{}[{}]", key, i), row);
  }

  void message(const Json& in, const std::string& path, ChatRow& row) {
    if (!in.is_object()) {
      return wrong(fmt::format("'{}' is {}, expected an object with role and content", path, json_kind(in)));
    }
    const std::string role = text(in, "role", path);
    Json out = Json::object();
    if (role == "function") {
      out["role"] = "tool";  // OpenAI's older name
    } else if (role == "system" || role == "developer" || role == "user" || role == "assistant" || role == "tool") {
      out["role"] = role;
    } else if (in.contains("role") && in["role"].is_string()) {
      wrong(
          fmt::format("'{}.role' is '{}', expected system, developer, user, assistant or tool", path, printable(role)));
    }
    float weight = 1;
    bool has_call = false;
    for (const auto& [key, value] : in.items()) {
      if (value.is_null() || key == "role" || key == "content") continue;
      if (key == "weight") {
        weight = message_weight(value, path);
      } else if (key == "tool_calls") {
        has_call |= tool_calls(value, path + ".tool_calls", out);
      } else if (key == "function_call") {
        Json call;
        if (tool_call(value, path + ".function_call", call)) out["tool_calls"] = Json::array({std::move(call)});
        has_call = true;
      } else {
        out[key] = value;
      }
    }
    content(in, path, has_call, out);
    row.messages.push_back(std::move(out));
    row.weights.push_back(weight);
  }

  void tools(const Json& object, ChatRow& row) {
    Json list;
    if (has(object, "tools")) {
      const Json& value = object["tools"];
      if (value.is_string()) {  // TRL and ShareGPT files hold the list as text
        if (value.get_ref<const std::string&>().empty()) return;
        try {
          list = parse_json(value.get_ref<const std::string&>(), "tools", kExact);
        } catch (const Error& error) {
          return wrong(fmt::format("'tools' is a string that is not JSON ({})", error.what()));
        }
      } else {
        list = value;
      }
    } else if (has(object, "functions")) {  // OpenAI's older name
      if (!object["functions"].is_array()) return wrong("'functions' is not a list");
      for (const Json& function : object["functions"]) {
        list.push_back(Json{{"type", "function"}, {"function", function}});
      }
    }
    if (list.is_null()) return;
    if (!list.is_array()) return wrong(fmt::format("'tools' is {}, expected a list of tools", json_kind(list)));
    for (size_t i = 0; i < list.size(); ++i) {
      if (!list[i].is_object()) wrong(fmt::format("'tools[{}]' is {}, expected an object", i, json_kind(list[i])));
    }
    if (!list.empty()) row.tools = std::move(list);
  }

  void template_args(const Json& object, ChatRow& row) {
    if (!has(object, "chat_template_kwargs")) return;
    const Json& value = object["chat_template_kwargs"];
    if (!value.is_object()) {
      return wrong(fmt::format("'chat_template_kwargs' is {}, expected an object", json_kind(value)));
    }
    row.template_args = value;
  }

 private:
  float message_weight(const Json& value, const std::string& path) {
    if (value.is_number()) {
      const double weight = value.get<double>();
      if (weight >= 0 && weight <= 1e6) return static_cast<float>(weight);
    }
    wrong(fmt::format("'{}.weight' is {}, expected a number, 0 (not trained) or above", path, json_kind(value)));
    return 1;
  }

  // A string, or OpenAI's list of parts, whose texts are joined.
  void content(const Json& in, const std::string& path, bool has_call, Json& out) {
    if (!has(in, "content")) {
      // what an assistant said may stand elsewhere
      if (has_call || has(in, "reasoning_content")) return;
      if (has(in, "refusal") && in["refusal"].is_string()) {
        out["content"] = in["refusal"];
        out.erase("refusal");
        return;
      }
      return wrong(
          fmt::format("'{}.content' is {}, expected a string", path, in.contains("content") ? "null" : "missing"));
    }
    const Json& value = in["content"];
    if (value.is_string()) {
      out["content"] = value;
      return;
    }
    if (!value.is_array()) {
      return wrong(
          fmt::format("'{}.content' is {}, expected a string or a list of text parts", path, json_kind(value)));
    }
    std::string joined;
    for (size_t i = 0; i < value.size(); ++i) {
      const Json& part = value[i];
      if (part.is_string()) {
        joined += part.get_ref<const std::string&>();
      } else if (part.is_object() && part.contains("type") && part["type"].is_string() && part["type"] != "text") {
        wrong(fmt::format("'{}.content[{}]' is of type '{}'; graft trains on text only, no image, audio or file", path,
                          i, printable(part["type"].get<std::string>())));
      } else if (part.is_object() && part.contains("text") && part["text"].is_string()) {
        joined += part["text"].get_ref<const std::string&>();
      } else {
        wrong(fmt::format("'{}.content[{}]' is {}, expected {{\"type\": \"text\", \"text\": …}}", path, i,
                          json_kind(part)));
      }
    }
    out["content"] = std::move(joined);
  }

  bool tool_calls(const Json& value, const std::string& path, Json& out) {
    if (!value.is_array()) {
      wrong(fmt::format("'{}' is {}, expected a list of calls", path, json_kind(value)));
      return true;
    }
    if (value.empty()) return false;
    Json calls = Json::array();
    for (size_t i = 0; i < value.size(); ++i) {
      Json call;
      if (tool_call(value[i], fmt::format("{}[{}]", path, i), call)) calls.push_back(std::move(call));
    }
    out["tool_calls"] = std::move(calls);
    return true;
  }

  // {"function": {"name", "arguments"}} or the inner object alone. OpenAI writes the arguments as text, templates want
  // an object.
  bool tool_call(const Json& value, const std::string& path, Json& out) {
    if (!value.is_object()) {
      wrong(fmt::format("'{}' is {}, expected an object with name and arguments", path, json_kind(value)));
      return false;
    }
    const bool nested = value.contains("function");
    if (nested) {
      out = value;
      if (!out.contains("type")) out["type"] = "function";
    } else {
      out = Json{{"type", "function"}, {"function", value}};
    }
    const std::string inner = nested ? path + ".function" : path;
    Json& function = out["function"];
    if (!function.is_object()) {
      wrong(fmt::format("'{}' is {}, expected an object with name and arguments", inner, json_kind(function)));
      return false;
    }
    bool ok = true;
    if (!function.contains("name") || !function["name"].is_string()) {
      wrong(fmt::format("'{}.name' is missing, expected the name of a function", inner));
      ok = false;
    }
    Json& arguments = function["arguments"];
    if (arguments.is_string()) {
      const std::string written = arguments.get<std::string>();
      if (written.empty()) {
        arguments = Json::object();
      } else {
        try {
          arguments = parse_json(written, inner + ".arguments", kExact);
        } catch (const Error&) {
          wrong(fmt::format("'{}.arguments' is a string that is not JSON: {}", inner, printable(written, 40)));
          return false;
        }
      }
    } else if (arguments.is_null()) {
      arguments = Json::object();
    }
    if (!arguments.is_object()) {
      wrong(fmt::format("'{}.arguments' is {}, expected an object", inner, json_kind(arguments)));
      ok = false;
    }
    return ok;
  }

  const OnRowFault& fault_;
  bool good_ = true;
};

void read_share_gpt(const Json& value, MessageReader& reader, ChatRow& chat) {
  const Json& list = value["conversations"];
  if (!list.is_array()) {
    return reader.wrong(fmt::format("'conversations' is {}, expected a list of turns", json_kind(list)));
  }
  if (list.empty()) return reader.wrong("'conversations' is an empty list, expected turns");
  if (has(value, "system")) {
    const std::string text = reader.text(value, "system");
    if (!text.empty()) reader.message(Json{{"role", "system"}, {"content", text}}, "system", chat);
  }
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& turn = list[i];
    const std::string path = fmt::format("conversations[{}]", i);
    if (!turn.is_object()) {
      reader.wrong(fmt::format("'{}' is {}, expected an object with from and value", path, json_kind(turn)));
      continue;
    }
    if (!turn.contains("from") && turn.contains("role")) {  // the list under the other name
      reader.message(turn, path, chat);
      continue;
    }
    const std::string from = reader.text(turn, "from", path);
    const std::string said = reader.text(turn, "value", path);
    Json message = Json::object();
    if (from == "human" || from == "user") {
      message["role"] = "user";
    } else if (from == "gpt" || from == "assistant" || from == "chatgpt" || from == "model" || from == "bot") {
      message["role"] = "assistant";
    } else if (from == "system") {
      message["role"] = "system";
    } else if (from == "tool" || from == "observation" || from == "function_response") {
      message["role"] = "tool";
    } else if (from == "function_call" || from == "tool_call") {
      message["role"] = "assistant";
      try {
        Json call = parse_json(said, "function_call", kExact);
        message["tool_calls"] = call.is_array() ? std::move(call) : Json::array({std::move(call)});
      } catch (const Error&) {
        reader.wrong(fmt::format("'{}.value' is a function call that is not JSON: {}", path, printable(said, 40)));
        continue;
      }
    } else {
      if (turn.contains("from") && turn["from"].is_string()) {
        reader.wrong(fmt::format("'{}.from' is '{}', expected human, gpt, system, function_call or observation", path,
                                 printable(from)));
      }
      continue;
    }
    if (!message.contains("tool_calls")) message["content"] = said;
    if (has(turn, "weight")) message["weight"] = turn["weight"];
    reader.message(message, path, chat);
  }
}

void read_alpaca(const Json& value, MessageReader& reader, ChatRow& chat) {
  const auto say = [&](const char* role, std::string text) {
    reader.message(Json{{"role", role}, {"content", std::move(text)}}, role, chat);
  };
  if (has(value, "system")) {
    std::string text = reader.text(value, "system");
    if (!text.empty()) say("system", std::move(text));
  }
  if (has(value, "history")) {
    const Json& history = value["history"];
    const auto is_pair = [](const Json& p) {
      return p.is_array() && p.size() == 2 && p[0].is_string() && p[1].is_string();
    };
    if (!history.is_array()) {
      reader.wrong(fmt::format("'history' is {}, expected a list of [question, answer]", json_kind(history)));
    } else {
      for (size_t i = 0; i < history.size(); ++i) {
        if (!is_pair(history[i])) {
          reader.wrong(fmt::format("'history[{}]' is {}, expected [question, answer]", i, json_kind(history[i])));
          continue;
        }
        say("user", history[i][0]);
        say("assistant", history[i][1]);
      }
    }
  }
  std::string question = reader.text(value, "instruction");
  if (has(value, "input")) {
    const std::string input = reader.text(value, "input");
    if (!input.empty()) question += (question.empty() ? "" : "\n") + input;
  }
  say("user", std::move(question));
  say("assistant", reader.text(value, "output"));
}

}  // namespace

std::string_view row_format_name(RowFormat format) {
  switch (format) {
    case RowFormat::kText: return "text";
    case RowFormat::kCompletion: return "prompt-completion";
    case RowFormat::kCompletionMessages: return "prompt-completion messages";
    case RowFormat::kMessages: return "messages";
    case RowFormat::kAlpaca: return "alpaca";
    case RowFormat::kShareGpt: return "sharegpt";
  }
  return "";
}

bool parse_row(Json&& value, DataRow* row, const OnRowFault& fault) {
  MessageReader reader(fault);
  if (!value.is_object()) {
    reader.wrong(fmt::format("a row is {}, expected an object", json_kind(value)), std::string(kKnownKeys));
    return false;
  }
  row->prompt.clear();
  row->text.clear();
  row->chat.reset();
  const auto chat = [&](RowFormat format) -> ChatRow& {
    row->format = format;
    row->chat = std::make_unique<ChatRow>();
    return *row->chat;
  };
  // A key counts even when its value is null: it tells what the row was meant to be.
  if (value.contains("messages")) {
    ChatRow& c = chat(RowFormat::kMessages);
    reader.messages(value, "messages", c);
  } else if (value.contains("chosen") || value.contains("preferred_output") || value.contains("preferred_completion")) {
    reader.wrong("a preference row (chosen and rejected answers); graft train learns from one answer per row",
                 "keep the chosen answer as the completion");
  } else if (value.contains("prompt") || value.contains("completion")) {
    const bool lists = (value.contains("prompt") && value["prompt"].is_array()) ||
                       (value.contains("completion") && value["completion"].is_array());
    if (lists) {
      ChatRow& c = chat(RowFormat::kCompletionMessages);
      reader.messages(value, "prompt", c);
      c.num_prompt_messages = static_cast<int64_t>(c.messages.size());
      reader.messages(value, "completion", c);
    } else {
      row->format = RowFormat::kCompletion;
      row->prompt = reader.text(value, "prompt");
      row->text = reader.text(value, "completion");
    }
  } else if (value.contains("conversations")) {
    read_share_gpt(value, reader, chat(RowFormat::kShareGpt));
  } else if (value.contains("instruction")) {
    read_alpaca(value, reader, chat(RowFormat::kAlpaca));
  } else if (value.contains("text")) {
    row->format = RowFormat::kText;
    row->text = reader.text(value, "text");
  } else {
    std::string keys;
    int shown = 0;
    for (const auto& item : value.items()) {
      if (++shown > 8) break;
      keys += fmt::format("{}'{}'", keys.empty() ? "" : ", ", printable(item.key(), 30));
    }
    reader.wrong(keys.empty() ? std::string("an empty row without messages, prompt or text")
                              : fmt::format("a row with the keys {}, expected messages, prompt and completion, text, "
                                            "instruction and output, or conversations",
                                            keys),
                 std::string(kKnownKeys));
  }
  if (row->chat) {
    reader.tools(value, *row->chat);
    reader.template_args(value, *row->chat);
  }
  return reader.good();
}

}  // namespace graft
