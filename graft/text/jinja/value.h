#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

// The values of the template language: Python's, as far as templates can tell. Immutable but for namespaces, cyclers
// and joiners; counted, so that a template can never hold more memory than its limit.
namespace graft::jinja {

class Runtime;
struct Args;
class Value;

// What a template does wrong, without a place; the interpreter adds file and line and throws graft::Error.
struct Fault {
  std::string message;
};

// [begin, end) of a string came from outside the template. Source: index of the message, kOther for any other data, or
// kGeneration for what a {% generation %} block wrote. Marks follow the text through every string operation.
struct Mark {
  uint32_t begin, end;
  int32_t source;
};
inline constexpr int32_t kOther = -1;
inline constexpr int32_t kGeneration = -2;
inline constexpr int32_t kFinal = 1 << 30;  // the text that continue_final_message leaves open

// Bytes that live objects hold. Objects take theirs when made and give them back when they die.
struct Budget {
  int64_t live_bytes = 0;
};

class Object {
 public:
  Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;
  virtual ~Object() {
    if (budget_ != nullptr) budget_->live_bytes -= bytes_;
  }
  void count(Budget& budget, int64_t bytes) {
    budget_ = &budget;
    bytes_ = bytes;
    budget.live_bytes += bytes;
  }
  int depth = 0;  // nesting of containers below and including this one

 private:
  Budget* budget_ = nullptr;
  int64_t bytes_ = 0;
};

enum class Kind : uint8_t {
  undefined,
  none,
  boolean,
  integer,
  big,  // an integer beyond 64 bits
  real,
  string,
  list,
  tuple,
  iterator,  // what lazy filters and dict views give: can be looped over, is neither list nor text
  range,
  dict,
  space,  // namespace()
  callable,
};

struct Text;
struct Items;
struct Dict;
struct Space;
struct Range;
struct Big;
class Callable;

class Value {
 public:
  Value() = default;  // none
  explicit Value(bool value) : kind_(Kind::boolean), integer_(value) {}
  explicit Value(int64_t value) : kind_(Kind::integer), integer_(value) {}
  explicit Value(double value) : kind_(Kind::real), real_(value) {}
  Value(Kind kind, std::shared_ptr<Object> object) : kind_(kind), object_(std::move(object)) {}

  Kind kind() const { return kind_; }
  bool is(Kind kind) const { return kind_ == kind; }
  bool is_undefined() const { return kind_ == Kind::undefined; }
  bool is_none() const { return kind_ == Kind::none; }
  bool is_string() const { return kind_ == Kind::string; }
  bool is_int() const { return kind_ == Kind::integer || kind_ == Kind::boolean; }
  bool is_number() const { return is_int() || kind_ == Kind::real || kind_ == Kind::big; }
  bool is_sequence() const { return kind_ == Kind::list || kind_ == Kind::tuple || kind_ == Kind::iterator; }

  bool boolean() const { return integer_ != 0; }
  int64_t integer() const { return integer_; }
  double real() const { return real_; }
  const Text& text() const;
  const std::string& str() const;
  const Items& items() const;
  const Dict& dict() const;
  const Range& range() const;
  const Big& big() const;
  Space& space() const;
  Callable& callable() const;
  const std::string& undefined_message() const;
  const std::shared_ptr<Object>& object() const { return object_; }
  int depth() const { return object_ ? object_->depth : 0; }

 private:
  Kind kind_ = Kind::none;
  union {
    int64_t integer_ = 0;
    double real_;
  };
  std::shared_ptr<Object> object_;
};

struct Text : Object {
  std::string bytes;
  std::vector<Mark> marks;
  bool markup = false;  // Markup of |safe and |escape: `+` escapes what is added to it
};

struct Undefined : Object {
  std::string message;
};

struct Items : Object {
  std::vector<Value> values;
  bool group = false;           // the pair of groupby, with .grouper and .list
  const char* shown = nullptr;  // how an iterator prints
};

struct Range : Object {
  int64_t start = 0, stop = 0, step = 1, length = 0;
  Value at(int64_t index) const { return Value(start + index * step); }
};

// Insertion order, Python's equality of keys (1 == 1.0 == true).
struct Dict : Object {
  std::vector<std::pair<Value, Value>> entries;
  const Value* find(std::string_view key) const;
  const Value* find(const Value& key) const;
  void set(const Value& key, Value value);  // while it is being built

