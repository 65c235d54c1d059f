#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "graft/text/jinja/operations.h"

namespace graft::jinja {
namespace {

constexpr uint32_t kBase = 1000000000;

struct Whole {  // an integer of any size
  bool negative = false;
  std::vector<uint32_t> limbs;  // least first, no leading zeros
};

Whole whole(const Value& value) {
  if (value.is(Kind::big)) return {value.big().negative, value.big().limbs};
  Whole out{value.integer() < 0, {}};
  uint64_t rest = out.negative ? 0 - static_cast<uint64_t>(value.integer()) : static_cast<uint64_t>(value.integer());
  for (; rest > 0; rest /= kBase) out.limbs.push_back(static_cast<uint32_t>(rest % kBase));
  return out;
}

int compare_magnitudes(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  if (a.size() != b.size()) return a.size() < b.size() ? -1 : 1;
  for (size_t i = a.size(); i-- > 0;) {
    if (a[i] != b[i]) return a[i] < b[i] ? -1 : 1;
  }
  return 0;
}

std::vector<uint32_t> add_magnitudes(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {
  std::vector<uint32_t> out;
  uint64_t carry = 0;
  for (size_t i = 0; i < std::max(a.size(), b.size()) || carry > 0; ++i) {
    carry += (i < a.size() ? a[i] : 0ull) + (i < b.size() ? b[i] : 0ull);
    out.push_back(static_cast<uint32_t>(carry % kBase));
    carry /= kBase;
  }
  return out;
}

std::vector<uint32_t> subtract_magnitudes(const std::vector<uint32_t>& a, const std::vector<uint32_t>& b) {  // a >= b
  std::vector<uint32_t> out(a.size());
  int64_t borrow = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    int64_t d = static_cast<int64_t>(a[i]) - (i < b.size() ? b[i] : 0) - borrow;
    borrow = d < 0;
    out[i] = static_cast<uint32_t>(d < 0 ? d + kBase : d);
  }
  while (!out.empty() && out.back() == 0) out.pop_back();
  return out;
}

Value add_whole(Runtime& runtime, Whole a, const Whole& b) {
  if (a.negative == b.negative) return runtime.big(a.negative, add_magnitudes(a.limbs, b.limbs));
  if (compare_magnitudes(a.limbs, b.limbs) >= 0) return runtime.big(a.negative, subtract_magnitudes(a.limbs, b.limbs));
  return runtime.big(b.negative, subtract_magnitudes(b.limbs, a.limbs));
}

Value multiply_whole(Runtime& runtime, const Whole& a, const Whole& b) {
  runtime.step(static_cast<int64_t>(a.limbs.size() * b.limbs.size() >> 3));
  std::vector<uint32_t> out(a.limbs.size() + b.limbs.size() + 1);
  for (size_t i = 0; i < a.limbs.size(); ++i) {
    uint64_t carry = 0;
    for (size_t j = 0; j < b.limbs.size() || carry > 0; ++j) {
      carry += out[i + j] + static_cast<uint64_t>(a.limbs[i]) * (j < b.limbs.size() ? b.limbs[j] : 0);
      out[i + j] = static_cast<uint32_t>(carry % kBase);
      carry /= kBase;
    }
  }
  return runtime.big(a.negative != b.negative, std::move(out));
}

Value power_whole(Runtime& runtime, const Value& base, const Value& exponent) {
  if (exponent.is(Kind::big)) throw Fault{"an exponent beyond the limit"};
  int64_t n = exponent.integer();
  if (n < 0) {
    if (!truthy(base)) throw Fault{"0 cannot be raised to a negative power: division by zero"};
    return Value(std::pow(as_real(base), static_cast<double>(n)));
  }
  if (!base.is(Kind::big) && base.integer() >= -1 && base.integer() <= 1) {
    return Value(base.integer() == -1 ? (n % 2 == 0 ? int64_t{1} : int64_t{-1})
                                      : (n == 0 ? int64_t{1} : base.integer()));
  }
  if (n > 100000) throw Fault{"a power beyond the limit of 4,608 digits"};
  Value result(int64_t{1}), square = base;
  for (;; square = multiply_whole(runtime, whole(square), whole(square))) {
    if (n & 1) result = multiply_whole(runtime, whole(result), whole(square));
    n >>= 1;
    if (n == 0) return result;
  }
}

Value divide_whole(Operator op, const Value& a, const Value& b) {
  if (op == Operator::divide) return Value(as_real(a) / as_real(b));
  if (a.is(Kind::big) || b.is(Kind::big)) throw Fault{"// and % of integers beyond 64 bits are not supported"};
  const __int128 x = a.integer(), y = b.integer();
  __int128 quotient = x / y, rest = x % y;
  if (rest != 0 && (rest < 0) != (y < 0)) --quotient, rest += y;
  if (op == Operator::modulo) return Value(static_cast<int64_t>(rest));
  if (quotient > INT64_MAX) throw Fault{"// of integers beyond 64 bits is not supported"};
  return Value(static_cast<int64_t>(quotient));
}

Value real_arithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::add: return Value(a + b);
    case Operator::subtract: return Value(a - b);
    case Operator::multiply: return Value(a * b);
    case Operator::divide: return Value(a / b);
    case Operator::power: {
      const double r = std::pow(a, b);
      if (std::isinf(r) && std::isfinite(a) && std::isfinite(b)) throw Fault{"numerical result out of range"};
      if (std::isnan(r) && !std::isnan(a) && !std::isnan(b)) throw Fault{"a power that is not a real number"};
      return Value(r);
    }
    default: break;
  }
  double rest = std::fmod(a, b);
  double quotient = (a - rest) / b;
  if (rest != 0) {
    if ((b < 0) != (rest < 0)) rest += b, quotient -= 1;
  } else {
    rest = std::copysign(0.0, b);
  }
  if (op == Operator::modulo) return Value(rest);
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return Value(quotient != 0 ? floored : std::copysign(0.0, a / b));
}

