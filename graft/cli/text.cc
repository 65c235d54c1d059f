#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/cli/common.h"
#include "graft/cli/lines.h"
#include "graft/text/chat.h"
#include "graft/text/tokenizer.h"

namespace graft {
namespace {

std::string text_field(const Json& line, const char* name) {
  GRAFT_CHECK(line.contains(name) && line[name].is_string(), "'{}' is {}, expected a string", name,
              line.contains(name) ? json_kind(line[name]) : "missing");
  return line[name].get<std::string>();
}

std::vector<int32_t> ids_field(const Json& line) {
  GRAFT_CHECK(line.contains("ids") && line["ids"].is_array(), "'ids' is {}, expected a list of numbers",
              line.contains("ids") ? json_kind(line["ids"]) : "missing");
  std::vector<int32_t> ids;
  for (const Json& id : line["ids"]) {
    GRAFT_CHECK(id.is_number_integer() && id.get<int64_t>() >= 0 && id.get<int64_t>() <= INT32_MAX,
                "'ids' holds {}, expected a token id", json_kind(id));
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

Json encoding_json(const Encoding& e, bool pair) {
  Json offsets = Json::array();
  for (const auto& [begin, end] : e.byte_offsets) offsets.push_back({begin, end});
  Json out = {{"ids", e.ids}, {"byte_offsets", std::move(offsets)}, {"special_mask", e.special_mask}};
  if (pair) out["type_ids"] = e.type_ids;
  return out;
}

Json spans_json(const std::vector<std::pair<int64_t, int64_t>>& spans) {
  Json out = Json::array();
  for (const auto& [begin, end] : spans) out.push_back({begin, end});
  return out;
}

// Variables of a template line that are not options of the call.
Json other_variables(const Json& line) {
  Json variables = Json::object();
  for (const auto& [key, value] : line.items()) {
    if (key != "messages" && key != "tools" && key != "add_generation_prompt" && key != "continue_final_message") {
      variables[key] = value;
    }
  }
  return variables;
}

Json render_line(const ChatFormat& format, const Tokenizer* tokenizer, const Json& line) {
  ChatOptions options;
  if (line.contains("tools")) options.tools = line["tools"];
  options.variables = other_variables(line);
  const auto flag = [&](const char* name) {
    return line.contains(name) && line[name].is_boolean() && line[name].get<bool>();
  };
  options.add_generation_prompt = flag("add_generation_prompt");
  options.continue_final_message = flag("continue_final_message");
  const Json messages = line.contains("messages") ? line["messages"] : Json();
  const Rendered rendered = format.render(messages, options);
  Json out = {{"text", rendered.text}};
  if (rendered.marks_generation) out["spans"] = spans_json(rendered.spans);
  if (tokenizer != nullptr) {
    const ChatTokens tokens = ChatFormat::encode(*tokenizer, format.render_answers(messages, options, *tokenizer));
    Json mask = Json::array();
    for (const int32_t message : tokens.message) mask.push_back(message >= 0 ? 1 : 0);
    out["ids"] = tokens.ids;
    out["assistant_mask"] = std::move(mask);
  }
  return out;
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto* command = app.add_subcommand("tokenize", "Turn text into token ids, a line of JSON per line");
  struct Flags {
    CommonFlags common;
    std::string model, file;
    bool no_special = false;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, "Folder with tokenizer.json")->required()->type_name("MODEL");
  command->add_option("--file", flags->file, "Lines {\"text\"} or {\"a\", \"b\"}; - is standard input")
      ->required()
      ->type_name("IN.jsonl");
  command->add_flag("--no-special", flags->no_special, "Add no special tokens (BOS and the like)");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  echo '{\"text\": \"Hello\"}' | graft tokenize Qwen2.5-0.5B --file -");
  command->callback([flags] {
    const Runtime runtime(flags->common);
    const Tokenizer tokenizer = Tokenizer::load(flags->model);
    EncodeOptions options;
    options.add_special_tokens = !flags->no_special;
    answer_lines(flags->file, [&](const Json& line, int64_t) {
      if (line.contains("a") || line.contains("b")) {
        return encoding_json(tokenizer.encode_pair(text_field(line, "a"), text_field(line, "b"), options), true);
      }
      return encoding_json(tokenizer.encode(text_field(line, "text"), options), false);
    });
  });
}

void add_detokenize(CLI::App& app) {
  auto* command = app.add_subcommand("detokenize", "Turn token ids into text, a line of JSON per line");
  struct Flags {
    CommonFlags common;
    std::string model, file;
    bool skip_special = false, stream = false;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, "Folder with tokenizer.json")->required()->type_name("MODEL");
  command->add_option("--file", flags->file, "Lines {\"ids\"}; - is standard input")->required()->type_name("IN.jsonl");
  command->add_flag("--skip-special", flags->skip_special, "Leave special tokens out of the text");
  command->add_flag("--stream", flags->stream, "Answer with what each id releases");
  add_common_flags(*command, flags->common);
  command->footer("Example:\n  echo '{\"ids\": [9707]}' | graft detokenize Qwen2.5-0.5B --file -");
  command->callback([flags] {
    const Runtime runtime(flags->common);
    const Tokenizer tokenizer = Tokenizer::load(flags->model);
    answer_lines(flags->file, [&](const Json& line, int64_t) {
      const std::vector<int32_t> ids = ids_field(line);
      if (!flags->stream) return Json{{"text", tokenizer.decode(ids, flags->skip_special)}};
      StreamDecoder decoder(tokenizer, flags->skip_special);
      Json chunks = Json::array();
      for (const int32_t id : ids) {
        const auto chunk = decoder.step(id);
        chunks.push_back(chunk ? Json(*chunk) : Json());
      }
      return Json{{"chunks", std::move(chunks)}};
    });
  });
}

void add_template(CLI::App& app) {
  auto* command = app.add_subcommand("template", "Render conversations with a chat template, a line of JSON per line");
  struct Flags {
    CommonFlags common;
    std::string model, file;
    std::vector<std::string> args;
    bool tokens = false;
  };
  auto flags = std::make_shared<Flags>();
  command->add_option("model", flags->model, "Model folder or a .jinja file")
      ->required()
      ->type_name("MODEL|FILE.jinja");
  command->add_option("--file", flags->file, "Lines {\"messages\", …}; - is standard input")
      ->required()
      ->type_name("IN.jsonl");
  command->add_flag("--tokens", flags->tokens, "Add token ids and the assistant's mask (model folders only)");
  command->add_option("--template-arg", flags->args, "Variable for the template (repeatable)")->type_name("K=V");
  add_common_flags(*command, flags->common);
  command->footer(
      "Example:\n  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}' | graft template "
      "Qwen2.5-0.5B-Instruct --file -");
  command->callback([flags] {
    const Runtime runtime(flags->common);
    const bool folder = is_directory(flags->model);
    if (flags->tokens && !folder) throw UsageError("--tokens needs a model folder, not a template file");
    ChatFormat format = folder ? ChatFormat::load(flags->model)
                               : ChatFormat::from_template(read_file(flags->model, size_t{16} << 20), flags->model);
    format.set_template_args(flags->args);
    std::optional<Tokenizer> tokenizer;
    if (flags->tokens) tokenizer = Tokenizer::load(flags->model);
    answer_lines(flags->file, [&](const Json& line, int64_t) {
      return render_line(format, tokenizer ? &*tokenizer : nullptr, line);
    });
  });
}

}  // namespace graft