 private:
  mutable std::unordered_map<std::string_view, size_t> index_;  // string keys, once there are many
  mutable size_t indexed_ = 0;                                  // entries the index knows
};

struct Space : Object {
  std::vector<std::pair<std::string, Value>> attributes;
  const Value* find(std::string_view name) const;
};

// Sign and magnitude, limbs of nine decimal digits, least first.
struct Big : Object {
  bool negative = false;
  std::vector<uint32_t> limbs;
  std::string to_string() const;
  double to_double() const;
};

struct Args {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

class Callable : public Object {
 public:
  virtual Value call(Runtime& runtime, Args& args) = 0;
  virtual std::optional<Value> attribute(Runtime&, std::string_view) { return std::nullopt; }
  virtual std::string describe() const = 0;
  virtual bool can_call() const { return true; }
};

inline const Text& Value::text() const { return static_cast<const Text&>(*object_); }
inline const std::string& Value::str() const { return text().bytes; }
inline const Items& Value::items() const { return static_cast<const Items&>(*object_); }
inline const Dict& Value::dict() const { return static_cast<const Dict&>(*object_); }
inline const Range& Value::range() const { return static_cast<const Range&>(*object_); }
inline const Big& Value::big() const { return static_cast<const Big&>(*object_); }
inline Space& Value::space() const { return static_cast<Space&>(*object_); }
inline Callable& Value::callable() const { return static_cast<Callable&>(*object_); }
inline const std::string& Value::undefined_message() const { return static_cast<const Undefined&>(*object_).message; }

// Builds a string together with its marks.
class TextBuilder {
 public:
  void literal(std::string_view bytes) { bytes_.append(bytes); }
  void append(const Text& text) { append(text, 0, text.bytes.size()); }
  void append(const Text& text, size_t begin, size_t end);
  // Bytes derived from `from` as a whole: outside data if any of it is.
  void derived(std::string_view bytes, const Text& from);
  void mark(size_t begin, size_t end, int32_t source);
  size_t size() const { return bytes_.size(); }
  std::string& bytes() { return bytes_; }
  std::vector<Mark>& marks() { return marks_; }

 private:
  std::string bytes_;
  std::vector<Mark> marks_;
};

struct Limits {
  int64_t steps = 10'000'000;       // about a second
  int64_t string_bytes = 16 << 20;  // plus the size of the input
  int64_t live_bytes = 40 << 20;    // plus eight times the size of the input
  int64_t output_bytes = 24 << 20;  // plus four times the size of the input
  int container_depth = 100;
};

// What every operation needs: makes values within the limits and counts the work.
class Runtime {
 public:
  Runtime() = default;
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  ~Runtime();

  Limits limits;
  bool now_given = false;  // SOURCE_DATE_EPOCH
  int64_t now = 0;

  void step(int64_t count = 1) {
    steps_ += count;
    if (steps_ > limits.steps) out_of_steps();
  }
  void copied(size_t bytes) { step(1 + static_cast<int64_t>(bytes >> 8)); }   // memcpy
  void scanned(size_t bytes) { step(1 + static_cast<int64_t>(bytes >> 4)); }  // a look at every character
  void reserve(int64_t bytes) const;  // throws if so many more bytes would pass the limit
  void check_string(int64_t bytes) const;

  Value string(std::string bytes);
  Value string(TextBuilder&& builder);
  Value derived(std::string bytes, const Text& from);
  Value slice(const Value& text, size_t begin, size_t end);  // bytes
  Value list(std::vector<Value> values) { return items(Kind::list, std::move(values)); }
  Value tuple(std::vector<Value> values) { return items(Kind::tuple, std::move(values)); }
  Value iterator(std::vector<Value> values, const char* shown = "<generator object>");
  Value items(Kind kind, std::vector<Value> values);
  Value dict(std::shared_ptr<Dict> dict);
  Value range(int64_t start, int64_t stop, int64_t step);
  Value big(bool negative, std::vector<uint32_t> limbs);  // an integer where it fits
  Value space(std::vector<std::pair<std::string, Value>> attributes);
  Value callable(std::shared_ptr<Callable> callable, int depth = 0, size_t more_bytes = 0);
  Value undefined(std::string message);
  void set_attribute(Space& space, const std::string& name, Value value);
  // Objects that may hold each other in a circle live to the end; `clear` empties them.
  void keep(std::shared_ptr<Object> object, void (*clear)(Object&));

 private:
  [[noreturn]] void out_of_steps() const;
  int deeper(int depth) const;

  Budget budget_;
  int64_t steps_ = 0;
  std::vector<std::pair<std::shared_ptr<Object>, void (*)(Object&)>> kept_;
};

}  // namespace graft::jinja
