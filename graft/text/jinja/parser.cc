#include "graft/text/jinja/parser.h"

#include <initializer_list>

#include "graft/text/jinja/unicode.h"

namespace graft::jinja {
namespace {

using Words = std::initializer_list<std::string_view>;

class Parser : public ExpressionParser {
 public:
  Parser(std::string_view source, const std::string& where) : ExpressionParser(source, where) {
    out_.loop = symbol("loop"), out_.caller = symbol("caller");
    out_.varargs = symbol("varargs"), out_.kwargs = symbol("kwargs");
  }

  Template run() {
    out_.body = statements({}, "", 0);
    return std::move(out_);
  }

 private:
  // ---- statements
  struct Outside {  // a body of its own: no break out of it, no condition around it
    explicit Outside(Parser& parser, int loops)
        : owner(parser), loops_(parser.loops_), conditional(parser.conditional_) {
      parser.loops_ = loops;
      parser.conditional_ = 0;
    }
    ~Outside() { owner.loops_ = loops_, owner.conditional_ = conditional; }
    Parser& owner;
    int loops_, conditional;
  };

  // Up to a tag that begins with one of `ends`; its word is left to be taken.
  Body statements(Words ends, std::string_view opener, int32_t line) {
    const Nesting nesting(*this);
    Body body;
    for (;;) {
      switch (now().kind) {
        case TokenKind::end: {
          if (ends.size() == 0) return body;
          std::string expected;
          for (const auto& word : ends) expected += fmt::format("{}'{}'", expected.empty() ? "" : " or ", word);
          error_at(line, fmt::format("the tag '{}' is never closed; expected {}", opener, expected));
        }
        case TokenKind::data: {
          auto s = statement_of(StmtKind::text);
          s->value = constant_text(take().text);
          body.push_back(std::move(s));
          break;
        }
        case TokenKind::variable_begin: {
          auto s = statement_of(StmtKind::print);
          ++at_;
          s->expr = tuple(false, false);
          expect(TokenKind::variable_end, "}}");
          body.push_back(std::move(s));
          break;
        }
        default: {
          expect(TokenKind::block_begin, "{%");
          if (std::any_of(ends.begin(), ends.end(), [&](std::string_view w) { return is_word(w); })) return body;
          body.push_back(statement());
          expect(TokenKind::block_end, "%}");
        }
      }
    }
  }
  std::unique_ptr<Stmt> statement_of(StmtKind kind) const {
    auto s = std::make_unique<Stmt>();
    s->kind = kind;
    s->line = now().line;
    return s;
  }
  Body block(Words ends, std::string_view opener, int32_t line) {
    skip_op(":");
    expect(TokenKind::block_end, "%}");
    return statements(ends, opener, line);
  }
  Body whole_block(std::string_view opener, std::string_view end, int32_t line) {
    Body body = block({end}, opener, line);
    expect_word(end);
    return body;
  }

  std::unique_ptr<Stmt> statement() {
    const std::string tag = expect_name("the name of a tag");
    const int32_t line = tokens_[at_ - 1].line;
    auto s = statement_of(StmtKind::text);
    s->line = line;
    if (tag == "if") return branch(std::move(s));
    if (tag == "for") return loop(std::move(s));
    if (tag == "set") return assign(std::move(s));
    if (tag == "with") return with(std::move(s));
    if (tag == "macro") return macro(std::move(s));
    if (tag == "call") return call_block(std::move(s));
    if (tag == "filter") {
      s->kind = StmtKind::filter_block;
      s->expr = filter_without_bar(nullptr);
      while (is_op("|")) s->expr = filter(std::move(s->expr));
      const Outside outside(*this, loops_);
      s->body = whole_block("filter", "endfilter", line);
    } else if (tag == "generation") {
      s->kind = StmtKind::generation;
      out_.marks_generation = true;
      const Outside outside(*this, 0);
      s->body = whole_block("generation", "endgeneration", line);
    } else if (tag == "print") {
      s->kind = StmtKind::print;
      s->expr = tuple(false, false);
    } else if (tag == "break" || tag == "continue") {
      if (loops_ == 0) error_at(line, fmt::format("'{}' stands outside of a loop", tag));
      s->kind = tag == "break" ? StmtKind::stop : StmtKind::next;
    } else {
      unknown_tag(tag, line);
    }
    return s;
  }
  [[noreturn]] void unknown_tag(const std::string& tag, int32_t line) const {
    for (const auto* word : {"include", "import", "from", "extends", "block"}) {
      if (tag == word) error_at(line, fmt::format("the tag '{}' is refused: a chat template stands alone", tag));
    }
    if (tag.rfind("end", 0) == 0 || tag == "else" || tag == "elif") {
      error_at(line, fmt::format("unexpected '{}': no open tag belongs to it", printable(tag)));
    }
    error_at(line, fmt::format("unknown tag '{}'", printable(tag)));
  }

