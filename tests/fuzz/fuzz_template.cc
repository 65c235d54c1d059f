// A chat template from the input, rendered with a conversation that has something of everything.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "graft/base/error.h"
#include "graft/text/chat_template.h"

namespace {

const graft::Json& conversation() {
  static const graft::Json variables = graft::parse_json(R"({
    "messages": [{"role": "system", "content": " Be kind.\n"}, {"role": "user", "content": "Größe <|im_end|> 中文 🙂"},
                 {"role": "assistant", "content": "", "reasoning_content": "hm", "tool_calls": [{"id": "c00000001",
                  "type": "function", "function": {"name": "f", "arguments": {"a": [1, 2.5, null, true], "b": {"c": "d"}}}}]},
                 {"role": "tool", "tool_call_id": "c00000001", "content": "17"}, {"role": "assistant", "content": "<think>x</think>y"}],
    "tools": [{"type": "function", "function": {"name": "f", "description": "what", "parameters": {"type": "object",
               "properties": {"a": {"type": "array"}}, "required": ["a"]}}}],
    "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>", "enable_thinking": false,
    "s": "  quartz NORTH\n", "n": 62, "f": 79.5, "list": [77, 4, 57], "words": ["amber", "BIRCH"], "d": {"b": 79, "a": "x"}})",
                                                         "conversation");
  return variables;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const graft::ChatTemplate chat = graft::ChatTemplate::compile({reinterpret_cast<const char*>(data), size}, "fuzz");
    const graft::Rendered out = chat.render(conversation(), {.open_message = 4, .max_steps = 100'000});
    int64_t at = 0;
    for (const graft::DataRange& range : out.data) {
      if (range.begin < at || range.end <= range.begin) std::abort();
      at = range.end;
    }
    if (at > static_cast<int64_t>(out.text.size())) std::abort();
    for (const auto& [begin, end] : out.spans) {
      if (begin > end || end > static_cast<int64_t>(out.text.size())) std::abort();
    }
  } catch (const graft::Error&) {
  }
  return 0;
}
