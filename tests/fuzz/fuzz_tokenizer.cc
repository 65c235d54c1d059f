// tokenizer.json from the input; if it loads, a text with a little of everything goes through it and back.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "graft/base/error.h"
#include "graft/base/log.h"
#include "graft/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  graft::set_log_sink([](graft::LogLevel, std::string_view) {});
  try {
    const graft::Tokenizer tokenizer =
        graft::Tokenizer::from_json({reinterpret_cast<const char*>(data), size}, "tokenizer.json");
    constexpr std::string_view kText =
        "Hello  wörld, e\u0301 1234 xxxxxxxxxxxx\n\t\u2581<s>\u4E2D\U0001F642 it's<|x|> \u212B";
    const graft::Encoding encoding = tokenizer.encode(kText);
    tokenizer.encode_pair(kText, "second", {.add_special_tokens = true, .parse_special_tokens = false});
    tokenizer.decode(encoding.ids, true);
    graft::StreamDecoder stream(tokenizer);
    for (const int32_t id : encoding.ids) stream.step(id);
    stream.flush();
  } catch (const graft::Error&) {
  }
  return 0;
}
