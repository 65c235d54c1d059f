#include "graft/text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "graft/text/jinja/operations.h"

namespace graft::jinja {
namespace {

constexpr size_t kIndexFrom = 12;  // below, a look at every key is faster than a hash
constexpr int64_t kObjectBytes = 64;
constexpr size_t kMaxBigLimbs = 512;  // 4,608 digits; Python prints at most 4,300

template <typename T>
std::shared_ptr<T> make() {
  return std::make_shared<T>();
}

}  // namespace

const Value* Dict::find(std::string_view key) const {
  if (entries.size() < kIndexFrom) {
    for (const auto& [name, value] : entries) {
      if (name.is_string() && name.str() == key) return &value;
    }
    return nullptr;
  }
  if (indexed_ != entries.size()) {
    for (; indexed_ < entries.size(); ++indexed_) {
      if (entries[indexed_].first.is_string()) index_.emplace(entries[indexed_].first.str(), indexed_);
    }
  }
  const auto it = index_.find(key);
  return it == index_.end() ? nullptr : &entries[it->second].second;
}

const Value* Dict::find(const Value& key) const {
  if (key.is_string()) return find(key.str());
  for (const auto& [name, value] : entries) {
    if (!name.is_string() && equal_keys(name, key)) return &value;
  }
  return nullptr;
}

void Dict::set(const Value& key, Value value) {
  if (const Value* old = find(key)) {
    *const_cast<Value*>(old) = std::move(value);
    return;
  }
  entries.emplace_back(key, std::move(value));
}

const Value* Space::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

std::string Big::to_string() const {
  std::string out = negative ? "-" : "";
  out += std::to_string(limbs.back());
  for (size_t i = limbs.size() - 1; i-- > 0;) out += fmt::format("{:09}", limbs[i]);
  return out;
}

double Big::to_double() const { return std::strtod(to_string().c_str(), nullptr); }

void TextBuilder::append(const Text& text, size_t begin, size_t end) {
  const size_t base = bytes_.size();
  bytes_.append(text.bytes, begin, end - begin);
  for (const Mark& m : text.marks) {
    const size_t b = std::max<size_t>(m.begin, begin), e = std::min<size_t>(m.end, end);
    if (b < e) mark(base + b - begin, base + e - begin, m.source);
    if (b == e && m.begin == m.end && m.source == kGeneration) mark(base + b - begin, base + b - begin, m.source);
  }
}

void TextBuilder::derived(std::string_view bytes, const Text& from) {
  const size_t begin = bytes_.size();
  bytes_.append(bytes);
  for (const Mark& m : from.marks) {
    if (m.source != kGeneration && m.begin < m.end) {
      mark(begin, bytes_.size(), m.source);
      return;
    }
  }
}

void TextBuilder::mark(size_t begin, size_t end, int32_t source) {
  if (!marks_.empty() && source != kGeneration) {
    Mark& last = marks_.back();
    if (last.source == source && last.end == begin) {
      last.end = static_cast<uint32_t>(end);
      return;
    }
  }
  marks_.push_back({static_cast<uint32_t>(begin), static_cast<uint32_t>(end), source});
}

Runtime::~Runtime() {
  for (auto& [object, clear] : kept_) clear(*object);
}

void Runtime::out_of_steps() const {
  throw Fault{fmt::format("the template takes more than the limit of {} steps", limits.steps)};
}

void Runtime::reserve(int64_t bytes) const {
  if (bytes > limits.live_bytes - budget_.live_bytes) {
    throw Fault{fmt::format("the template's values pass the limit of {} MiB of memory", limits.live_bytes >> 20)};
  }
}

void Runtime::check_string(int64_t bytes) const {
  if (bytes > limits.string_bytes) {
    throw Fault{fmt::format("the template makes a string longer than the limit of {} MiB", limits.string_bytes >> 20)};
  }
  reserve(bytes);
}

int Runtime::deeper(int depth) const {
  if (depth >= limits.container_depth) {
    throw Fault{fmt::format("the template nests values deeper than the limit of {}", limits.container_depth)};
  }
  return depth + 1;
}

Value Runtime::string(std::string bytes) {
  check_string(static_cast<int64_t>(bytes.size()));
  auto text = make<Text>();
  text->count(budget_, kObjectBytes + static_cast<int64_t>(bytes.capacity()));
  text->bytes = std::move(bytes);
  return Value(Kind::string, std::move(text));
}

Value Runtime::string(TextBuilder&& builder) {
  check_string(static_cast<int64_t>(builder.size()));
  auto text = make<Text>();
  text->count(budget_, kObjectBytes + static_cast<int64_t>(builder.bytes().capacity() +
                                                           builder.marks().capacity() * sizeof(Mark)));
  text->bytes = std::move(builder.bytes());
  text->marks = std::move(builder.marks());
  return Value(Kind::string, std::move(text));
}

Value Runtime::derived(std::string bytes, const Text& from) {
  TextBuilder out;
  out.derived(bytes, from);
  return string(std::move(out));
}

Value Runtime::slice(const Value& text, size_t begin, size_t end) {
  if (begin == 0 && end == text.str().size()) return text;
  check_string(static_cast<int64_t>(end - begin));
  TextBuilder out;
  out.append(text.text(), begin, end);
  copied(end - begin);
  return string(std::move(out));
}

Value Runtime::items(Kind kind, std::vector<Value> values) {
  auto made = make<Items>();
  const auto bytes = kObjectBytes + static_cast<int64_t>(values.capacity() * sizeof(Value));
  reserve(bytes);
  int depth = 0;
  for (const Value& v : values) depth = std::max(depth, v.depth());
  made->depth = deeper(depth);
  made->count(budget_, bytes);
  made->values = std::move(values);
  step(static_cast<int64_t>(made->values.size() >> 3));
  return Value(kind, std::move(made));
}

Value Runtime::iterator(std::vector<Value> values, const char* shown) {
  Value made = items(Kind::iterator, std::move(values));
  static_cast<Items&>(*made.object()).shown = shown;
  return made;
}

Value Runtime::dict(std::shared_ptr<Dict> dict) {
  const auto bytes = kObjectBytes * 2 + static_cast<int64_t>(dict->entries.capacity() * 2 * sizeof(Value));
  reserve(bytes);
  int depth = 0;
  for (const auto& [key, value] : dict->entries) depth = std::max({depth, key.depth(), value.depth()});
  dict->depth = deeper(depth);
  dict->count(budget_, bytes);
  step(static_cast<int64_t>(dict->entries.size()));
  return Value(Kind::dict, std::move(dict));
}

Value Runtime::range(int64_t start, int64_t stop, int64_t step) {
  auto made = make<Range>();
  made->start = start, made->stop = stop, made->step = step;
  // In 128 bits: the ends may lie at the edges of 64.
  const __int128 distance = step > 0 ? static_cast<__int128>(stop) - start : static_cast<__int128>(start) - stop;
  const __int128 size = step > 0 ? static_cast<__int128>(step) : -static_cast<__int128>(step);
  const __int128 length = distance <= 0 ? 0 : (distance + size - 1) / size;
  if (length > 100000) throw Fault{"range too big: the limit is 100000 numbers"};
  made->length = static_cast<int64_t>(length);
  made->count(budget_, kObjectBytes);
  return Value(Kind::range, std::move(made));
}

Value Runtime::big(bool negative, std::vector<uint32_t> limbs) {
  while (!limbs.empty() && limbs.back() == 0) limbs.pop_back();
  if (limbs.size() <= 3) {
    __int128 value = 0;
    for (size_t i = limbs.size(); i-- > 0;) value = value * 1000000000 + limbs[i];
    if (negative) value = -value;
    if (value >= INT64_MIN && value <= INT64_MAX) return Value(static_cast<int64_t>(value));
  }
  if (limbs.size() > kMaxBigLimbs) throw Fault{"an integer longer than the limit of 4,608 digits"};
  auto made = make<Big>();
  made->negative = negative;
  made->limbs = std::move(limbs);
  made->count(budget_, kObjectBytes + static_cast<int64_t>(made->limbs.size() * 4));
  step(static_cast<int64_t>(made->limbs.size()));
  return Value(Kind::big, std::move(made));
}

Value Runtime::space(std::vector<std::pair<std::string, Value>> attributes) {
  auto made = make<Space>();
  made->count(budget_, kObjectBytes * 2);
  made->depth = 1;
  Value value(Kind::space, made);
  keep(made, [](Object& object) { static_cast<Space&>(object).attributes.clear(); });
  for (auto& [name, attribute] : attributes) set_attribute(*made, name, std::move(attribute));
  return value;
}

void Runtime::set_attribute(Space& space, const std::string& name, Value value) {
  if (name.rfind('_', 0) == 0) throw Fault{fmt::format("attribute '{}' of a namespace is not allowed", name)};
  for (auto& [key, old] : space.attributes) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  if (space.attributes.size() >= 10000) throw Fault{"a namespace with more than the limit of 10000 attributes"};
  const auto bytes = kObjectBytes + static_cast<int64_t>(name.size());
  reserve(bytes);
  budget_.live_bytes += bytes;  // for good: namespaces live to the end
  space.attributes.emplace_back(name, std::move(value));
}

Value Runtime::callable(std::shared_ptr<Callable> callable, int depth, size_t more_bytes) {
  const auto bytes = kObjectBytes * 2 + static_cast<int64_t>(more_bytes);
  reserve(bytes);
  callable->depth = deeper(depth);
  callable->count(budget_, bytes);
  return Value(Kind::callable, std::move(callable));
}

Value Runtime::undefined(std::string message) {
  auto made = make<Undefined>();
  made->message = std::move(message);
  made->count(budget_, kObjectBytes);
  return Value(Kind::undefined, std::move(made));
}

void Runtime::keep(std::shared_ptr<Object> object, void (*clear)(Object&)) {
  constexpr int64_t kKeptBytes = 4 * kObjectBytes;  // for good
  reserve(kKeptBytes);
  budget_.live_bytes += kKeptBytes;
  kept_.emplace_back(std::move(object), clear);
}

}  // namespace graft::jinja
