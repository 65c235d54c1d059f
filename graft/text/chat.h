#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/json.h"
#include "graft/text/chat_template.h"
#include "graft/text/tokenizer.h"

namespace graft {

struct ChatOptions {
  Json tools;                           // an array, or null
  Json variables;                       // further template variables, an object or null; they win over everything else
  bool add_generation_prompt = false;   // end with the opening of the assistant's answer
  bool continue_final_message = false;  // leave the last message open, to be continued
};

// What the assistant wrote: bytes [begin, end) of the text, of messages[message].
struct AssistantSpan {
  int64_t begin = 0, end = 0;
  int32_t message = 0;
};

struct ChatText {
  std::string text;
  std::vector<AssistantSpan> spans;
  std::vector<std::pair<int64_t, int64_t>>
      user_text;  // bytes that data wrote, ascending: no special token is read in them
};

struct ChatTokens {
  std::vector<int32_t> ids;
  std::vector<uint8_t> assistant_mask;  // of each token: 1 if it shares a byte with a span
  std::vector<int32_t> message;         // of each token: the message of that span, else -1
};

// The chat template of a model folder with its special tokens, used as transformers' apply_chat_template does. Messages
// lose keys that are null; `thinking` or `reasoning` is copied to `reasoning_content` and that to `thinking`; `tools`
// and `documents` are none where they are not given. Immutable after loading; safe to share between threads.
class ChatFormat {
 public:
  // chat_template.jinja (and additional_chat_templates/NAME.jinja), else `chat_template` of tokenizer_config.json: a
  // string or a list of {name, template}, of which `tool_use` is taken where there are tools, else `default`. Warns
  // where file and config differ. Throws Error if there is no template, naming the folder.
  static ChatFormat load(const std::string& folder);
  static bool exists(const std::string& folder);  // would load find a template?
  // A template by itself; `tokens`: bos_token, eos_token, … as the template sees them.
  static ChatFormat from_template(std::string_view source, std::string_view where,
                                  const std::map<std::string, std::string>& tokens = {});

  // `--template-arg K=V`: V as JSON where that parses, else as a string. Variables of every later rendering.
  void set_template_args(const std::vector<std::string>& args);

  // The text of a conversation; `spans` are those of {% generation %} blocks.
  Rendered render(const Json& messages, const ChatOptions& options = {}) const;
  // The same, ready for encode(): spans of {% generation %} blocks, each with the message it shows (-1 if none can be).
  ChatText prompt(const Json& messages, const ChatOptions& options) const;

  // The text of a whole conversation and what the assistant wrote in it: the {% generation %} blocks of a template that
  // has them; else, for message i, what messages[:i] with the opening of an answer lacks of messages[:i + 1]. Both must
  // be prefixes of the whole text. Where only what follows the turn's special token differs (a template that closes a
  // conversation in its own way), the answer ends with that token. Where it cannot be told for sure what the assistant wrote, an Error names
  // template and message: nothing is ever guessed. The span includes the token that ends the turn, but not white space
  // behind it. `wanted`: a flag per message; spans of other messages are neither sought nor given. Empty: every
  // assistant message.
  ChatText render_answers(const Json& messages, const ChatOptions& options, const Tokenizer& tokenizer,
                          std::span<const uint8_t> wanted = {}) const;

  // Token ids. What data wrote never becomes a special token; apart from that they are the ids of the text as a whole.
  // A token belongs to a span if it shares a byte with it.
  static ChatTokens encode(const Tokenizer& tokenizer, const ChatText& chat);

  const std::string& where() const { return default_.where(); }
  // The template asks for the date: prompts differ from day to day unless SOURCE_DATE_EPOCH is set.
  bool reads_clock() const;

 private:
  ChatFormat(ChatTemplate base, std::map<std::string, std::string> tokens);
  const ChatTemplate& chosen(const Json& tools) const;
  Rendered render_messages(const Json& messages, const ChatOptions& options, int32_t open_message) const;
  AssistantSpan answer(const Json& messages, size_t i, const ChatOptions& options, const Rendered& whole,
                       const Tokenizer& tokenizer) const;

  ChatTemplate default_;
  std::optional<ChatTemplate> tool_use_;
  std::map<std::string, std::string> tokens_;
  Json args_ = Json::object();
};

// "K=V" of --template-arg. Throws Error without '=' or for a name that no variable may have.
std::pair<std::string, Json> parse_template_arg(std::string_view text);

}  // namespace graft
