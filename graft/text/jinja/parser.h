#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "graft/base/error.h"
#include "graft/text/jinja/lexer.h"
#include "graft/text/jinja/syntax.h"

namespace graft::jinja {

// The interpreter recurses once per level, the parser a dozen times; both must fit a thread's stack.
inline constexpr int32_t kMaxExpressionDepth = 800;  // of the tree; a chain of + or | counts each link
inline constexpr int kMaxNesting = 100;              // of brackets, `not`, signs and tags while parsing

Value constant_text(std::string bytes);  // counted by no runtime, so that it may live in a tree

// Reads expressions by recursive descent, with Jinja's precedences. The statements are parser.cc's.
class ExpressionParser {
 protected:
  ExpressionParser(std::string_view source, const std::string& where) : tokens_(lex(source, where)) {
    out_.where = where;
  }

  // ---- tokens
  const Token& now() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() { return now().kind == TokenKind::end ? now() : tokens_[at_++]; }
  bool is_op(std::string_view op) const { return now().kind == TokenKind::op && now().text == op; }
  bool is_word(std::string_view word) const { return now().kind == TokenKind::name && now().text == word; }
  bool skip_op(std::string_view op) { return is_op(op) && (++at_, true); }
  bool skip_word(std::string_view word) { return is_word(word) && (++at_, true); }

  [[noreturn]] void error_at(int32_t line, const std::string& message) const {
    fail("{}:{}: {}", out_.where, line, message);
  }
  [[noreturn]] void error(const std::string& message) const { error_at(now().line, message); }

  std::string shown() const {
    switch (now().kind) {
      case TokenKind::data: return "text";
      case TokenKind::variable_begin: return "'{{'";
      case TokenKind::variable_end: return "'}}'";
      case TokenKind::block_begin: return "'{%'";
      case TokenKind::block_end: return "'%}'";
      case TokenKind::end: return "the end of the template";
      case TokenKind::string: return fmt::format("the string '{}'", printable(now().text, 40));
      default: return fmt::format("'{}'", printable(now().text, 40));
    }
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) error(fmt::format("expected '{}', found {}", op, shown()));
  }
  void expect_word(std::string_view word) {
    if (!skip_word(word)) error(fmt::format("expected '{}', found {}", word, shown()));
  }
  std::string expect_name(std::string_view what) {
    if (now().kind != TokenKind::name) error(fmt::format("expected {}, found {}", what, shown()));
    return take().text;
  }
  void expect(TokenKind kind, std::string_view what) {
    if (now().kind != kind) error(fmt::format("expected '{}', found {}", what, shown()));
    ++at_;
  }

  Symbol symbol(const std::string& name) {
    const auto [it, added] = symbols_.try_emplace(name, static_cast<Symbol>(out_.symbols.size()));
    if (added) out_.symbols.push_back(name);
    return it->second;
  }

  struct Nesting {
    explicit Nesting(ExpressionParser& parser) : depth(parser.nesting_) {
      if (++depth > kMaxNesting) parser.error(fmt::format("nested deeper than the limit of {} levels", kMaxNesting));
    }
    ~Nesting() { --depth; }
    int& depth;
  };

  // ---- trees
  ExprPtr make(ExprKind kind, int32_t line) {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->line = line;
    return e;
  }
  void deepen(Expr& parent, const ExprPtr& child) const {
    if (child == nullptr) return;
    parent.depth = std::max(parent.depth, child->depth + 1);
    if (parent.depth > kMaxExpressionDepth) {
      error_at(parent.line,
               fmt::format("an expression nested deeper than the limit of {} levels", kMaxExpressionDepth));
    }
  }
  void add(Expr& parent, ExprPtr child) const {
    deepen(parent, child);
    parent.items.push_back(std::move(child));
  }
  ExprPtr constant(Value value, int32_t line) {
    ExprPtr e = make(ExprKind::constant, line);
    e->value = std::move(value);
    return e;
  }
  ExprPtr binary(ExprKind kind, int32_t line, ExprPtr a, ExprPtr b) {
    ExprPtr e = make(kind, line);
    add(*e, std::move(a));
    add(*e, std::move(b));
    return e;
  }

  // ---- expressions, weakest operator first
  ExprPtr expression();
  ExprPtr disjunction();
  ExprPtr conjunction();
  ExprPtr negation();
  bool comparison_sign(Comparison& sign);
  ExprPtr comparison();
  ExprPtr operation(Operator op, int32_t line, ExprPtr left, ExprPtr right);
  ExprPtr sum();
  ExprPtr concatenation();
  ExprPtr product();
  ExprPtr power();
  ExprPtr unary(bool with_filter);
  ExprPtr primary();
  ExprPtr name(const std::string& word, int32_t line);
  // a, b, c: a tuple where a comma stands. Empty only inside parentheses.
  ExprPtr tuple(bool without_if, bool parentheses, std::string_view end_word = {});
  ExprPtr list(int32_t line);
  ExprPtr dict(int32_t line);
  ExprPtr postfix(ExprPtr e);
  ExprPtr filters(ExprPtr e);
  ExprPtr subscript(ExprPtr object);
  void arguments(Expr& owner);
  ExprPtr call(ExprPtr function);
  std::string dotted_name(std::string_view what);
  ExprPtr filter_without_bar(ExprPtr value);
  ExprPtr filter(ExprPtr value);
  ExprPtr test(ExprPtr value);
  bool starts_argument() const;

  struct Conditional {  // a filter that does not exist is no error while it stands behind a condition
    explicit Conditional(ExpressionParser& parser) : count(parser.conditional_) { ++count; }
    ~Conditional() { --count; }
    int& count;
  };

  Template out_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0, conditional_ = 0;
  std::unordered_map<std::string, Symbol> symbols_;
  std::vector<Signature*> signatures_;  // of the macros that are open
};

}  // namespace graft::jinja