const char* sign_of(Operator op) {
  constexpr const char* kSigns[] = {"+", "-", "*", "/", "//", "%", "** or pow()"};
  return kSigns[static_cast<int>(op)];
}

Value add_texts(Runtime& runtime, const Value& a, const Value& b) {
  const bool markup = a.text().markup || b.text().markup;
  runtime.check_string(static_cast<int64_t>(a.str().size() + b.str().size()));
  runtime.copied(a.str().size() + b.str().size());
  TextBuilder out;
  for (const Value* part : {&a, &b}) {
    if (markup && !part->text().markup) {
      out.derived(escape_markup(part->str()), part->text());
    } else {
      out.append(part->text());
    }
  }
  Value sum = runtime.string(std::move(out));
  if (markup) static_cast<Text&>(*sum.object()).markup = true;
  return sum;
}

Value repeat(Runtime& runtime, const Value& sequence, const Value& times) {
  if (times.is(Kind::big)) throw Fault{"a sequence repeated beyond the size limit"};
  const int64_t n = std::max<int64_t>(times.integer(), 0);
  if (sequence.is_string()) {
    const auto size = static_cast<int64_t>(sequence.str().size());
    if (n > 0 && size > runtime.limits.string_bytes / n) runtime.check_string(INT64_MAX / 2);
    runtime.step(n);
    TextBuilder out;
    for (int64_t i = 0; i < n; ++i) out.append(sequence.text());
    return runtime.string(std::move(out));
  }
  const auto& values = sequence.items().values;
  const auto size = static_cast<int64_t>(values.size());
  if (n > 0 && size > 0) {
    if (size > runtime.limits.live_bytes / n) runtime.reserve(INT64_MAX / 2);
    runtime.reserve(size * n * static_cast<int64_t>(sizeof(Value)));
  }
  std::vector<Value> out;
  if (size > 0) {
    for (int64_t i = 0; i < n; ++i) out.insert(out.end(), values.begin(), values.end());
  }
  return runtime.items(sequence.kind(), std::move(out));
}

}  // namespace

std::string escape_markup(std::string_view text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&#34;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

double as_real(const Value& number) {
  if (number.is(Kind::real)) return number.real();
  return number.is(Kind::big) ? number.big().to_double() : static_cast<double>(number.integer());
}

int compare_numbers(const Value& a, const Value& b) {
  if (a.is(Kind::real) || b.is(Kind::real)) {
    const double x = as_real(a), y = as_real(b);
    if (std::isnan(x) || std::isnan(y)) return 2;
    return x < y ? -1 : x > y;
  }
  if (!a.is(Kind::big) && !b.is(Kind::big)) return a.integer() < b.integer() ? -1 : a.integer() > b.integer();
  const Whole x = whole(a), y = whole(b);
  if (x.negative != y.negative) return x.negative ? -1 : 1;
  const int order = compare_magnitudes(x.limbs, y.limbs);
  return x.negative ? -order : order;
}

int64_t as_index(const Value& value, std::string_view what) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_int()) throw Fault{fmt::format("{} must be an integer, not {}", what, type_name(value))};
  return value.integer();
}

int64_t number_or(const Value* value, int64_t otherwise, std::string_view what) {
  return value == nullptr ? otherwise : as_index(*value, what);
}

