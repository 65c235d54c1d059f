// What may follow `is`.
#include <fmt/format.h>

#include <algorithm>

#include "graft/text/jinja/functions.h"
#include "graft/text/jinja/operations.h"
#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

const Value& argument(const Args& args) { return *bind("a test", args, {"other"}, 1)[0]; }

template <Kind... kKinds>
bool is_kind(Runtime&, const Value& value, const Args& args) {
  bind("a test", args, {});
  return ((value.kind() == kKinds) || ...);
}

bool is_defined(Runtime&, const Value& value, const Args&) { return !value.is_undefined(); }
bool is_true(Runtime&, const Value& value, const Args&) { return value.is(Kind::boolean) && value.boolean(); }
bool is_false(Runtime&, const Value& value, const Args&) { return value.is(Kind::boolean) && !value.boolean(); }
bool is_number(Runtime&, const Value& value, const Args&) { return value.is_number(); }
bool is_iterable(Runtime&, const Value& value, const Args&) {
  return value.is_undefined() || value.is_string() || value.is_sequence() || value.is(Kind::dict) ||
         value.is(Kind::range);
}
bool is_sequence(Runtime&, const Value& value, const Args&) {  // has a length and can be indexed
  return value.is_undefined() || value.is_string() || value.is(Kind::list) || value.is(Kind::tuple) ||
         value.is(Kind::dict) || value.is(Kind::range);
}
bool is_callable(Runtime&, const Value& value, const Args&) {
  // Undefined has a __call__ that fails.
  return value.is_undefined() || (value.is(Kind::callable) && value.callable().can_call());
}
bool is_escaped(Runtime&, const Value& value, const Args&) { return value.is_string() && value.text().markup; }

template <int kRest>
bool is_parity(Runtime& runtime, const Value& value, const Args& args) {
  bind("a test", args, {});
  const Value rest = arithmetic(runtime, Operator::modulo, value, Value(int64_t{2}));
  return rest.is_number() && compare_numbers(rest, Value(int64_t{kRest})) == 0;
}
bool is_divisible(Runtime& runtime, const Value& value, const Args& args) {
  const Value rest = arithmetic(runtime, Operator::modulo, value, argument(args));
  return rest.is_number() && compare_numbers(rest, Value(int64_t{0})) == 0;
}

bool is_eq(Runtime& runtime, const Value& value, const Args& args) { return equal(runtime, value, argument(args)); }
bool is_ne(Runtime& runtime, const Value& value, const Args& args) { return !equal(runtime, value, argument(args)); }
bool is_lt(Runtime& runtime, const Value& value, const Args& args) { return less(runtime, value, argument(args), "<"); }
bool is_gt(Runtime& runtime, const Value& value, const Args& args) { return less(runtime, argument(args), value, ">"); }
bool is_le(Runtime& runtime, const Value& value, const Args& args) {
  return less(runtime, value, argument(args), "<=") || equal(runtime, value, argument(args));
}
bool is_ge(Runtime& runtime, const Value& value, const Args& args) {
  return less(runtime, argument(args), value, ">=") || equal(runtime, value, argument(args));
}
bool is_in(Runtime& runtime, const Value& value, const Args& args) { return contains(runtime, argument(args), value); }

// Identity: small values are the same where they are equal.
bool is_same(Runtime& runtime, const Value& value, const Args& args) {
  const Value& other = argument(args);
  if (value.kind() != other.kind()) return false;
  if (value.object() == nullptr || value.is_string()) return equal(runtime, value, other);
  return value.object() == other.object();
}

template <bool kUpper>
bool is_case(Runtime& runtime, const Value& value, const Args& args) {
  bind("a test", args, {});
  Args none;
  return truthy(call(runtime, *member(runtime, to_text(runtime, value), kUpper ? "isupper" : "islower"), none));
}

bool is_filter(Runtime&, const Value& value, const Args&) {
  return value.is_string() && find_filter(value.str()) != nullptr;
}
bool is_test(Runtime&, const Value& value, const Args&) {
  return value.is_string() && find_test(value.str()) != nullptr;
}

constexpr std::pair<std::string_view, TestFunction> kTests[] = {
    {"defined", is_defined},
    {"undefined", is_kind<Kind::undefined>},
    {"none", is_kind<Kind::none>},
    {"boolean", is_kind<Kind::boolean>},
    {"true", is_true},
    {"false", is_false},
    {"integer", is_kind<Kind::integer, Kind::big>},
    {"float", is_kind<Kind::real>},
    {"number", is_number},
    {"string", is_kind<Kind::string>},
    {"mapping", is_kind<Kind::dict>},
    {"iterable", is_iterable},
    {"sequence", is_sequence},
    {"callable", is_callable},
    {"escaped", is_escaped},
    {"odd", is_parity<1>},
    {"even", is_parity<0>},
    {"divisibleby", is_divisible},
    {"eq", is_eq},
    {"equalto", is_eq},
    {"==", is_eq},
    {"ne", is_ne},
    {"!=", is_ne},
    {"lt", is_lt},
    {"lessthan", is_lt},
    {"<", is_lt},
    {"gt", is_gt},
    {"greaterthan", is_gt},
    {">", is_gt},
    {"le", is_le},
    {"<=", is_le},
    {"ge", is_ge},
    {">=", is_ge},
    {"in", is_in},
    {"sameas", is_same},
    {"lower", is_case<false>},
    {"upper", is_case<true>},
    {"filter", is_filter},
    {"test", is_test},
};

}  // namespace

TestFunction find_test(std::string_view name) {
  for (const auto& [key, test] : kTests) {
    if (key == name) return test;
  }
  return nullptr;
}

}  // namespace graft::jinja
