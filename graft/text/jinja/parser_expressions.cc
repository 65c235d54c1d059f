#include <cstdlib>

#include "graft/text/jinja/parser.h"

namespace graft::jinja {

Value constant_text(std::string bytes) {
  auto text = std::make_shared<Text>();
  text->bytes = std::move(bytes);
  return Value(Kind::string, std::move(text));
}

ExprPtr ExpressionParser::expression() {
  const Nesting nesting(*this);
  int32_t line = now().line;
  ExprPtr value = disjunction();
  while (skip_word("if")) {
    const Conditional conditional(*this);
    ExprPtr e = make(ExprKind::conditional, line);
    add(*e, std::move(value));
    add(*e, disjunction());
    add(*e, skip_word("else") ? expression() : nullptr);
    value = std::move(e);
    line = now().line;
  }
  return value;
}

ExprPtr ExpressionParser::disjunction() {
  ExprPtr left = conjunction();
  for (int32_t line = now().line; skip_word("or"); line = now().line) {
    left = binary(ExprKind::logical_or, line, std::move(left), conjunction());
  }
  return left;
}

ExprPtr ExpressionParser::conjunction() {
  ExprPtr left = negation();
  for (int32_t line = now().line; skip_word("and"); line = now().line) {
    left = binary(ExprKind::logical_and, line, std::move(left), negation());
  }
  return left;
}

ExprPtr ExpressionParser::negation() {
  const int32_t line = now().line;
  if (!skip_word("not")) return comparison();
  const Nesting nesting(*this);
  ExprPtr e = make(ExprKind::logical_not, line);
  add(*e, negation());
  return e;
}

bool ExpressionParser::comparison_sign(Comparison& sign) {
  static constexpr std::pair<std::string_view, Comparison> kSigns[] = {{"==", Comparison::eq}, {"!=", Comparison::ne},
                                                                       {"<", Comparison::lt},  {"<=", Comparison::le},
                                                                       {">", Comparison::gt},  {">=", Comparison::ge}};
  for (const auto& [text, value] : kSigns) {
    if (skip_op(text)) return sign = value, true;
  }
  if (skip_word("in")) return sign = Comparison::in, true;
  if (is_word("not") && ahead().kind == TokenKind::name && ahead().text == "in") {
    at_ += 2;
    return sign = Comparison::not_in, true;
  }
  return false;
}

ExprPtr ExpressionParser::comparison() {
  const int32_t line = now().line;
  ExprPtr left = sum();
  Comparison sign;
  if (!comparison_sign(sign)) return left;
  ExprPtr e = make(ExprKind::compare, line);
  add(*e, std::move(left));
  do {
    e->comparisons.push_back(sign);
    add(*e, sum());
  } while (comparison_sign(sign));
  return e;
}

ExprPtr ExpressionParser::operation(Operator op, int32_t line, ExprPtr left, ExprPtr right) {
  ExprPtr e = binary(ExprKind::arithmetic, line, std::move(left), std::move(right));
  e->op = op;
  return e;
}

ExprPtr ExpressionParser::sum() {
  ExprPtr left = concatenation();
  for (;;) {
    const int32_t line = now().line;
    if (skip_op("+")) {
      left = operation(Operator::add, line, std::move(left), concatenation());
    } else if (skip_op("-")) {
      left = operation(Operator::subtract, line, std::move(left), concatenation());
    } else {
      return left;
    }
  }
}

ExprPtr ExpressionParser::concatenation() {
  const int32_t line = now().line;
  ExprPtr first = product();
  if (!is_op("~")) return first;
  ExprPtr e = make(ExprKind::concat, line);
  add(*e, std::move(first));
  while (skip_op("~")) add(*e, product());
  return e;
}

ExprPtr ExpressionParser::product() {
  static constexpr std::pair<std::string_view, Operator> kSigns[] = {
      {"*", Operator::multiply}, {"/", Operator::divide}, {"//", Operator::floor_divide}, {"%", Operator::modulo}};
  ExprPtr left = power();
  for (;;) {
    const int32_t line = now().line;
    const auto* sign =
        std::find_if(std::begin(kSigns), std::end(kSigns), [&](const auto& s) { return is_op(s.first); });
    if (sign == std::end(kSigns)) return left;
    ++at_;
    left = operation(sign->second, line, std::move(left), power());
  }
}

ExprPtr ExpressionParser::power() {  // from left to right, and weaker than a sign: -2 ** 2 is 4, as in Jinja
  ExprPtr left = unary(true);
  for (int32_t line = now().line; skip_op("**"); line = now().line) {
    left = operation(Operator::power, line, std::move(left), unary(true));
  }
  return left;
}

ExprPtr ExpressionParser::unary(bool with_filter) {
  const int32_t line = now().line;
  ExprPtr e;
  if (is_op("-") || is_op("+")) {
    const Nesting nesting(*this);
    const bool minus = take().text == "-";
    e = make(minus ? ExprKind::negate : ExprKind::plus, line);
    add(*e, unary(false));
  } else {
    e = primary();
  }
  e = postfix(std::move(e));
  return with_filter ? filters(std::move(e)) : std::move(e);
}

ExprPtr ExpressionParser::primary() {
  const Token token = now();
  const int32_t line = token.line;
  switch (token.kind) {
    case TokenKind::name: {
      ++at_;
      const std::string& word = token.text;
      if (word == "true" || word == "True") return constant(Value(true), line);
      if (word == "false" || word == "False") return constant(Value(false), line);
      if (word == "none" || word == "None") return constant(Value(), line);
      return name(word, line);
    }
    case TokenKind::string: {
      std::string text;
      while (now().kind == TokenKind::string) text += take().text;
      return constant(constant_text(std::move(text)), line);
    }
    case TokenKind::integer: {
      ++at_;
      Runtime plain;
      Value value = parse_integer(plain, token.text);
      if (value.is(Kind::big)) {  // counted by nobody, so that it may outlive this runtime
        auto big = std::make_shared<Big>();
        big->limbs = value.big().limbs;
        value = Value(Kind::big, std::move(big));
      }
      return constant(std::move(value), line);
    }
    case TokenKind::real: ++at_; return constant(Value(std::strtod(token.text.c_str(), nullptr)), line);
    case TokenKind::op:
      if (skip_op("(")) {
        ExprPtr e = tuple(false, true);
        expect_op(")");
        return e;
      }
      if (skip_op("[")) return list(line);
      if (skip_op("{")) return dict(line);
      [[fallthrough]];
    default: error(fmt::format("expected an expression, found {}", shown()));
  }
}

ExprPtr ExpressionParser::name(const std::string& word, int32_t line) {
  ExprPtr e = make(ExprKind::name, line);
  e->text = word;
  e->symbol = symbol(word);
  if (!signatures_.empty()) {
    if (word == "varargs") signatures_.back()->uses_varargs = true;
    if (word == "kwargs") signatures_.back()->uses_kwargs = true;
    if (word == "caller") signatures_.back()->uses_caller = true;
  }
  return e;
}

ExprPtr ExpressionParser::tuple(bool without_if, bool parentheses, std::string_view end_word) {
  const int32_t line = now().line;
  const auto ends = [&] {
    return now().kind == TokenKind::variable_end || now().kind == TokenKind::block_end || is_op(")") ||
           (!end_word.empty() && is_word(end_word));
  };
  ExprPtr all = make(ExprKind::tuple, line);
  bool comma = false;
  while (!ends()) {
    add(*all, without_if ? disjunction() : expression());
    if (!skip_op(",")) break;
    comma = true;
  }
  if (!comma && all->items.size() == 1) return std::move(all->items[0]);
  if (!comma && !parentheses) error(fmt::format("expected an expression, found {}", shown()));
  if (all->items.empty() && comma) error("expected an expression, found ','");
  return all;
}

ExprPtr ExpressionParser::list(int32_t line) {
  ExprPtr e = make(ExprKind::list, line);
  while (!is_op("]")) {
    if (!e->items.empty()) expect_op(",");
    if (is_op("]")) break;
    add(*e, expression());
  }
  expect_op("]");
  return e;
}

ExprPtr ExpressionParser::dict(int32_t line) {
  ExprPtr e = make(ExprKind::dict, line);
  while (!is_op("}")) {
    if (!e->items.empty()) expect_op(",");
    if (is_op("}")) break;
    add(*e, expression());
    expect_op(":");
    add(*e, expression());
  }
  expect_op("}");
  return e;
}

ExprPtr ExpressionParser::postfix(ExprPtr e) {
  for (;;) {
    if (is_op(".") || is_op("[")) {
      e = subscript(std::move(e));
    } else if (is_op("(")) {
      e = call(std::move(e));
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::filters(ExprPtr e) {
  for (;;) {
    if (is_op("|")) {
      e = filter(std::move(e));
    } else if (is_word("is")) {
      e = test(std::move(e));
    } else if (is_op("(")) {
      e = call(std::move(e));
    } else {
      return e;
    }
  }
}

ExprPtr ExpressionParser::subscript(ExprPtr object) {
  const int32_t line = now().line;
  if (skip_op(".")) {
    if (now().kind == TokenKind::integer) {
      const Token index = take();
      return binary(ExprKind::item, line, std::move(object),
                    constant(Value(int64_t{std::strtoll(index.text.c_str(), nullptr, 10)}), line));
    }
    ExprPtr e = make(ExprKind::attribute, line);
    e->value = constant_text(expect_name("a name or number after '.'"));
    e->text = e->value.str();
    add(*e, std::move(object));
    return e;
  }
  expect_op("[");
  if (is_op("]")) error("expected an index between '[' and ']'");
  ExprPtr first = is_op(":") ? nullptr : expression();
  ExprPtr e;
  if (skip_op(":")) {
    e = make(ExprKind::slice, line);
    add(*e, std::move(object));
    add(*e, std::move(first));
    add(*e, is_op("]") || is_op(":") ? nullptr : expression());
    add(*e, skip_op(":") && !is_op("]") ? expression() : nullptr);
  } else if (is_op(",")) {
    ExprPtr key = make(ExprKind::tuple, line);
    add(*key, std::move(first));
    while (skip_op(",")) {
      if (!is_op("]")) add(*key, expression());
    }
    e = binary(ExprKind::item, line, std::move(object), std::move(key));
  } else {
    e = binary(ExprKind::item, line, std::move(object), std::move(first));
  }
  expect_op("]");
  return e;
}

void ExpressionParser::arguments(Expr& owner) {
  Arguments& out = owner.arguments;
  expect_op("(");
  bool comma = false;
  while (!is_op(")")) {
    if (comma) {
      expect_op(",");
      if (is_op(")")) break;
    }
    comma = true;
    if (skip_op("*")) {
      if (out.list != nullptr || out.dict != nullptr) error("'*' stands twice or after '**'");
      out.list = expression();
      deepen(owner, out.list);
    } else if (skip_op("**")) {
      if (out.dict != nullptr) error("'**' stands twice");
      out.dict = expression();
      deepen(owner, out.dict);
    } else if (now().kind == TokenKind::name && ahead().kind == TokenKind::op && ahead().text == "=") {
      if (out.dict != nullptr) error("a named argument after '**'");
      std::string key = take().text;
      ++at_;
      const bool twice = std::any_of(out.named.begin(), out.named.end(), [&](const auto& n) { return n.first == key; });
      if (twice) error(fmt::format("the argument '{}' is given twice", key));
      out.named.emplace_back(std::move(key), expression());
      deepen(owner, out.named.back().second);
    } else {
      if (!out.named.empty() || out.list != nullptr || out.dict != nullptr) {
        error("a positional argument after a named one");
      }
      out.positional.push_back(expression());
      deepen(owner, out.positional.back());
    }
  }
  expect_op(")");
}

ExprPtr ExpressionParser::call(ExprPtr function) {
  ExprPtr e = make(ExprKind::call, now().line);
  add(*e, std::move(function));
  arguments(*e);
  return e;
}

std::string ExpressionParser::dotted_name(std::string_view what) {
  std::string out = expect_name(what);
  while (skip_op(".")) out += "." + expect_name(what);
  return out;
}

ExprPtr ExpressionParser::filter_without_bar(ExprPtr value) {
  ExprPtr e = make(ExprKind::filter, now().line);
  e->text = dotted_name("the name of a filter");
  e->filter = find_filter(e->text);
  if (e->filter == nullptr && conditional_ == 0) {
    error_at(e->line, fmt::format("there is no filter '{}'", printable(e->text)));
  }
  add(*e, std::move(value));
  if (is_op("(")) arguments(*e);
  return e;
}

ExprPtr ExpressionParser::filter(ExprPtr value) {
  expect_op("|");
  return filter_without_bar(std::move(value));
}

ExprPtr ExpressionParser::test(ExprPtr value) {
  expect_word("is");
  const bool negated = skip_word("not");
  ExprPtr e = make(ExprKind::test, now().line);
  e->text = dotted_name("the name of a test");
  e->test = find_test(e->text);
  if (e->test == nullptr && conditional_ == 0) {
    error_at(e->line, fmt::format("there is no test '{}'", printable(e->text)));
  }
  add(*e, std::move(value));
  if (is_op("(")) {
    arguments(*e);
  } else if (starts_argument()) {
    if (is_word("is")) error("tests cannot be chained with 'is'");
    e->arguments.positional.push_back(postfix(primary()));
    deepen(*e, e->arguments.positional.back());
  }
  if (!negated) return e;
  ExprPtr inverse = make(ExprKind::logical_not, e->line);
  add(*inverse, std::move(e));
  return inverse;
}

bool ExpressionParser::starts_argument() const {
  switch (now().kind) {
    case TokenKind::name: return now().text != "else" && now().text != "or" && now().text != "and";
    case TokenKind::string:
    case TokenKind::integer:
    case TokenKind::real: return true;
    default: return is_op("[") || is_op("{");
  }
}

}  // namespace graft::jinja
