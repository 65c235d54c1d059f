#include "graft/text/chat_template.h"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <ctime>

#include "graft/base/error.h"
#include "graft/text/jinja/interpreter.h"

namespace graft {
namespace {

using jinja::Mark;
using jinja::Value;

void set_clock(jinja::Runtime& runtime) {
  const char* fixed = std::getenv("SOURCE_DATE_EPOCH");
  if (fixed == nullptr || *fixed == '\0') {
    runtime.now = static_cast<int64_t>(std::time(nullptr));
    return;
  }
  const std::string_view text(fixed);
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), runtime.now);
  if (status != std::errc() || end != text.data() + text.size() || runtime.now < 0 || runtime.now > 253402300799) {
    fail_hint("set it to the seconds since 1970-01-01, or unset it",
              "SOURCE_DATE_EPOCH is '{}', expected a whole number of seconds", printable(text));
  }
  runtime.now_given = true;
}

int64_t size_of(const Json& json, int depth = 0) {
  if (depth > 1000) return 0;  // from_json refuses it
  int64_t bytes = 32;
  if (json.is_string()) bytes += static_cast<int64_t>(json.get_ref<const std::string&>().size());
  if (json.is_structured()) {
    for (const auto& [key, value] : json.items()) bytes += static_cast<int64_t>(key.size()) + size_of(value, depth + 1);
  }
  return bytes;
}

Value message_value(jinja::Runtime& runtime, const Json& message, int32_t index, bool open) {
  if (!open || !message.is_object()) return jinja::from_json(runtime, message, &index, 1);
  auto dict = std::make_shared<jinja::Dict>();
  constexpr int32_t kOpen = jinja::kFinal;
  for (const auto& [key, value] : message.items()) {
    Value made;
    if (key == "content" && value.is_array()) {
      size_t last_text = value.size();
      for (size_t i = 0; i < value.size(); ++i) {
        if (value[i].is_object() && value[i].contains("text")) last_text = i;
      }
      std::vector<Value> parts;
      for (size_t i = 0; i < value.size(); ++i) {
        parts.push_back(jinja::from_json(runtime, value[i], i == last_text ? &kOpen : &index, 2));
      }
      made = runtime.list(std::move(parts));
    } else {
      made = jinja::from_json(runtime, value, key == "content" ? &kOpen : &index, 2);
    }
    dict->set(jinja::from_json(runtime, Json(key), &index), made);
  }
  return runtime.dict(std::move(dict));
}

std::vector<std::pair<std::string, Value>> make_variables(jinja::Runtime& runtime, const Json& variables,
                                                          const RenderOptions& options) {
  std::vector<std::pair<std::string, Value>> out;
  for (const auto& [name, json] : variables.items()) {
    if (name == "messages" && json.is_array()) {
      std::vector<Value> messages;
      for (size_t i = 0; i < json.size(); ++i) {
        const auto index = static_cast<int32_t>(i);
        messages.push_back(message_value(runtime, json[i], index, options.open_message == index));
      }
      out.emplace_back(name, runtime.list(std::move(messages)));
      continue;
    }
    const bool token = name.size() > 6 && name.compare(name.size() - 6, 6, "_token") == 0;
    out.emplace_back(name, jinja::from_json(runtime, json, token ? nullptr : &jinja::kOther));
  }
  return out;
}

// Marks in any order, perhaps over each other, to ascending ranges.
std::vector<DataRange> data_ranges(std::vector<Mark> marks, const RenderOptions& options) {
  std::stable_sort(marks.begin(), marks.end(), [](const Mark& a, const Mark& b) { return a.begin < b.begin; });
  std::vector<DataRange> out;
  for (const Mark& m : marks) {
    if (m.source == jinja::kGeneration) continue;
    const bool open = m.source == jinja::kFinal;
    DataRange range{m.begin, m.end, open ? options.open_message.value_or(-1) : m.source, open};
    if (!out.empty()) range.begin = std::max(range.begin, out.back().end);
    if (range.begin >= range.end) continue;
    DataRange* last = out.empty() ? nullptr : &out.back();
    if (last != nullptr && last->end == range.begin && last->message == range.message && last->open == range.open) {
      last->end = range.end;
    } else {
      out.push_back(range);
    }
  }
  return out;
}

}  // namespace

struct ChatTemplate::Impl {
  std::string source;
  jinja::Template parsed;
};

ChatTemplate::ChatTemplate(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;
ChatTemplate::~ChatTemplate() = default;

ChatTemplate ChatTemplate::compile(std::string_view source, std::string_view where) {
  auto impl = std::make_unique<Impl>();
  impl->source = source;
  impl->parsed = jinja::parse(source, std::string(where));
  return ChatTemplate(std::move(impl));
}

Rendered ChatTemplate::render(const Json& variables, const RenderOptions& options) const {
  if (!variables.is_object()) fail("{}: the variables must be a JSON object, found {}", where(), json_kind(variables));
  jinja::Runtime runtime;
  set_clock(runtime);
  const int64_t input = size_of(variables);
  runtime.limits.steps = options.max_steps;
  runtime.limits.string_bytes += 2 * input;
  runtime.limits.live_bytes += 10 * input;
  runtime.limits.output_bytes += 4 * input;
  // Marks count in 32 bits.
  if (input > (int64_t{256} << 20)) fail("{}: the input has {} bytes, the limit is 256 MiB", where(), input);
  jinja::RenderResult result;
  try {
    result = jinja::run(impl_->parsed, runtime, make_variables(runtime, variables, options));
  } catch (const jinja::Fault& fault) {
    fail("{}: {}", where(), fault.message);
  }
  Rendered out;
  out.text = std::move(result.text);
  out.marks_generation = impl_->parsed.marks_generation;
  for (const Mark& m : result.marks) {
    if (m.source == jinja::kGeneration) out.spans.emplace_back(m.begin, m.end);
  }
  std::stable_sort(out.spans.begin(), out.spans.end());
  out.data = data_ranges(std::move(result.marks), options);
  return out;
}

const std::string& ChatTemplate::source() const { return impl_->source; }
bool ChatTemplate::reads_clock() const {
  const auto& names = impl_->parsed.symbols;
  return std::find(names.begin(), names.end(), "strftime_now") != names.end();
}
const std::string& ChatTemplate::where() const { return impl_->parsed.where; }

}  // namespace graft