  std::unique_ptr<Stmt> branch(std::unique_ptr<Stmt> s) {
    const Conditional conditional(*this);
    s->kind = StmtKind::branch;
    for (;;) {
      ExprPtr condition = tuple(true, false);
      Body body = block({"elif", "else", "endif"}, "if", s->line);
      s->branches.emplace_back(std::move(condition), std::move(body));
      if (skip_word("elif")) continue;
      if (skip_word("else")) s->branches.emplace_back(nullptr, block({"endif"}, "if", s->line));
      expect_word("endif");
      return s;
    }
  }
  std::unique_ptr<Stmt> loop(std::unique_ptr<Stmt> s) {
    s->kind = StmtKind::loop;
    s->target = target(false, "in");
    expect_word("in");
    s->expr = tuple(true, false, "recursive");
    const Outside outside(*this, loops_ + 1);
    if (skip_word("if")) s->condition = expression();
    s->recursive = skip_word("recursive");
    s->body = block({"endfor", "else"}, "for", s->line);
    if (skip_word("else")) {
      --loops_;
      s->otherwise = block({"endfor"}, "for", s->line);
    }
    expect_word("endfor");
    return s;
  }
  Target single_target(bool with_attribute) {
    const Nesting nesting(*this);
    Target out;
    if (skip_op("(")) {
      out = target(with_attribute, {});
      expect_op(")");
      return out;
    }
    out.name = expect_name("the name of a variable");
    for (const auto* word : {"true", "false", "none", "True", "False", "None", "in", "if", "is", "not"}) {
      if (out.name == word) error(fmt::format("cannot assign to '{}'", out.name));
    }
    out.symbol = symbol(out.name);
    if (with_attribute && skip_op(".")) out.attribute = expect_name("the name of an attribute");
    return out;
  }
  Target target(bool with_attribute, std::string_view end_word) {
    Target first = single_target(with_attribute);
    if (!is_op(",")) return first;
    Target out;
    out.parts.push_back(std::move(first));
    while (skip_op(",")) {
      const bool ends = is_op("=") || is_op(")") || (!end_word.empty() && is_word(end_word));
      if (ends) error("a name must follow ','");
      out.parts.push_back(single_target(with_attribute));
    }
    return out;
  }
  std::unique_ptr<Stmt> assign(std::unique_ptr<Stmt> s) {
    s->target = target(true, {});
    if (skip_op("=")) {
      s->kind = StmtKind::assign;
      s->expr = tuple(false, false);
      return s;
    }
    s->kind = StmtKind::assign_block;
    while (is_op("|")) s->expr = filter(std::move(s->expr));
    const Outside outside(*this, loops_);
    s->body = whole_block("set", "endset", s->line);
    return s;
  }
  std::unique_ptr<Stmt> with(std::unique_ptr<Stmt> s) {
    s->kind = StmtKind::with;
    while (now().kind != TokenKind::block_end) {
      if (!s->targets.empty()) expect_op(",");
      s->targets.push_back(target(false, {}));
      expect_op("=");
      s->exprs.push_back(expression());
    }
    const Outside outside(*this, loops_);
    s->body = whole_block("with", "endwith", s->line);
    return s;
  }
  void signature(Signature& out) {
    expect_op("(");
    while (!is_op(")")) {
      if (!out.parameters.empty()) expect_op(",");
      const std::string parameter = expect_name("the name of a parameter");
      out.parameters.emplace_back(parameter, symbol(parameter));
      if (skip_op("=")) {
        out.defaults.push_back(expression());
      } else if (!out.defaults.empty()) {
        error(fmt::format("the parameter '{}' without a default follows one that has one", printable(parameter)));
      }
    }
    expect_op(")");
  }
  void callable_body(Stmt& s, std::string_view opener, std::string_view end) {
    signatures_.push_back(&s.signature);
    const Outside outside(*this, 0);
    s.body = whole_block(opener, end, s.line);
    signatures_.pop_back();
  }
  std::unique_ptr<Stmt> macro(std::unique_ptr<Stmt> s) {
    s->kind = StmtKind::macro;
    s->name = expect_name("the name of a macro");
    s->symbol = symbol(s->name);
    signature(s->signature);
    callable_body(*s, "macro", "endmacro");
    return s;
  }
  std::unique_ptr<Stmt> call_block(std::unique_ptr<Stmt> s) {
    s->kind = StmtKind::call_block;
    s->name = "caller";
    if (is_op("(")) signature(s->signature);
    s->expr = expression();
    if (s->expr->kind != ExprKind::call) error("expected a call after 'call'");
    callable_body(*s, "call", "endcall");
    return s;
  }

  int loops_ = 0;
};

}  // namespace

Template parse(std::string_view source, const std::string& where) {
  constexpr size_t kMaxSource = size_t{1} << 20;  // published templates stay below 40 kB
  if (source.size() > kMaxSource) {
    fail("{}: the template has {} bytes, the limit is {}", where, source.size(), kMaxSource);
  }
  if (!valid_utf8(source)) fail("{}: the template is not UTF-8", where);
  return Parser(source, where).run();
}

}  // namespace graft::jinja