Value arithmetic(Runtime& runtime, Operator op, const Value& a, const Value& b) {
  runtime.step();
  if (op == Operator::modulo && a.is_string()) return percent_format(runtime, a.text(), b);
  if (a.is_undefined()) fail_undefined(a);
  if (b.is_undefined()) fail_undefined(b);
  if (a.is_number() && b.is_number()) {
    if (op == Operator::divide || op == Operator::floor_divide || op == Operator::modulo) {
      if (as_real(b) == 0) throw Fault{fmt::format("division by zero in '{}'", sign_of(op))};
    }
    if (a.is(Kind::real) || b.is(Kind::real)) {
      if (op == Operator::power && as_real(a) == 0 && as_real(b) < 0) {
        throw Fault{"0.0 cannot be raised to a negative power: division by zero"};
      }
      return real_arithmetic(op, as_real(a), as_real(b));
    }
    int64_t small = 0;
    const bool fits = !a.is(Kind::big) && !b.is(Kind::big);
    switch (op) {
      case Operator::add:
        if (fits && !__builtin_add_overflow(a.integer(), b.integer(), &small)) return Value(small);
        return add_whole(runtime, whole(a), whole(b));
      case Operator::subtract: {
        if (fits && !__builtin_sub_overflow(a.integer(), b.integer(), &small)) return Value(small);
        Whole minus = whole(b);
        minus.negative = !minus.negative;
        return add_whole(runtime, whole(a), minus);
      }
      case Operator::multiply:
        if (fits && !__builtin_mul_overflow(a.integer(), b.integer(), &small)) return Value(small);
        return multiply_whole(runtime, whole(a), whole(b));
      case Operator::power: return power_whole(runtime, a, b);
      default: return divide_whole(op, a, b);
    }
  }
  if (op == Operator::add && a.is_string() && b.is_string()) return add_texts(runtime, a, b);
  if (op == Operator::add && a.kind() == b.kind() && (a.is(Kind::list) || a.is(Kind::tuple))) {
    const auto &x = a.items().values, &y = b.items().values;
    runtime.reserve(static_cast<int64_t>((x.size() + y.size()) * sizeof(Value)));
    std::vector<Value> out;
    out.reserve(x.size() + y.size());
    out.insert(out.end(), x.begin(), x.end());
    out.insert(out.end(), y.begin(), y.end());
    return runtime.items(a.kind(), std::move(out));
  }
  if (op == Operator::multiply) {
    const bool first = a.is_string() || a.is(Kind::list) || a.is(Kind::tuple);
    const Value &sequence = first ? a : b, &times = first ? b : a;
    const bool repeatable = sequence.is_string() || sequence.is(Kind::list) || sequence.is(Kind::tuple);
    if (repeatable && (times.is_int() || times.is(Kind::big))) return repeat(runtime, sequence, times);
  }
  throw Fault{fmt::format("unsupported operand types for {}: '{}' and '{}'", sign_of(op), type_name(a), type_name(b))};
}

Value negate(Runtime& runtime, const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is(Kind::real)) return Value(-value.real());
  if (!value.is_number()) throw Fault{fmt::format("bad operand type for unary -: '{}'", type_name(value))};
  if (!value.is(Kind::big) && value.integer() != INT64_MIN) return Value(-value.integer());
  const Whole minus = whole(value);
  return runtime.big(!minus.negative, minus.limbs);
}

Value parse_integer(Runtime& runtime, std::string_view digits) {
  bool negative = false;
  if (!digits.empty() && (digits[0] == '-' || digits[0] == '+')) {
    negative = digits[0] == '-';
    digits.remove_prefix(1);
  }
  if (digits.size() > 4300) throw Fault{"an integer longer than the limit of 4,300 digits"};
  std::vector<uint32_t> limbs;
  while (!digits.empty()) {
    const size_t size = std::min<size_t>(9, digits.size());
    uint32_t limb = 0;
    for (const char c : digits.substr(digits.size() - size)) limb = limb * 10 + static_cast<uint32_t>(c - '0');
    limbs.push_back(limb);
    digits.remove_suffix(size);
  }
  return runtime.big(negative, std::move(limbs));
}

std::string show_real(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[32];
  const auto [end, status] = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string_view text(buffer, static_cast<size_t>(end - buffer));
  std::string out;
  if (text[0] == '-') {
    out = "-";
    text.remove_prefix(1);
  }
  const size_t e = text.find('e');
  int exponent = 0;
  const std::string_view tail = text.substr(e + 1 + (text[e + 1] == '+'));
  std::from_chars(tail.data(), tail.data() + tail.size(), exponent);
  std::string digits(1, text[0]);
  if (e > 2) digits += text.substr(2, e - 2);
  const auto count = static_cast<int>(digits.size());
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (count > 1) out += "." + digits.substr(1);
    return out + fmt::format("e{}{:02}", exponent < 0 ? '-' : '+', std::abs(exponent));
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  if (count <= exponent + 1) return out + digits + std::string(static_cast<size_t>(exponent + 1 - count), '0') + ".0";
  return out + digits.substr(0, static_cast<size_t>(exponent) + 1) + "." +
         digits.substr(static_cast<size_t>(exponent) + 1);
}

}  // namespace graft::jinja
