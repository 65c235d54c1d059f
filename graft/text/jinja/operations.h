#pragma once

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/text/jinja/value.h"

// What Python's operators and built-in functions do with values. All throw Fault.
namespace graft::jinja {

std::string type_name(const Value& value);             // as Python names it: str, int, NoneType, …
[[noreturn]] void fail_undefined(const Value& value);  // "'x' is undefined"

bool truthy(const Value& value);
bool equal(Runtime& runtime, const Value& a, const Value& b);
bool equal_keys(const Value& a, const Value& b);  // without containers but tuples
bool less(Runtime& runtime, const Value& a, const Value& b, std::string_view sign = "<");
bool contains(Runtime& runtime, const Value& container, const Value& item);
bool hashable(const Value& value);

void print(Runtime& runtime, TextBuilder& out, const Value& value);                     // str()
void represent(Runtime& runtime, TextBuilder& out, const Value& value, int depth = 0);  // repr()
Value to_text(Runtime& runtime, const Value& value);  // str() as a value; a string stays itself
std::string show_real(double value);                  // float.__repr__

std::vector<Value> iterate(Runtime& runtime, const Value& value);          // list(value)
int64_t length(Runtime& runtime, const Value& value);                      // len(value)
Value subscript(Runtime& runtime, const Value& object, const Value& key);  // object[key]; undefined where there is none
Value slice(Runtime& runtime, const Value& object, const Value& start, const Value& stop, const Value& step);

enum class Operator : uint8_t { add, subtract, multiply, divide, floor_divide, modulo, power };
Value arithmetic(Runtime& runtime, Operator op, const Value& a, const Value& b);
Value negate(Runtime& runtime, const Value& value);
Value parse_integer(Runtime& runtime, std::string_view digits);  // decimal digits, perhaps with a sign
int compare_numbers(const Value& a, const Value& b);             // -1, 0, 1; 2 if one is NaN
double as_real(const Value& number);
int64_t as_index(const Value& value, std::string_view what);  // an integer argument that fits 64 bits
int64_t number_or(const Value* value, int64_t otherwise, std::string_view what);  // the same, `otherwise` if null

Value percent_format(Runtime& runtime, const Text& format, const Value& arguments);
Value brace_format(Runtime& runtime, const Text& format, Args& args);

// A method or other attribute of Python's object, as the sandbox allows it; none if the type has no such attribute.
std::optional<Value> member(Runtime& runtime, const Value& object, std::string_view name);
Value attribute(Runtime& runtime, const Value& object, const Value& name);  // object.name: a member, else an item
Value item(Runtime& runtime, const Value& object, const Value& key);        // object[key]: an item, else a member
Value call(Runtime& runtime, const Value& function, Args& args);

std::string escape_markup(std::string_view text);  // markupsafe.escape: & < > " and '

// Pieces of text that keep their marks.
Value strip(Runtime& runtime, const Value& text, const Value* characters, bool left, bool right);
Value replace(Runtime& runtime, const Value& text, const Value& from, const Value& to, int64_t count);
Value join(Runtime& runtime, const Value& separator, const std::vector<Value>& parts);
std::vector<Value> split_lines(Runtime& runtime, const Value& text, bool keep_ends);

struct JsonStyle {
  bool ensure_ascii = false, sort_keys = false, pretty = false;
  std::string indent, item_separator = ", ", key_separator = ": ";
};
void to_json(Runtime& runtime, TextBuilder& out, const Value& value, const JsonStyle& style, int depth = 0);

// Arguments by position or name, as a Python function declares them. Missing ones stay nullptr.
std::vector<const Value*> bind(std::string_view function, const Args& args, std::initializer_list<const char*> names,
                               size_t required = 0);

}  // namespace graft::jinja
